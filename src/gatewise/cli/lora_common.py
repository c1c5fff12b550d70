"""What the commands of `gatewise lora` share."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from gatewise.cli.streams import say
from gatewise.exceptions import GatewiseWarning

__all__ = ["DtypeChoice", "GranularityChoice", "MissingGatesChoice", "quiet", "temperature_of"]


class DtypeChoice(StrEnum):
    """In what the base's weights are loaded."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class GranularityChoice(StrEnum):
    """What chooses together."""

    TOKEN = "token"
    SEQUENCE = "sequence"
    SHARED = "shared"


class MissingGatesChoice(StrEnum):
    """What to do where an adapter has no gate."""

    ERROR = "error"
    ARROW = "arrow"


def temperature_of(value: float | None) -> float | str:
    """The temperature as the library takes it."""
    return "sqrt_d" if value is None else value


@contextmanager
def quiet() -> Iterator[None]:
    """Of warnings only our own are said, in one line each; those of the libraries below are for developers."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", GatewiseWarning)
            yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
    for warning in found:
        say(f"warning: {warning.message}")
