"""Classes under two regimes: what one logistic regression cannot see, two under a gate can.

Run it anywhere: `python examples/classes.py`. It takes some seconds.
"""

import warnings

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from gatewise import GatedClassifier
from gatewise.exceptions import FitWarning


def simulate(n: int = 600) -> tuple[pd.DataFrame, pd.Series]:
    """Buyers and sellers: after a rise some buy more, and others, who come at high volume, sell more."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame({"volume": generator.normal(size=n), "change": generator.normal(size=n)})
    follows = generator.uniform(size=n) < 1.0 / (1.0 + np.exp(4.0 * table["volume"]))
    logit = np.where(follows, 3.0, -3.0) * table["change"]
    order = np.where(generator.uniform(size=n) < 1.0 / (1.0 + np.exp(-logit)), "buy", "sell")
    return table, pd.Series(order, name="order")


def main() -> None:
    """Fit, read, and compare held-out log-loss."""
    X, y = simulate()
    classifier = GatedClassifier(
        n_experts=2, gate_features=["volume"], expert_features=["change"], n_starts=4, random_state=0
    ).fit(X, y)
    print(classifier.summary())

    print("classes:", ", ".join(classifier.classes_))
    rise = pd.DataFrame({"volume": [-1.0, 1.0], "change": [1.0, 1.0]})
    for volume, share in zip(rise["volume"], classifier.predict_proba(rise), strict=True):
        print(f"after a rise at volume {volume:+.0f}: buy with probability {share[0]:.2f}")

    with warnings.catch_warnings():
        # A fold may separate; its probabilities are good all the same.
        warnings.simplefilter("ignore", FitWarning)
        for name, estimator in (("one logistic regression", LogisticRegression()), ("two experts", classifier)):
            loss = -cross_val_score(estimator, X, y, cv=5, scoring="neg_log_loss").mean()
            print(f"held-out log-loss of {name}: {loss:.3f}")


if __name__ == "__main__":
    main()
