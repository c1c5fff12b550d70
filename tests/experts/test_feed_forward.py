import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import norm

from gatewise.exceptions import InputError
from gatewise.experts import FeedForwardExperts, build_experts
from gatewise.parts.activations import activation_names, register_activation
from tests.experts.helpers import (
    assert_close,
    check_identified,
    check_null_space,
    check_symmetries,
    continuous_dimension,
    described,
    flat_jacobian,
    inputs,
    location_jacobian,
    locations,
    randomise,
    rank,
)

register_activation("feed-forward test square plus", lambda z: 0.5 * (z + torch.sqrt(z * z + 1.0)))

BY_HAND = {
    "relu": lambda z: np.maximum(z, 0.0),
    "gelu": lambda z: z * norm.cdf(z),
    "silu": lambda z: z / (1.0 + np.exp(-z)),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "cos": np.cos,
    "cube": lambda z: z**3,
    "identity": lambda z: z,
    "feed-forward test square plus": lambda z: 0.5 * (z + np.sqrt(z**2 + 1.0)),
}


def arrays(bank):
    return {name: value.numpy() for name, value in bank.own_parameters().items()}


def by_hand(bank, x):
    """Locations by plain loops."""
    own, function = arrays(bank), BY_HAND[bank.activation]
    k, m = bank.n_experts, bank.n_outputs
    v = own["outer_weight"].reshape(k, m, bank.hidden)
    c = own["outer_bias"].reshape(k, m) if bank.output_bias else np.zeros((k, m))
    values = np.zeros((len(x), k, m))
    for row in range(len(x)):
        for i in range(k):
            for o in range(m):
                values[row, i, o] = c[i, o] + math.fsum(
                    v[i, o, j] * function(own["inner_weight"][i, j] @ x[row] + own["inner_bias"][i, j])
                    for j in range(bank.hidden)
                )
    return values[..., 0] if m == 1 else values


@pytest.mark.parametrize("activation", sorted(BY_HAND))
@pytest.mark.parametrize("options", [{}, {"n_outputs": 2, "output_bias": True}], ids=str)
def test_location_is_the_sum_over_units(activation, options):
    bank = randomise(FeedForwardExperts(3, 2, hidden=4, activation=activation, **options))
    x = inputs(bank, 5)
    np.testing.assert_allclose(bank.location(x).detach().numpy(), by_hand(bank, x.numpy()), rtol=1e-11, atol=1e-12)


def test_every_activation_of_the_library_is_covered_by_hand():
    assert {name for name in activation_names() if "test" not in name} <= set(BY_HAND)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", "sigmoid", "cos", "identity"])
@pytest.mark.parametrize(("d", "hidden"), [(1, 1), (1, 3), (2, 4), (3, 2)])
@pytest.mark.parametrize("options", [{}, {"n_outputs": 2}, {"n_outputs": 3, "output_bias": True}], ids=str)
def test_null_directions_are_the_declared_ones(activation, d, hidden, options):
    bank = randomise(FeedForwardExperts(d, 1, hidden=hidden, activation=activation, **options), seed=4)
    check_null_space(bank)
    check_identified(bank)
    check_symmetries(bank)
    expected = {"relu": hidden}.get(activation, 0)
    if activation != "identity":
        assert continuous_dimension(bank) == expected


@pytest.mark.parametrize(
    ("d", "hidden", "n_outputs", "output_bias", "further"),
    [
        (1, 2, 1, False, 0),
        (1, 3, 1, False, 2),
        (2, 3, 1, False, 0),
        (2, 3, 1, True, 0),
        (2, 4, 1, True, 3),
        (2, 3, 2, False, 0),
        (1, 3, 2, True, 3),
        # Seven cubes in five homogeneous variables: the one cubic exception of the Alexander–Hirschowitz theorem.
        (4, 7, 1, False, 1),
    ],
)
def test_cubes_have_null_directions_of_polynomials_too(d, hidden, n_outputs, output_bias, further):
    bank = FeedForwardExperts(d, 1, hidden=hidden, activation="cube", n_outputs=n_outputs, output_bias=output_bias)
    bank = randomise(bank, seed=4)
    check_null_space(bank, further=further)
    check_identified(bank)
    effective = hidden * (d + n_outputs) + n_outputs * output_bias
    room = n_outputs * math.comb(d + 3, 3)
    assert further == (1 if effective == room and d == 4 else max(effective - room, 0))


@pytest.mark.parametrize(
    ("d", "hidden", "n_outputs", "output_bias"),
    [(2, 3, 2, False), (1, 3, 4, False), (3, 2, 3, False), (3, 2, 3, True), (1, 2, 3, True), (4, 2, 1, True)],
)
def test_linear_units_keep_only_the_product_of_their_weights(d, hidden, n_outputs, output_bias):
    """All orders of the sizes of outputs, units and inputs; the action is exact far from the identity too."""
    bank = FeedForwardExperts(d, 2, hidden=hidden, activation="identity", n_outputs=n_outputs, output_bias=output_bias)
    bank = randomise(bank, seed=6)
    check_null_space(bank)
    mixing = bank.symmetries()[0]
    own, x = bank.own_parameters(), inputs(bank, 10)
    amount = torch.randn(mixing.dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = mixing.act(own, amount)
    assert_close(locations(bank, moved, x), locations(bank, own, x), 1e-9)
    assert float((moved["inner_weight"] - own["inner_weight"]).abs().min()) > 1e-4


@pytest.mark.parametrize(
    ("activation", "output_bias", "names"),
    [
        ("relu", False, ["scale", *["permutation"] * 4]),
        ("gelu", True, ["permutation"] * 4),
        ("silu", False, ["permutation"] * 4),
        ("tanh", False, [*["permutation"] * 4, *["sign"] * 6]),
        ("sigmoid", False, ["permutation"] * 4),
        ("sigmoid", True, [*["permutation"] * 4, *["sign"] * 6]),
        ("cos", False, [*["permutation"] * 4, *["sign"] * 6, *["half turn"] * 6]),
        ("cube", False, ["scale", *["permutation"] * 4, *["sign"] * 6]),
        ("identity", False, ["mixing", *["permutation"] * 4, *["sign"] * 6]),
        ("feed-forward test square plus", True, ["permutation"] * 4),
    ],
)
def test_the_declared_symmetries(activation, output_bias, names):
    bank = randomise(FeedForwardExperts(2, 2, hidden=3, activation=activation, output_bias=output_bias))
    assert [symmetry.name for symmetry in bank.symmetries()] == names
    check_symmetries(bank)


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu"])
def test_a_reflected_unit_adds_a_linear_function(activation):
    """Why these have no sign: φ(z) − φ(−z) = z."""
    bank = randomise(FeedForwardExperts(2, 1, hidden=3, activation=activation, output_bias=True))
    own, x = bank.own_parameters(), inputs(bank, 10)
    mirrored = {
        **own,
        "inner_weight": own["inner_weight"] * torch.tensor([-1.0, 1.0, 1.0])[:, None],
        "inner_bias": own["inner_bias"] * torch.tensor([-1.0, 1.0, 1.0]),
    }
    linear = own["outer_weight"][0, 0] * (x @ own["inner_weight"][0, 0] + own["inner_bias"][0, 0])
    assert_close(locations(bank, own, x) - locations(bank, mirrored, x), linear[:, None], 1e-13)


def test_permutations_move_whole_units_of_one_expert():
    bank = randomise(FeedForwardExperts(2, 2, hidden=3, n_outputs=2, activation="gelu"))
    own = bank.own_parameters()
    last = bank.symmetries()[-1].act(own, torch.empty(0))
    for name, axis in (("inner_weight", 0), ("inner_bias", 0), ("outer_weight", 1)):
        assert torch.equal(last[name][0], own[name][0])
        assert torch.equal(last[name][1], own[name][1].index_select(axis, torch.tensor([0, 2, 1])))


def test_relu_units_are_reported_free_of_their_scale():
    bank = randomise(FeedForwardExperts(2, 1, hidden=1, n_outputs=2, output_bias=True))
    own = arrays(bank)
    inner = np.concatenate([own["inner_bias"][0], own["inner_weight"][0, 0]])
    length = np.linalg.norm(inner)
    expected = [*(inner / length), *(own["outer_weight"][0, :, 0] * length), *own["outer_bias"][0]]
    np.testing.assert_allclose(bank.identified(bank.own_parameters()).numpy(), expected, rtol=1e-14)
    assert [quantity.term for quantity in bank.quantities(["x", "z"], ["p", "q"])] == [
        "unit 1 direction (intercept)",
        "unit 1 direction x",
        "unit 1 direction z",
        "p unit 1 weight × norm",
        "q unit 1 weight × norm",
        "p (intercept)",
        "q (intercept)",
    ]


def test_other_units_are_reported_as_they_are():
    bank = randomise(FeedForwardExperts(1, 2, hidden=2, activation="tanh"))
    own = arrays(bank)
    expected = [
        value
        for i in range(2)
        for j in range(2)
        for value in (own["inner_bias"][i, j], own["inner_weight"][i, j, 0], own["outer_weight"][i, j])
    ]
    np.testing.assert_array_equal(bank.identified(bank.own_parameters()).numpy(), expected)
    assert [quantity.term for quantity in bank.quantities(["x"])][:4] == [
        "unit 1 (intercept)",
        "unit 1 x",
        "unit 1 weight",
        "unit 2 (intercept)",
    ]


@pytest.mark.parametrize(("activation", "degree"), [("identity", 1), ("cube", 3)])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_polynomial_units_are_reported_as_the_polynomial(activation, degree, n_outputs):
    options = {"output_bias": True, "n_outputs": n_outputs}
    bank = randomise(FeedForwardExperts(2, 2, hidden=3, activation=activation, **options))
    same = build_experts("polynomial_basis", 2, 2, degree=degree, n_outputs=n_outputs).double()
    outputs = [""] if n_outputs == 1 else ["p", "q"]
    assert bank.quantities(["x", "z"], outputs) == same.quantities(["x", "z"], outputs)
    same.assign(bank.identified(bank.own_parameters()).reshape(*same.bias.shape, -1), bank.log_scale.detach())
    x = inputs(bank, 9)
    assert_close(same.location(x).detach(), bank.location(x).detach(), 1e-12)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", "sigmoid", "identity"])
@pytest.mark.parametrize(("d", "hidden"), [(1, 2), (2, 4), (5, 3)])
def test_new_experts_are_regular(activation, d, hidden):
    """No units that are equal or zero: the locations' Jacobian has its generic rank, and experts differ."""
    bank = FeedForwardExperts(d, 3, hidden=hidden, activation=activation, output_bias=True).double()
    jacobian = location_jacobian(bank, n=300, scale=2.0)
    assert jacobian.shape[1] - rank(jacobian) == continuous_dimension(bank)
    again = FeedForwardExperts(d, 3, hidden=hidden, activation=activation, output_bias=True)
    assert all(torch.equal(a.double(), b) for a, b in zip(again.parameters(), bank.parameters(), strict=True))
    rows = torch.cat([bank.inner_weight.reshape(3 * hidden, d), bank.inner_bias.reshape(-1, 1)], dim=1).detach()
    assert torch.cdist(rows, rows).add(torch.eye(3 * hidden)).min() > 1e-3
    low, high = 1.0 / 3.0 - 1e-6, 1.0 + 1e-6
    for value, size in ((bank.inner_weight, d), (bank.outer_weight, hidden)):
        magnitude = value.detach().abs() * size**0.5
        assert low <= float(magnitude.min())
        assert float(magnitude.max()) <= high
    assert float(bank.inner_bias.detach().abs().max()) <= 1.0 / 6.0 / d**0.5


def test_zeros_and_equal_units_are_singular():
    bank = FeedForwardExperts(2, 1, hidden=2, activation="tanh").double()
    x, own = inputs(bank, 50), described(bank)

    def rank_at(parameters):
        return rank(flat_jacobian(lambda p: locations(bank, p, x).reshape(-1), parameters))

    assert rank_at(own) == 8
    equal = {name: value[:, :1].expand_as(value).clone() for name, value in own.items()}
    assert rank_at(equal) == 4
    zero = {name: torch.zeros_like(value) for name, value in own.items()}
    assert float(flat_jacobian(lambda p: locations(bank, p, x).reshape(-1), zero).abs().max()) == 0.0


def test_a_relu_has_slope_zero_at_its_kink():
    bank = FeedForwardExperts(1, 1, hidden=1).double()
    with torch.no_grad():
        bank.inner_weight.fill_(1.0)
        bank.inner_bias.zero_()
    bank.location(torch.zeros(1, 1, dtype=torch.float64)).sum().backward()
    assert float(bank.inner_bias.grad) == 0.0


@pytest.mark.parametrize("activation", ["relu", "identity", "cube"])
def test_banks_can_be_copied_and_sent_to_other_processes(activation):
    bank = randomise(FeedForwardExperts(2, 2, activation=activation))
    x = inputs(bank, 4)
    for again in (copy.deepcopy(bank), pickle.loads(pickle.dumps(bank))):
        assert torch.equal(again.location(x), bank.location(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden units must be a whole number between 1 and 1,000,000, not 0"),
        ({"hidden": 2.0}, "hidden units must be a whole number"),
        ({"activation": "step"}, "unknown activation 'step': choose one of"),
        ({"activation": ["relu"]}, "unknown activation"),
        ({"output_bias": 1}, "the option 'output_bias' of the expert 'feed_forward' is true or false, not 1"),
        ({"n_features": 0}, "at least one feature: take constant experts"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        build_experts("feed_forward", **{"n_features": 2, "n_experts": 2, **options})


def test_without_an_output_bias_a_shift_is_refused():
    bank = FeedForwardExperts(1, 2)
    assert bank.output_change == "scale"
    with pytest.raises(InputError, match="without output_bias"):
        bank.change_output(bank.own_parameters(), torch.tensor([0.1]), torch.tensor([1.0]))
