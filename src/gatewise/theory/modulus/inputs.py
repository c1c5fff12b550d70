"""Quadrature over the inputs, with kinks between panels."""

import math
from collections.abc import Callable

import numpy as np

from gatewise.exceptions import InputError
from gatewise.theory.modulus.design import MOST_NODES, BallInputs, BoxInputs
from gatewise.theory.modulus.special import LONG

__all__ = ["Breaks", "InputRule", "ball_rule", "box_rule", "input_rule"]

Breaks = Callable[[np.ndarray], list[np.ndarray]]
"""Where on the first axis a function has kinks, given the other coordinates (n, d − 1): arrays (n,)."""


class InputRule:
    """Nodes (n, d) and weights (n,), the same at every call but for panels that end at kinks."""

    def __init__(self, design: BoxInputs | BallInputs, n_features: int) -> None:
        self._design = design
        self._fixed = input_rule(design, n_features)
        self._rest = None
        if isinstance(design, BoxInputs):
            self._rest = box_rule(design, n_features - 1) if n_features > 1 else (np.zeros((1, 0)), np.ones(1))

    @property
    def fixed(self) -> tuple[np.ndarray, np.ndarray]:
        """The rule without kinks."""
        return self._fixed

    def split(self, breaks: list[Breaks]) -> tuple[np.ndarray, np.ndarray]:
        """The rule whose first axis is cut at the kinks; always the same number of nodes for the same kinks.

        Raises:
            InputError: the inputs fill a ball, whose rule cannot be cut.
        """
        if not breaks:
            return self._fixed
        design = self._design
        if not isinstance(design, BoxInputs) or self._rest is None:
            raise InputError("kinks can only be put between panels of inputs on a box: take kind = 'box'")
        others, outer = self._rest
        low, high = LONG(design.low), LONG(design.high)
        cuts = [cut for each in breaks for cut in each(others.astype(LONG))]
        inside = [np.clip(cut, low, high) for cut in cuts]
        ends = np.sort(np.stack([np.full(len(others), low), *inside, np.full(len(others), high)]), axis=0)
        unit, share = np.polynomial.legendre.leggauss(design.nodes)
        middle, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
        first = middle[..., None] + half[..., None] * unit
        weight = half[..., None] * share / (1 if design.volume else high - low) * outer[:, None]
        rest = np.broadcast_to(others[None, :, None, :], (*first.shape, others.shape[1]))
        nodes = np.concatenate([first[..., None], rest], axis=-1)
        return nodes.reshape(-1, nodes.shape[-1]), weight.reshape(-1)


def input_rule(design: BoxInputs | BallInputs, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, d) and weights (n,) without kinks.

    Raises:
        InputError: a ball of another dimension.
    """
    if isinstance(design, BoxInputs):
        return box_rule(design, n_features)
    if len(design.centre) != n_features:
        raise InputError(f"the ball's centre has {len(design.centre)} coordinates, and the inputs have {n_features}")
    return ball_rule(design)


def box_rule(design: BoxInputs, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """The tensor product of Gauss–Legendre rules.

    Raises:
        InputError: it has more than a million nodes.

    Example:
        >>> nodes, weights = box_rule(BoxInputs(low=0.0, high=1.0, nodes=3), 2)
        >>> nodes.shape, round(float(weights @ nodes[:, 0] ** 2), 12)
        ((9, 2), 0.333333333333)
    """
    if n_features * math.log(design.nodes) > math.log(MOST_NODES):
        raise InputError(
            f"{design.nodes} nodes along each of {n_features} axes are more than {MOST_NODES:,}: take fewer nodes or "
            "features"
        )
    unit, share = np.polynomial.legendre.leggauss(design.nodes)
    half = (design.high - design.low) / 2
    axis, weight = design.low + half * (unit + 1), share * (half if design.volume else 0.5)
    grids = np.meshgrid(*[axis] * n_features, indexing="ij")
    weights = np.meshgrid(*[weight] * n_features, indexing="ij")
    return np.stack(grids, axis=-1).reshape(-1, n_features), np.prod(np.stack(weights), axis=0).reshape(-1)


def ball_rule(design: BallInputs) -> tuple[np.ndarray, np.ndarray]:
    """Radii in panels that shrink geometrically, times an even rule over directions.

    Raises:
        InputError: more than three dimensions.

    Example:
        >>> nodes, weights = ball_rule(BallInputs(centre=(0.0, 0.0), radius=2.0))
        >>> round(float(weights.sum()), 12), round(float(weights @ (nodes**2).sum(1)), 12)
        (1.0, 2.0)
    """
    d = len(design.centre)
    if not 1 <= d <= 3:
        raise InputError(f"a ball of inputs may have up to three dimensions, not {d}")
    ends = np.concatenate([[0.0], design.radius * design.ratio ** -np.arange(design.panels - 1, -1, -1.0)])
    unit, share = np.polynomial.legendre.leggauss(design.radial)
    half = np.diff(ends)[:, None] / 2
    radii = ((ends[1:] + ends[:-1])[:, None] / 2 + half * unit).reshape(-1)
    radial = (half * share).reshape(-1) * radii ** (d - 1)
    if d == 1:
        directions, spread = np.array([[-1.0], [1.0]]), np.ones(2)
    elif d == 2:
        # Half a step off the axes, on which nothing special should fall.
        angles = 2 * np.pi * (np.arange(design.angular) + 0.5) / design.angular
        directions, spread = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.ones(design.angular)
    else:
        heights, tall = np.polynomial.legendre.leggauss(max(design.angular // 2, 2))
        angles = 2 * np.pi * (np.arange(design.angular) + 0.5) / design.angular
        flat = np.sqrt(1 - heights**2)[:, None]
        upright = np.broadcast_to(heights[:, None], (len(heights), len(angles)))
        directions = np.stack([flat * np.cos(angles), flat * np.sin(angles), upright], axis=-1).reshape(-1, 3)
        spread = np.repeat(tall, len(angles))
    nodes = np.asarray(design.centre) + (radii[:, None, None] * directions).reshape(-1, d)
    weights = (radial[:, None] * spread).reshape(-1)
    return nodes, weights / weights.sum()
