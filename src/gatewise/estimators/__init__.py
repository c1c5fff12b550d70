"""scikit-learn faces of the models: the only floor that knows scikit-learn's conventions."""

from gatewise.estimators.classifier import GatedClassifier
from gatewise.estimators.regressor import GatedRegressor

__all__ = ["GatedClassifier", "GatedRegressor"]
