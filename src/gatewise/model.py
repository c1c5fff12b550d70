"""The mixture of experts: a gate, a bank of experts and a family, and nothing else."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import elementwise
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.experts import Experts
from gatewise.families import Family
from gatewise.gates import Gate
from gatewise.ops.log_space import log_softmax, logsumexp


@dataclass(frozen=True)
class Atoms:
    """The mixing measure G = Σᵢ exp(β₀ᵢ) δ_(β₁ᵢ, ηᵢ, σᵢ²): one row per expert in every array.

    Attributes:
        gate: the gate's arrays by name (`gate_bias` β₀, `gate_slope` β₁ for a softmax gate).
        expert: the experts' arrays by name (`expert_slope` a, `expert_intercept` b for linear experts).
        variance: σ², the theory's scale parameter, (k,); empty for a family without a scale.
    """

    gate: dict[str, np.ndarray]
    expert: dict[str, np.ndarray]
    variance: np.ndarray


class MixtureOfExperts(nn.Module):
    """p(y | x) = Σᵢ πᵢ(x) f(y | h(x, ηᵢ), σᵢ): a gate π, a bank of experts h and a family f.

    Inputs are (…, d) and targets (…,). The gate may see other inputs than the experts: pass them as `gate_x`;
    without it the gate sees x, or nothing if it has no features.

    Args:
        gate: x ↦ log π(x).
        experts: x ↦ locations, and log-scales.
        family: log f(y | location, log-scale).

    Raises:
        InputError: the gate and the experts do not have the same number of experts.

    Example:
        >>> import torch
        >>> from gatewise.experts import LinearExperts
        >>> from gatewise.families import Gaussian
        >>> from gatewise.gates import SoftmaxGate
        >>> model = MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(1, 2), Gaussian())
        >>> model.log_prob(torch.zeros(3, 1), torch.zeros(3)).detach()
        tensor([-0.9189, -0.9189, -0.9189])
    """

    def __init__(self, gate: Gate, experts: Experts, family: Family) -> None:
        super().__init__()
        if gate.n_experts != experts.n_experts:
            raise InputError(
                f"the gate has {gate.n_experts} experts and the bank {experts.n_experts}: make both the same"
            )
        self.gate = gate
        self.experts = experts
        self.family = family

    @property
    def n_experts(self) -> int:
        """k, the number of experts."""
        return self.gate.n_experts

    def _gate_input(self, x: Tensor, gate_x: Tensor | None) -> Tensor:
        if gate_x is not None:
            return gate_x
        return x[..., :0] if self.gate.n_features == 0 else x

    def log_weights(self, x: Tensor, gate_x: Tensor | None = None) -> Tensor:
        """Log πᵢ(x), (…, d) ↦ (…, k)."""
        return self.gate(self._gate_input(x, gate_x))

    def log_joint(self, x: Tensor, y: Tensor, gate_x: Tensor | None = None) -> Tensor:
        """Log πᵢ(x) + log f(y | h(x, ηᵢ)), (…, k): its logsumexp is `log_prob`, its softmax `responsibilities`."""
        location, log_scale = self.experts(x)
        return self.log_weights(x, gate_x) + self.family.log_density(y, location, log_scale)

    def log_prob(self, x: Tensor, y: Tensor, gate_x: Tensor | None = None) -> Tensor:
        """Log p(y | x), shape (…)."""
        return logsumexp(self.log_joint(x, y, gate_x))

    def responsibilities(self, x: Tensor, y: Tensor, gate_x: Tensor | None = None) -> Tensor:
        """P(expert i | x, y) = πᵢ f(y | h(x, ηᵢ)) / p(y | x), (…, k)."""
        return log_softmax(self.log_joint(x, y, gate_x)).exp()

    def mean(self, x: Tensor, gate_x: Tensor | None = None) -> Tensor:
        """E[y | x] = Σᵢ πᵢ(x) E[y | expert i], shape (…)."""
        weights = self.log_weights(x, gate_x).exp()
        return (weights * self.family.mean(*self.experts(x))).sum(-1)

    def variance(self, x: Tensor, gate_x: Tensor | None = None) -> Tensor:
        """Var[y | x] = Σᵢ πᵢ (vᵢ + (mᵢ − m)²) with m the mixture's mean, shape (…)."""
        weights = self.log_weights(x, gate_x).exp()
        parameters = self.experts(x)
        means = self.family.mean(*parameters)
        centre = (weights * means).sum(-1, keepdim=True)
        return (weights * (self.family.variance(*parameters) + (means - centre) ** 2)).sum(-1)

    def distribution_function(self, x: Tensor, y: Tensor, gate_x: Tensor | None = None) -> Tensor:
        """P(Y ≤ y | x) = Σᵢ πᵢ(x) Fᵢ(y), shape (…); at the data it is the probability integral transform."""
        weights = self.log_weights(x, gate_x).exp()
        return (weights * self.family.distribution_function(y, *self.experts(x))).sum(-1)

    @torch.no_grad()
    def quantile(self, x: Tensor, probability: float, gate_x: Tensor | None = None) -> Tensor:
        """The mixture's own quantile: the y with P(Y ≤ y | x) = `probability`, shape (…).

        The mixture's quantile lies between the smallest and the largest of its experts' quantiles; within this
        bracket it is found by Chandrupatla's method, to the last digits.

        Raises:
            InputError: `probability` does not lie strictly between 0 and 1.
        """
        if not 0.0 < probability < 1.0:
            raise InputError(f"a quantile's probability must lie strictly between 0 and 1, not {probability}")
        batch = x.shape[:-1]
        weights = self.log_weights(x, gate_x).exp().reshape(-1, self.n_experts)
        location, log_scale = self.experts(x)
        location = location.reshape(-1, self.n_experts)
        level = torch.full((len(location),), probability, dtype=location.dtype, device=location.device)
        per_expert = self.family.quantile(level, location, log_scale)
        low, high = per_expert.amin(-1), per_expert.amax(-1)

        def excess(y: np.ndarray, row: np.ndarray) -> np.ndarray:
            index = torch.as_tensor(row, device=location.device)
            target = torch.as_tensor(y, dtype=location.dtype, device=location.device)
            below = self.family.distribution_function(target, location[index], log_scale)
            return ((weights[index] * below).sum(-1) - probability).cpu().numpy()

        bracket, row = (low.cpu().numpy(), high.cpu().numpy()), np.arange(len(location))
        answer = bracket[0]
        if len(location) and self.n_experts > 1:
            found = elementwise.find_root(excess, bracket, args=(row,))
            # Rounding can leave no change of sign where one expert has all the weight or all agree: an end is the root.
            answer = np.where(excess(bracket[1], row) <= 0.0, bracket[1], np.where(found.success, found.x, bracket[0]))
        return torch.as_tensor(answer, dtype=location.dtype, device=location.device).reshape(batch)

    @torch.no_grad()
    def sample(self, x: Tensor, gate_x: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y at each input, shape (…): first the expert, then its target."""
        log_weights = self.log_weights(x, gate_x)
        uniform = torch.rand(log_weights.shape, generator=generator, dtype=log_weights.dtype, device=log_weights.device)
        chosen = (log_weights - torch.log(-torch.log(uniform))).argmax(-1, keepdim=True)
        draws = self.family.sample(*self.experts(x), generator=generator)
        return draws.gather(-1, chosen).squeeze(-1)

    def atoms(self) -> Atoms:
        """The mixing measure in the units of the data; scales appear as variances."""
        _, log_scale = self.experts(torch.zeros(1, self.experts.n_features).to(self.experts.log_scale))
        variance = torch.exp(2.0 * log_scale.detach()).cpu().numpy() if self.family.has_scale else np.empty(0)
        return Atoms(
            gate={name: array.cpu().numpy() for name, array in self.gate.atoms().items()},
            expert={name: array.cpu().numpy() for name, array in self.experts.atoms().items()},
            variance=variance,
        )
