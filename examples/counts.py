"""Counts with an exposure: Poisson experts, and a choice between two gates.

Run it anywhere: `python examples/counts.py`. It takes some seconds.
"""

import numpy as np
import pandas as pd

from gatewise import GatedRegressor


def simulate(n: int = 600) -> tuple[pd.DataFrame, pd.Series, np.ndarray]:
    """Claims of drivers over some years: careful ones, more often the old, have few; the others more with the power."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {"age": generator.uniform(18.0, 80.0, size=n), "power": generator.uniform(40.0, 200.0, size=n)}
    )
    years = generator.uniform(0.5, 10.0, size=n)
    careful = generator.uniform(size=n) < 1.0 / (1.0 + np.exp(-(table["age"] - 45.0) / 8.0))
    rate = np.where(careful, 0.1, 0.4 * np.exp((table["power"] - 100.0) / 60.0))
    return table, pd.Series(generator.poisson(years * rate), name="claims"), np.log(years)


def main() -> None:
    """Fit, compare gates by BIC, and predict rates and counts."""
    X, claims, log_years = simulate()
    fits = {}
    for gate in ("softmax", "quadratic"):
        regressor = GatedRegressor(
            gate=gate,
            family="poisson",
            gate_features=["age"],
            expert_features=["power"],
            n_starts=4,
            random_state=0,
        )
        fits[gate] = regressor.fit(X, claims, offset=log_years)
        print(f"{gate:10} {regressor.status_.name:10} BIC {regressor.bic_:.1f}")
    best = min(fits.values(), key=lambda fit: fit.bic_)
    print(best.summary())

    driver = pd.DataFrame({"age": [25.0, 70.0], "power": [150.0, 150.0]})
    print("claims per year:", best.predict(driver, offset=0.0).round(3))
    print("in five years, 90 %:", best.predict_interval(driver, offset=np.log([5.0, 5.0])).tolist())


if __name__ == "__main__":
    main()
