"""GatedRegressor with every gate, kind of expert and family, by name and by object."""

import copy
import pickle

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import norm, poisson
from sklearn.base import clone
from sklearn.metrics import r2_score

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS, LinearExperts
from gatewise.families import FAMILIES, Binomial, MultivariateGaussian, Poisson
from gatewise.fit.constraints import Constraints
from gatewise.gates import GATES, LaplaceGate, SoftmaxGate

# Small samples and one start: what is tested is what an estimator makes of a fit, not how good the fit is.
pytestmark = pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")

EXPERT_OPTIONS = {"feed_forward": {"hidden": 1, "activation": "tanh", "output_bias": True}}


def regressor(n_experts=2, **options):
    return GatedRegressor(n_experts, **{"n_starts": 1, "random_state": 0, "max_iter": 60, **options})


@pytest.fixture(scope="module")
def small(draw_sample):
    return draw_sample(1, n=90)


@pytest.fixture(scope="module")
def targets(small):
    """A target of each family but the categorical one, from the same two regimes."""
    rng = np.random.default_rng(5)
    centre = np.where(small.label == 1, 0.4 + 0.6 * small.X[:, 0], 1.0 - 0.4 * small.X[:, 1])
    mean = np.exp(centre)
    n = len(centre)
    chance = 1.0 / (1.0 + np.exp(-centre))
    trials = rng.integers(3, 9, size=n)
    return {
        "gaussian": small.y,
        "laplace": centre + 0.3 * rng.laplace(size=n),
        "student_t": centre + 0.3 * rng.standard_t(4, size=n),
        "gamma": rng.gamma(3.0, mean / 3.0),
        "poisson": rng.poisson(mean),
        "negative_binomial": rng.negative_binomial(3, 3.0 / (3.0 + mean)),
        "bernoulli": (rng.uniform(size=n) < chance).astype(int),
        "binomial": np.column_stack([rng.binomial(trials, chance), trials]),
        "multivariate_gaussian": np.column_stack([small.y, centre + 0.2 * rng.normal(size=n)]),
    }


def test_the_families_of_the_tests_are_all_but_the_categorical_one(targets):
    assert sorted([*targets, "categorical"]) == list(FAMILIES)


@pytest.mark.parametrize("gate", list(GATES))
def test_every_gate_by_its_name(small, gate):
    fitted = regressor(gate=gate).fit(small.X, small.y)
    weights, means = fitted.gate_weights(small.X), fitted.expert_means(small.X)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(fitted.predict(small.X), (weights * means).sum(axis=1), rtol=1e-10, atol=1e-10)
    with np.errstate(divide="ignore"):
        joint = np.log(weights) + norm.logpdf(small.y[:, None], means, fitted.scale_)
    expected = logsumexp(joint, axis=1)
    np.testing.assert_allclose(fitted.predict_log_density(small.X, small.y), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fitted.responsibilities(small.X, small.y), softmax(joint, axis=1), atol=1e-9)
    if not fitted.model_.gate.is_joint:
        assert fitted.log_likelihood_ == pytest.approx(expected.sum(), rel=1e-9)
    interval = fitted.predict_interval(small.X, level=0.5)
    assert (interval[:, 0] < interval[:, 1]).all()
    assert f"{gate} gate on x0, x1" in fitted.summary().title
    assert len(fitted.parameters_) == len(fitted.covariance_)
    is_linear = fitted.model_.gate.basis(torch.zeros(1, 2, dtype=torch.float64)) is not None
    assert hasattr(fitted, "gate_coef_") == hasattr(fitted, "gate_intercept_") == is_linear


@pytest.mark.parametrize("expert", [name for name in EXPERTS if name != "callable"])
def test_every_kind_of_expert_by_its_name(small, expert):
    fitted = regressor(expert=expert, expert_options=EXPERT_OPTIONS.get(expert), max_iter=20).fit(small.X, small.y)
    assert fitted.expert_means(small.X).shape == (90, 2)
    assert np.isfinite(fitted.predict(small.X)).all()
    assert hasattr(fitted, "expert_coef_") == (expert in ("constant", "linear", "polynomial_basis"))
    if expert == "polynomial_basis":
        a, b = small.X.T
        monomials = np.column_stack([a, b, a * a, a * b, b * b])
        written = monomials @ fitted.expert_coef_.T + fitted.expert_intercept_
        np.testing.assert_allclose(fitted.expert_means(small.X), written, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "categorical"])
def test_every_family_by_its_name(small, targets, family):
    y = targets[family]
    fitted = regressor(family=family).fit(small.X, y)
    several = family == "multivariate_gaussian"
    assert fitted.predict(small.X).shape == (y.shape if several else (90,))
    assert fitted.expert_means(small.X).shape == ((90, 2, 2) if several else (90, 2))
    assert fitted.predict_log_density(small.X, y).sum() == pytest.approx(fitted.log_likelihood_, rel=1e-9)
    np.testing.assert_allclose(fitted.responsibilities(small.X, y).sum(axis=1), 1.0, rtol=1e-12)
    assert hasattr(fitted, "scale_") == (family in ("gaussian", "laplace", "student_t"))
    assert ("scale" in fitted.summary().experts) == hasattr(fitted, "scale_")
    assert f"{family} family" in fitted.summary().title
    assert np.isfinite(fitted.score(small.X, y))
    if several or family == "binomial":
        with pytest.raises(InputError, match=rf"the {family} family has no quantile"):
            fitted.predict_interval(small.X)
        return
    quantiles = fitted.predict_quantile(small.X, [0.1, 0.5, 0.9])
    assert (np.diff(quantiles, axis=1) >= 0.0).all()
    draws = fitted.sample(small.X, random_state=1)
    fitted.model_.family.check_target(torch.tensor(draws))
    np.testing.assert_array_equal(draws, fitted.sample(small.X, random_state=1))


@np.vectorize
def negative_binomial_log_mass(y, mean, size):
    """With 40 digits: SciPy's cancels where the size is large."""
    with mpmath.workdps(40):
        count, size, mean = (mpmath.mpf(float(value)) for value in (y, size, mean))
        ways = mpmath.loggamma(count + size) - mpmath.loggamma(size) - mpmath.loggamma(count + 1)
        return float(ways - size * mpmath.log1p(mean / size) + count * mpmath.log(mean / (size + mean)))


def test_negative_binomials_and_poissons_are_the_sums_written_out(small, targets):
    for family, log_mass in (
        ("poisson", lambda y, mean, size: poisson.logpmf(y, mean)),
        ("negative_binomial", negative_binomial_log_mass),
    ):
        y = targets[family]
        fitted = regressor(family=family).fit(small.X, y)
        location = small.X @ fitted.expert_coef_.T + fitted.expert_intercept_
        weights = softmax(small.X @ fitted.gate_coef_.T + fitted.gate_intercept_, axis=1)
        size = fitted.parameters_.loc[fitted.parameters_.term == "size", "estimate"].to_numpy()
        size = size if len(size) else np.ones(2)
        expected = logsumexp(np.log(weights) + log_mass(y[:, None], np.exp(location), size), axis=1)
        np.testing.assert_allclose(fitted.predict_log_density(small.X, y), expected, rtol=1e-9)
        np.testing.assert_allclose(fitted.predict(small.X), (weights * np.exp(location)).sum(axis=1), rtol=1e-10)


def test_an_exposure_multiplies_means_and_moves_intercepts(small, targets):
    y, offset = targets["poisson"], np.log(np.random.default_rng(2).uniform(0.5, 2.0, size=90))
    fitted = regressor(family="poisson", tol=1e-10, max_iter=300).fit(small.X, y, offset=offset)
    rate = fitted.predict(small.X, offset=0.0)
    np.testing.assert_allclose(fitted.predict(small.X, offset), np.exp(offset) * rate, rtol=1e-12)
    np.testing.assert_allclose(
        fitted.expert_means(small.X, pd.Series(offset)), np.exp(offset)[:, None] * fitted.expert_means(small.X, 0.0)
    )
    assert fitted.predict_log_density(small.X, y, offset).sum() == pytest.approx(fitted.log_likelihood_, rel=1e-10)
    assert fitted.score_log_density(small.X, y, offset=offset) == pytest.approx(fitted.log_likelihood_ / 90)
    assert fitted.score(small.X, y, offset=offset) == r2_score(y, fitted.predict(small.X, offset))
    assert fitted.sample(small.X, 0, offset).shape == (90,)
    assert fitted.predict_quantile(small.X, 0.5, offset).shape == (90,)
    # Another unit of exposure: the same model, with intercepts that are smaller by the logarithm of the factor.
    moved = regressor(family="poisson", tol=1e-10, max_iter=300).fit(small.X, y, offset=offset + np.log(1000.0))
    assert moved.log_likelihood_ == pytest.approx(fitted.log_likelihood_, rel=1e-9)
    order = np.argsort(fitted.expert_intercept_), np.argsort(moved.expert_intercept_)
    np.testing.assert_allclose(
        moved.expert_intercept_[order[1]], fitted.expert_intercept_[order[0]] - np.log(1000.0), atol=1e-5
    )
    np.testing.assert_allclose(moved.expert_coef_[order[1]], fitted.expert_coef_[order[0]], atol=1e-5)


def test_offsets_that_cannot_be_used(small, targets):
    y = targets["poisson"]
    with pytest.raises(InputError, match="the gaussian family has no offset: only families with a log link do"):
        regressor().fit(small.X, small.y, offset=np.zeros(90))
    with pytest.raises(InputError, match=r"the offset has shape \(3,\); it must be one number for each of the 90 rows"):
        regressor(family="poisson").fit(small.X, y, offset=np.zeros(3))
    fitted = regressor(family="poisson", max_iter=5).fit(small.X, y, offset=np.zeros(90))
    for call in (
        lambda: fitted.predict(small.X),
        lambda: fitted.predict_quantile(small.X, 0.5),
        lambda: fitted.responsibilities(small.X, y),
        lambda: fitted.score(small.X, y),
        lambda: fitted.sample(small.X),
    ):
        with pytest.raises(InputError, match="the model was fitted with an offset: give the rows' own, or offset=0"):
            call()
    with pytest.raises(InputError, match=r"column 'offset' has the value inf in row 0"):
        fitted.predict(small.X, np.inf)
    with pytest.raises(InputError, match="the offset is not numeric: row 0 has 'a'"):
        fitted.predict(small.X, ["a"] * 90)


def test_the_score_of_shares_counts_trials(small, targets):
    y = targets["binomial"]
    fitted = regressor(family="binomial").fit(small.X, y)
    share = fitted.predict(small.X)
    assert ((share > 0.0) & (share < 1.0)).all()
    assert fitted.score(small.X, y) == r2_score(y[:, 0] / y[:, 1], share, sample_weight=y[:, 1])
    weight = np.random.default_rng(0).uniform(size=90)
    assert fitted.score(small.X, y, weight) == r2_score(y[:, 0] / y[:, 1], share, sample_weight=weight * y[:, 1])


def test_columns_of_a_target_keep_their_names(small, targets):
    y = pd.DataFrame(targets["multivariate_gaussian"], columns=["length", "width"])
    fitted = regressor(family="multivariate_gaussian", family_options={"covariance": "diagonal"}).fit(small.X, y)
    assert fitted.target_name_ == "length, width"
    terms = fitted.parameters_.loc[fitted.parameters_.component == "expert 1", "term"].tolist()
    assert terms[:6] == [f"{column} {term}" for column in y for term in ("(intercept)", "x0", "x1")]
    assert fitted.expert_coef_.shape == (2, 2, 2)
    first = fitted.parameters_[(fitted.parameters_.component == "expert 2") & (fitted.parameters_.term == "width x1")]
    assert first.estimate.item() == pytest.approx(fitted.expert_coef_[1, 1, 1])
    assert fitted.covariance_.index[3] == "expert 1: length (intercept)"
    plain = regressor(family=MultivariateGaussian(2, "diagonal")).fit(small.X, y.to_numpy())
    assert plain.log_likelihood_ == fitted.log_likelihood_
    assert plain.parameters_.term[3] == "y[0] (intercept)"


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({"family": "categorical"}, "gaussian", "targets of the categorical family are classes: .* GatedClassifier"),
        ({"family": MultivariateGaussian(3)}, "multivariate_gaussian", r"y has 2 columns, and .*n_targets=3.* takes 3"),
        ({"family": "multivariate_gaussian"}, "gaussian", r"y has shape \(90,\): targets with several columns"),
        ({"family": "gaussian"}, "multivariate_gaussian", "y should be a 1d array"),
        ({"family": "poisson"}, "gaussian", "for the poisson family targets must be counts"),
        ({"family": "binomial", "family_options": {"trials": 2}}, "poisson", "must be counts 0, …, 2"),
        ({"gate_options": {"tau": 1}}, "gaussian", "the gate 'softmax' has no option 'tau': it takes no options"),
        (
            {"gate": "cosine", "gate_options": {"tau": 1}},
            "gaussian",
            "the gate 'cosine' has no option 'tau': it has temperature, projection",
        ),
        (
            {"gate": "gaussian", "gate_options": {"joint": "no"}},
            "gaussian",
            "the option 'joint' of the gate 'gaussian' is true or false, not 'no'",
        ),
        (
            {"gate": "cosine", "gate_options": {"temperature": "hot"}},
            "gaussian",
            "the gate 'cosine' cannot take the options {'temperature': 'hot'}|temperature",
        ),
        ({"gate_options": ["tau"]}, "gaussian", "gate_options must be a dictionary from names to values"),
        ({"expert": "callable"}, "gaussian", "the expert 'callable' needs the option 'function'"),
        ({"expert_options": {"n_outputs": 2}}, "gaussian", "the expert 'linear' has no option 'n_outputs'"),
        ({"family_options": {"df": 3}}, "gaussian", "the family 'gaussian' has no option 'df': it takes no options"),
        ({"gate": SoftmaxGate(2, 3)}, "gaussian", "has 2 features and 3 experts, and 2 and 2 are asked for"),
        ({"gate": SoftmaxGate(1, 2)}, "gaussian", "has 1 features and 2 experts, and 2 and 2 are asked for"),
        ({"expert": LinearExperts(4, 2)}, "gaussian", "has 4 features and 2 experts, and 2 and 2 are asked for"),
        (
            {"expert": LinearExperts(2, 2)},
            "poisson_object",
            "the experts give 1 outputs and 1 dispersions, and the poi",
        ),
        ({"gate": SoftmaxGate(2, 2), "gate_options": {"a": 1}}, "gaussian", "gate_options go with a name, and the gat"),
        ({"family": Poisson(), "family_options": {"a": 1}}, "poisson", "family_options go with a name, and the family"),
        ({"expert": LinearExperts(2, 2), "shared_scale": True}, "gaussian", "shared_scale=True is asked for"),
        ({"gate": 3}, "gaussian", "unknown gate 3: choose one of"),
        ({"standardise": "yes"}, "gaussian", "unknown standardise 'yes': choose one of auto, off"),
        ({"objective": "both"}, "gaussian", "unknown objective 'both': choose one of likelihood, least_squares"),
        ({"expert_ridge": -1.0}, "gaussian", "expert_ridge must be a non-negative number, not -1.0"),
        (
            {"gate": "sigmoid", "gate_options": {"normalised": False}},
            "gaussian",
            'the weights of the sigmoid gate are not normalised, .* objective="least_squares"',
        ),
    ],
)
def test_parts_that_cannot_be_used(small, targets, options, y, message):
    if y == "poisson_object":
        options, y = {**options, "family": Poisson()}, "poisson"
    with pytest.raises(InputError, match=message):
        regressor(**options).fit(small.X, targets[y])


def test_objects_are_prototypes(small):
    gate, experts = LaplaceGate(2, 2), LinearExperts(2, 2, shared_scale=True)
    before = copy.deepcopy(gate.state_dict()), copy.deepcopy(experts.state_dict())
    family = Binomial()
    estimator = regressor(gate=gate, expert=experts)
    again = clone(estimator)
    assert again.gate is not gate
    assert estimator.get_params()["gate"] is gate
    assert clone(regressor(family=family)).family == family
    fitted = estimator.fit(small.X, small.y)
    for part, state in zip((gate, experts), before, strict=True):
        for name, value in part.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, state[name])
        assert all(parameter.requires_grad for parameter in part.parameters())
    named = regressor(gate="laplace", shared_scale=True).fit(small.X, small.y)
    np.testing.assert_array_equal(fitted.result_.theta, named.result_.theta)
    np.testing.assert_array_equal(again.fit(small.X, small.y).result_.theta, named.result_.theta)
    assert named.set_params(gate=gate, gate_options=None).get_params()["gate"] is gate
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(small.X), fitted.predict(small.X))


def test_options_reach_the_parts(small):
    fitted = regressor(
        3, gate="top_k", gate_options={"inner": "laplace", "n_active": 2, "select_on": "logit"}, max_iter=20
    ).fit(small.X, small.y)
    assert ((fitted.gate_weights(small.X) > 0.0).sum(axis=1) == 2).all()
    statistics = fitted.summary().statistics
    assert (statistics["gate"], statistics["gate_options"]["inner"]) == ("top_k", "laplace")
    tree = regressor(3, gate="hierarchical", gate_options={"groups": [2, 1]}, max_iter=20).fit(small.X, small.y)
    assert [len(group.bias) for group in tree.model_.gate.inner] == [2, 1]


def test_coefficients_give_the_weights(small):
    a, b = small.X.T
    for gate, options, basis in (
        ("quadratic", None, np.column_stack([a, b, a * a, a * b, b * b])),
        ("dense_to_sparse", {"temperature": 0.5, "free_temperature": False}, small.X),
    ):
        fitted = regressor(gate=gate, gate_options=options).fit(small.X, small.y)
        weights = softmax(basis @ fitted.gate_coef_.T + fitted.gate_intercept_, axis=1)
        np.testing.assert_allclose(fitted.gate_weights(small.X), weights, atol=1e-9)
        assert fitted.gate_intercept_[-1] == 0.0


def test_a_fit_without_standardisation_stores_none(small):
    stored = regressor(gate="modified_softmax").fit(small.X, small.y)
    assert stored.model_.gate_scaler is not None
    plain = regressor(gate="modified_softmax", standardise="off").fit(small.X, small.y)
    assert plain.model_.gate_scaler is None
    weights = softmax(np.tanh(small.X) @ plain.gate_coef_.T + plain.gate_intercept_, axis=1)
    np.testing.assert_allclose(plain.gate_weights(small.X), weights, atol=1e-12)


def test_constraints_hold_what_they_name(small):
    experts = LinearExperts(2, 2)
    with torch.no_grad():
        experts.weight[1, 1] = -0.75
    held = Constraints(frozen={"experts.weight": [[False, False], [False, True]]})
    fitted = regressor(expert=experts, constraints=held).fit(small.X, small.y)
    assert fitted.model_.experts.weight[1, 1] == -0.75
    free = regressor(expert=experts).fit(small.X, small.y)
    assert fitted.n_parameters_ == free.n_parameters_ - 1


def test_a_ridge_on_the_experts_shrinks_their_slopes(small):
    plain = regressor(1).fit(small.X, small.y)
    ridge = regressor(1, expert_ridge=1e4).fit(small.X, small.y)
    assert (np.abs(ridge.expert_coef_) < 0.1 * np.abs(plain.expert_coef_).max()).all()
