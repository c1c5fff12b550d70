"""The canonical order of the experts: by a key, as far as the gate and constraints allow, with symmetries settled."""

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch

from gatewise.fit.coordinates import Coordinates
from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import within

__all__ = ["ConstrainedExperts", "ExpertOrders", "FreeExperts"]

# Up to so many experts every order is asked for.
_EVERY_ORDER = 5


class FreeExperts:
    """Puts the experts of θ in another order, and θ where its symmetries prefer it.

    Args:
        prototype: the model.
        coordinates: from θ to the model's parameters.
        matters: which entries of the full vector the objective knows of, a mask.
    """

    def __init__(self, prototype: MixtureOfExperts, coordinates: Coordinates, matters: np.ndarray) -> None:
        self.prototype = prototype
        self.coordinates = coordinates
        self.matters = matters

    def sorted(self, theta: np.ndarray, key: np.ndarray) -> np.ndarray:
        """θ with the largest key (k,) first, settled."""
        order = self.prototype.gate.sorted_order(key)
        return self.coordinates.collapse(self.settle(self._reordered(theta, order)))

    def settled(self, theta: np.ndarray) -> np.ndarray:
        """The representative of θ's orbit under the symmetries that have one: a reference at 0, a length of 1."""
        return self.coordinates.collapse(self.settle(self._full(theta)))

    def _full(self, theta: np.ndarray) -> np.ndarray:
        return self.coordinates.full(torch.from_numpy(theta)).numpy()

    def _reordered(self, theta: np.ndarray, order: Sequence[int]) -> np.ndarray:
        """The full vector whose expert i is the old expert order[i]."""
        named = self.coordinates.parameters(torch.from_numpy(self._full(theta)))
        gate = self.prototype.gate.permute(within("gate", named), order)
        experts = self.prototype.experts.permute(within("experts", named), order)
        return self.coordinates.flat(gate, experts).numpy()

    def settle(self, full: np.ndarray) -> np.ndarray:
        """A full vector (N,) moved to that representative."""
        named = self.coordinates.parameters(torch.from_numpy(full))
        moved = []
        for prefix, part in (("gate", self.prototype.gate), ("experts", self.prototype.experts)):
            own = within(prefix, named)
            for symmetry in part.symmetries():
                amount = symmetry.settling(own)
                own = own if amount is None else symmetry.act(own, amount)
            moved.append(own)
        return self.coordinates.flat(*moved).numpy()


class ConstrainedExperts(FreeExperts):
    """The same where entries of θ are held or tied: only by orders that map the constrained set onto itself."""

    @cached_property
    def _orders(self) -> "ExpertOrders":
        # What holds for a point drawn at random holds for all.
        generic = np.random.default_rng(0).normal(size=self.coordinates.size)
        return ExpertOrders(self.prototype.n_experts, lambda order: self._constrained(generic, order) is not None)

    def sorted(self, theta: np.ndarray, key: np.ndarray) -> np.ndarray:
        """θ with the largest key (k,) first as far as the constraints allow; settled only if they ask for it."""
        found = self._constrained(theta, self._orders.sorted(key))
        return theta if found is None else found

    def _constrained(self, theta: np.ndarray, order: Sequence[int]) -> np.ndarray | None:
        """θ with the experts in another order, settled if need be, or None if constraints or the gate forbid it."""
        if not self.prototype.gate.allows(order):
            return None
        moved = self._reordered(theta, order)
        for full in (moved, self.settle(moved)):
            found = self.coordinates.collapse(full)
            if np.allclose(self._full(found)[self.matters], full[self.matters], rtol=1e-9, atol=1e-9):
                return found
        return None


class ExpertOrders:
    """Which orders of the experts there are.

    Up to five experts all orders are tried; of more experts the exchanges of two, and what these generate.

    Args:
        n_experts: k.
        allows: whether an order, as a sequence of the old numbers, is allowed. The allowed ones must be a group.

    Example:
        >>> orders = ExpertOrders(3, lambda order: order[2] == 2)
        >>> orders.sorted(np.array([0.2, 0.3, 0.5]))
        [1, 0, 2]
    """

    def __init__(self, n_experts: int, allows: Callable[[Sequence[int]], bool]) -> None:
        experts = list(range(n_experts))
        self._orders: list[list[int]] = []
        self._classes: list[list[int]] = []
        if n_experts <= _EVERY_ORDER:
            self._orders = [list(order) for order in itertools.permutations(experts) if allows(order)]
            return
        # Exchanges compose: if i can be exchanged with j and j with l, so can i with l.
        for expert in experts:
            for known in self._classes:
                if allows(_exchanged(experts, known[0], expert)):
                    known.append(expert)
                    break
            else:
                self._classes.append([expert])

    def sorted(self, key: np.ndarray) -> list[int]:
        """The order that puts the largest key (k,) first as far as may be, ties in the present order."""
        if self._orders:
            return max(self._orders, key=lambda order: tuple(key[order]))
        order = list(range(len(key)))
        for members in self._classes:
            for place, expert in zip(members, sorted(members, key=lambda i: -key[i]), strict=True):
                order[place] = expert
        return order


def _exchanged(experts: list[int], one: int, other: int) -> list[int]:
    order = experts.copy()
    order[one], order[other] = other, one
    return order
