"""scikit-learn faces of the models: the only floor that knows scikit-learn's conventions."""

from gatewise.estimators.regressor import GatedRegressor

__all__ = ["GatedRegressor"]
