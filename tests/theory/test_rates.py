"""The table of proved rates: read, asked, compared; and its rows against a second copy made from the papers' notes."""

import math

import pytest
from pydantic import ValidationError

from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS
from gatewise.families import FAMILIES
from gatewise.gates import GATES
from gatewise.parts.options import part_options
from gatewise.theory.polynomials import r_bar
from gatewise.theory.rate_table import RateTable, Theorem, rate_table
from gatewise.theory.rates import proved_rates

TABLE = rate_table()

# Exponents of the published losses, read a second time and written without looking at the table: parameter by
# parameter, (in cells with one atom, in cells with several).
R, HALF, SLOW, FLAT = "r_bar", "r_bar/2", "slow", "flat"
GAUSSIAN_SOFTMAX = {"β₁": ("1", R), "a": ("1", HALF), "b": ("1", R), "σ²": ("1", HALF)}
ONES = {"β₁": ("1", None), "a": ("1", None), "b": ("1", None), "σ²": ("1", None)}
SECOND_COPY = {
    "softmax-gaussian-density": {"density": ("1", "1")},
    "softmax-gaussian-exact": {"exp(β₀)": ("1", None), **ONES},
    "softmax-gaussian-over": {"exp(β₀)": ("1", "1"), **GAUSSIAN_SOFTMAX},
    "softmax-gaussian-strong-experts": {
        "exp(β₀)": ("1", "1"),
        "β₁": ("1", "2"),
        "η": ("1", "2"),
        "σ²": ("1", "2"),
    },
    "softmax-gaussian-merged": {"all parameters": ("1", None)},
    "top-k-density-exact": {"density": ("1", None)},
    "top-k-density-over": {"density": ("1", "1")},
    "top-k-exact": {"exp(β₀)": ("1", None), **ONES},
    "top-k-over": {"exp(β₀)": ("1", "1"), **GAUSSIAN_SOFTMAX},
    "multinomial-density": {"density": ("1", "1")},
    "multinomial-exact": {"exp(β₀)": ("1", None), "β₁": ("1", None), "a": ("1", None), "b": ("1", None)},
    "multinomial-over-regime-1": {"exp(β₀)": ("1", "1"), "β₁": ("1", "2"), "a": ("1", "2"), "b": ("1", "2")},
    "multinomial-over-regime-2": {
        "exp(β₀)": ("1", "1"),
        "β₁": (SLOW, SLOW),
        "a": (SLOW, SLOW),
        "b": (SLOW, SLOW),
    },
    "multinomial-modified-over": {"exp(β₀)": ("1", "1"), "β₁": ("1", "2"), "a": ("1", "2"), "b": ("1", "2")},
    "gaussian-gate-type-1": {
        "π": ("1", "1"),
        "c": ("1", R),
        "Γ": ("1", HALF),
        "a": ("1", "2"),
        "b": ("1", R),
        "σ²": ("1", HALF),
    },
    "gaussian-gate-type-2": {
        "π": ("1", "1"),
        "c": ("1", R),
        "Γ": ("1", HALF),
        "a": ("1", HALF),
        "b": ("1", R),
        "σ²": ("1", HALF),
    },
    "gaussian-gate-merged": {"all parameters": ("1", None)},
    "softmax-least-squares-function": {"regression function": ("1", "1")},
    "softmax-least-squares-strong": {"exp(β₀)": ("1", "1"), "β₁": ("1", "2"), "η": ("1", "2")},
    "softmax-least-squares-polynomial": {"β₁": (SLOW, SLOW), "a": (SLOW, SLOW), "b": (SLOW, SLOW)},
    "softmax-least-squares-input-free": {"β₁": (SLOW, SLOW), "a": (SLOW, SLOW), "b": (SLOW, SLOW)},
    "least-squares-linear-in-parameters": {"η": (None, FLAT)},
    "temperature-density": {"density": ("1", "1")},
    "temperature-slow": {
        "β₁": (SLOW, SLOW),
        "τ": (SLOW, SLOW),
        "a": (SLOW, SLOW),
        "b": (SLOW, SLOW),
        "σ²": (SLOW, SLOW),
    },
    "temperature-fixed": {"exp(β₀/τ)": ("1", "1"), **GAUSSIAN_SOFTMAX},
    "activation-exact": {"exp(β₀/τ)": ("1", None), "τ": ("1", None), **ONES},
    "activation-over": {
        "exp(β₀/τ)": ("1", "1"),
        "β₁": ("1", "2"),
        "a": ("1", "2"),
        "b": ("1", R),
        "σ²": ("1", HALF),
    },
    "dense-to-sparse-least-squares": {"β₁": (SLOW, SLOW), "τ": (SLOW, SLOW), "η": (SLOW, SLOW)},
    "cosine-function": {"regression function": ("1", "1")},
    "cosine-exact": {"β₁": (SLOW, None), "η": (SLOW, None)},
    "cosine-over": {"β₁": (SLOW, SLOW), "η": (SLOW, SLOW)},
    "perturbed-cosine-function": {"regression function": ("1", "1")},
    "perturbed-cosine-over": {"exp(β₀)": ("1", "1"), "β₁": ("1", "2"), "η": ("1", "2")},
    "perturbed-cosine-exact": {"exp(β₀)": ("1", None), "β₁": ("1", None), "η": ("1", None)},
    "sigmoid-function": {"regression function": ("1", "1")},
    "sigmoid-sparse-strong": {"σ(β₀)": ("1", "1"), "β₁": ("1", "2"), "η": ("1", "2")},
    "sigmoid-sparse-input-free": {"β₁": (SLOW, SLOW), "a": (SLOW, SLOW), "b": (SLOW, SLOW)},
    "sigmoid-sparse-polynomial": {"β₁": (SLOW, SLOW), "a": (SLOW, SLOW), "b": (SLOW, SLOW)},
    "sigmoid-dense": {"β₀": ("1", "1"), "β₁": ("1", "1"), "η": ("1", "1")},
    "normalised-sigmoid-dense": {"β₀": ("1", "1"), "β₁": ("1", "1"), "η": ("1", "1"), "σ²": ("1", "1")},
    "normalised-sigmoid-sparse": {
        "β₀": ("1", None),
        "Σ σ(β₀)": (None, "1"),
        "β₁": ("1", "2"),
        "η": ("1", "2"),
        "σ²": ("1", "2"),
    },
    "normalised-sigmoid-sparse-linear": {"h(x, η)": (None, HALF)},
    "laplace-density": {"density": ("1", "1")},
    "laplace-exact": {"exp(β)": ("1", None), "W": ("1", None), "a": ("1", None), "b": ("1", None), "σ²": ("1", None)},
    "laplace-over": {"exp(β)": ("1", "1"), "W": ("1", "2"), "a": ("1", "2"), "b": ("1", R), "σ²": ("1", HALF)},
    "hierarchical-softmax-softmax": {
        "outer exp(β₀)": ("1", "1"),
        "outer β₁": ("1", "1"),
        "inner β₁": ("1", "2"),
        "a": ("1", HALF),
        "b": ("1", R),
        "σ²": ("1", HALF),
    },
    "hierarchical-softmax-laplace": {
        "outer exp(β₀)": ("1", "1"),
        "outer β₁": ("1", "1"),
        "inner W": ("1", "2"),
        "a": ("1", HALF),
        "b": ("1", R),
        "σ²": ("1", HALF),
    },
    "hierarchical-laplace-laplace": {
        "outer exp(β)": ("1", "1"),
        "outer W": ("1", "1"),
        "inner W": ("1", "2"),
        "a": ("1", "2"),
        "b": ("1", R),
        "σ²": ("1", HALF),
    },
    "hierarchical-least-squares-strong": {
        "outer exp(β₀)": ("1", "1"),
        "outer β₁": ("1", "1"),
        "inner β₁": ("1", "2"),
        "η": ("1", "2"),
    },
    "hierarchical-least-squares-linear": {"a": (SLOW, SLOW), "b": (SLOW, SLOW)},
}


@pytest.mark.parametrize("theorem", TABLE.theorems, ids=lambda theorem: theorem.id)
def test_every_row_against_a_second_copy(theorem):
    if theorem.claim:
        assert theorem.id not in SECOND_COPY
        return
    found = {}
    for rate in theorem.rates:
        one, many = found.get(rate.parameter, (None, None))
        if rate.cell in ("one", "every"):
            assert one is None
            one = rate.exponent
        if rate.cell == "many" or (rate.cell == "every" and "over" in theorem.settings):
            assert many is None
            many = rate.exponent
        found[rate.parameter] = (one, many)
    assert found == SECOND_COPY[theorem.id]


def test_the_second_copy_has_nothing_else():
    assert set(SECOND_COPY) == {theorem.id for theorem in TABLE.theorems if theorem.rates}


@pytest.mark.parametrize("theorem", TABLE.theorems, ids=lambda theorem: theorem.id)
def test_names_are_registered(theorem):
    for gate in theorem.gates:
        options = part_options(GATES[gate])
        assert options is not None
        assert set(theorem.gate_options) <= set(options)
    for experts in theorem.experts:
        assert experts == "any" or experts in list(EXPERTS)
    for family in theorem.families:
        assert family in list(FAMILIES)


def test_what_was_not_read_says_so():
    assert len(TABLE.theorems) == len({theorem.id for theorem in TABLE.theorems})
    for theorem in TABLE.theorems:
        sure = theorem.read in ("read", "read, first version", "derived here")
        assert ("to be checked against the paper" in theorem.checked) is not sure
    recalled = next(theorem for theorem in TABLE.theorems if theorem.id == "multinomial-over-regime-1")
    assert recalled.checked.startswith("recalled: from memory")
    both = next(theorem for theorem in TABLE.theorems if theorem.id == "softmax-gaussian-over")
    assert "modulus agrees (b, a, σ²)" in both.checked
    assert "modulus differs (β₁, a)" in both.checked


@pytest.mark.parametrize("theorem", [t for t in TABLE.theorems if t.slow], ids=lambda theorem: theorem.id)
def test_every_slow_rate_has_a_remedy_with_a_better_rate(theorem):
    """At least one remedy names a gate or experts for which this table has a polynomial rate, or changes the target."""
    helped = False
    for key in theorem.remedies:
        remedy = TABLE.remedies[key]
        if remedy.gate is None and remedy.experts is None:
            helped = helped or remedy.kind in ("other target", "fixed parameter", "fewer experts", "other objective")
            continue
        gate = remedy.gate or theorem.gates[0]
        experts = remedy.experts or next(name for name in [*theorem.experts, "linear"] if name != "any")
        for family in theorem.families or [None]:
            rates = proved_rates(
                gate=gate,
                experts=experts,
                family=family,
                objective="likelihood" if family else "least_squares",
                gate_options=remedy.gate_options or (theorem.gate_options if remedy.gate is None else {}),
            )
            helped = helped or any(not found.slow for found in rates.theorems if found.rates)
    assert helped


# --- questions


def shown(**query):
    return {
        (row.rate.parameter, row.rate.cell): row.text
        for row in proved_rates(**query).rows
        if not row.theorem.estimator and row.rate.role != "function"
    }


def test_softmax_gaussian():
    query = {"gate": "softmax", "experts": "linear", "family": "gaussian"}
    exact = shown(**query, true_k=3, fit_k=3)
    assert set(exact.values()) == {"n^(-1/2)"}
    assert {parameter for parameter, _ in exact} == {"exp(β₀)", "β₁", "a", "b", "σ²"}
    many = {
        k: {p: text for (p, cell), text in shown(**query, true_k=2, fit_k=2 + k - 1).items() if cell == "many"}
        for k in (2, 3)
    }
    assert many[2] == {"β₁": "n^(-1/8)", "a": "n^(-1/4)", "b": "n^(-1/8)", "σ²": "n^(-1/4)"}
    assert many[3] == {"β₁": "n^(-1/12)", "a": "n^(-1/6)", "b": "n^(-1/12)", "σ²": "n^(-1/6)"}
    anything = shown(**query)
    assert anything["b", "many"] == "n^(-1/(2 r̄(m))): n^(-1/8) for m = 2, n^(-1/12) for m = 3"
    assert anything["a", "many"] == "n^(-1/r̄(m)): n^(-1/4) for m = 2, n^(-1/6) for m = 3"


def test_larger_cells_use_r_bar():
    rows = proved_rates(gate="laplace", experts="linear", family="gaussian", true_k=1, fit_k=5).rows
    (row,) = (row for row in rows if row.rate.parameter == "b" and row.rate.cell == "many")
    assert (row.atoms, row.exponent, row.cell) == (5, r_bar(5).value, "5 atoms")


def test_settings_and_options_select():
    query = {"gate": "sigmoid", "experts": "linear", "objective": "least_squares"}
    assert {t.id for t in proved_rates(**query).theorems} == {
        "sigmoid-function",
        "sigmoid-sparse-input-free",
        "sigmoid-sparse-polynomial",
        "sigmoid-dense",
    }
    assert not proved_rates(**query, gate_options={"normalised": True}).theorems
    assert not proved_rates(**query, true_k=2, fit_k=2).theorems
    cosine = proved_rates(gate="top_k", experts="linear", objective="least_squares", gate_options={"inner": "cosine"})
    assert {t.id for t in cosine.theorems} == {"cosine-function", "cosine-exact", "cosine-over"}
    softmax = proved_rates(gate="top_k", experts="linear", family="gaussian", gate_options={"inner": "cosine"})
    assert not softmax.theorems


def test_nothing_proved_is_said():
    rates = proved_rates(gate="laplace", experts="linear", family="poisson", true_k=2, fit_k=3)
    assert rates.rows == ()
    assert rates.message.startswith(
        "Nothing is proved, as far as this table knows, for a laplace gate with linear experts and the poisson family, "
        "over-specified. For this gate it has"
    )
    assert "linear experts, gaussian" in rates.message
    claims = proved_rates(gate="quadratic", experts="linear", family="gaussian")
    assert claims.theorems
    assert claims.message.startswith("No exponents are known to this table")
    assert not proved_rates(gate="softmax", experts="linear", family="gaussian").message


def test_remedies_come_with_slow_rates():
    slow = proved_rates(gate="softmax", experts="linear", objective="least_squares", true_k=2, fit_k=3)
    assert {remedy.experts for remedy in slow.remedies} >= {"feed_forward"}
    assert all(remedy.gate is None for remedy in slow.remedies)
    assert proved_rates(gate="softmax", experts="linear", family="gaussian").remedies == ()
    temperature = proved_rates(gate="dense_to_sparse", experts="linear", family="gaussian", true_k=2, fit_k=2)
    assert "activation_dense_to_sparse" in {remedy.gate for remedy in temperature.remedies}


def test_sample_sizes():
    rates = proved_rates(gate="softmax", experts="linear", family="gaussian", true_k=2, fit_k=4)
    for tight, gate, slope in ((False, 1e12, 1e6), (True, 1e4, 1e4)):
        sizes = {
            row.rate.parameter: n
            for row, n in rates.sample_sizes(0.1, tight=tight)
            if row.rate.cell == "many" and row.theorem.id == "softmax-gaussian-over"
        }
        assert sizes == {
            "β₁": pytest.approx(gate),
            "a": pytest.approx(slope),
            "b": pytest.approx(1e12),
            "σ²": pytest.approx(1e6),
        }
    slow = proved_rates(gate="softmax", experts="linear", objective="least_squares", true_k=2, fit_k=3)
    assert any(math.isinf(n) for _, n in slow.sample_sizes(0.1))


def test_comparison_of_two_gates():
    query = {"experts": "linear", "family": "gaussian", "true_k": 2, "fit_k": 4}
    softmax, laplace = (proved_rates(gate=gate, **query) for gate in ("softmax", "laplace"))
    rows = [row for row in softmax.compare(laplace, 0.1) if row.this.id == "softmax-gaussian-over"]
    # By what is known the two are alike; by the published bounds softmax needs 10⁸ times as many for its gate.
    assert {row.role: row.ratio for row in rows} == {
        role: pytest.approx(1.0) for role in ("weights", "gate", "slope", "intercept", "scale")
    }
    assert {row.role: row.bound / row.other_bound for row in rows} == {
        "weights": pytest.approx(1.0),
        "gate": pytest.approx(0.1 ** (-2 * (6 - 2))),
        "slope": pytest.approx(0.1 ** (-2 * (3 - 2))),
        "intercept": pytest.approx(1.0),
        "scale": pytest.approx(1.0),
    }
    slow = proved_rates(gate="dense_to_sparse", **query, gate_options={"free_temperature": True})
    (gate,) = (row for row in slow.compare(laplace, 0.1) if row.role == "gate" and row.this.id == "temperature-slow")
    assert math.isinf(gate.samples)
    assert gate.ratio == math.inf
    (gate,) = (row for row in slow.compare(slow, 0.1) if row.role == "gate")
    assert gate.ratio is None


def test_slope_and_intercept_stand_beside_whole_experts():
    query = {"objective": "least_squares", "true_k": 2, "fit_k": 3}
    linear = proved_rates(gate="softmax", experts="linear", **query)
    network = proved_rates(gate="softmax", experts="feed_forward", **query)
    pairs = {
        (row.this.id, row.other.id): (row.samples, row.other_samples)
        for row in linear.compare(network, 0.1)
        if row.role == "expert"
    }
    assert pairs["softmax-least-squares-polynomial", "softmax-least-squares-strong"] == (
        math.inf,
        pytest.approx(1e4),
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"gate": "soft"}, "unknown gate 'soft': choose one of"),
        ({"experts": "lines"}, "unknown expert 'lines': choose one of"),
        ({"family": "normal"}, "unknown family 'normal': choose one of"),
        ({"family": None, "objective": "likelihood"}, "the likelihood needs a family"),
        ({"objective": "mle"}, 'the objective must be "likelihood" or "least_squares", not \'mle\''),
        ({"objective": "least_squares"}, "least squares has no family, but 'gaussian' was given"),
        ({"true_k": 2}, "the true and the fitted number of experts go together"),
        ({"fit_k": 2}, "the true and the fitted number of experts go together"),
        ({"true_k": 0, "fit_k": 2}, "the true number of experts must be a positive integer, not 0"),
        ({"true_k": 1, "fit_k": 2.0}, "the fitted number of experts must be a positive integer, not 2.0"),
        ({"true_k": 3, "fit_k": 2}, "2 fitted experts cannot represent 3 true ones"),
    ],
)
def test_questions_that_make_no_sense(query, message):
    with pytest.raises(InputError, match=message):
        proved_rates(**{"gate": "softmax", "experts": "linear", "family": "gaussian", **query})


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, math.nan, math.inf])
def test_errors_out_of_range(error):
    rates = proved_rates(gate="softmax", experts="linear", family="gaussian")
    with pytest.raises(InputError, match="the error must lie between 0 and 1"):
        rates.sample_sizes(error)
    with pytest.raises(InputError, match="the error must lie between 0 and 1"):
        rates.compare(rates, error)


# --- a table that contradicts itself is refused


ROW = {
    "id": "x",
    "paper": "p",
    "statement": "Theorem 1",
    "gates": ["softmax"],
    "experts": ["linear"],
    "objective": "least_squares",
    "settings": ["over"],
    "loss": "L",
    "read": "recalled",
    "rates": [{"parameter": "a", "role": "slope", "cell": "one", "exponent": "1"}],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": []}, "give rates, or a claim"),
        ({"claim": "too much"}, "give rates, or a claim"),
        ({"objective": "likelihood"}, "families belong to the likelihood"),
        ({"families": ["gaussian"]}, "families belong to the likelihood"),
        ({"rates": [{**ROW["rates"][0], "exponent": "slow"}]}, "a slow rate needs a remedy"),
        ({"rates": [{**ROW["rates"][0], "exponent": "3"}]}, "exponent"),
        ({"rates": [{**ROW["rates"][0], "role": "bias"}]}, "role"),
        ({"rates": [{**ROW["rates"][0], "tight": "2"}]}, "tight and tight_by go together"),
        ({"rates": [{**ROW["rates"][0], "tight": "1", "tight_by": "measured"}]}, "a tight exponent differs"),
        ({"read": "somewhere"}, "read"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_rows_that_are_refused(changes, message):
    Theorem.model_validate(ROW)
    with pytest.raises(ValidationError, match=message):
        Theorem.model_validate({**ROW, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theorems": [ROW, ROW]}, "two theorems have one id"),
        ({"papers": {}}, "unknown papers"),
        ({"theorems": [{**ROW, "remedies": ["y"]}]}, "unknown remedies"),
        ({"remedies": {"z": {"kind": "k", "text": "t", "source": "q"}}}, "unknown papers"),
    ],
)
def test_tables_that_are_refused(changes, message):
    table = {"papers": {"p": {"arxiv": "0000.00000", "subject": "s"}}, "remedies": {}, "theorems": [ROW]}
    RateTable.model_validate(table)
    with pytest.raises(ValidationError, match=message):
        RateTable.model_validate({**table, **changes})
