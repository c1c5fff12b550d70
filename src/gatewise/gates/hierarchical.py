"""The hierarchical gate: a tree of gates whose weights multiply."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.gates.base import GATES, Gate
from gatewise.gates.parts import build_part, part_symmetry
from gatewise.messages import shown
from gatewise.parts.draws import Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.parameters import Parameters, Quantity, Symmetry, prefixed, within


@GATES.register
class HierarchicalGate(Gate):
    """log πᵢ(x) = log outer_g(x) + log inner_(i|g)(x): a group is chosen first, then an expert of that group.

    Experts are numbered group by group. Every part is a normalised gate of the same inputs (softmax, Laplace, …), an
    inner gate may be a tree itself, and a group may hold one expert. The weights of a group's experts sum to the outer
    weight, so the outer and the inner weights are determined by π, each up to its own gate's symmetries. Experts may be
    reordered within a group, and whole groups may be exchanged if their inner gates are of the same kind and size.

    Top-K gates cannot be parts: the number of experts with weight would depend on the group. Wrap the tree in one.

    Args:
        outer: the gate of the groups.
        inner: one gate for each group, in order.

    Raises:
        InputError: sizes do not match, a part is not a normalised, dense, conditional gate, or one is used twice.

    Example:
        >>> from gatewise.gates import HierarchicalGate, LaplaceGate, SoftmaxGate
        >>> gate = HierarchicalGate(SoftmaxGate(1, 2), [LaplaceGate(1, 2), SoftmaxGate(1, 1)])
        >>> gate(torch.zeros(1)).exp().detach()
        tensor([0.2500, 0.2500, 0.5000])
        >>> gate.allows([1, 0, 2]), gate.allows([0, 2, 1])
        (True, False)
    """

    name = "hierarchical"
    formula = "log outer_g(x) + log inner_(i|g)(x)"
    source = "Jordan and Jacobs (1994); arXiv:2410.02935 (Laplace levels: its abstract)"
    per_expert = ()
    n_studied = 4

    def __init__(self, outer: Gate, inner: Sequence[Gate]) -> None:
        _check(outer, inner)
        super().__init__(outer.n_features, sum(gate.n_experts for gate in inner))
        self.outer = outer
        self.inner = nn.ModuleList(inner)
        self.affine_equivariant = all(gate.affine_equivariant for gate in (outer, *inner))

    @classmethod
    def of(
        cls,
        n_features: int,
        n_experts: int,
        *,
        groups: Sequence[int] | None = None,
        outer: str = "softmax",
        inner: str | Sequence[Mapping[str, Any]] = "softmax",
        outer_options: Mapping[str, Any] | None = None,
        inner_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """A tree from plain data.

        Args:
            n_features: d.
            n_experts: k.
            groups: sizes of the groups, with sum k; without it two groups, as equal as possible.
            outer: name of the outer gate.
            inner: name of all inner gates; or one table for each group, with its `name`, `n_experts` and `options`.
            outer_options: options of the outer gate.
            inner_options: options of all inner gates, if `inner` is a name.
            **options: none.

        Raises:
            InputError: an option is unknown or out of range.
        """
        if options:
            raise InputError(
                f"{cls.name!r} cannot take the options {sorted(options)}: it has groups, outer, inner, outer_options "
                "and inner_options"
            )
        if isinstance(inner, str):
            sizes = _two_groups(n_experts) if groups is None else list(groups)
            tables = [{"name": inner, "n_experts": size, "options": inner_options} for size in sizes]
        else:
            if groups is not None or inner_options is not None:
                raise InputError("inner is a list of tables, which say the sizes and options: leave out the others")
            tables = [_table(table) for table in inner]
        for table in tables:
            size = table["n_experts"]
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"a group must hold at least one expert, not {shown(size)}")
        sizes = [table["n_experts"] for table in tables]
        if sum(sizes) != n_experts:
            raise InputError(f"the groups {sizes} hold {sum(sizes)} experts, not {n_experts}: their sum must be k")
        return cls(
            build_part("outer gate", outer, n_features, len(tables), outer_options),
            [build_part("inner gate", t["name"], n_features, t["n_experts"], t.get("options")) for t in tables],
        )

    def options(self) -> dict[str, Any]:
        """`outer`, `outer_options` and `inner`; with inner gates that only differ in size `groups` and one name."""
        outer = {"outer": self.outer.name, "outer_options": self.outer.options()}
        tables = [{"name": g.name, "n_experts": g.n_experts, "options": g.options()} for g in self.branches]
        first = tables[0]
        if all(table["name"] == first["name"] and table["options"] == first["options"] for table in tables):
            sizes = [table["n_experts"] for table in tables]
            return {**outer, "groups": sizes, "inner": first["name"], "inner_options": first["options"]}
        return {**outer, "inner": tables}

    @property
    def branches(self) -> list[Gate]:
        """The inner gates."""
        return cast(list[Gate], list(self.inner))

    @property
    def root(self) -> Gate:
        """The outer gate."""
        return self.outer

    def components(self) -> list[tuple[str, Gate, list[tuple[int, ...]]]]:
        """The outer gate's, whose rows are about groups or groups of groups, then those of the inner ones."""
        groups = self._groups
        found = [
            (f"outer.{prefix}", gate, [tuple(i for group in row for i in groups[group]) for row in rows])
            for prefix, gate, rows in self.outer.components()
        ]
        for g, (inner, group) in enumerate(zip(self.branches, groups, strict=True)):
            for prefix, gate, rows in inner.components():
                found.append((f"inner.{g}.{prefix}", gate, [tuple(group[i] for i in row) for row in rows]))
        return found

    @property
    def _parts(self) -> list[tuple[str, str, Gate]]:
        """Prefix of the parameter names, name in sentences, and gate of every part."""
        inner = [(f"inner.{g}", f"inner gate {g + 1}", gate) for g, gate in enumerate(self.branches)]
        return [("outer", "outer gate", self.outer), *inner]

    @property
    def _groups(self) -> list[range]:
        """The experts of each group."""
        sizes = [gate.n_experts for gate in self.branches]
        return [range(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True)]

    def logits(self, x: Tensor) -> Tensor:
        """Log πᵢ(x), (…, d) ↦ (…, k): the log-weights themselves."""
        outer = self.outer(x)
        return torch.cat([outer[..., g : g + 1] + gate(x) for g, gate in enumerate(self.branches)], dim=-1)

    @property
    def most_routing_features(self) -> int | None:
        """The least of its parts'."""
        limits = [gate.most_routing_features for gate in (self.outer, *self.branches)]
        return min((limit for limit in limits if limit is not None), default=None)

    def place(self, direction: Tensor, point: Tensor) -> None:
        """Each part as it does itself: the outer gate at the mean of each group's."""
        groups = self._groups
        for gate, group in zip(self.branches, groups, strict=True):
            gate.place(direction[list(group)], point[list(group)])
        self.outer.place(
            torch.stack([direction[list(group)].mean(0) for group in groups]),
            torch.stack([point[list(group)].mean(0) for group in groups]),
        )

    def start(self, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
        """Each part as it does itself: the outer gate with the sums of its groups' shares."""
        groups = shares.split([gate.n_experts for gate in self.branches], dim=-1)
        outer = torch.stack([group.sum(-1) for group in groups], dim=-1)
        found = prefixed("outer", self.outer.start(x, outer, draws))
        for g, (gate, group) in enumerate(zip(self.branches, groups, strict=True)):
            found |= prefixed(f"inner.{g}", gate.start(x, group, draws))
        return found

    def _moves(self, order: Sequence[int]) -> tuple[list[int], list[list[int]]] | None:
        """The old group at each group's place and the order within it; None if the order breaks the tree."""
        if sorted(order) != list(range(self.n_experts)):
            return None
        starts = {group.start: g for g, group in enumerate(self._groups)}
        old_groups, within_groups = [], []
        for group in self._groups:
            wanted = [order[i] for i in group]
            old = starts.get(min(wanted))
            if old is None or sorted(wanted) != list(self._groups[old]):
                return None
            old_groups.append(old)
            within_groups.append([i - self._groups[old].start for i in wanted])
        inner = self.branches
        if not self._may_exchange(old_groups):
            return None
        if not all(inner[old].allows(one) for old, one in zip(old_groups, within_groups, strict=True)):
            return None
        return old_groups, within_groups

    def _may_exchange(self, old_groups: Sequence[int]) -> bool:
        inner = self.branches
        return self.outer.allows(old_groups) and all(_alike(inner[g], inner[old]) for g, old in enumerate(old_groups))

    def allows(self, order: Sequence[int]) -> bool:
        """Whether the order keeps the tree: it moves experts within their groups, and groups as a whole."""
        return self._moves(order) is not None

    def permute(self, parameters: Parameters, order: Sequence[int]) -> Parameters:
        """Parameters whose expert i is the old expert order[i].

        Raises:
            InputError: this order breaks the tree.
        """
        moves = self._moves(order)
        if moves is None:
            raise InputError(
                f"the order {list(order)} breaks the tree with the groups {[list(group) for group in self._groups]}: "
                "experts may move within their groups, and whole groups if their gates are of the same kind and size"
            )
        moved = prefixed("outer", self.outer.permute(within("outer", parameters), moves[0]))
        for g, (old, one) in enumerate(zip(*moves, strict=True)):
            moved |= prefixed(f"inner.{g}", self.branches[old].permute(within(f"inner.{old}", parameters), one))
        return moved

    def sorted_order(self, key: np.ndarray) -> list[int]:
        """The largest key first within each group, and the largest sum of keys first among groups that are alike."""
        inner, groups = self.branches, self._groups
        inside = [[group.start + i for i in inner[g].sorted_order(key[group])] for g, group in enumerate(groups)]
        sums = np.array([key[group].sum() for group in groups])
        alike = list(range(len(groups)))
        for g in range(len(groups)):
            places = [h for h in range(len(groups)) if _alike(inner[g], inner[h])]
            for place, old in zip(places, sorted(places, key=lambda h: -sums[h]), strict=True):
                alike[place] = old
        # An outer gate that is a tree has its own order; where neither is possible the groups stay.
        candidates = (self.outer.sorted_order(sums), alike, list(range(len(groups))))
        old_groups = next(candidate for candidate in candidates if self._may_exchange(candidate))
        return [i for old in old_groups for i in inside[old]]

    def symmetries(self) -> tuple[Symmetry, ...]:
        """Each part's own."""
        return tuple(
            part_symmetry(prefix, role, symmetry)
            for prefix, role, gate in self._parts
            for symmetry in gate.symmetries()
        )

    def identified(self, parameters: Parameters) -> Tensor:
        """The parts' identified functions, the outer gate's first."""
        return torch.cat([gate.identified(within(prefix, parameters)) for prefix, _, gate in self._parts])

    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """The parts' quantities, named "outer gate 1 vs 2" for groups and "inner gate 1: 1 vs 2" within group 1."""
        return [
            Quantity(_component(role, quantity.component), quantity.term, quantity.positive)
            for _, role, gate in self._parts
            for quantity in gate.quantities(features)
        ]

    def unstandardise(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Each part's own.

        Raises:
            InputError: a part is not affine equivariant.
        """
        moved: Parameters = {}
        for prefix, _, gate in self._parts:
            moved |= prefixed(prefix, gate.unstandardise(within(prefix, parameters), shift, scale))
        return moved

    def expression(self) -> Formula | None:
        """The score of a leaf in the first group."""
        from gatewise.gates.scores import renamed
        from gatewise.parts.expressions import formula_of

        outer, inner = formula_of(self.outer), formula_of(self.branches[0])
        if outer is None or inner is None:
            return None
        outer, inner = renamed(outer, "ᵒ", "outer"), renamed(inner, "ⁱ", "inner")
        return Formula(
            self.name,
            outer.x,
            (*outer.parameters, *inner.parameters),
            (outer.values[0] + inner.values[0],),
            {**outer.special, **inner.special},
            note="of one leaf of the tree: ᵒ marks the outer gate, ⁱ the first inner one; biases are left out: weights",
        )

    def atoms(self) -> dict[str, Tensor]:
        """The outer gate's atoms as `gate_outer_…`, repeated for each expert of a group; `gate_inner_…` for the others.

        Where inner gates differ in kind, so that their arrays do not fit together, each has names of its own with the
        group's number, `gate_inner_1_…`, and a leading axis of the group's length.
        """
        sizes = torch.tensor([gate.n_experts for gate in self.branches])
        outer = {n: v.repeat_interleave(sizes.to(v.device), 0) for n, v in _atoms("outer", self.outer).items()}
        inner = [_atoms("inner", gate) for gate in self.branches]
        kinds = [{name: value.shape[1:] for name, value in atoms.items()} for atoms in inner]
        if all(kind == kinds[0] for kind in kinds):
            return outer | {name: torch.cat([atoms[name] for atoms in inner]) for name in kinds[0]}
        numbered = [_atoms(f"inner_{g}", gate) for g, gate in enumerate(self.branches, 1)]
        return outer | {name: value for atoms in numbered for name, value in atoms.items()}


def _atoms(role: str, gate: Gate) -> dict[str, Tensor]:
    """A part's atoms, its role in their names."""
    return {f"gate_{role}_{name.removeprefix('gate_')}": value for name, value in gate.atoms().items()}


def _component(role: str, component: str) -> str:
    """The name of a part's component in the tree: "gate 1 vs 2" of inner gate 1 is "inner gate 1: 1 vs 2"."""
    if role == "outer gate" and component.startswith("gate"):
        return f"outer {component}"
    local = component.removeprefix("gate").strip()
    return f"{role}: {local}" if local else role


def _alike(one: Gate, other: Gate) -> bool:
    """Whether two inner gates may take each other's parameters: same kind, size, options and buffers."""
    if type(one) is not type(other) or one.n_experts != other.n_experts or one.options() != other.options():
        return False
    return all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def _two_groups(n_experts: int) -> list[int]:
    return [n_experts] if n_experts == 1 else [n_experts - n_experts // 2, n_experts // 2]


def _table(table: Mapping[str, Any]) -> dict[str, Any]:
    """One inner gate's table, checked for its keys."""
    if not isinstance(table, Mapping) or not {"name", "n_experts"} <= set(table) <= {"name", "n_experts", "options"}:
        raise InputError(f"an inner gate is a table with name, n_experts and options, not {shown(table)}")
    return dict(table)


def _check(outer: Gate, inner: Sequence[Gate]) -> None:
    """Refuse parts that do not make a tree of normalised, dense gates.

    Raises:
        InputError: they do not.
    """
    parts = {"the outer gate": outer, **{f"inner gate {g}": gate for g, gate in enumerate(inner, 1)}}
    for role, gate in parts.items():
        if not isinstance(gate, Gate):
            raise InputError(f"{role} is a {type(gate).__name__}: every part of a tree must be a Gate")
        if gate.normaliser != "softmax":
            raise InputError(f"{role} ({gate.name!r}) is not normalised: its weights are no probabilities of a choice")
        if gate.is_joint:
            raise InputError(f"{role} ({gate.name!r}) is a joint model of the inputs: use its conditional form")
        if gate.own_top_k is not None:
            raise InputError(
                f"{role} ({gate.name!r}) keeps {gate.own_top_k} experts, so how many of the tree get weight would "
                "depend on the group: put a top-K gate around the tree instead"
            )
        if gate.n_features != outer.n_features:
            raise InputError(
                f"{role} takes {gate.n_features} inputs and the outer gate {outer.n_features}: make both the same"
            )
        if gate.n_experts < 1:
            raise InputError(f"{role} has no experts: leave its group out")
    if len(inner) != outer.n_experts:
        raise InputError(f"the outer gate has {outer.n_experts} groups, but there are {len(inner)} inner gates")
    seen: dict[int, str] = {}
    for role, gate in parts.items():
        for shared in (*(m for m in gate.modules() if isinstance(m, Gate)), *gate.parameters()):
            if id(shared) in seen:
                raise InputError(f"{seen[id(shared)]} and {role} share parameters: build one gate for each part")
            seen[id(shared)] = role
