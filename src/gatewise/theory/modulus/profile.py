"""w(δ): the least distance with one coordinate displaced by exactly ±δ, over the whole window."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gatewise.theory.modulus.design import ModulusDesign
from gatewise.theory.modulus.minimise import Box, Minimum, Objective, minimise
from gatewise.theory.modulus.special import LONG

__all__ = ["Profile", "Space", "profile"]

_POWERS = (0.5, 1.0, 1.5, 2.0)
_FLAT_IN_A_ROW = 4


@dataclass(frozen=True)
class Space:
    """The coordinates of a problem, as far as the search has to know them.

    Attributes:
        displaced: the coordinate that is set to ±δ.
        held: coordinates that stay 0.
        shares: coordinates that are bounded and not small.
        groups: a number for each coordinate; those of a group start at the same scale.
        free: coordinates that may be as far from the truth at a small δ as at a large one.
    """

    displaced: int
    held: tuple[int, ...]
    shares: tuple[int, ...]
    groups: tuple[int, ...]
    free: tuple[int, ...] = ()

    def box(self, delta: float, sign: float, design: ModulusDesign) -> Box:
        """The neighbourhood at this displacement."""
        local = design.locality
        high = np.full(len(self.groups), min(local.cap, local.factor * delta**0.5), LONG)
        high[list(self.free)] = local.reach
        high[list(self.shares)] = local.share
        high[list(self.held)] = 0
        low = -high
        low[self.displaced] = high[self.displaced] = LONG(sign) * LONG(delta)
        return Box(low, high)


@dataclass(frozen=True)
class Profile:
    """The best that was found at each displacement, largest displacement first.

    Attributes:
        deltas: δ.
        values: w(δ).
        points: the minimisers.
        signs: the sign of the displacement at which it was found.
    """

    deltas: tuple[float, ...]
    values: tuple[float, ...]
    points: tuple[np.ndarray, ...]
    signs: tuple[int, ...]


def profile(objective: Objective, space: Space, design: ModulusDesign) -> Profile:
    """Minimise at every δ of the window, from random starts and from the neighbours, down the window and up again.

    Measuring ends where the distance nears the rounding floor. If it does so at the first few δ already, the direction
    is flat and the rest of the window is not needed.
    """
    deltas = design.window.deltas()
    limit = design.extrapolation.floor_ratio * objective.floor
    best: dict[float, tuple[Minimum, int]] = {}
    used = deltas
    for sign in (1, -1):
        side = _one_side(objective, space, design, deltas, sign)
        for delta, minimum in side.items():
            if delta not in best or minimum.value < best[delta][0].value:
                best[delta] = (minimum, sign)
        if len(side) < len(deltas) and all(minimum.value < limit for minimum in side.values()):
            # Flat to this side, which was not followed any further: the other side alone would say nothing beyond.
            used = [delta for delta in used if delta in side]
    used = [delta for delta in used if delta in best]
    return Profile(
        tuple(used),
        tuple(best[delta][0].value for delta in used),
        tuple(best[delta][0].point for delta in used),
        tuple(best[delta][1] for delta in used),
    )


def _one_side(
    objective: Objective, space: Space, design: ModulusDesign, deltas: Sequence[float], sign: int
) -> dict[float, Minimum]:
    search = design.search
    generator = np.random.default_rng([search.seed, space.displaced, sign + 1])
    limit = design.extrapolation.floor_ratio * objective.floor

    def run(start: np.ndarray, delta: float, steps: int, polish: int) -> Minimum:
        box = space.box(delta, sign, design)
        return minimise(objective, start, box, steps=steps, polish=polish)

    found: dict[float, Minimum] = {}
    below = 0
    for place, delta in enumerate(deltas):
        starts = [_random(generator, space, delta) for _ in range(search.starts if place < 3 else 1)]
        candidates = [run(start, delta, search.start_steps, 0) for start in starts]
        # Both are followed to their ends: a low valley that is entered from its neighbour may begin above a higher one.
        begun = [min(candidates, key=lambda minimum: minimum.value).point, *_ahead(found, space, delta)]
        ends = [run(start, delta, search.steps, search.polish) for start in begun]
        found[delta] = min(ends, key=lambda minimum: minimum.value)
        below = below + 1 if found[delta].value < limit else 0
        if below >= (_FLAT_IN_A_ROW if place < _FLAT_IN_A_ROW else 2):
            break
    passed: dict[float, Minimum] = {}
    for delta in reversed(list(found)):
        present = found[delta]
        if present.value > objective.floor:
            ends = [run(start, delta, search.steps, search.polish) for start in _ahead(passed, space, delta)]
            found[delta] = min([present, *ends], key=lambda minimum: minimum.value)
        passed[delta] = found[delta]
    return found


def _random(generator: np.random.Generator, space: Space, delta: float) -> np.ndarray:
    """A start whose coordinates have the size of random powers of δ, group by group."""
    point = generator.normal(size=len(space.groups))
    powers = generator.choice(_POWERS, size=max(space.groups) + 1)
    scale = delta ** powers[list(space.groups)]
    scale[[*space.shares, *space.free]] = 1.0
    return (point * scale).astype(LONG)


def _ahead(found: dict[float, Minimum], space: Space, delta: float) -> list[np.ndarray]:
    """The start that follows the last one or two minimisers along powers of δ, if there are any."""
    if not found:
        return []
    passed = list(found)
    last = found[passed[-1]].point
    ratio = LONG(delta) / LONG(passed[-1])
    power = np.ones(len(last))
    if len(passed) > 1:
        before = found[passed[-2]].point
        with np.errstate(all="ignore"):
            measured = np.log(np.abs(last / before).astype(float)) / np.log(passed[-1] / passed[-2])
        power = np.where(np.isfinite(measured), np.clip(measured, 0.3, 4.0), 1.0)
    power[[*space.shares, *space.free]] = 0.0
    return [last * ratio ** power.astype(LONG)]
