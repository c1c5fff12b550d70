"""The page on simulated rates says what the kept slopes say, and the kept slopes are those of today's designs."""

from tests.study.simulated import PAGE, entries, outdated, with_tables


def test_the_page_has_the_tables_of_the_kept_slopes():
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page
    assert entries()


def test_no_kept_slope_belongs_to_a_design_that_was_changed():
    assert outdated() == []


def test_every_slope_has_its_interval():
    for entry in entries().values():
        for slope in entry["slopes"]:
            estimate = slope["slope"]
            assert estimate is None or estimate["low"] <= estimate["value"] <= estimate["high"]
            assert estimate is not None or slope["reason"]
