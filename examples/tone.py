"""Tone perception: fit two experts, read the fit, predict, and write the report.

Run it anywhere: `python examples/tone.py` prints the tables and writes tone-report.html beside you.
"""

import numpy as np
import pandas as pd

from gatewise import GatedRegressor, write_report
from gatewise.datasets import load


def main() -> None:
    """Fit, read, predict, report."""
    tone = load("tone")
    print(tone.title)
    print(tone.citation)
    X, y = tone.frame[list(tone.features)], tone.frame[tone.target]

    regressor = GatedRegressor(n_experts=2, random_state=0).fit(X, y)
    print(regressor.summary())

    octave, overtones = regressor.expert_means(pd.DataFrame({"stretchratio": [2.5]}))[0]
    print(f"At a stretch ratio of 2.5 one habit tunes to {octave:.3f}, the other to {overtones:.3f}.")

    owner = regressor.responsibilities(X, y).argmax(axis=1)
    for expert, rows in enumerate(np.bincount(owner, minlength=2)):
        print(f"Expert {expert + 1} most probably made {rows} of the {len(y)} trials.")

    write_report(regressor, "tone-report.html", X, y, data_name=tone.name)
    print("tone-report.html")


if __name__ == "__main__":
    main()
