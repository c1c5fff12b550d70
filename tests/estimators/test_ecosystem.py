"""GatedRegressor among scikit-learn's tools."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone, is_regressor
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from gatewise.estimators import GatedRegressor


def regressor(n_experts=2, **options):
    return GatedRegressor(n_experts, **{"n_starts": 2, "random_state": 0, **options})


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture(scope="module")
def weight(sample):
    return np.random.default_rng(2).integers(1, 4, size=len(sample.y)).astype(float)


FOLDS = KFold(3, shuffle=True, random_state=0)


def test_tags():
    tags = get_tags(regressor())
    assert is_regressor(regressor())
    assert tags.target_tags.required
    assert not tags.target_tags.multi_output
    assert not tags.input_tags.sparse
    assert not tags.input_tags.allow_nan
    assert tags.requires_fit


def test_parameters_are_kept_as_given_and_cloned():
    init, generator = np.ones((4, 2)), np.random.default_rng(0)
    original = GatedRegressor(3, gate_features=["a"], init=init, random_state=generator, variance_prior=(1.0, 0.1))
    parameters = original.get_params()
    assert parameters["init"] is init
    assert parameters["random_state"] is generator
    assert parameters["gate_features"] == ["a"]
    copy = clone(original)
    assert copy is not original
    np.testing.assert_array_equal(copy.init, init)
    assert copy.get_params()["variance_prior"] == (1.0, 0.1)
    assert set(parameters) == {
        *(
            "n_experts",
            "gate",
            "expert",
            "family",
            "gate_features",
            "expert_features",
            "shared_scale",
            "n_starts",
            "init",
            "max_iter",
        ),
        *("tol", "time_limit", "scale_floor", "gate_ridge", "variance_prior", "n_jobs", "n_threads", "device"),
        *("dtype", "verbose", "random_state", "gate_options", "expert_options", "family_options", "objective"),
        *("standardise", "constraints", "expert_ridge"),
    }


def test_only_the_model_is_positional():
    assert GatedRegressor(3, "softmax", "constant", "gaussian", []).gate_features == []
    with pytest.raises(TypeError, match="positional argument"):
        GatedRegressor(3, "softmax", "constant", "gaussian", [], True)


def test_set_params_fits_the_new_model(sample):
    estimator = regressor().fit(sample.X, sample.y)
    again = estimator.set_params(n_experts=1, gate_features=[])
    assert again is estimator
    assert estimator.fit(sample.X, sample.y).n_parameters_ == 4
    with pytest.raises(ValueError, match="Invalid parameter 'n_expert' for estimator"):
        estimator.set_params(n_expert=2)


def test_a_second_fit_forgets_the_first(sample):
    table = pd.DataFrame(sample.X, columns=["a", "b"])
    estimator = regressor().fit(table, sample.y)
    estimator.fit(sample.X[:, :1], sample.y)
    assert estimator.feature_names_ == ["x0"]
    assert not hasattr(estimator, "feature_names_in_")
    assert estimator.predict(sample.X[:, :1]).shape == (200,)


def test_the_page_shows_the_estimator_with_its_names_escaped():
    page = regressor(gate_features=["<script>alert(1)</script>"])._repr_html_()
    assert "GatedRegressor" in page
    assert "n_experts" in page
    assert "<script>alert(1)</script>" not in page
    assert repr(regressor(3)) == "GatedRegressor(n_experts=3, n_starts=2, random_state=0)"


def test_a_fitted_estimator_survives_pickling(sample):
    fitted = regressor().fit(sample.X, sample.y)
    restored = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(restored.predict(sample.X), fitted.predict(sample.X))
    assert restored.status_ is fitted.status_
    pd.testing.assert_frame_equal(restored.parameters_, fitted.parameters_)


def test_in_a_pipeline_with_named_columns(sample):
    table = pd.DataFrame(sample.X, columns=["a", "b"])
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), regressor(gate_features=["a"]))
    pipeline.fit(table, sample.y)
    plain = regressor(gate_features=["a"]).fit(table, sample.y)
    assert pipeline[-1].gate_feature_names_ == ["a"]
    # The scaler changes the units, which the fit does not see; both are at the maximum to second order in 1e-8.
    assert pipeline[-1].log_likelihood_ == pytest.approx(plain.log_likelihood_, rel=1e-10)
    np.testing.assert_allclose(pipeline.predict(table), plain.predict(table), atol=1e-5)
    assert pipeline.score(table, sample.y) == pytest.approx(plain.score(table, sample.y), abs=1e-6)


def test_grid_search_finds_the_two_experts(sample):
    search = GridSearchCV(
        regressor(),
        {"n_experts": [1, 2], "gate_features": [[], [0]]},
        cv=FOLDS,
        scoring=GatedRegressor.score_log_density,
    )
    search.fit(sample.X, sample.y)
    assert search.best_params_ == {"n_experts": 2, "gate_features": [0]}
    train, test = next(FOLDS.split(sample.X))
    by_hand = regressor(gate_features=[0]).fit(sample.X[train], sample.y[train])
    candidate = search.cv_results_["params"].index({"n_experts": 2, "gate_features": [0]})
    score = search.cv_results_["split0_test_score"][candidate]
    assert score == by_hand.score_log_density(sample.X[test], sample.y[test])
    assert search.predict(sample.X).shape == (200,)


@pytest.mark.usefixtures("routing")
def test_weights_reach_fit_and_score_in_cross_validation(sample, weight):
    estimator = regressor().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    scores = cross_val_score(estimator, sample.X, sample.y, cv=FOLDS, params={"sample_weight": weight})
    expected = []
    for train, test in FOLDS.split(sample.X):
        fitted = regressor().fit(sample.X[train], sample.y[train], weight[train])
        expected.append(fitted.score(sample.X[test], sample.y[test], weight[test]))
    np.testing.assert_array_equal(scores, expected)
    unweighted = regressor().set_fit_request(sample_weight=False).set_score_request(sample_weight=True)
    others = cross_val_score(unweighted, sample.X, sample.y, cv=FOLDS, params={"sample_weight": weight})
    assert (others != scores).all()


@pytest.mark.usefixtures("routing")
def test_weights_reach_the_last_step_of_a_pipeline_in_a_grid_search(sample, weight):
    last = regressor().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), last)
    search = GridSearchCV(pipeline, {"gatedregressor__n_experts": [1, 2]}, cv=FOLDS)
    search.fit(sample.X, sample.y, sample_weight=weight)
    assert search.best_params_ == {"gatedregressor__n_experts": 2}
    expected = regressor().fit(StandardScaler().fit_transform(sample.X), sample.y, weight)
    assert search.best_estimator_[-1].log_likelihood_ == expected.log_likelihood_


@pytest.mark.usefixtures("routing")
def test_weights_that_nobody_asked_for_are_refused(sample, weight):
    with pytest.raises(ValueError, match="sample_weight"):
        cross_val_score(regressor(), sample.X, sample.y, cv=FOLDS, params={"sample_weight": weight})


def test_predictions_by_cross_validation_and_importances(sample):
    held_out = cross_val_predict(regressor(), sample.X, sample.y, cv=FOLDS)
    assert held_out.shape == (200,)
    fitted = regressor().fit(sample.X, sample.y)
    importance = permutation_importance(fitted, sample.X, sample.y, n_repeats=3, random_state=0)
    assert importance.importances_mean[0] > importance.importances_mean[1]


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
def test_the_same_seed_gives_the_same_bits(sample):
    first, second = regressor(3, n_starts=4), regressor(3, n_starts=4)
    first.fit(sample.X, sample.y)
    second.fit(sample.X, sample.y)
    np.testing.assert_array_equal(first.result_.theta, second.result_.theta)
    ends = [record.log_likelihood for record in first.result_.starts]
    assert ends == [record.log_likelihood for record in second.result_.starts]
    other = regressor(3, n_starts=4, random_state=1).fit(sample.X, sample.y)
    assert ends != [record.log_likelihood for record in other.result_.starts]


def test_a_generator_moves_on_and_its_seed_is_kept(sample):
    generator = np.random.RandomState(4)
    first = regressor(random_state=generator).fit(sample.X, sample.y)
    second = regressor(random_state=generator).fit(sample.X, sample.y)
    assert first.result_.seed != second.result_.seed
    again = regressor(random_state=first.result_.seed).fit(sample.X, sample.y)
    np.testing.assert_array_equal(again.result_.theta, first.result_.theta)


def test_threads_and_workers_leave_every_bit_alone(sample):
    alone = regressor().fit(sample.X, sample.y)
    for options in ({"n_jobs": 2}, {"n_threads": 2}):
        other = regressor(**options).fit(sample.X, sample.y)
        np.testing.assert_array_equal(other.result_.theta, alone.result_.theta)
        assert other.log_likelihood_ == alone.log_likelihood_
        np.testing.assert_array_equal(other.predict(sample.X), alone.predict(sample.X))
