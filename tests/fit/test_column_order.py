"""The order of columns changes nothing but the order of tables."""

import numpy as np
import pytest
import torch

from gatewise import MixtureOfExperts
from gatewise.datasets import load
from gatewise.fit import FitOptions, fit
from gatewise.fit.build import build_problem
from gatewise.fit.column_order import canonical_order, standard_column
from gatewise.fit.rows import checked_rows
from gatewise.fit.starts import STRATEGIES, responsibilities_of_start
from gatewise.gates import DenseToSparseGate
from gatewise.parts.draws import Draws
from tests.fit.r_tables import dummies


def simulated(seed, n, d, bits=False):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, d))
    if bits:
        # Equal counts of ones, and of pairs of ones in the first two.
        x = np.array([generator.permutation(np.repeat([0.0, 1.0], n // 2)) for _ in range(d)]).T
    left = x @ np.linspace(2.0, -2.0, d) + 0.5 * generator.normal(size=n) > 0.0
    mean = np.where(left, 1.0 + x[:, 0] - x[:, 1], -1.0 + x[:, -1])
    return x, mean + 0.4 * generator.normal(size=n)


def insurance():
    x, claims, rows = dummies("insurance", ["District", "Group", "Age"], "Claims")
    return x, claims, np.log([float(row["Holders"]) for row in rows])


def shipped():
    frame = load("npreg").frame
    return frame[["x", "x_squared"]].to_numpy(), frame["yn"].to_numpy()


def quine():
    return dummies("quine", ["Eth", "Sex", "Age", "Lrn"], "Days")[:2]


def counts(seed, n, d):
    x, y = simulated(seed, n, d)
    return x, np.floor(np.exp(y.clip(-2.0, 2.0)))


def logarithms(x, y):
    return x, np.log1p(y)


CASES = {
    "npreg": (("softmax", "linear", "gaussian"), shipped),
    "insurance": (("softmax", "linear", "poisson"), insurance),
    "quine": (("softmax", "linear", "poisson"), quine),
    "quine, logarithms": (("softmax", "linear", "gaussian"), lambda: logarithms(*quine())),
    "four columns": (("softmax", "linear", "gaussian"), lambda: simulated(1, 150, 4)),
    "five bits": (("softmax", "linear", "gaussian"), lambda: simulated(2, 120, 5, bits=True)),
    "cosine": (("cosine", "linear", "gaussian"), lambda: simulated(3, 80, 3)),
    "temperature": (("dense_to_sparse", "linear", "gaussian"), lambda: simulated(6, 80, 3)),
    "counts": (("softmax", "linear", "poisson"), lambda: counts(4, 80, 3)),
    "student": (("softmax", "linear", "student_t"), lambda: simulated(9, 100, 3)),
}


def orders(d, count=5):
    generator = np.random.default_rng(8)
    return [np.arange(d)[::-1], *(generator.permutation(d) for _ in range(count - 1))]


def model_of(parts, d, **options):
    return MixtureOfExperts.build(*parts, n_features=d, n_experts=2, **options)


def cases():
    """The columns turned round in every case, and in the slow tests the other orders and the dearest family."""
    for name, (parts, _) in CASES.items():
        # Starts of the others take many times as long.
        quick = parts[:2] == ("softmax", "linear") and parts[2] != "student_t"
        slow = pytest.mark.slow if name == "student" else ()
        yield pytest.param(name, 8 if quick else 3, slice(0, 1), marks=slow, id=name)
        yield pytest.param(
            name, 8 if quick else 3, slice(1, 5 if quick else 2), marks=pytest.mark.slow, id=f"{name}, other orders"
        )


@pytest.mark.parametrize(("name", "n_starts", "chosen"), list(cases()))
def test_permuted_columns_give_the_same_likelihood(name, n_starts, chosen):
    parts, make = CASES[name]
    x, y, *offset = make()
    d = x.shape[1]
    options = FitOptions(n_starts=n_starts, seed=1)

    def fitted(order):
        return fit(model_of(parts, d), x[:, order], y, offset=offset[0] if offset else None, options=options)

    plain = fitted(np.arange(d))
    for order in orders(d)[chosen]:
        other = fitted(order)
        assert other.status is plain.status
        assert other.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-8, abs=1e-8)


CURVED = [
    ("cosine", "linear", {}),
    ("cosine", "linear", {"gate_options": {"projection": 2}}),
    ("perturbed_cosine", "linear", {}),
    ("laplace", "linear", {}),
    ("gaussian", "linear", {}),
    ("modified_softmax", "linear", {}),
    ("activation_dense_to_sparse", "linear", {}),
    ("softmax", "feed_forward", {"expert_options": {"hidden": 3}}),
    ("softmax", "polynomial", {"expert_options": {"power": 2}}),
]


@pytest.mark.parametrize(("gate", "experts", "options"), CURVED)
def test_first_values_are_those_of_the_same_mixture(gate, experts, options, monkeypatch):
    """Before any climbing, whose rounding depends on the order: what is drawn at random goes with the columns."""
    monkeypatch.setattr("gatewise.fit.problem.ascend", lambda function, theta, lower, steps: theta)
    x, y = simulated(3, 60, 3)

    def begun(order):
        model = model_of((gate, experts, "gaussian"), 3, **options)
        problem = build_problem(model, checked_rows(model, x[:, order], y, None, None), FitOptions(max_iter=5))
        labels = [responsibilities_of_start(problem.start_rows, "auto", index, 7) for index in range(3)]
        thetas = [problem.begin(label, index, 7) for index, label in enumerate(labels)]
        return np.stack([problem.mixture_at(theta, np.arange(60)) for theta in thetas])

    plain = begun(np.arange(3))
    for order in orders(3, 3):
        np.testing.assert_allclose(begun(order), plain, rtol=1e-7, atol=1e-7)


def starts_of(model, x, y, gate_x, offset, weight, name):
    problem = build_problem(model, checked_rows(model, x, y, gate_x, weight, offset), FitOptions())
    return np.stack([responsibilities_of_start(problem.start_rows, name, index, 7) for index in range(4)])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", ["insurance", "quine, logarithms", "five bits", "four columns"])
def test_starts_are_the_same_bits(case, strategy):
    parts, make = CASES[case]
    x, y, *offset = make()
    offset = offset[0] if offset else None
    d = x.shape[1]
    rows = (None, offset, None, strategy)
    plain = starts_of(model_of(parts, d), x, y, *rows)
    for order in orders(d):
        np.testing.assert_array_equal(starts_of(model_of(parts, d), x[:, order], y, *rows), plain)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_gate_and_experts_may_have_different_columns(family, strategy):
    x, y = (simulated if family == "gaussian" else counts)(4, 60, 4)
    gate = np.array([3, 1])
    model = MixtureOfExperts.build("softmax", "linear", family, n_features=3, n_experts=2, n_gate_features=2)
    plain = starts_of(model, x[:, :3], y, x[:, gate], None, None, strategy)
    other = starts_of(model, x[:, [2, 0, 1]], y, x[:, gate[::-1]], None, None, strategy)
    np.testing.assert_array_equal(other, plain)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_starts_of_dummies_depend_on_content_not_on_rows_and_repetition(strategy):
    x, y, offset = insurance()
    order = np.random.default_rng(5).permutation(len(y))
    repeated = np.repeat(np.arange(len(y)), 1 + np.arange(len(y)) % 3)
    weight = 1.0 + np.arange(len(y)) % 3
    model = model_of(("softmax", "linear", "poisson"), x.shape[1])
    plain = starts_of(model, x, y, None, offset, weight, strategy)
    permuted = starts_of(model, x[order], y[order], None, offset[order], weight[order], strategy)
    duplicated = starts_of(model, x[repeated], y[repeated], None, offset[repeated], None, strategy)
    np.testing.assert_array_equal(permuted, plain[..., order])
    np.testing.assert_array_equal(duplicated, plain[..., repeated])


def canonical(x, y, weight=None):
    weight = np.ones(len(y)) if weight is None else weight
    columns = [standard_column(column, weight) for column in x.T]
    return canonical_order(columns, [0] * x.shape[1], [standard_column(y, weight)], weight)


def test_columns_are_ordered_by_content():
    for x, y in (simulated(1, 50, 5), simulated(2, 50, 6, bits=True), quine(), insurance()[:2]):
        plain = x[:, canonical(x, y)]
        for order in orders(x.shape[1]):
            np.testing.assert_array_equal(x[:, order][:, canonical(x[:, order], y)], plain)


def test_weights_count_as_repetitions_in_the_order():
    x, y = simulated(2, 50, 6, bits=True)
    weight = 1.0 + np.arange(50) % 3
    repeated = np.repeat(np.arange(50), weight.astype(int))[::-1]
    np.testing.assert_array_equal(canonical(x, y, weight), canonical(x[repeated], y[repeated]))


def test_columns_that_the_target_cannot_tell_apart_are_refined():
    """All columns agree with the target alike; how they agree with each other tells them apart, a path of four."""
    pairs = [(0, 1), (1, 2), (2, 3)]
    x = np.zeros((12, 4))
    for row, pair in enumerate(pairs):
        x[row, list(pair)] = 1.0
    x[4, 0] = x[5, 3] = 1.0
    y = np.zeros(12)
    y[11] = 1.0
    for order in orders(4):
        moved = x[:, order][:, canonical(x[:, order], y)]
        # Ends may be exchanged, and inner columns with them: the table is then the same up to its rows.
        expected = x[:, canonical(x, y)]
        assert sorted(map(tuple, moved)) == sorted(map(tuple, expected))


def test_exchangeable_columns_are_put_somewhere():
    x = np.vstack([np.eye(4), np.zeros((2, 4))])
    assert sorted(canonical(x, np.array([1.0, 1.0, 1.0, 1.0, 0.0, 2.0]))) == [0, 1, 2, 3]


def test_random_first_values_follow_the_columns():
    x, y = simulated(1, 40, 3)
    order = np.array([2, 0, 1])
    parts = ("dense_to_sparse", "linear", "gaussian")

    def draws(columns):
        model = model_of(parts, 3)
        problem = build_problem(model, checked_rows(model, x[:, columns], y, None, None), FitOptions())
        data = problem.start_rows
        return Draws(np.random.default_rng(0), data.gate_columns, data.sorted_rows, data.weight)

    plain, moved = draws(np.arange(3)), draws(order)
    gate = DenseToSparseGate(3, 3)
    for name, value in gate.own_parameters().items():
        expected, found = plain.parameter(gate, name, value), moved.parameter(gate, name, value)
        torch.testing.assert_close(found, expected[:, order] if name == "weight" else expected, rtol=0.0, atol=0.0)
    torch.testing.assert_close(plain.normal(torch.zeros(2, 3))[:, order], moved.normal(torch.zeros(2, 3)))
    first, second = plain.rows((5, 2)), moved.rows((5, 2))
    torch.testing.assert_close(first, second)
