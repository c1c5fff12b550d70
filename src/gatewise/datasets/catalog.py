"""The shipped data sets: what they are, where they come from, and how to load one.

Each is a CSV file beside this module with the values and the column names of the R package named as its source;
`Dataset.note` says what was changed.
"""

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from gatewise.exceptions import InputError
from gatewise.messages import choose, shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Dataset", "csv_bytes", "load", "names"]


@dataclass(frozen=True)
class _Entry:
    title: str
    target: str
    features: tuple[str, ...]
    source: str
    citation: str
    licence_note: str
    note: str


@dataclass(frozen=True)
class Dataset:
    """A table and where it comes from.

    Attributes:
        name: the name to load it by.
        title: what it is, in one line.
        frame: the table.
        target: the column that is usually explained.
        features: the columns that usually explain it.
        source: where the values were taken from.
        citation: what to cite.
        licence_note: on what terms the source distributes it.
        note: what the columns mean, and what was changed.
    """

    name: str
    title: str
    frame: "pd.DataFrame"
    target: str
    features: tuple[str, ...]
    source: str
    citation: str
    licence_note: str
    note: str


_MIXTOOLS_LICENCE = "Measurements from the cited work, distributed with the R package mixtools (GPL >= 2)."

_ENTRIES = {
    "tone": _Entry(
        title="Tone perception of a trained musician",
        target="tuned",
        features=("stretchratio",),
        source="R package mixtools, data set tonedata (copied there from the R package fpc by Christian Hennig)",
        citation="Cohen, E. A. (1980). Inharmonic tone perception. Unpublished PhD dissertation, Stanford University.",
        licence_note=_MIXTOOLS_LICENCE,
        note=(
            "150 trials of one musician, who tuned a tone to the octave above a fundamental whose electronic overtones "
            "were stretched: stretchratio is the stretching ratio (2 is the harmonic pattern), tuned the ratio of the "
            "adjusted tone to the fundamental (2 is the octave)."
        ),
    ),
    "ethanol": _Entry(
        title="Ethanol fuel in a single-cylinder engine",
        target="Equivalence",
        features=("NO",),
        source="R package mixtools, data set NOdata",
        citation=(
            "Brinkman, N. D. (1981). Ethanol fuel: a single-cylinder engine study of efficiency and exhaust emissions. "
            "S.A.E. Transactions, 68."
        ),
        licence_note=_MIXTOOLS_LICENCE,
        note=(
            "88 runs: NO is the peak nitrogen oxide emission, Equivalence the equivalence ratio of the engine at "
            "compression ratios from 7.5 to 18. Equivalence is the target in Hurn, Justel and Robert (2003), "
            "Estimating mixtures of regressions, Journal of Computational and Graphical Statistics 12(1), 55-79."
        ),
    ),
    "co2": _Entry(
        title="Gross national product and carbon dioxide of 28 countries, 1996",
        target="CO2",
        features=("GNP",),
        source="R package mixtools, data set CO2data",
        citation=(
            "Hurn, M., Justel, A. and Robert, C. P. (2003). Estimating mixtures of regressions. Journal of "
            "Computational and Graphical Statistics 12(1), 55-79."
        ),
        licence_note=_MIXTOOLS_LICENCE,
        note=(
            "GNP is the gross national product per head in 1996, CO2 the estimated carbon dioxide emission per head in "
            "the same year, country an abbreviation of the country."
        ),
    ),
    "aphids": _Entry(
        title="Tobacco plants infected by a virus that aphids spread",
        target="plntsInf",
        features=("aphRel",),
        source="R package mixreg, data set aphids (courtesy of Gilles Boiteau and George Tai)",
        citation=(
            "Boiteau, G., Singh, M., Singh, R. P., Tai, G. C. C. and Turner, T. R. (1998). Rate of spread of PVY-n by "
            "alate Myzus persicae (Sulzer) from infected to healthy plants under laboratory conditions. Potato "
            "Research 41, 335-344."
        ),
        licence_note=(
            "Distributed with the R package mixreg (GPL >= 2), which asks that published work using these data cites "
            "the paper."
        ),
        note=(
            "51 experiments: aphRel aphids were released in a flight chamber with 12 infected and 69 healthy tobacco "
            "plants, and plntsInf of the healthy ones were infected."
        ),
    ),
    "temperature": _Entry(
        title="Global annual temperature anomalies, land stations, 1880-2015",
        target="AnnualAnomaly",
        features=("Year",),
        source=(
            "R package meteorits, data set tempanomalies (taken there from "
            "https://cdiac.ess-dive.lbl.gov/ftp/trends/temp/hansen/gl_land.txt)"
        ),
        citation=(
            "NASA Goddard Institute for Space Studies: global annual temperature anomalies (land meteorological "
            "stations), 1880-2015, as distributed with the R package meteorits."
        ),
        licence_note="Distributed with the R package meteorits (GPL >= 3).",
        note=(
            "AnnualAnomaly is in degrees Celsius relative to the mean of 1951-1980, 5-YearMean its mean over five "
            "years. The source writes -99.99 where that mean could not be computed (1880, 1881, 2014 and 2015); here "
            "these four fields are empty, that is missing."
        ),
    ),
    "npreg": _Entry(
        title="Artificial data: two latent classes of normal and Poisson regressions",
        target="yn",
        features=("x", "x_squared"),
        source="R package flexmix, data set NPreg (simulated there by ExNPreg(100) after set.seed(2602))",
        citation=(
            "Leisch, F. (2004). FlexMix: a general framework for finite mixture models and latent class regression in "
            "R. Journal of Statistical Software 11(8), 1-18."
        ),
        licence_note="Simulated data, distributed with the R package flexmix (GPL >= 2).",
        note=(
            "200 rows: x is uniform on [0, 10], yn a normal, yp a Poisson and yb a binary target, class the latent "
            "class, id1 and id2 groupings. The column x_squared = x * x is not in the source; it was added so that the "
            "quadratic regression can be fitted by naming columns."
        ),
    ),
    "patent": _Entry(
        title="Patents and research spending of 70 pharmaceutical and biomedical companies, 1976",
        target="Patents",
        features=("lgRD",),
        source=(
            "R package flexmix, data set patent (taken there from the R&D Master File of the National Bureau of "
            "Economic Research)"
        ),
        citation=(
            "Wang, P., Cockburn, I. M. and Puterman, M. L. (1998). Analysis of patent data: a "
            "mixed-Poisson-regression-model approach. Journal of Business and Economic Statistics 16(1), 27-41."
        ),
        licence_note=(
            "Public data of the cited work, distributed with the R package flexmix (GPL >= 2). The master file is "
            "described in Hall, Cummins, Laderman and Mundy (1988), NBER Technical Working Paper 72."
        ),
        note=(
            "Patents is the number of patents of a company, lgRD the natural logarithm of its spending on research and "
            "development in millions of dollars, RDS that spending divided by sales. Blanks around the names of the "
            "companies were left out; the source calls one of them ????."
        ),
    ),
}


def names() -> list[str]:
    """The names of the shipped data sets, sorted.

    Example:
        >>> names()
        ['aphids', 'co2', 'ethanol', 'npreg', 'patent', 'temperature', 'tone']
    """
    return sorted(_ENTRIES)


def _entry(name: str) -> _Entry:
    if name not in _ENTRIES:
        raise InputError(f"there is no data set {shown(name)}: {choose(name, names())}")
    return _ENTRIES[name]


def csv_bytes(name: str) -> bytes:
    """The CSV file of a data set.

    Args:
        name: one of `names()`.

    Raises:
        InputError: there is no data set of that name.
    """
    _entry(name)
    return resources.files("gatewise.datasets").joinpath("data", f"{name}.csv").read_bytes()


def load(name: str) -> Dataset:
    """A shipped data set.

    Args:
        name: one of `names()`.

    Raises:
        InputError: there is no data set of that name; the message lists those that are there.

    Example:
        >>> tone = load("tone")
        >>> tone.frame.shape, tone.target, tone.features
        ((150, 2), 'tuned', ('stretchratio',))
    """
    import pyarrow as pa
    import pyarrow.csv

    entry = _entry(name)
    # No thread of Arrow's may still hold the bytes when the process ends: it would die of SIGABRT.
    options = pyarrow.csv.ReadOptions(use_threads=False)
    frame = pyarrow.csv.read_csv(pa.BufferReader(csv_bytes(name)), read_options=options).to_pandas(use_threads=False)
    return Dataset(name=name, frame=frame, **vars(entry))
