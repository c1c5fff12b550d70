"""What a gate is: x ↦ log π(x)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.gates.starts import multinomial_start
from gatewise.ops.log_space import log_softmax
from gatewise.parts.component import Atoms, Component, of_possible_size
from gatewise.parts.draws import Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.options import with_options
from gatewise.parts.parameters import Parameters, Quantity, Symmetry
from gatewise.parts.registry import Registry
from gatewise.parts.spread import Spread

__all__ = ["GATES", "LINEAR_GATE", "WEIGHTS", "Gate", "GateLogits", "Normaliser", "build_gate"]

Normaliser = Literal["softmax", "none"]

WEIGHTS = ("gate_bias", "gate_log_weight")
"""Entries of `atoms` of which the weights of a mixing measure are made."""


class Gate(Component, ABC):
    """A gate turns inputs (…, d) into log-weights log π (…, k): logits and a normaliser.

    Attributes:
        atom_entries: the entry of `atoms` that a parameter is, by the parameter's name.
        n_studied: how many experts the theory builds it with where a study of the weights needs no more.
        loose_options: names of options that may differ between gates whose parameters are compared.
    """

    atom_entries: ClassVar[Mapping[str, str]] = {"bias": "gate_bias", "weight": "gate_slope", "centre": "gate_centre"}
    n_studied: ClassVar[int] = 3
    loose_options: ClassVar[tuple[str, ...]] = ()

    @property
    def normaliser(self) -> Normaliser:
        """How logits become weights: "softmax", or "none" where exp(logits) are the weights and need not sum to 1."""
        return "softmax"

    @property
    def is_joint(self) -> bool:
        """Whether exp(logits) is a density of x and the expert together, so that p(x, y) can be fitted."""
        return False

    @property
    def own_top_k(self) -> int | None:
        """How many experts get weight at an input: K of a sparse gate, None if all do."""
        return None

    @property
    def selects_on(self) -> str | None:
        """What a sparse gate compares: "slope", the logits without their biases, or "logit"; None if all get weight."""
        return None

    @property
    def dense(self) -> "Gate":
        """The gate inside a sparse gate's selection; the gate itself if all experts get weight."""
        return self

    @property
    def branches(self) -> list["Gate"]:
        """Of a tree the gates inside the groups of experts, in order; none of a flat gate."""
        return []

    @property
    def root(self) -> "Gate":
        """Of a tree the gate of the groups; the gate itself if it is flat."""
        return self

    def components(self) -> list[tuple[str, "Gate", list[tuple[int, ...]]]]:
        """The flat gates it is made of: the prefix of their parameters' names, the gate, each row's experts."""
        return [("", self, [(expert,) for expert in range(self.n_experts)])]

    @property
    def weight_link(self) -> Literal["log", "logit"]:
        """How β₀ is the weight w of an atom: log w = β₀ (over a temperature), or log w/(1 − w) = β₀."""
        return "log"

    @property
    def most_routing_features(self) -> int | None:
        """The largest d at which the gate may route tokens of a network; None without a limit.

        A gate that has a matrix for each expert costs d times as much as a linear one, in memory and in time.
        """
        return None

    @property
    def spread(self) -> Spread | None:
        """What makes a joint density of inputs and target unbounded where it runs to 0; None for weights alone."""
        return None

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Log-weights before normalisation, (…, d) ↦ (…, k)."""

    def forward(self, x: Tensor) -> Tensor:
        """Log-weights log π(x), (…, d) ↦ (…, k): the logits, normalised by a softmax if the gate is."""
        logits = self.logits(x)
        return log_softmax(logits) if self.normaliser == "softmax" else logits

    def selection_score(self, x: Tensor) -> Tensor:
        """What a sparse gate compares, of all experts, (…, d) ↦ (…, k); the logits if all get weight."""
        return self.logits(x)

    def selection(self, x: Tensor) -> Tensor:
        """Whether each expert gets weight, (…, d) ↦ bool (…, k)."""
        return self.logits(x) > -torch.inf

    def slope_score(self, x: Tensor) -> Tensor:
        """The logits without the bias, (…, k), for gates that have one.

        Raises:
            InputError: the gate has no bias that could be left out.
        """
        raise InputError(f"the {self.name} gate has no score without bias: let the selection look at the logit")

    def assign(self, coefficients: Tensor) -> None:
        """Set the parameters so that the logits are (1, x) Bᵀ, from B (k, 1 + d), constants first.

        Raises:
            InputError: the gate has no such logits.
        """
        raise InputError(f"the logits of the {self.name} gate are no linear functions of x with coefficients to set")

    def draw_inputs(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """N inputs (n, d) from the density of a joint gate.

        Raises:
            InputError: the gate is no density of the inputs.
        """
        raise InputError(f"the {self.name} gate is no density of the inputs: they cannot be drawn from it")

    def place(self, direction: Tensor, point: Tensor) -> None:
        """Tell the experts apart at the start of a network's training; nothing else changes.

        Args:
            direction: what slopes and directions become, (k, d).
            point: what centres become, (k, d), in the units of x.
        """
        self.assign_parameters({**self.own_parameters(), "weight": direction})

    def start(self, x: Tensor, shares: Tensor, draws: Draws) -> Parameters:
        """The parameters at which a fit to a table begins, given how much of each row every expert has.

        With a `basis` φ three Newton steps, halved until they climb, toward the multinomial logistic regression

            max_B Σ_r Σᵢ s_ri (bᵢᵀφ(x_r) − log Σⱼ exp(bⱼᵀφ(x_r))),   b_k = 0,

        the gate's M-step of Jordan and Jacobs (1994); without one, the present values and a little normal noise.
        Networks begin otherwise: see `place`.

        Args:
            x: the rows' inputs as the gate sees them in the fit, in float64 (n, d).
            shares: s, weight times responsibility (n, k).
            draws: random numbers, keyed by the start, that follow columns and rows wherever they stand.

        Returns:
            All parameters by name.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> from gatewise.gates import SoftmaxGate
            >>> from gatewise.parts.draws import Draws
            >>> x = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
            >>> shares = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.8, 0.2]], dtype=torch.float64)
            >>> draws = Draws(np.random.default_rng(0), np.arange(1), np.arange(3), np.ones(3))
            >>> SoftmaxGate(1, 2).double().start(x, shares, draws)["weight"].round(decimals=2)
            tensor([[1.3900],
                    [0.0000]], dtype=torch.float64)
        """
        basis = self.basis(x)
        if basis is None:
            return draws.around(self, self.own_parameters())
        return multinomial_start(self, basis.detach(), shares)

    def route(self, x: Tensor, top_k: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Which K experts an input goes to, and with what weights.

        Args:
            x: inputs (…, d).
            top_k: K; None for the gate's own, or k if it has none.

        Returns:
            weights (…, K), largest first, normalised over the chosen K if the gate is normalised; indices (…, K); and
            log_weights (…, k) of all experts as `forward` gives them.

        Raises:
            InputError: K is not between 1 and k, or more than the gate's own.
        """
        log_weights = self.forward(x)
        most = self.own_top_k or self.n_experts
        chosen = most if top_k is None else top_k
        if not 1 <= chosen <= most:
            raise InputError(f"top_k must lie between 1 and {most}, not {chosen}")
        values, indices = log_weights.topk(chosen, dim=-1)
        values = log_softmax(values) if self.normaliser == "softmax" else values
        return values.exp(), indices, log_weights

    @abstractmethod
    def atoms(self) -> dict[str, Tensor]:
        """The gate's part of the mixing measure, one leading axis of length k per entry."""

    def parameters_of(self, atoms: Atoms) -> Parameters:
        """The parameters that have these atoms: the present ones if they do, else those that are entries themselves.

        Biases, which are weights, are not compared.

        Args:
            atoms: entries of `atoms` by name, of as many atoms as there are experts.

        Raises:
            InputError: a parameter is none of the entries.
        """
        own = self.own_parameters()
        present = {name: value for name, value in self.atoms().items() if name not in WEIGHTS}
        if all(n in atoms and np.array_equal(atoms[n], value.double().numpy()) for n, value in present.items()):
            return {name: value.clone() for name, value in own.items()}
        missing = [name for name in own if self.atom_entries.get(name) not in atoms]
        if missing:
            raise InputError(f"the parameter {missing[0]} of the {self.name!r} gate cannot be told from its atoms")
        return {n: torch.from_numpy(atoms[self.atom_entries[n]].copy()).reshape(own[n].shape).to(own[n]) for n in own}

    def reduced(self) -> "Gate":
        """A gate with the same weights in whose parameters losses are taken; by default the gate itself."""
        return self

    def expression(self) -> Formula | None:
        """The score of one atom, without its bias, as a formula for the theory, or None.

        Without one derivatives are taken by torch, with 15 digits, and identities are not confirmed by algebra.
        """
        return None

    @abstractmethod
    def symmetries(self) -> tuple[Symmetry, ...]:
        """What leaves log π unchanged, but for permutations of the experts; acts on this gate's own parameters.

        A symmetry whose dimension depends on the parameters is declared for the present ones.
        """

    def sorted_order(self, key: np.ndarray) -> list[int]:
        """The allowed order of the experts that puts the largest key (k,) first, ties in the present order."""
        return np.argsort(-key, kind="stable").tolist()

    @abstractmethod
    def identified(self, parameters: Parameters) -> Tensor:
        """The functions of the parameters that π determines, (q,): blind to `symmetries`, differentiable."""

    @abstractmethod
    def quantities(self, features: Sequence[str]) -> list[Quantity]:
        """What the entries of `identified` are, (q,), given the names of the d inputs."""


class GateLogits(nn.Module):
    """A gate's logits as the forward pass of a module, for `torch.func.functional_call` with other parameters.

    The parameters are those of the gate, under the prefix "gate".

    Args:
        gate: it is used as it is, not copied.

    Example:
        >>> import torch
        >>> from gatewise.gates import SoftmaxGate
        >>> module = GateLogits(SoftmaxGate(n_features=1, n_experts=2))
        >>> other = {"gate.weight": torch.tensor([[1.0], [2.0]]), "gate.bias": torch.zeros(2)}
        >>> torch.func.functional_call(module, other, (torch.ones(1, 1),))
        tensor([[1., 2.]])
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """The gate's logits, (…, d) ↦ (…, k)."""
        return self.gate.logits(x)


GATES: Registry[type[Gate]] = Registry("gate")

LINEAR_GATE = "softmax"
"""The name of the gate whose logits are those of a linear layer: the router of most networks, and the default."""


def build_gate(name: str, n_features: int, n_experts: int, **options: Any) -> Gate:
    """A gate by its registered name, with options that are plain data.

    Raises:
        InputError: the name or an option is unknown.

    Example:
        >>> from gatewise.gates import build_gate
        >>> build_gate("softmax", n_features=2, n_experts=3)
        SoftmaxGate(n_features=2, n_experts=3)
    """
    cls = GATES[name]
    return with_options(
        "gate", cls, options, lambda given: of_possible_size(lambda: cls.of(n_features, n_experts, **given))
    )
