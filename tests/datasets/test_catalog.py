"""The shipped data sets are what their sources say."""

import numpy as np
import pytest

from gatewise import datasets
from gatewise.exceptions import InputError

# Rows, columns, and the sums of the target and of the first feature over the files exported from the R packages that
# are named as sources (mixtools 2.0.0.1, mixreg 2.0-10, meteorits 0.1.1, flexmix 2.3-20), summed by another program.
FACTS = {
    "tone": (150, 2, 310.832, 324.78),
    "ethanol": (88, 2, 81.53, 172.249),
    "co2": (28, 3, 254.3, 533.9),
    "aphids": (51, 2, 278, 5614),
    "temperature": (136, 3, 1.69, 264860),
    "npreg": (200, 8, 5721.3957933414, 1006.1550671025),
    "patent": (70, 4, 1642, 91.8357),
}


def test_names():
    assert datasets.names() == sorted(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_a_data_set_is_complete(name):
    dataset = datasets.load(name)
    assert dataset.name == name
    assert dataset.frame.shape == FACTS[name][:2]
    sums = [dataset.frame[column].sum() for column in (dataset.target, dataset.features[0])]
    # The sums are known to fourteen digits at most.
    np.testing.assert_allclose(sums, FACTS[name][2:], rtol=1e-12)
    assert {dataset.target, *dataset.features} <= set(dataset.frame.columns)
    assert np.isfinite(dataset.frame[[dataset.target, *dataset.features]].to_numpy()).all()
    assert all([dataset.title, dataset.source, dataset.citation, dataset.licence_note, dataset.note])


def test_unknown_names_are_refused():
    with pytest.raises(
        InputError, match="there is no data set 'iris': choose one of aphids, co2, ethanol, npreg, patent, temp"
    ):
        datasets.load("iris")
    with pytest.raises(InputError, match="there is no data set"):
        datasets.csv_bytes("../catalog")


def test_the_code_for_missing_is_not_taken_for_a_temperature():
    mean = datasets.load("temperature").frame["5-YearMean"]
    years = datasets.load("temperature").frame["Year"]
    assert years[mean.isna()].tolist() == [1880, 1881, 2014, 2015]
    np.testing.assert_allclose(mean.sum(), 0.72, rtol=1e-12)


def test_the_added_square_is_the_square():
    frame = datasets.load("npreg").frame
    assert (frame["x_squared"] == frame["x"] * frame["x"]).all()


def test_companies_have_no_blanks_around_their_names():
    companies = datasets.load("patent").frame["Company"]
    assert companies.is_unique
    assert (companies == companies.str.strip()).all()
