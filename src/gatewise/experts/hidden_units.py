"""What can be done to the hidden units of Σⱼ vⱼ φ(aⱼᵀx + bⱼ) + c without changing the sum, activation by activation.

The parameters are a = `inner_weight` (k, H, d), b = `inner_bias` (k, H), v = `outer_weight` (k, H) or (k, m, H), and c
= `outer_bias` (k,) or (k, m), where there is one.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from gatewise.parts.parameters import Parameters, Symmetry

__all__ = ["HOMOGENEITY", "POLYNOMIAL_DEGREE", "REFLECTIONS", "half_turn", "mixing", "reflection", "scaling", "swaps"]

HOMOGENEITY = {"relu": 1, "cube": 3}
"""r where φ(s z) = s^r φ(z) for every s > 0, but for the identity, which has more symmetries than that."""

REFLECTIONS = {
    "tanh": (-1.0, 0.0),
    "identity": (-1.0, 0.0),
    "cube": (-1.0, 0.0),
    "cos": (1.0, 0.0),
    "sigmoid": (-1.0, 1.0),
}
"""(s, u) where φ(−z) = s φ(z) + u. Where u is not 0, it takes an output bias to make up for it."""

POLYNOMIAL_DEGREE = {"identity": 1, "cube": 3}
"""The degree where φ is a power: the sum is a polynomial of x, and determines no more than its coefficients."""


def swaps(n_experts: int, hidden: int) -> tuple[Symmetry, ...]:
    """For each expert the exchanges of neighbouring hidden units, which generate all permutations of them."""
    return tuple(_swap(expert, pair, hidden) for expert in range(n_experts) for pair in pairwise(range(hidden)))


def _swap(expert: int, pair: tuple[int, int], hidden: int) -> Symmetry:
    order = list(range(hidden))
    order[pair[0]], order[pair[1]] = pair[1], pair[0]

    def exchanged(value: Tensor, axis: int) -> Tensor:
        one = value[expert : expert + 1].index_select(axis, torch.tensor(order, device=value.device))
        return torch.cat([value[:expert], one, value[expert + 1 :]])

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        return {
            **parameters,
            "inner_weight": exchanged(parameters["inner_weight"], 1),
            "inner_bias": exchanged(parameters["inner_bias"], 1),
            "outer_weight": exchanged(parameters["outer_weight"], parameters["outer_weight"].ndim - 1),
        }

    return Symmetry(
        name="permutation",
        sentence=f"hidden units {pair[0] + 1} and {pair[1] + 1} of expert {expert + 1} change places: the order of the "
        f"terms of a sum does not matter",
        dimension=0,
        act=act,
        kind="discrete",
    )


def _only(value: Tensor, expert: int, unit: int, there: float, elsewhere: float) -> Tensor:
    """A (k, H) array, `there` at one unit of one expert and `elsewhere` at all others."""
    values = torch.full_like(value, elsewhere)
    values[expert, unit] = there
    return values


def _at_outputs(units: Tensor, outer_weight: Tensor) -> Tensor:
    """(k, H) to be multiplied with v."""
    return units if outer_weight.ndim == 2 else units.unsqueeze(1)


def reflection(expert: int, unit: int, sign: float, constant: float) -> Symmetry:
    """(a, b) ↦ −(a, b) at one unit, for φ(−z) = sign · φ(z) + constant: v is multiplied by the sign, c rises."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        v, b = parameters["outer_weight"], parameters["inner_bias"]
        mirror = _only(b, expert, unit, -1.0, 1.0)
        moved = {
            **parameters,
            "inner_weight": parameters["inner_weight"] * mirror.unsqueeze(-1),
            "inner_bias": b * mirror,
            "outer_weight": v * _at_outputs(_only(b, expert, unit, sign, 1.0), v),
        }
        if constant:
            lost = -sign * constant * v * _at_outputs(_only(b, expert, unit, 1.0, 0.0), v)
            moved["outer_bias"] = parameters["outer_bias"] + lost.sum(-1)
        return moved

    rule = f"φ(−z) = {'−' if sign < 0.0 else ''}φ(z)" if not constant else "φ(−z) = 1 − φ(z)"
    changes = ["a and b", *(["v"] if sign < 0.0 else [])]
    return Symmetry(
        name="sign",
        sentence=f"{' and '.join(changes)} of hidden unit {unit + 1} of expert {expert + 1} change their signs"
        f"{' and v is added to the output bias' if constant else ''}: {rule}",
        dimension=0,
        act=act,
        kind="discrete",
    )


def half_turn(expert: int, unit: int) -> Symmetry:
    """(b, v) ↦ (b + π, −v) at one unit, for the cosine: cos(z + π) = −cos z. Twice of it is the full turn."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        v, b = parameters["outer_weight"], parameters["inner_bias"]
        return {
            **parameters,
            "inner_bias": b + _only(b, expert, unit, math.pi, 0.0),
            "outer_weight": v * _at_outputs(_only(b, expert, unit, -1.0, 1.0), v),
        }

    return Symmetry(
        name="half turn",
        sentence=f"π is added to b of hidden unit {unit + 1} of expert {expert + 1} and v changes its sign: "
        f"cos(z + π) = −cos z",
        dimension=0,
        act=act,
        kind="discrete",
    )


def scaling(n_experts: int, hidden: int, degree: int) -> Symmetry:
    """(a, b) ↦ e^t (a, b), v ↦ e^{−rt} v at each unit, for φ(s z) = s^r φ(z): one number per expert and unit."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        v, b = parameters["outer_weight"], parameters["inner_bias"]
        amount = amount.reshape(n_experts, hidden)
        factor = amount.exp()
        return {
            **parameters,
            "inner_weight": parameters["inner_weight"] * factor.unsqueeze(-1),
            "inner_bias": b * factor,
            "outer_weight": v * _at_outputs((-degree * amount).exp(), v),
        }

    power = "" if degree == 1 else f"^{degree}"
    return Symmetry(
        name="scale",
        sentence=f"a and b of a hidden unit are multiplied by s > 0 and its v is divided by s{power}: "
        f"φ(s z) = s{power} φ(z)",
        dimension=n_experts * hidden,
        act=act,
        kind="scale",
    )


def mixing(n_experts: int, n_outputs: int, hidden: int, n_features: int, output_bias: bool) -> Symmetry:
    """All that keeps the product v (a, b), of which alone the sum consists if φ is the identity.

    With an output bias it is v a and v b + c that are kept. The action is exact where v (m, H) and (a, b) have full
    rank; it goes through all parameters near the given ones that have the same product there.
    """
    m, inner = n_outputs, n_features + (not output_bias)
    products = _product_dimension(m, hidden, inner)
    dimension = products + (hidden if output_bias else 0)

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        amount = amount.reshape(n_experts, dimension)
        a, b = parameters["inner_weight"], parameters["inner_bias"]
        v = parameters["outer_weight"].reshape(n_experts, m, hidden)
        if not output_bias:
            new_v, both = _move_along_product(v, torch.cat([a, b.unsqueeze(-1)], dim=-1), amount)
            moved = {"inner_weight": both[..., :-1], "inner_bias": both[..., -1]}
        else:
            new_v, new_a = _move_along_product(v, a, amount[:, :products])
            new_b = b + amount[:, products:]
            lost = (v @ b.unsqueeze(-1) - new_v @ new_b.unsqueeze(-1)).reshape(parameters["outer_bias"].shape)
            moved = {"inner_weight": new_a, "inner_bias": new_b, "outer_bias": parameters["outer_bias"] + lost}
        return {**parameters, **moved, "outer_weight": new_v.reshape(parameters["outer_weight"].shape)}

    return Symmetry(
        name="mixing",
        sentence="the hidden units are linear and only the product of the outer with the inner weights matters: "
        "(v G⁻¹)(G a) = v a",
        dimension=n_experts * dimension,
        act=act,
    )


def _product_dimension(m: int, hidden: int, inner: int) -> int:
    """How many dimensions the pairs (m, H), (H, D) with a given product of full rank have."""
    rank = min(m, hidden, inner)
    return hidden * (m + inner) - rank * (m + inner - rank)


def _move_along_product(left: Tensor, right: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs with the product of `left` (k, m, H) and `right` (k, H, D), (k, ·) coordinates ↦ pairs near the given one.

    If `left` has full row rank it moves freely and `right` follows, in the least-squares sense, with the part of it
    that `left` does not see moving freely too. If the columns of `right` are independent it is the other way round.
    Otherwise H is the rank of the product, and an invertible matrix between the two is all there is.
    """
    k, m, hidden = left.shape
    inner = right.shape[-1]
    if hidden < m and hidden >= inner:
        moved_right, moved_left = _move_along_product(right.mT, left.mT, amount)
        return moved_left.mT, moved_right.mT
    if hidden < m:
        generator = amount.reshape(k, hidden, hidden)
        return left @ torch.linalg.matrix_exp(-generator), torch.linalg.matrix_exp(generator) @ right
    step = amount[:, : m * hidden].reshape(k, m, hidden)
    unseen = amount[:, m * hidden :].reshape(k, hidden - m, inner)
    new_left = left + step
    inverse = torch.linalg.pinv(new_left)
    kernel = torch.linalg.qr(left.detach().mT, mode="complete")[0][..., m:]
    kernel = kernel - inverse @ (new_left @ kernel)
    return new_left, right - inverse @ (step @ right) + kernel @ unseen
