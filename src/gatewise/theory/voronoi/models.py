"""Which models a loss belongs to: each check says why a truth does not fit, or None."""

from collections.abc import Callable

from gatewise.theory.mixing_measure import MixingMeasure

__all__ = ["all_of", "experts", "families", "flat", "gates", "joint", "needs", "perturbed", "unnormalised"]


def flat(truth: MixingMeasure) -> str | None:
    """Gates with one level."""
    return "the gate is hierarchical: take a loss of nested measures" if truth.groups else None


def needs(*blocks: str) -> Callable[[MixingMeasure], str | None]:
    """Atoms with these entries."""

    def misfit(truth: MixingMeasure) -> str | None:
        missing = [name for name in blocks if name not in truth.parameters]
        return f"it needs {', '.join(missing)}, and the atoms have {', '.join(truth.parameters)}" if missing else None

    return misfit


def gates(*names: str) -> Callable[[MixingMeasure], str | None]:
    """Gates of these names."""

    def misfit(truth: MixingMeasure) -> str | None:
        return None if truth.gate in names else f"it is for the gates {', '.join(names)}, not {truth.gate!r}"

    return misfit


def families(*names: str) -> Callable[[MixingMeasure], str | None]:
    """Families of these names."""

    def misfit(truth: MixingMeasure) -> str | None:
        return None if truth.family in names else f"it is for the families {', '.join(names)}, not {truth.family!r}"

    return misfit


def experts(*names: str) -> Callable[[MixingMeasure], str | None]:
    """Experts of these names."""

    def misfit(truth: MixingMeasure) -> str | None:
        return None if truth.experts in names else f"it is for {' or '.join(names)} experts, not {truth.experts!r}"

    return misfit


def perturbed(truth: MixingMeasure) -> str | None:
    """The cosine gates, perturbed or not."""
    return None if truth.gate in ("cosine", "perturbed_cosine") else f"it is for cosine gates, not {truth.gate!r}"


def unnormalised(truth: MixingMeasure) -> str | None:
    """The sigmoid gate without normalisation."""
    if truth.gate == "sigmoid" and truth.options.get("normalised", True) is False:
        return None
    return "it is for the sigmoid gate without normalisation (normalised=False)"


def joint(truth: MixingMeasure) -> str | None:
    """The Gaussian gate as a density of the inputs."""
    return None if truth.gate == "gaussian" else f"it is for the joint Gaussian gate, not {truth.gate!r}"


def all_of(*checks: Callable[[MixingMeasure], str | None]) -> Callable[[MixingMeasure], str | None]:
    """One level, and everything else that is asked for."""

    def misfit(truth: MixingMeasure) -> str | None:
        return next((reason for check in (flat, *checks) if (reason := check(truth)) is not None), None)

    return misfit
