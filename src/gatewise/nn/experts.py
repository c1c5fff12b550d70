"""Banks of equal small networks, the experts of a sparse layer, with one array for each kind of weight."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from gatewise.nn.arguments import whole
from gatewise.parts.activations import Activation
from gatewise.parts.activations import activation as activation_of

__all__ = ["GLUBank", "MLPBank", "NetworkBank"]

Network = Callable[[Tensor], Tensor]


class Product(Protocol):
    """X wᵀ + b, as `torch.nn.functional.linear` has it."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, /) -> Tensor:
        """Of tokens (n, in), of a weight and perhaps a bias of one expert or of all."""
        ...


class NetworkBank(nn.Module, ABC):
    """E networks fᵢ: ℝᵈ → ℝᵈ of one form, with weights (E, out, in) and perhaps biases (E, out).

    Args:
        n_experts: E.
        d: the length of a token.
        hidden: the number of hidden units of each.
        activation: a registered name, or a function of tensors (n, hidden), or a module: that is one for all experts.
        bias: whether a bias is added after each product; it begins at 0.

    Raises:
        InputError: a size is not positive, or there is no such activation.
    """

    def __init__(self, n_experts: int, d: int, hidden: int, activation: str | Activation, bias: bool = False) -> None:
        super().__init__()
        for name, value in (("n_experts", n_experts), ("d", d), ("hidden", hidden)):
            whole(name, value)
        self.n_experts = n_experts
        self.d = d
        self.hidden = hidden
        named = isinstance(activation, str)
        self.activation = activation if named else getattr(activation, "__name__", type(activation).__name__)
        # A module is registered by this, so that what it learns is trained and saved.
        self._function = activation_of(activation) if named else activation
        self.bias = bias

    @abstractmethod
    def weights(self) -> tuple[nn.Parameter, ...]:
        """The arrays (E, out, in), and then biases (E, out), in the order in which `apply_with` wants their slices."""

    @abstractmethod
    def apply_with(self, x: Tensor, weights: tuple[Tensor, ...], product: Product) -> Tensor:
        """F(x) (n, d) of tokens (n, d), with `product(x, w, b)` for x wᵀ + b and `product(x, w)` for x wᵀ.

        One definition serves one expert, whose weights have two axes, and all at once with grouped products.
        """

    def like(self, n_experts: int) -> Self:
        """A new bank of the same form with another number of experts."""
        made = type(self)(n_experts, self.d, self.hidden, self._function, **({"bias": True} if self.bias else {}))
        made.activation = self.activation
        return made

    def networks(self) -> list[Network]:
        """f₁ … f_E, each (n, d) ↦ (n, d)."""
        # `unbind` once: a slice taken in a loop fills a zero gradient of the whole array for every expert.
        slices = zip(*(weight.unbind(0) for weight in self.weights()), strict=True)
        return [lambda x, own=own: self.apply_with(x, own, torch.nn.functional.linear) for own in slices]

    def grouped(self, x: Tensor, ends: Tensor) -> Tensor:
        """F of tokens (n, d) that are sorted by expert, those of expert i from ends[i − 1] to ends[i] (int32, (E,))."""

        def product(tokens: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            found = torch.nn.functional.grouped_mm(tokens, weight.transpose(-2, -1), offs=ends)
            if bias is None:
                return found
            # Whose token each is.
            places = torch.arange(len(tokens), device=tokens.device, dtype=ends.dtype)
            return found + bias[torch.searchsorted(ends, places, right=True)]

        return self.apply_with(x, self.weights(), product)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Numbers uniform on ±1/√(inputs), as `torch.nn.Linear` has them, and biases of 0."""
        for weight in self.weights():
            with torch.no_grad():
                if weight.ndim == 2:
                    weight.zero_()
                    continue
                bound = 1.0 / math.sqrt(weight.shape[-1])
                weight.uniform_(-bound, bound, generator=generator)

    def extra_repr(self) -> str:
        """The sizes."""
        sizes = f"n_experts={self.n_experts}, d={self.d}, hidden={self.hidden}, activation={self.activation!r}"
        return f"{sizes}, bias=True" if self.bias else sizes


class MLPBank(NetworkBank):
    """fᵢ(x) = Dᵢ σ(Uᵢ x) with one hidden layer; with biases Dᵢ σ(Uᵢ x + uᵢ) + cᵢ.

    Example:
        >>> bank = MLPBank(n_experts=4, d=8, hidden=16, activation="relu")
        >>> len(bank.networks()), bank.networks()[0](torch.zeros(3, 8)).shape
        (4, torch.Size([3, 8]))
    """

    up_bias: nn.Parameter
    down_bias: nn.Parameter

    def __init__(
        self, n_experts: int, d: int, hidden: int, activation: str | Activation = "gelu", bias: bool = False
    ) -> None:
        super().__init__(n_experts, d, hidden, activation, bias)
        self.up = nn.Parameter(torch.empty(n_experts, hidden, d))
        self.down = nn.Parameter(torch.empty(n_experts, d, hidden))
        if bias:
            self.up_bias = nn.Parameter(torch.empty(n_experts, hidden))
            self.down_bias = nn.Parameter(torch.empty(n_experts, d))
        self.reset_parameters()

    def weights(self) -> tuple[nn.Parameter, ...]:
        """U (E, hidden, d) and D (E, d, hidden), and the biases u (E, hidden) and c (E, d) if there are any."""
        return (self.up, self.down, self.up_bias, self.down_bias) if self.bias else (self.up, self.down)

    def apply_with(self, x: Tensor, weights: tuple[Tensor, ...], product: Product) -> Tensor:
        """D σ(U x + u) + c."""
        up, down, *biases = weights
        up_bias, down_bias = biases or (None, None)
        return product(self._function(product(x, up, up_bias)), down, down_bias)


class GLUBank(NetworkBank):
    """fᵢ(x) = Dᵢ (σ(Gᵢ x) ⊙ Uᵢ x), a gated linear unit (Shazeer 2020, arXiv:2002.05202); each product may have a bias.

    G and U lie in one array `gate_up` (E, 2 · hidden, d), G first, as Hugging Face's models have them.

    Example:
        >>> bank = GLUBank(n_experts=4, d=8, hidden=16)
        >>> bank.gate_up.shape, bank.down.shape
        (torch.Size([4, 32, 8]), torch.Size([4, 8, 16]))
    """

    gate_up_bias: nn.Parameter
    down_bias: nn.Parameter

    def __init__(
        self, n_experts: int, d: int, hidden: int, activation: str | Activation = "silu", bias: bool = False
    ) -> None:
        super().__init__(n_experts, d, hidden, activation, bias)
        self.gate_up = nn.Parameter(torch.empty(n_experts, 2 * hidden, d))
        self.down = nn.Parameter(torch.empty(n_experts, d, hidden))
        if bias:
            self.gate_up_bias = nn.Parameter(torch.empty(n_experts, 2 * hidden))
            self.down_bias = nn.Parameter(torch.empty(n_experts, d))
        self.reset_parameters()

    def weights(self) -> tuple[nn.Parameter, ...]:
        """(G, U) (E, 2 · hidden, d) and D (E, d, hidden), and biases (E, 2 · hidden) and (E, d) if there are any."""
        return (self.gate_up, self.down, self.gate_up_bias, self.down_bias) if self.bias else (self.gate_up, self.down)

    def apply_with(self, x: Tensor, weights: tuple[Tensor, ...], product: Product) -> Tensor:
        """D (σ(G x + g) ⊙ (U x + u)) + c."""
        gate_up, down, *biases = weights
        gate_up_bias, down_bias = biases or (None, None)
        gate, up = product(x, gate_up, gate_up_bias).chunk(2, dim=-1)
        return product(self._function(gate) * up, down, down_bias)
