"""Lengths and directions of vectors, and what cosines do not tell of the vectors they are taken with.

Written for the gates whose logits are uᵢᵀ g(x) + bᵢ with unit vectors uᵢ = βᵢ/‖βᵢ‖.
"""

import numpy as np
import torch
from torch import Tensor

from gatewise.parts.component import Atoms, Coordinates
from gatewise.parts.parameters import Parameters, Symmetry

__all__ = [
    "along",
    "direction_coordinates",
    "direction_scales",
    "distinct_rows",
    "length",
    "reflection",
    "shared_shift",
    "unit",
]


def _rescaled(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The vectors over their largest entries, those entries (…, 1), and which vectors count as zero (…, 1).

    Squares then neither overflow nor vanish. The largest entry is taken as a constant, which does not change any
    derivative of a function of which it is only a common factor. Vectors without a normal number are zero.
    """
    largest = vectors.detach().abs().amax(-1, keepdim=True)
    zero = largest < torch.finfo(vectors.dtype).tiny
    largest = torch.where(zero, torch.ones_like(largest), largest)
    return vectors / largest, largest, zero


def _root(rescaled: Tensor, zero: Tensor) -> Tensor:
    square = (rescaled * rescaled).sum(-1, keepdim=True)
    return torch.where(zero, torch.ones_like(square), square).sqrt()


def length(vectors: Tensor) -> Tensor:
    """‖v‖, (…, d) ↦ (…, 1): 0 with gradient 0 at v = 0, the subgradient of least norm.

    Example:
        >>> length(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[5.],
                [0.]])
    """
    rescaled, largest, zero = _rescaled(vectors)
    return torch.where(zero, torch.zeros_like(largest), largest * _root(rescaled, zero))


def unit(vectors: Tensor) -> Tensor:
    """v/‖v‖, (…, d) ↦ (…, d): 0 with gradient 0 at v = 0, where there is no limit.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    rescaled, _, zero = _rescaled(vectors)
    return torch.where(zero, torch.zeros_like(vectors), rescaled / _root(rescaled, zero))


def along(x: Tensor, directions: Tensor, constant: float = 0.0) -> Tensor:
    """Xᵀuᵢ/(‖x‖ + constant), (…, d) and (k, d) ↦ (…, k); 0 with gradient 0 where x = 0 and the constant is 0.

    In float64 x is divided first, so that lengths at the ends of the range neither overflow nor vanish. In the dtypes
    of networks the products are, which saves several copies of the inputs.
    """
    if x.dtype == torch.float64:
        return (x / (length(x) + constant) if constant > 0.0 else unit(x)) @ directions.T
    bottom = torch.linalg.vector_norm(x, dim=-1, keepdim=True) + constant
    zero = bottom == 0.0
    return torch.where(zero, 0.0, x @ directions.T / torch.where(zero, 1.0, bottom))


def direction_coordinates(atoms: Atoms, tau: float = 0.0) -> Coordinates:
    """`gate_slope` β as β/(‖β‖ + τ₁), 0 where it has no direction."""
    slope = atoms["gate_slope"].reshape(len(atoms["gate_slope"]), -1)
    norm = np.linalg.norm(slope, axis=1, keepdims=True)
    if tau == 0.0:
        label = "gate_slope/‖gate_slope‖"
        return Coordinates({"gate_slope": slope / np.where(norm > 0.0, norm, 1.0)}, {"gate_slope": label})
    return Coordinates({"gate_slope": slope / (norm + tau)}, {"gate_slope": "gate_slope/(‖gate_slope‖ + τ₁)"})


def distinct_rows(n_rows: int, n_columns: int) -> Tensor:
    """Rows with different directions, the first of them the identity's, (n_rows, n_columns).

    Row i is e_j ± q e_(j+1) with j the rest and q the quotient of i by the number of columns, the minus sign where
    j + 1 goes back to the first column. In one column there are only two directions: the rows are 1, −1, 1, …

    Example:
        >>> distinct_rows(3, 2)
        tensor([[1., 0.],
                [0., 1.],
                [1., 1.]])
    """
    rows = torch.zeros(n_rows, n_columns)
    for i in range(n_rows):
        quotient, j = divmod(i, n_columns)
        if n_columns == 1:
            rows[i, 0] = 1.0 - 2.0 * (i % 2)
        else:
            rows[i, j] = 1.0
            rows[i, (j + 1) % n_columns] += quotient if j + 1 < n_columns else -quotient
    return rows


def direction_scales(n_experts: int) -> Symmetry:
    """βᵢ ↦ exp(tᵢ) βᵢ, one number for each expert."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        return {**parameters, "weight": parameters["weight"] * amount.exp().unsqueeze(-1)}

    def settles(parameters: Parameters) -> Tensor:
        lengths = length(parameters["weight"]).squeeze(-1)
        return -torch.where(lengths > 0.0, lengths, torch.ones_like(lengths)).log()

    return Symmetry(
        name="scale",
        sentence="β of every expert is multiplied by a positive number of its own: only the direction β/‖β‖ counts",
        dimension=n_experts,
        act=act,
        settles=settles,
        kind="scale",
    )


def _offset(directions: Tensor) -> Tensor:
    """The shortest m with uᵢᵀm = 1 for all i, (n,)."""
    return torch.linalg.pinv(directions) @ directions.new_ones(len(directions))


def _shifted(parameters: Parameters, directions: Tensor, shift: Tensor) -> Parameters:
    weight = length(parameters["weight"]) * (directions + shift)
    return {**parameters, "weight": weight}


def shared_shift(n_experts: int, n_dimensions: int) -> Symmetry:
    """The map uᵢ ↦ uᵢ + t, one t for all experts for which all uᵢ + t are unit vectors again; n − k dimensions, n > k.

    These t satisfy t·uᵢ = −‖t‖²/2 for all i. With m the shortest vector for which uᵢᵀm = 1, they are the sphere of
    radius 1/‖m‖ around −m/‖m‖² in the directions that no difference uᵢ − uₖ sees. With an orthonormal basis W of the
    complement of all uᵢ, the point that an a ∈ R^(n − k) reaches from t = 0 is

        t = sin(θ)/θ · W a − (1 − cos θ) m/‖m‖²,   θ = ‖a‖ ‖m‖.

    The norms ‖βᵢ‖ are kept. Holds for linearly independent uᵢ.
    """

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        directions = unit(parameters["weight"])
        inverse = torch.linalg.pinv(directions)
        # The basis itself has no derivative in torch; its projection has the right one and is the same matrix.
        basis = torch.linalg.qr(directions.detach().T, mode="complete").Q[:, n_experts:]
        basis = basis - inverse @ (directions @ basis)
        offset = inverse @ directions.new_ones(n_experts)
        square = amount @ amount
        angle = length(amount).squeeze(-1) * length(offset).squeeze(-1)
        along = torch.sinc(angle / torch.pi) * (basis @ amount)
        back = 0.5 * square * torch.sinc(angle / (2.0 * torch.pi)) ** 2 * offset
        return _shifted(parameters, directions, along - back)

    return Symmetry(
        name="shared shift",
        sentence=(
            "one vector t is added to the directions β/‖β‖ of all experts such that all keep the length 1, which is "
            f"possible in {n_dimensions - n_experts} dimensions as there are more of them than experts: all logits "
            "change by the same function of x"
        ),
        dimension=n_dimensions - n_experts,
        act=act,
    )


def reflection() -> Symmetry:
    """The map uᵢ ↦ uᵢ − 2m/‖m‖² with m the solution of uᵢᵀm = 1: what is left of `shared_shift` with n = k."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        directions = unit(parameters["weight"])
        offset = _offset(directions)
        return _shifted(parameters, directions, -2.0 * offset / (offset @ offset))

    return Symmetry(
        name="reflection",
        sentence=(
            "the directions β/‖β‖ of all experts are reflected in the plane through 0 that is parallel to all their "
            "differences: all move by the same vector, so all logits change by the same function of x"
        ),
        dimension=0,
        act=act,
    )
