"""Every family, every gate and every objective has a page, with what belongs to it and nothing that does not."""

import re

import pytest

from gatewise.families import FAMILIES
from gatewise.gates import GATES
from gatewise.report import identification, render_report
from tests.report.combinations import COMBINATIONS
from tests.report.pages import Page

# Words that belong to a density: least squares has none.
_OF_A_DENSITY = (
    "AIC",
    "BIC",
    "ICL",
    "Log-likelihood",
    "log-likelihood",
    "maximum of the likelihood",
    "responsibility",
    "Responsibilities",
    "95% interval",
    "hold 95%",
    "Probability integral transform",
    "before the target is seen",
)
# What each page must say, beside what all must.
_SAYS = {
    "gaussian, polynomial": ("2 polynomial basis Gaussian experts", "height²"),
    "student_t": ("2 linear Student t experts", "degrees of freedom", "the family’s σ"),
    "student_t without a mean": ("Lines are medians", "Normal quantiles of the probability integral transform"),
    "laplace": ("2 linear Laplace experts", "outer products of the scores"),
    "gamma": ("2 linear gamma experts", "shape", "Probability integral transform"),
    "poisson": ("Quantiles of counts are whole numbers", "Hanging rootogram", "Counts make stripes"),
    "poisson with an offset": ("with an offset", "the offset held at its mean", "fit(X, y, offset=offset)"),
    "negative_binomial": ("2 linear negative binomial experts", "Hanging rootogram", "The gate has no features"),
    "binomial": ("2 linear binomial experts", "Hanging rootogram"),
    "binomial, trials by row": ("fitted probability of success",),
    "bernoulli": ("2 constant Bernoulli experts", "logit of won = 1", "EXPERT SEPARATED", "separates"),
    "categorical": (
        "fitted with a prior or ridge",
        "class by class",
        "logits against species = gentoo",
        "always naming the most frequent class",
    ),
    "categorical of two": ("logits against answer = yes", "ticks at the top are rows of the class"),
    "multivariate_gaussian": ("column by column", "Residuals of right", "correlation"),
    "modified_softmax": ("modified softmax gate on height",),
    "dense_to_sparse": ("dense to sparse gate on height",),
    "activation_dense_to_sparse": ("activation dense to sparse gate",),
    "cosine": ("z(height)", "Standardised features", "2 dimensions cosine scale"),
    "perturbed_cosine": ("perturbed cosine gate",),
    "sigmoid": (" · sigmoid gate on height",),
    "laplace gate": ("Laplace gate on height",),
    "gaussian gate": ("joint Gaussian gate", "Log-likelihood of (x, y)", "target and gate features together"),
    "gaussian gate, conditional": (" · Gaussian gate on height", "3 dimensions gaussian common quadratic function"),
    "quadratic": ("quadratic gate on height, weight",),
    "hierarchical": ("The tree of the gate", "Group 1", "as far as the tree of the gate lets them"),
    "top_k": ("top-2 softmax gate", "only the best 2 experts have weight", "They hold for the selection of experts"),
    "top_k of one": ("top-1 softmax gate", "only the best expert has weight"),
    "least squares": ("residuals added to the dotted line", "softmax gate"),
    "least squares, unnormalised": ("unnormalised sigmoid gate", "need not sum to one", "weight times its mean"),
    "least squares, network": ("2 feed forward experts", "unit 1"),
    "least squares, counts": ("Against one expert of the same kind",),
    "least squares, two columns": ("(2 Σw − parameters)", "column by column"),
    "least squares, one expert": ("Against one expert (ordinary least squares)", "One expert for y"),
}
_FIGURES = {
    "poisson": {"figure-data", "figure-gate", "figure-residuals", "figure-rootogram"},
    "negative_binomial": {"figure-data", "figure-gate", "figure-residuals", "figure-rootogram"},
    "binomial": {"figure-data", "figure-gate", "figure-residuals", "figure-rootogram"},
    "binomial, trials by row": {"figure-data", "figure-gate", "figure-residuals", "figure-calibration"},
    "bernoulli": {"figure-data", "figure-gate", "figure-calibration"},
    "categorical of two": {"figure-data", "figure-gate", "figure-calibration"},
    "categorical": {
        *(f"figure-data-{feature}-{label}" for feature in (1, 2) for label in (1, 2, 3)),
        "figure-gate-1",
        "figure-gate-2",
        "figure-gate-map",
        "figure-calibration",
    },
    "multivariate_gaussian": {
        *(f"figure-data-{feature}-{column}" for feature in (1, 2) for column in (1, 2)),
        "figure-gate-1",
        "figure-gate-2",
        "figure-gate-map",
        "figure-residuals-1",
        "figure-residuals-2",
    },
    "gamma": {"figure-data", "figure-gate", "figure-residuals", "figure-pit"},
    "least squares": {
        "figure-data-1",
        "figure-data-2",
        "figure-gate-1",
        "figure-gate-2",
        "figure-gate-map",
        "figure-residuals",
        "figure-spread",
    },
    "least squares, one expert": {"figure-data-1", "figure-data-2", "figure-residuals", "figure-spread"},
    "least squares, unnormalised": {"figure-data", "figure-gate", "figure-residuals", "figure-spread"},
}
# A second of a kind: another model of the same family, the same gate or the same objective stays.
_SECOND = {
    "student_t without a mean",
    "poisson with an offset",
    "binomial, trials by row",
    "categorical of two",
    "gaussian gate, conditional",
    "top_k of one",
    "least squares, counts",
    "least squares, two columns",
}
_QUICK = [name for name in COMBINATIONS if name not in _SECOND]
_NAMES = [*_QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in COMBINATIONS if name in _SECOND)]
_RESPONSIBILITIES = {"figure-responsibility-histogram", "figure-responsibility-curves"}


@pytest.fixture(scope="module")
def page_of(case):
    """The text of the page on a combination, made once."""
    found = {}

    def of(name):
        if name not in found:
            fitted = case(name)
            found[name] = render_report(fitted.estimator, fitted.X, fitted.y, **fitted.more)
        return found[name]

    return of


@pytest.mark.parametrize("name", _NAMES)
def test_a_page_says_what_belongs_to_its_model(case, page_of, name):
    fitted, text = case(name), page_of(name)
    page = Page(text)
    squares = fitted.estimator.result_.kind == "least_squares"
    for phrase in _SAYS[name]:
        assert phrase in page.text, phrase
    # The call that repeats the fit says None, the findings are the fit's own words.
    own = Page(re.sub(r"<pre>.*?</pre>|<section class=\"status.*?</section>", "", text, flags=re.DOTALL)).text
    assert re.findall(r"\b(?:nan|NaN|inf|Infinity|None|tensor|array)\b", own) == []
    if squares:
        captions = own.replace("Least squares has no likelihood, and no criteria made of one.", "")
        assert [word for word in _OF_A_DENSITY if word in captions] == []
        for row in ("Residual sum of squares", "Residual standard deviation", "R² against the mean"):
            assert row in own
    else:
        assert {"AIC", "BIC", "ICL"} <= set(own.split())
        assert "Residual sum of squares" not in own
    figures = set(page.figures())
    assert {"figure-starts"} <= figures
    assert (figures >= _RESPONSIBILITIES) == (not squares)
    if name in _FIGURES:
        assert figures - _RESPONSIBILITIES - {"figure-starts", "figure-trace"} == _FIGURES[name]
    targets = {attributes["href"] for attributes in page.attributes("a")}
    identifiers = {attributes["id"] for attributes in page.attributes("section")}
    assert targets == {f"#{identifier}" for identifier in identifiers - {"status"}}


@pytest.mark.parametrize("name", _NAMES)
def test_null_directions_are_on_the_page_where_there_are_any(case, page_of, name):
    fitted, text = case(name), page_of(name)
    page = Page(text)
    result = fitted.estimator.result_
    space = result.null_space
    # The gate of one expert has no part in the model, and none on the page.
    owner = "" if result.model.n_experts > 1 else f"{result.model.experts.name} "
    # What the reference of the tables settles is a convention: nothing of it is open.
    gate = result.model.gate
    settled = {f"{gate.name} {symmetry.name}: {symmetry.sentence}" for symmetry in gate.symmetries() if symmetry.pins}
    total = len(space.further) + len(space.by_selection)
    for sentence, count in space.sentences:
        is_open = count > 0 and sentence.startswith(owner) and sentence not in settled
        total += count * is_open
        assert (sentence.replace("`", "").partition(":")[2].strip() in page.text) == is_open
    assert text.count('<span class="flag">(not explained by a symmetry)') == len(space.further)
    assert ("only through which experts are selected" in page.text) == (len(space.by_selection) > 0)
    summary = fitted.estimator.summary()
    assert total == sum(entry["dimensions"] for entry in summary.null_directions if not entry["by_reference"])
    assert (f"the data say nothing about {total:,} direction" in page.text) == (total > 0)
    assert ("What is not identified" in page.text) == (total > 0 or bool(identification.separations(result)))


@pytest.mark.parametrize("name", ["poisson", "categorical", "least squares"])
def test_the_same_fit_gives_the_same_page(case, page_of, name):
    fitted = case(name)
    assert page_of(name) == render_report(fitted.estimator, fitted.X.copy(), fitted.y.copy())


def test_the_quick_ones_have_every_family_every_gate_and_both_objectives(case):
    results = [case(name).estimator.result_ for name in _QUICK]
    assert {result.model.family.name for result in results} >= set(FAMILIES)
    assert {result.model.gate.name for result in results} >= set(GATES)
    assert {result.kind for result in results} == {"likelihood", "least_squares"}
