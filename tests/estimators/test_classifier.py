"""What a fitted GatedClassifier answers, against sums written out and against multinomial logistic regression."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import cross_val_score
from sklearn.utils import get_tags

from gatewise.estimators import GatedClassifier
from gatewise.exceptions import InputError, SeparationWarning
from gatewise.fit import FitStatus
from gatewise.gates import SoftmaxGate

NAMES = np.array(["setosa", "versicolor", "virginica"])


def classifier(n_experts=2, **options):
    return GatedClassifier(n_experts, **{"n_starts": 2, "random_state": 0, "tol": 1e-6, **options})


@pytest.fixture(scope="module")
def flowers():
    """Three classes whose logits follow one of two rules, by the sign of the first column and some noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 2))
    first = rng.uniform(size=500) < 1.0 / (1.0 + np.exp(-4.0 * X[:, 0]))
    sign = np.where(first, 1.0, -1.0)
    logits = np.column_stack([2.0 * sign * X[:, 1], -sign, np.zeros(500)])
    codes = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return pd.DataFrame(X, columns=["petal", "sepal"]), pd.Series(NAMES[codes], name="species")


@pytest.fixture(scope="module")
def fitted(flowers):
    X, y = flowers
    return classifier().fit(X, y)


def written_out(fitted, X):
    """Log weights (n, k) and log probabilities (n, k, C) from the fitted attributes."""
    X = np.asarray(X)
    log_weights = log_softmax(X @ fitted.gate_coef_.T + fitted.gate_intercept_, axis=1)
    logits = np.einsum("nd,kcd->nkc", X, fitted.expert_coef_) + fitted.expert_intercept_
    return log_weights, log_softmax(np.concatenate([logits, np.zeros((*logits.shape[:2], 1))], axis=2), axis=2)


def test_probabilities_are_the_sums_written_out(fitted, flowers):
    X, y = flowers
    log_weights, table = written_out(fitted, X)
    expected = logsumexp(log_weights[:, :, None] + table, axis=1)
    np.testing.assert_allclose(fitted.predict_log_proba(X), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fitted.predict_proba(X), np.exp(expected), rtol=1e-9)
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(fitted.decision_function(X), fitted.predict_log_proba(X))
    np.testing.assert_allclose(fitted.gate_weights(X), np.exp(log_weights), atol=1e-10)
    np.testing.assert_allclose(fitted.expert_probabilities(X), np.exp(table), rtol=1e-9)
    np.testing.assert_array_equal(fitted.predict(X), NAMES[expected.argmax(axis=1)])
    code = np.searchsorted(NAMES, y)
    own = expected[np.arange(500), code]
    np.testing.assert_allclose(fitted.predict_log_density(X, y), own, rtol=1e-9, atol=1e-9)
    joint = log_weights + table[np.arange(500), :, code]
    np.testing.assert_allclose(fitted.responsibilities(X, y), softmax(joint, axis=1), atol=1e-9)
    assert fitted.log_likelihood_ == pytest.approx(own.sum(), rel=1e-10)


def test_fitted_attributes(fitted):
    assert fitted.classes_.tolist() == NAMES.tolist()
    assert fitted.expert_coef_.shape == (2, 2, 2)
    assert fitted.expert_intercept_.shape == (2, 2)
    assert fitted.gate_coef_.shape == (2, 2)
    assert not hasattr(fitted, "scale_")
    assert fitted.n_parameters_ == 3 + 2 * 2 * 3 == len(fitted.parameters_) == len(fitted.covariance_)
    assert fitted.target_name_ == "species"
    assert fitted.feature_names_ == ["petal", "sepal"]
    terms = fitted.parameters_.loc[fitted.parameters_.component == "expert 2", "term"].tolist()
    assert terms == [f"species={name} {term}" for name in NAMES[:2] for term in ("(intercept)", "petal", "sepal")]
    row = fitted.parameters_.set_index(["component", "term"]).loc[("expert 1", "species=versicolor sepal")]
    assert row.estimate == pytest.approx(fitted.expert_coef_[0, 1, 1])
    assert fitted.covariance_.index[-1] == "expert 2: species=versicolor sepal"
    assert list(fitted.conf_int(0.5).columns) == ["component", "term", "lower", "upper"]


def test_the_summary_names_the_reference(fitted):
    summary = fitted.summary()
    assert summary.title == (
        "Mixture of 2 linear experts for species, categorical family, softmax gate on petal, sepal"
    )
    assert "Parameters (the experts' are of logits against species=virginica)" in summary.to_text()
    assert summary.statistics["reference_class"] == "species=virginica"
    assert "scale" not in summary.experts
    assert "AIC" in summary.to_text()


def test_scores(fitted, flowers):
    X, y = flowers
    weight = np.random.default_rng(0).uniform(size=500)
    assert fitted.score(X, y) == accuracy_score(y, fitted.predict(X))
    assert fitted.score_log_density(X, y) == pytest.approx(-log_loss(y, fitted.predict_proba(X)), rel=1e-12)
    assert fitted.score_log_density(X, y, weight) == pytest.approx(
        -log_loss(y, fitted.predict_proba(X), sample_weight=weight), rel=1e-12
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_one_expert_is_multinomial_logistic_regression(flowers, weighted):
    X, y = flowers
    weight = np.random.default_rng(1).integers(1, 4, size=500).astype(float) if weighted else None
    fitted = classifier(1, tol=1e-9).fit(X, y, weight)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000).fit(X, y, weight)
    contrasts = reference.coef_ - reference.coef_[-1]
    # The reference stops at a gradient of about 1e-10 of the total.
    np.testing.assert_allclose(fitted.expert_coef_[0], contrasts[:-1], atol=1e-4)
    np.testing.assert_allclose(fitted.predict_proba(X), reference.predict_proba(X), atol=1e-5)
    assert (
        fitted.log_likelihood_ >= -log_loss(y, reference.predict_proba(X), normalize=False, sample_weight=weight) - 1e-6
    )


def test_weights_are_repetitions(flowers):
    X, y = flowers
    weight = np.random.default_rng(4).integers(0, 3, size=500)
    weighted = classifier(tol=1e-9, n_starts=1).fit(X, y, sample_weight=weight)
    rows = np.repeat(np.arange(500), weight)
    repeated = classifier(tol=1e-9, n_starts=1).fit(X.iloc[rows], y.iloc[rows])
    # Both stop where no component of the gradient per row exceeds 1e-9.
    assert weighted.log_likelihood_ == pytest.approx(repeated.log_likelihood_, rel=1e-10)
    assert weighted.bic_ == pytest.approx(repeated.bic_, rel=1e-10)
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-5)


LABELS = {
    "text": ["b", "a"],
    "numbers": [7, -2],
    "booleans": [True, False],
    "floats": [2.0, 1.0],
    "objects": np.array(["no", "yes"], dtype=object),
}


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(sample, kind):
    y = np.asarray(LABELS[kind])[sample.label]
    fitted = classifier(1).fit(sample.X, y)
    np.testing.assert_array_equal(fitted.classes_, np.unique(y))
    assert fitted.classes_.dtype == np.unique(y).dtype
    assert set(fitted.predict(sample.X)) <= set(y)
    assert set(fitted.sample(sample.X, random_state=0)) == set(y)
    odds = fitted.decision_function(sample.X)
    np.testing.assert_array_equal(fitted.predict(sample.X), fitted.classes_[(odds > 0.0).astype(int)])
    proba = fitted.predict_proba(sample.X)
    np.testing.assert_allclose(odds, np.log(proba[:, 1] / proba[:, 0]), atol=1e-9)
    # The experts' logit of two classes is that of the first against the second.
    np.testing.assert_allclose(odds, -(sample.X @ fitted.expert_coef_[0] + fitted.expert_intercept_[0]), atol=1e-9)
    first = fitted.parameters_.term[0]
    assert first == f"y={np.unique(y)[0]} (intercept)"


@pytest.mark.parametrize("table", ["pandas", "polars", "category", "column"])
def test_tables_of_labels(flowers, table):
    X, y = flowers
    given = {
        "pandas": (X, y),
        "polars": (pl.from_pandas(X), pl.Series("species", y.to_list())),
        "category": (X, y.astype("category")),
        "column": (X, y.to_frame()),
    }[table]
    once = classifier(1).fit(X, y)
    again = classifier(1).fit(*given)
    np.testing.assert_array_equal(again.predict_proba(given[0]), once.predict_proba(X))
    np.testing.assert_array_equal(again.responsibilities(*given), once.responsibilities(X, y))
    assert again.target_name_ == "species"
    assert again.classes_.tolist() == NAMES.tolist()


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
def test_samples_have_the_probabilities(flowers, fitted):
    X = flowers[0].iloc[[3] * 20_000]
    draws = pd.Series(fitted.sample(X, random_state=1)).value_counts(normalize=True)
    expected = fitted.predict_proba(X[:1])[0]
    # Four standard errors of a share.
    for name, share in zip(NAMES, expected, strict=True):
        assert draws.get(name, 0.0) == pytest.approx(share, abs=4.0 * np.sqrt(share * (1.0 - share) / 20_000))


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
@pytest.mark.parametrize("gate", ["laplace", "hierarchical", "top_k", "quadratic"])
def test_other_gates(flowers, gate):
    X, y = flowers[0][:120], flowers[1][:120]
    fitted = classifier(gate=gate, n_starts=1, max_iter=15).fit(X, y)
    weights, table = fitted.gate_weights(X), fitted.expert_probabilities(X)
    np.testing.assert_allclose(fitted.predict_proba(X), np.einsum("nk,nkc->nc", weights, table), atol=1e-12)
    assert fitted.summary().statistics["gate"] == gate


def test_classes_that_separate_have_finite_probabilities():
    X = np.linspace(-2.0, 2.0, 40)[:, None]
    y = np.where(X[:, 0] < 0.0, "low", "high")
    with pytest.warns(SeparationWarning) as caught:
        fitted = classifier(1).fit(X, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert fitted.status_ is FitStatus.EXPERT_SEPARATED
    assert fitted.parameters_.standard_error.isna().all()
    far = np.array([[-1e6], [1e6]])
    assert (fitted.predict_proba(far) > 0.0).all()
    assert np.isfinite(fitted.predict_log_proba(far)).all()
    assert np.isfinite(fitted.decision_function(far)).all()
    assert fitted.predict(far).tolist() == ["low", "high"]
    calm = classifier(1, expert_ridge=1.0).fit(X, y)
    assert calm.status_ is FitStatus.CONVERGED
    assert calm.parameters_.standard_error.notna().all()
    assert np.abs(calm.expert_coef_).max() < 20.0


def test_labels_without_weight_are_no_classes(sample):
    y = np.where(sample.label == 1, "a", "b").astype(object)
    y[:5] = "c"
    weight = np.ones(200)
    weight[:5] = 0.0
    fitted = classifier(1).fit(sample.X, y, weight)
    assert fitted.classes_.tolist() == ["a", "b"]
    alone = classifier(1).fit(sample.X[5:], y[5:])
    assert fitted.log_likelihood_ == alone.log_likelihood_


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"] * 200, "the target 'y' has one class only, 'a': a classifier needs at least two classes"),
        (["a", None] * 100, r"the target 'y' is missing \(None or NaN\) in row 1 \(100 such rows in all\)"),
        ([1.0, np.nan] * 100, r"the target 'y' is missing \(None or NaN\) in row 1"),
        ([1.0, np.inf] * 100, "the target 'y' contains infinity"),
        (np.linspace(0.0, 1.0, 200), "Unknown label type: continuous"),
        (np.array(["a", 1] * 100, dtype=object), "the labels of 'y' cannot be sorted: make them all text, or all numb"),
        (np.zeros((200, 2)), "y should be a 1d array"),
        (None, "requires y to be passed, but the target y is None"),
        (["a", "b"] * 50, "X has 200 rows and y 100: they must be the same"),
    ],
)
def test_targets_that_cannot_be_used(sample, y, message):
    with pytest.raises(InputError, match=message):
        classifier().fit(sample.X, y)


def test_a_class_that_the_fit_has_not_seen(fitted, flowers):
    X = flowers[0][:2]
    with pytest.raises(InputError, match="the target 'y' has the class 'rose', and the fit has seen 'setosa', 'versi"):
        fitted.predict_log_density(X, ["setosa", "rose"])


def test_parts_must_fit(flowers):
    with pytest.raises(InputError, match="has 2 features and 3 experts, and 2 and 2 are asked for"):
        classifier(gate=SoftmaxGate(2, 3)).fit(*flowers)
    with pytest.raises(InputError, match="the weights of the sigmoid gate are not normalised"):
        classifier(gate="sigmoid", gate_options={"normalised": False}).fit(*flowers)


def test_nothing_works_before_fit(sample):
    unfitted = classifier()
    for call in (
        lambda: unfitted.predict(sample.X),
        lambda: unfitted.predict_proba(sample.X),
        lambda: unfitted.responsibilities(sample.X, sample.label),
        lambda: unfitted.sample(sample.X),
        lambda: unfitted.summary(),
        lambda: unfitted.expert_probabilities(sample.X),
    ):
        with pytest.raises(NotFittedError):
            call()


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
def test_among_scikit_learns_tools(flowers, fitted):
    X, y = flowers
    tags = get_tags(classifier())
    assert tags.estimator_type == "classifier"
    assert tags.classifier_tags.multi_class
    scores = cross_val_score(classifier(1), X, y, cv=3, scoring="neg_log_loss")
    assert (scores > np.log(1.0 / 3.0)).all()
    restored = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(restored.predict_proba(X), fitted.predict_proba(X))
    assert repr(GatedClassifier(3)) == "GatedClassifier(n_experts=3)"


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
def test_seeds_threads_and_workers_leave_every_bit_alone(flowers):
    X, y = flowers[0][:100], flowers[1][:100]
    alone = classifier(max_iter=20).fit(X, y)
    for options in ({}, {"n_jobs": 2}, {"n_threads": 2}):
        other = classifier(max_iter=20, **options).fit(X, y)
        np.testing.assert_array_equal(other.result_.theta, alone.result_.theta)
        ends = [start.log_likelihood for start in alone.result_.starts]
        assert [start.log_likelihood for start in other.result_.starts] == ends
