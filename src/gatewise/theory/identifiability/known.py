"""Identities that are in the literature: by which derivatives take part, and where they stand."""

from dataclasses import replace
from re import sub

from gatewise.theory.identifiability.identities import Identity

__all__ = ["with_sources"]

_Terms = frozenset[tuple[str, ...]]


def _terms(*derivatives: str) -> _Terms:
    return frozenset(tuple(sorted(derivative.split())) for derivative in derivatives)


_SOFTMAX = frozenset({"softmax", "top_k", "modified_softmax", "hierarchical"})
_TEMPERED = frozenset({"dense_to_sparse"})
_COSINE = frozenset({"cosine"})
_SIGMOID = frozenset({"sigmoid"})
_QUADRATIC = frozenset({"quadratic"})
_ANY: frozenset[str] = frozenset()

_KNOWN: tuple[tuple[_Terms, frozenset[str], str, str], ...] = (
    (_terms("b b", "s"), _ANY, "gaussian", "location and scale of the Gaussian: arXiv:2505.10860, §2.2"),
    (_terms("a", "β₁ b"), _SOFTMAX, "", "gate and expert: arXiv:2505.10860, §2.2, with a Gaussian density"),
    (_terms("a", "β₁ b"), _TEMPERED, "", "gate and expert, scaled by τ: arXiv:2401.13875, recalled"),
    (_terms("β₁", "τ"), _TEMPERED, "", "temperature: arXiv:2401.13875, recalled"),
    (_terms("β₁", "β₁"), _COSINE, "", "β₁ᵀ ∂/∂β₁ = 0: arXiv:2405.14131, in the setting of Theorem 2"),
    (_terms("β₁ b", "β₀ a"), _SIGMOID, "", "gate and expert: arXiv:2405.13997, in the setting of Theorem 4"),
    (_terms("a", "β₁"), _SIGMOID | _SOFTMAX, "", "input-free experts: arXiv:2405.13997, in the setting of Theorem 3"),
    (_terms("A", "b₁ b₁"), _QUADRATIC, "", "quadratic and linear terms of the gate: computed, arXiv:2410.11222's gate"),
)


def with_sources(identity: Identity, gate: str, family: str | None) -> Identity:
    """The identity with its place in the literature, if it is known there."""
    stripped = frozenset(
        tuple(sorted(sub(r"\[.*?\]", "", label) for label in derivative)) for derivative in identity.derivatives
    )
    for terms, gates, needed, source in _KNOWN:
        if stripped == terms and (not gates or gate in gates) and (not needed or needed == family):
            return replace(identity, source=source)
    return identity
