"""The losses of gates with one level: formulas, sources, and the models that they belong to."""

from collections.abc import Callable

import numpy as np

from gatewise.theory.voronoi.kinds import Form, LossKind, Setting, register
from gatewise.theory.voronoi.models import all_of, experts, families, gates, joint, needs, perturbed, unnormalised

__all__ = ["squares_form"]

_LOCATION_SCALE = ("expert_intercept", "variance")


# --- which models

_SOFTMAX = ("softmax", "dense_to_sparse")
_GAUSSIAN_LINEAR = (
    gates(*_SOFTMAX),
    families("gaussian"),
    experts("linear"),
    needs("gate_slope", "expert_slope", *_LOCATION_SCALE),
)


# --- norms


def _all_together(setting: Setting) -> Form:
    return Form((tuple(setting.chart.blocks),), lambda j, m: (1.0,))


def _each(setting: Setting) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in setting.chart.blocks)


def _d2(setting: Setting) -> Form:
    norms = (("gate_slope", "expert_intercept"), ("expert_slope", "variance"), tuple(setting.chart.blocks))

    def exponents(j: int, m: int) -> tuple[float, ...]:
        return (0.0, 0.0, 1.0) if m == 1 else (setting.r_bar(m), 0.5 * setting.r_bar(m), 0.0)

    return Form(norms, exponents)


def _by_block(**rules: Callable[[float], float]) -> Callable[[Setting], Form]:
    """Separate norms: exponent 1 in cells of one atom, else the rule of the block, a function of r̄."""

    def form(setting: Setting) -> Form:
        norms = _each(setting)

        def exponents(j: int, m: int) -> tuple[float, ...]:
            return tuple(1.0 if m == 1 else rules[name](setting.r_bar(m)) for (name,) in norms)

        return Form(norms, exponents)

    return form


def _whole(r: float) -> float:
    return r


def _half(r: float) -> float:
    return 0.5 * r


def _two(r: float) -> float:
    return 2.0


_SEPARATE = _by_block(gate_slope=_whole, expert_slope=_half, expert_intercept=_whole, variance=_half)
_SHARP = _by_block(gate_slope=_two, expert_slope=_two, expert_intercept=_whole, variance=_half)
_ACTIVATED = _by_block(
    gate_slope=_two,
    gate_temperature=_two,
    expert_slope=_two,
    expert_intercept=_whole,
    variance=_half,
)
_LAPLACE = _by_block(gate_centre=_two, expert_slope=_two, expert_intercept=_whole, variance=_half)


def _ones(setting: Setting) -> Form:
    norms = _each(setting)
    return Form(norms, lambda j, m: (1.0,) * len(norms))


def squares_form(setting: Setting) -> Form:
    """Gate and expert apart: exponent 1 in cells of one atom, 2 in larger ones."""
    norms = tuple(part for part in (setting.gate, setting.expert) if part)
    return Form(norms, lambda j, m: (1.0 if m == 1 else 2.0,) * len(norms))


def _separate_squares(setting: Setting) -> Form:
    norms = _each(setting)
    return Form(norms, lambda j, m: (1.0 if m == 1 else 2.0,) * len(norms))


def _powers(setting: Setting) -> Form:
    norms, r = _each(setting), setting.power()
    return Form(norms, lambda j, m: (r,) * len(norms))


def _two_powers(setting: Setting) -> Form:
    norms, r = tuple(part for part in (setting.gate, setting.expert) if part), setting.power()
    return Form(norms, lambda j, m: (r,) * len(norms))


def _gate_and_expert(setting: Setting) -> Form:
    norms = tuple(part for part in (setting.gate, setting.expert) if part)
    return Form(norms, lambda j, m: (1.0,) * len(norms))


def _sigmoid(setting: Setting) -> Form:
    form = squares_form(setting)
    return Form(form.norms, form.exponents, weighted=False)


def _sigmoid_powers(setting: Setting) -> Form:
    norms, r = (("gate_bias",), *_each(setting)), setting.power()
    return Form(norms, lambda j, m: (r if m == 1 else 0.0, *(r,) * (len(norms) - 1)), lambda m: m != 1, weighted=False)


def _sigmoid_dense(setting: Setting) -> Form:
    norms = (("gate_bias",), setting.gate, setting.expert)
    return Form(norms, lambda j, m: (1.0, 1.0, 1.0), lambda m: m == 0, weighted=False)


def _gaussian_gate(setting: Setting) -> Form:
    norms = _each(setting)
    # Type II: the centre is 0, and the slope of the expert then trades with the gate.
    second_type = [not bool(np.any(row)) for row in setting.chart.blocks["gate_centre"]]

    def exponents(j: int, m: int) -> tuple[float, ...]:
        if m == 1:
            return (1.0,) * len(norms)
        whole, half = setting.r_bar(m), 0.5 * setting.r_bar(m)
        rules = {
            "gate_centre": whole,
            "gate_covariance": half,
            "expert_slope": half if second_type[j] else 2.0,
            "expert_intercept": whole,
            "variance": half,
        }
        return tuple(rules[name] for (name,) in norms)

    return Form(norms, exponents)


# --- the table

_RECALLED = "recalled, to be checked against the paper"
_OURS = "ours"

register(
    LossKind(
        "D1",
        "Σᵢ wᵢ ‖(Δβ₁, Δη)‖ + A, all parameters in one norm",
        "arXiv:2305.03288, D₁ (softmax, linear experts, Gaussian); for other models the same form",
        "read in the first version of the paper",
        _all_together,
        all_of(),
    )
)
register(
    LossKind(
        "D2",
        "m = 1 as D1; m > 1: Σᵢ wᵢ (‖(Δβ₁, Δb)‖^r̄(m) + ‖(Δa, Δσ)‖^(r̄(m)/2)) + A",
        "arXiv:2305.03288, D₂; the same formula as D_O in arXiv:2510.12744",
        "read in the first version of the paper; r̄(m) = 2m, for m ≥ 4 by a proof of ours (theory.r_bar)",
        _d2,
        all_of(*_GAUSSIAN_LINEAR),
        uses_r="r̄",
    )
)
register(
    LossKind(
        "D2_separate",
        "m = 1: Σᵢ wᵢ (‖Δβ₁‖ + ‖Δa‖ + |Δb| + |Δσ|) + A; m > 1: the powers r̄, r̄/2, r̄, r̄/2",
        "the separate norms of arXiv:2505.10860, (2.2), equivalent to D2",
        "read there; r̄(m) = 2m, for m ≥ 4 by a proof of ours (theory.r_bar)",
        _SEPARATE,
        all_of(*_GAUSSIAN_LINEAR),
        uses_r="r̄",
    )
)
register(
    LossKind(
        "D2_sharp",
        "as D2_separate, with the powers 2, 2, r̄, r̄/2 in cells with m > 1",
        "Gatewise: in every real solution of the polynomial system of arXiv:2305.03288 Δβ₁ and Δa vanish",
        f"{_OURS}: supported by algebra for one input and by the measured modulus, not proved",
        _SHARP,
        all_of(*_GAUSSIAN_LINEAR),
        uses_r="r̄",
    )
)
register(
    LossKind(
        "top_k_D1",
        "largest sum over K true cells of Σᵢ wᵢ (‖Δβ₁‖ + ‖Δa‖ + |Δb| + |Δσ|) + A",
        "arXiv:2309.13850, D₁",
        f"{_RECALLED}; agrees with the authors' program",
        _ones,
        all_of(*_GAUSSIAN_LINEAR),
        sparse=True,
    )
)
register(
    LossKind(
        "top_k_D2",
        "largest sum over K true cells of the terms of D2_separate",
        "arXiv:2309.13850, D₂",
        f"{_RECALLED}; r̄(m) = 2m, for m ≥ 4 by a proof of ours (theory.r_bar)",
        _SEPARATE,
        all_of(*_GAUSSIAN_LINEAR),
        sparse=True,
        uses_r="r̄",
    )
)
_MULTINOMIAL = all_of(
    families("categorical", "bernoulli"), experts("linear"), needs("gate_slope", "expert_slope", "expert_intercept")
)
register(
    LossKind(
        "multinomial_D1",
        "Σᵢ wᵢ (‖Δβ₁‖^p + Σ_ℓ (‖Δa_ℓ‖^p + |Δb_ℓ|^p)) + A with p = 1 if m = 1, else 2",
        "arXiv:2310.14188, D₁ (regime 1; with cells of one atom the exactly specified case)",
        _RECALLED,
        _separate_squares,
        all_of(_MULTINOMIAL, gates(*_SOFTMAX)),
        by_class=True,
    )
)
register(
    LossKind(
        "multinomial_D2r",
        "Σᵢ wᵢ (‖Δβ₁‖^r + Σ_ℓ (‖Δa_ℓ‖^r + |Δb_ℓ|^r)) + A",
        "arXiv:2310.14188, D₂,ᵣ (regime 2)",
        f"{_RECALLED}; that cells of one atom have the power r too is not known",
        _powers,
        all_of(_MULTINOMIAL, gates(*_SOFTMAX)),
        by_class=True,
        uses_r="r",
    )
)
register(
    LossKind(
        "multinomial_D3",
        "as multinomial_D1, for the modified gate",
        "arXiv:2310.14188, D₃",
        _RECALLED,
        _separate_squares,
        all_of(_MULTINOMIAL, gates("modified_softmax")),
        by_class=True,
    )
)
register(
    LossKind(
        "L1",
        "Σᵢ wᵢ (‖Δβ₁‖^p + ‖Δη‖^p) + A with p = 1 if m = 1, else 2; no dispersions",
        "least squares, arXiv:2402.02952 and arXiv:2503.03213; printed as (17) in arXiv:2405.14124",
        "read in arXiv:2405.14124; as the loss of arXiv:2503.03213 to be checked against the paper",
        squares_form,
        all_of(),
        dispersions=False,
    )
)
register(
    LossKind(
        "L2r",
        "Σᵢ wᵢ (‖Δβ₁‖^r + ‖Δa‖^r + |Δb|^r) + A; no dispersions",
        "least squares with (aᵀx + b)^p, arXiv:2402.02952; printed as (23) in arXiv:2405.14124",
        "read in arXiv:2405.14124; as the loss of arXiv:2402.02952 to be checked against the paper",
        _powers,
        all_of(),
        dispersions=False,
        uses_r="r",
    )
)
_SLOW_TEMPERATURE = "Σᵢ wᵢ (‖Δβ₁‖^r + |Δτ|^r + ‖Δa‖^r + |Δb|^r + |Δσ|^r) + A, w = exp(β₀/τ)"
register(
    LossKind(
        "temperature_Dr",
        _SLOW_TEMPERATURE,
        "arXiv:2401.13875, the loss of its lower bounds",
        f"{_RECALLED}; slopes and temperature are raw, so (cβ₁, cβ₀, cτ) has another loss for each c",
        _powers,
        all_of(gates("dense_to_sparse", "activation_dense_to_sparse"), needs("gate_temperature")),
        raw=True,
        uses_r="r",
    )
)
register(
    LossKind(
        "activation_D2",
        "m = 1: powers 1; m > 1: Σᵢ wᵢ (‖Δβ₁‖² + |Δτ|² + ‖Δa‖² + |Δb|^r̄ + |Δσ|^(r̄/2)) + A",
        "for the activation gate of arXiv:2401.13875, by analogy with D₂ of arXiv:2402.03226",
        "inferred: without the gate's part in it the polynomial system leaves b and σ; the paper's loss is not known",
        _ACTIVATED,
        all_of(
            gates("activation_dense_to_sparse"),
            families("gaussian"),
            experts("linear"),
            needs("gate_slope", "expert_slope", *_LOCATION_SCALE),
        ),
        uses_r="r̄",
    )
)
_COSINE = all_of(perturbed)
register(
    LossKind(
        "cosine_L1r",
        "Σᵢ wᵢ (‖Δβ₁‖^r + ‖Δη‖^r) + A, β₁ with its length",
        "arXiv:2405.14131, L₁,ᵣ",
        "read in the first version; with top_k the largest sum over K cells",
        _two_powers,
        _COSINE,
        raw=True,
        dispersions=False,
        uses_r="r",
    )
)
register(
    LossKind(
        "cosine_L2",
        "Σᵢ wᵢ (‖Δβ₁‖ + ‖Δη‖) + A, β₁ with its length",
        "arXiv:2405.14131, (16), exactly specified",
        "read in the first version; with top_k the largest sum over K cells",
        _gate_and_expert,
        _COSINE,
        raw=True,
        dispersions=False,
    )
)
register(
    LossKind(
        "cosine_L3",
        "Σᵢ wᵢ (‖Δβ₁‖^p + ‖Δη‖^p) + A with p = 1 if m = 1, else 2, β₁ with its length",
        "arXiv:2405.14131, (13), over-specified",
        "read in the first version; with top_k the largest sum over K cells",
        squares_form,
        _COSINE,
        raw=True,
        dispersions=False,
    )
)
register(
    LossKind(
        "cosine_quotient",
        "as cosine_L3 with β₁/‖β₁‖, of the perturbed gate β₁/(‖β₁‖ + τ₁), up to what leaves all weights the same",
        "Gatewise: cosine_L3 without the length that the gate does not see",
        f"{_OURS}: no theorem",
        squares_form,
        _COSINE,
        dispersions=False,
    )
)
register(
    LossKind(
        "sigmoid_D1",
        "Σᵢ (‖Δβ₁‖^p + ‖Δη‖^p) + A with p = 1 if m = 1, else 2, w = σ(β₀)",
        "arXiv:2405.13997, (6)",
        "read in the paper",
        _sigmoid,
        all_of(unnormalised),
        dispersions=False,
    )
)
register(
    LossKind(
        "sigmoid_D2r",
        "m > 1: Σᵢ (‖Δβ₁‖^r + ‖Δa‖^r + |Δb|^r) + A; m = 1: the same + |Δβ₀|^r, without A",
        "arXiv:2405.13997, (9)",
        "read in the paper; an empty cell, which the paper has not, counts with A",
        _sigmoid_powers,
        all_of(unnormalised),
        dispersions=False,
        uses_r="r",
    )
)
register(
    LossKind(
        "sigmoid_D3",
        "Σᵢ (|Δβ₀| + ‖Δβ₁‖ + ‖Δη‖) against a best approximant as the truth",
        "arXiv:2405.13997, (12), regime 2",
        "read in the paper, which means the largest over all best approximants; the truth with experts that are 0 is "
        "one, so that largest distance does not shrink; an empty cell counts with A",
        _sigmoid_dense,
        all_of(unnormalised),
        dispersions=False,
    )
)
_LAPLACE_MODEL = all_of(
    gates("laplace"),
    families("gaussian"),
    experts("linear"),
    needs("gate_centre", "expert_slope", *_LOCATION_SCALE),
)
register(
    LossKind(
        "laplace_D1",
        "Σᵢ wᵢ (‖ΔW‖ + ‖Δa‖ + |Δb| + |Δν|) + A",
        "arXiv:2402.03226, D₁",
        "read in the paper; it has no infimum over the biases",
        _ones,
        _LAPLACE_MODEL,
    )
)
register(
    LossKind(
        "laplace_D2",
        "m = 1 as laplace_D1; m > 1: Σᵢ wᵢ (‖ΔW‖² + ‖Δa‖² + |Δb|^r̄ + |Δν|^(r̄/2)) + A",
        "arXiv:2402.03226, D₂",
        "read in the paper; it has no infimum over the biases",
        _LAPLACE,
        _LAPLACE_MODEL,
        uses_r="r̄",
    )
)
register(
    LossKind(
        "gaussian_D2",
        "m > 1: Σᵢ πᵢ (‖Δc‖^r̄ + ‖ΔΓ‖^(r̄/2) + ‖ΔA‖^q + |Δb|^r̄ + |Δν|^(r̄/2)) + A, q = 2 or, if c* = 0, r̄/2",
        "arXiv:2305.07572, types I and II",
        f"{_RECALLED}; agrees with the authors' program",
        _gaussian_gate,
        all_of(joint, families("gaussian"), experts("linear"), needs("expert_slope", *_LOCATION_SCALE)),
        uses_r="r̄",
    )
)
