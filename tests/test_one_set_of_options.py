"""What a fit can be told stands once: estimators, command line and docstrings have its names, defaults and words."""

import dataclasses
import inspect
import re

import pytest
from typer.models import OptionInfo

from gatewise import GatedClassifier, GatedRegressor
from gatewise.cli.fit import ObjectiveChoice, StandardiseChoice, fit
from gatewise.cli.words import OPTIONS
from gatewise.fit import FitOptions
from gatewise.spec.options import PlainFitOptions, choices_of, help_of

PLAIN = [option.name for option in dataclasses.fields(PlainFitOptions)]
DEFAULTS = {option.name: option.default for option in dataclasses.fields(FitOptions)}
# What estimators and the command line say in their own words, or leave alone.
ESTIMATORS_LEAVE = {"em_steps", "solver", "seed"}
CLASSIFIERS_LEAVE = ESTIMATORS_LEAVE | {"scale_floor", "variance_prior", "objective"}
COMMAND_LEAVES = {"em_steps", "solver", "n_threads", "device", "dtype", "verbose"}


def described(cls, section):
    """The entries of a docstring's section by name, each in one line."""
    text = inspect.getdoc(cls).partition(f"\n{section}:\n")[2].partition("\n\n")[0]
    return {
        entry.partition(": ")[0]: " ".join(entry.partition(": ")[2].split())
        for entry in map(str.strip, re.split(r"\n(?=    \w)", text))
    }


@pytest.mark.parametrize(
    ("cls", "section", "left"),
    [
        (FitOptions, "Attributes", set()),
        (GatedRegressor, "Args", ESTIMATORS_LEAVE),
        (GatedClassifier, "Args", CLASSIFIERS_LEAVE),
    ],
)
def test_names_defaults_and_words_are_the_same(cls, section, left):
    words, parameters = described(cls, section), inspect.signature(cls).parameters
    for name in set(PLAIN) - left:
        assert words[name].startswith(f"{help_of(name)}."), name
    for name in DEFAULTS.keys() & parameters.keys():
        assert parameters[name].default is DEFAULTS[name] or parameters[name].default == DEFAULTS[name]
    assert not left & parameters.keys()


def test_the_command_has_the_same_defaults_and_help():
    command = inspect.signature(fit).parameters
    for name in set(PLAIN) - COMMAND_LEAVES:
        option = OPTIONS["random_state" if name == "seed" else name].removeprefix("--").replace("-", "_")
        told = next(each for each in command[option].annotation.__metadata__ if isinstance(each, OptionInfo))
        assert told.help.lower() == f"{help_of(name)}.".lower()
        assert command[option].default == DEFAULTS[name]


def test_choices_of_the_command_are_those_of_the_fit():
    for choice, name in ((ObjectiveChoice, "objective"), (StandardiseChoice, "standardise")):
        assert tuple(choice) == choices_of(name)
