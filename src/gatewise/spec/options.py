"""What a fit can be told in plain data: names, defaults, choices and help, in one place.

`FitOptions`, the estimators and `gatewise fit` take them from here. Nothing is imported but the standard library, so
that the help of a command needs no torch.
"""

from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["PlainFitOptions", "choices_of", "help_of"]


def _option(default: Any, text: str, *choices: str) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True, eq=False)
class PlainFitOptions:
    """The options of a fit that are numbers, words and truth values; `gatewise.fit.FitOptions` adds the others.

    What each means stands in its metadata, and is what `FitOptions`, the estimators and the command line say of it. The
    class itself has the defaults.

    Example:
        >>> PlainFitOptions.max_iter, help_of("max_iter"), choices_of("objective")
        (500, 'solver iterations per start', ('likelihood', 'least_squares'))
    """

    n_starts: int | str = _option(
        "auto",
        'how many starts are followed to their end, the best being kept; "auto" goes on until the evidence is in '
        "that no better optimum is left, up to a limit of counted work",
    )
    em_steps: int = _option(3, "EM steps before the second-order solver takes over")
    solver: str = _option(
        "auto",
        '"newton" (exact Hessian, trust region), "quasi-newton" (L-BFGS-B), or "auto": Newton; above 600 parameters '
        "after an approach by L-BFGS-B; above 3,000 L-BFGS-B alone",
        *("auto", "newton", "quasi-newton"),
    )
    tol: float = _option(
        1e-8, "bound on the largest component of the gradient of the mean objective, in internal units"
    )
    max_iter: int = _option(500, "solver iterations per start")
    time_limit: float | None = _option(
        None, "seconds for the whole fit, after which the best so far is returned; without a limit by default"
    )
    scale_floor: float = _option(
        1e-3,
        "smallest spread of an expert (σ, or what the family has for it), as a share of that of the one-expert fit; "
        "lowered, and said so, where many rows agree more closely",
    )
    gate_ridge: float = _option(
        0.0,
        "λ of the log prior −λ/2 Σᵢ ‖βᵢ − β̄‖² on the gate's slopes in standardised units, for gates that separate",
    )
    expert_ridge: float = _option(
        0.0,
        "λ of the log prior −λ/2 Σ a² on the experts' slopes in standardised units, or on all weights of a network's "
        "experts, for experts that separate",
    )
    variance_prior: tuple[float, float] | None = _option(
        None,
        "a pair (a, b): an inverse-gamma prior on each σ² relative to the one-expert residual variance, density ∝ "
        "(σ²)^(−a−1) exp(−b/σ²), for scales that shrink without end; none by default",
    )
    n_jobs: int | None = _option(None, "workers for the starts, −1 for all cores; the result does not depend on them")
    n_threads: int = _option(1, "threads for one pass over the data; the bits of the result do not depend on it")
    device: str = _option("cpu", 'torch device; other than "cpu" takes the plain torch path')
    dtype: str = _option("float64", '"float64", or "float32" by the plain torch path', "float64", "float32")
    objective: str = _option(
        "likelihood",
        '"likelihood", or "least_squares" on the mixture\'s mean Σᵢ πᵢ(x) E[y | expert i]',
        *("likelihood", "least_squares"),
    )
    standardise: str = _option(
        "auto",
        '"auto": gate and experts are fitted on standardised inputs, which is undone where they are equivariant and '
        'stored as a layer of the model where they are not; "off": they are fitted on the inputs as they are',
        *("auto", "off"),
    )
    seed: int = _option(0, "the key of everything random")
    verbose: bool = _option(
        False, "print a line per start to the standard error: on a terminal, in a notebook, into a log"
    )


_METADATA = {each.name: each.metadata for each in fields(PlainFitOptions)}


def help_of(name: str) -> str:
    """What the option of that name means, in one sentence without its first capital and its full stop."""
    return _METADATA[name]["help"]


def choices_of(name: str) -> tuple[str, ...]:
    """The words that the option of that name may be; () if it is no choice."""
    return _METADATA[name]["choices"]
