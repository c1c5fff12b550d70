"""Voronoi losses between mixing measures, with the infimum over what a gate leaves open."""

from typing import get_args

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.voronoi.build import Cells, SymmetryChoice, check_pair
from gatewise.theory.voronoi.kinds import KINDS, Exponents, LossKind, loss_kinds
from gatewise.theory.voronoi.nested import nested_loss
from gatewise.theory.voronoi.result import VoronoiLoss
from gatewise.theory.voronoi.single import flat_loss

__all__ = ["voronoi_loss"]

# The top-K papers write these two with separate norms.
_TOP_K_FORMS = {"D1": "top_k_D1", "D2": "top_k_D2"}


def voronoi_loss(
    estimate: MixingMeasure | MixtureOfExperts,
    truth: MixingMeasure | MixtureOfExperts,
    kind: str = "D2",
    r: Exponents | None = None,
    top_k: int | None = None,
    symmetry: SymmetryChoice = "infimum",
    cells: Cells = "full",
) -> VoronoiLoss:
    """How far an estimate is from the truth, in the loss in which a rate is proved.

    Each fitted atom belongs to the cell of the true atom that is nearest to it (Euclidean distance of all parameters
    but the bias, ties to the lowest index). Of each cell the loss has the distances of its atoms from the true one, to
    powers that depend on how many they are, and the difference of the weights.

    Parameters that the model determines only up to a translation are compared up to that: with `symmetry="infimum"` the
    loss is the infimum over all copies of the truth, with the cells of each copy. The factor e^t₀ of the weights is a
    weighted median, and only the weight terms have it. The translation of the slopes is in convex terms as long as the
    cells stay; all cells that occur are gone through, for one coordinate along the line, for more by a branch and bound
    over at most 20,000 assignments (beyond that from several starts, and `exact` is False). Translations at which an
    atom is as near to one true atom as to another count as limits from both sides.

    The estimate's own weights stand before the parameter terms, so the papers' loss is multiplied by e^t₀ if t₀ is
    added to all its biases, which does not change its density: it depends on the expert that is set to 0.
    `symmetry="estimate"` takes the infimum over the copies of the estimate instead, which is free of that and should be
    used where fits are compared; near the truth the two are the same but for that factor.

    Scales are divided out: β₁/τ and exp(β₀/τ) of a free temperature, β₁/‖β₁‖ of a cosine gate, unless the kind says
    raw. Permutations have no effect, because nothing depends on the order of the atoms. A tree's experts stay in their
    groups. For top-K truths, or with `top_k`, the loss is the largest sum over K true cells; D1 and D2 are then those
    of arXiv:2309.13850 (recalled, to be checked against the paper), with separate norms. With K = 1 selected without
    the biases every bias is free: the weights of each cell are then those of the truth.

    Args:
        estimate: a mixing measure, or a model.
        truth: a mixing measure, or a model, of the same gate, experts and family.
        kind: a name in `loss_kinds()`, with formula, source and how sure it is: "D1" and "D2" (arXiv:2305.03288),
            "D2_sharp" (ours), "L1", "multinomial_D1", "laplace_D2" and others.
        r: of losses with r̄, r̄ of a cell of m atoms: a number, a function, or a mapping from some m; where nothing is
            given 2m (see `r_bar`). Of losses with a power r ≥ 1 this power.
        top_k: K; None for the truth's own, or all cells.
        symmetry: "infimum" over copies of the truth as in the papers, "estimate" over copies of the estimate, or
            "none" for the parameters as they are.
        cells: whether all parameters decide on the cells, "full", or those of the expert alone, "expert", as in the
            first version of arXiv:2305.03288.

    Raises:
        InputError: the kind is unknown or not for this model, the two are of different models, or an option is out of
            range; the message says why.

    Example:
        >>> from gatewise.theory import MixingMeasure, voronoi_loss
        >>> truth = MixingMeasure(
        ...     [0.5, 1.0],
        ...     {"gate_slope": [2.0, 0.0], "expert_slope": [1.0, -1.0], "expert_intercept": [0.0, 1.0],
        ...      "variance": [0.1, 0.2]},
        ... )
        >>> voronoi_loss(truth.translated(bias=3.0, gate_slope=-7.0), truth, "D1").value < 1e-12
        True
        >>> other = truth.with_parameters({"expert_intercept": [0.1, 1.0]})
        >>> round(voronoi_loss(other, truth, "D1").value, 6)
        0.05
    """
    mine = MixingMeasure.of(estimate) if isinstance(estimate, MixtureOfExperts) else estimate
    true = MixingMeasure.of(truth) if isinstance(truth, MixtureOfExperts) else truth
    loss, top = _chosen(kind, true, top_k)
    _check(loss, mine, true, r, symmetry, cells)
    if loss.nested:
        return nested_loss(mine, true, loss, r, top, symmetry, cells)
    return flat_loss(mine, true, loss, r, top, symmetry, cells)


def _chosen(kind: str, truth: MixingMeasure, top_k: int | None) -> tuple[LossKind, int]:
    """The kind, of which there may be a sparse form, and K; 0 for all cells."""
    most = truth.n_active if top_k is None else top_k
    if most is None:
        if KINDS[kind].sparse:
            raise InputError(
                f"the loss {kind} is one of the K largest cells, and the truth's gate is dense: give top_k"
            )
        return KINDS[kind], 0
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= truth.n_atoms:
        raise InputError(
            f"top_k must be a whole number between 1 and the truth's {truth.n_atoms} atoms, not {shown(most)}"
        )
    sparse = KINDS[_TOP_K_FORMS.get(kind, kind)]
    return (sparse if sparse.misfit(truth) is None else KINDS[kind]), most


def _check(
    kind: LossKind, estimate: MixingMeasure, truth: MixingMeasure, r: Exponents | None, symmetry: str, cells: str
) -> None:
    for name, value, allowed in (("symmetry", symmetry, get_args(SymmetryChoice)), ("cells", cells, get_args(Cells))):
        if value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {shown(value)}")
    check_pair(estimate, truth)
    reason = kind.misfit(truth)
    if reason is not None:
        fitting = ", ".join(loss_kinds(truth)) or "none"
        raise InputError(f"the loss {kind.name} does not fit this truth: {reason}. Losses that fit: {fitting}")
    if r is not None and not kind.uses_r:
        raise InputError(f"the loss {kind.name} has no free exponent: leave out r")
