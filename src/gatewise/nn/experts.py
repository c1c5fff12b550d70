"""Banks of equal small networks, the experts of a sparse layer, with one array for each kind of weight."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gatewise.nn.arguments import whole
from gatewise.parts.activations import activation as activation_of

__all__ = ["GLUBank", "MLPBank", "NetworkBank"]

Network = Callable[[Tensor], Tensor]
Product = Callable[[Tensor, Tensor], Tensor]


class NetworkBank(nn.Module, ABC):
    """E networks fᵢ: ℝᵈ → ℝᵈ of one form, with weights (E, out, in).

    Args:
        n_experts: E.
        d: the length of a token.
        hidden: the number of hidden units of each.
        activation: a registered name.

    Raises:
        InputError: a size is not positive, or there is no such activation.
    """

    def __init__(self, n_experts: int, d: int, hidden: int, activation: str) -> None:
        super().__init__()
        for name, value in (("n_experts", n_experts), ("d", d), ("hidden", hidden)):
            whole(name, value)
        self.n_experts = n_experts
        self.d = d
        self.hidden = hidden
        self.activation = activation
        self._function = activation_of(activation)

    @abstractmethod
    def weights(self) -> tuple[nn.Parameter, ...]:
        """The arrays (E, out, in), in the order in which `apply_with` wants their slices."""

    @abstractmethod
    def apply_with(self, x: Tensor, weights: tuple[Tensor, ...], product: Product) -> Tensor:
        """F(x) (n, d) of tokens (n, d), with `product(x, w)` for x wᵀ.

        One definition serves one expert, whose weights have two axes, and all at once with grouped products.
        """

    def networks(self) -> list[Network]:
        """f₁ … f_E, each (n, d) ↦ (n, d)."""
        # `unbind` once: a slice taken in a loop fills a zero gradient of the whole array for every expert.
        slices = zip(*(weight.unbind(0) for weight in self.weights()), strict=True)
        return [lambda x, own=own: self.apply_with(x, own, torch.nn.functional.linear) for own in slices]

    def grouped(self, x: Tensor, ends: Tensor) -> Tensor:
        """F of tokens (n, d) that are sorted by expert, those of expert i from ends[i − 1] to ends[i] (int32, (E,))."""

        def product(tokens: Tensor, weight: Tensor) -> Tensor:
            return torch.nn.functional.grouped_mm(tokens, weight.transpose(-2, -1), offs=ends)

        return self.apply_with(x, self.weights(), product)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Numbers uniform on ±1/√(inputs), as `torch.nn.Linear` has them."""
        for weight in self.weights():
            bound = 1.0 / math.sqrt(weight.shape[-1])
            with torch.no_grad():
                weight.uniform_(-bound, bound, generator=generator)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"n_experts={self.n_experts}, d={self.d}, hidden={self.hidden}, activation={self.activation!r}"


class MLPBank(NetworkBank):
    """fᵢ(x) = Dᵢ σ(Uᵢ x) with one hidden layer and no biases.

    Example:
        >>> bank = MLPBank(n_experts=4, d=8, hidden=16, activation="relu")
        >>> len(bank.networks()), bank.networks()[0](torch.zeros(3, 8)).shape
        (4, torch.Size([3, 8]))
    """

    def __init__(self, n_experts: int, d: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__(n_experts, d, hidden, activation)
        self.up = nn.Parameter(torch.empty(n_experts, hidden, d))
        self.down = nn.Parameter(torch.empty(n_experts, d, hidden))
        self.reset_parameters()

    def weights(self) -> tuple[nn.Parameter, ...]:
        """U (E, hidden, d) and D (E, d, hidden)."""
        return self.up, self.down

    def apply_with(self, x: Tensor, weights: tuple[Tensor, ...], product: Product) -> Tensor:
        """D σ(U x)."""
        up, down = weights
        return product(self._function(product(x, up)), down)


class GLUBank(NetworkBank):
    """fᵢ(x) = Dᵢ (σ(Gᵢ x) ⊙ Uᵢ x), a gated linear unit (Shazeer 2020, arXiv:2002.05202).

    G and U lie in one array `gate_up` (E, 2 · hidden, d), G first, as Hugging Face's models have them.

    Example:
        >>> bank = GLUBank(n_experts=4, d=8, hidden=16)
        >>> bank.gate_up.shape, bank.down.shape
        (torch.Size([4, 32, 8]), torch.Size([4, 8, 16]))
    """

    def __init__(self, n_experts: int, d: int, hidden: int, activation: str = "silu") -> None:
        super().__init__(n_experts, d, hidden, activation)
        self.gate_up = nn.Parameter(torch.empty(n_experts, 2 * hidden, d))
        self.down = nn.Parameter(torch.empty(n_experts, d, hidden))
        self.reset_parameters()

    def weights(self) -> tuple[nn.Parameter, ...]:
        """(G, U) (E, 2 · hidden, d) and D (E, d, hidden)."""
        return self.gate_up, self.down

    def apply_with(self, x: Tensor, weights: tuple[Tensor, ...], product: Product) -> Tensor:
        """D (σ(G x) ⊙ U x)."""
        gate_up, down = weights
        gate, up = product(x, gate_up).chunk(2, dim=-1)
        return product(self._function(gate) * up, down)
