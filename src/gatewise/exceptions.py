"""Every error and warning that Gatewise raises on purpose.

The command line prints an `InputError` on one line and exits with code 2; anything else is a defect.
"""

__all__ = [
    "DegenerateExpertWarning",
    "EqualLogitsWarning",
    "FitWarning",
    "GatewiseError",
    "GatewiseWarning",
    "InputError",
    "MissingExtraError",
    "ModelFolderError",
    "NonFiniteWarning",
    "OutputError",
    "SeparationWarning",
    "UntrainedGateWarning",
    "UpcyclingWarning",
    "WeakSearchWarning",
]


class GatewiseError(Exception):
    """Root of the library's errors."""


class InputError(GatewiseError, ValueError):
    """The data or the options cannot be used: the message says what is wrong, the evidence, and what to do."""


class MissingExtraError(InputError, ImportError):
    """A part of the library needs packages that are not installed: the message says how to install them."""


class ModelFolderError(InputError):
    """A model folder is incomplete, damaged, tampered with, or written by a newer version."""


class OutputError(GatewiseError, OSError):
    """An output could not be written; nothing was left half written."""


class GatewiseWarning(UserWarning):
    """Root of the library's warnings."""


class FitWarning(GatewiseWarning):
    """A fit ended with a status other than `CONVERGED`; the message is the status's sentence with its evidence."""


class SeparationWarning(FitWarning):
    """The gate or an expert separates: its coefficients diverge and have no standard errors."""


class DegenerateExpertWarning(FitWarning):
    """An expert sits on the variance floor or holds too few rows."""


class WeakSearchWarning(FitWarning):
    """A maximum was found, but the search is not complete: a better one may be left."""


class NonFiniteWarning(GatewiseWarning):
    """Some samples of a network's answer are NaN or infinite: their inputs are, or they left the range of the type."""


class UntrainedGateWarning(GatewiseWarning):
    """Gates of adapters have no direction, or hardly moved in their training: they choose nothing."""


class EqualLogitsWarning(GatewiseWarning):
    """A router of a sparse layer was not initialised: it would send every token to the same experts."""


class UpcyclingWarning(GatewiseWarning):
    """A sparse layer does not do all that the MLP did in training, or its router gets no gradient."""
