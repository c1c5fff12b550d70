"""Every study of the catalogue can be run, and says where its values come from."""

import functools

import pytest

from gatewise.study.design import catalogue, read_design
from gatewise.study.measures import MEASURES
from gatewise.study.replicate import Laboratory, Row, Task
from gatewise.study.tables import Method

NAMES = catalogue()
# As they are, the methods of a study take seconds to half a minute; in a few steps from one start they do the same.
FEW = 3
# Dear in a few steps too, and like its smaller sisters.
DEAR = "perturbed-cosine-gate"
RUNS = [
    pytest.param(name, length, marks=pytest.mark.slow) if length == "whole" or name == DEAR else (name, length)
    for name in NAMES
    for length in ("short", "whole")
]


def shortened(method: Method) -> Method:
    """The method with few steps from one start."""
    starts = method.starts.model_copy(update={"near": min(method.starts.near, 1), "data": min(method.starts.data, 1)})
    options = {**method.options, "max_iter": min(method.options.get("max_iter", FEW), FEW)}
    return method.model_copy(update={"starts": starts.model_copy(update={"retries": 0}), "options": options})


@functools.lru_cache
def rows(name: str, length: str) -> tuple[Row, ...]:
    """One replicate of each method at the smallest size."""
    design = read_design(name)
    if length == "short":
        design = design.model_copy(update={"methods": [shortened(method) for method in design.methods]})
    bench = Laboratory(design)
    return tuple(bench.run(Task(method.name, design.all_sizes()[0], 0)) for method in design.methods)


def test_every_published_simulation_has_a_design() -> None:
    papers = " ".join(read_design(name).paper for name in NAMES)
    for number in (
        "2305.03288",
        "2309.13850",
        "2310.14188",
        "2401.13875",
        "2405.14131",
        "2402.02952",
        "2503.03213",
        "2405.13997",
        "2402.03226",
        "2305.07572",
    ):
        assert number in papers


@pytest.mark.parametrize(("name", "length"), RUNS)
def test_one_replicate_of_each_method_can_be_fitted(name: str, length: str) -> None:
    for row in rows(name, length):
        assert row["status"] != "FAILED", row["error"]


@pytest.mark.parametrize(("name", "length"), RUNS)
def test_what_is_expected_is_measured(name: str, length: str) -> None:
    design = read_design(name)
    losses = {f"loss.{loss.name}" for loss in design.losses}
    for expected in design.expected:
        assert expected.measure.startswith(MEASURES)
        columns = {key for row in rows(name, length) if expected.method in (None, row["method"]) for key in row}
        # Cells of one atom, or of several, need not occur in one replicate; what is measured of them has one name.
        parameter = expected.measure.partition(".")[2]
        if expected.measure.startswith("weighted."):
            assert expected.measure in columns or not any(name.startswith("weighted.") for name in columns)
            continue
        known = losses | {f"{kind}.{parameter}" for kind in ("exact", "over")} & columns
        assert expected.measure in known or known & {f"exact.{parameter}", f"over.{parameter}"}, expected.measure


@pytest.mark.parametrize("name", NAMES)
def test_slopes_have_sources(name: str) -> None:
    for expected in read_design(name).expected:
        assert (expected.published is None) == (not expected.published_source)
        assert expected.proved is None or expected.proved_source
        assert expected.modulus is None or expected.modulus_source
        said = (expected.published, expected.proved, expected.proved_text, expected.modulus, expected.modulus_source)
        assert any(part not in (None, "") for part in said), expected.measure


@pytest.mark.parametrize("name", NAMES)
def test_provenance_is_complete(name: str) -> None:
    design = read_design(name)
    assert design.notes
    assert design.provenance
    items = [row.item for row in design.provenance]
    assert len(set(items)) == len(items)
    for row in design.provenance:
        assert row.item.strip()
        assert row.chosen.strip()
        assert row.status != "read in the paper" or row.paper, row.item
        assert row.status != "read in the code" or row.code, row.item


@pytest.mark.parametrize("name", [name for name in NAMES if name != "quick"])
def test_slopes_can_count(name: str) -> None:
    design = read_design(name)
    sizes = design.all_sizes()
    assert len(sizes) >= design.slopes.sizes >= 10
    assert design.replicates >= design.slopes.replicates >= 20
    assert sizes[-1] / sizes[0] >= 0.99 * 10**design.slopes.decades
