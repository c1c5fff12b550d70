"""The gates of exits: one logistic regression for each exit but the last."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ExitGates", "logistic_regressions"]

_RIDGE = 1e-4
_BIAS_RIDGE = 1e-6
_MOST_STEPS = 60


class ExitGates(nn.Module):
    """g_l = sigmoid(w_l·(s − μ_l)/σ_l + b_l) of what is known at exit l, s (n, F), for each exit but the last.

    Args:
        n_gates: L − 1.
        n_features: F.

    Attributes:
        weight: (L − 1, F).
        bias: (L − 1,).

    Example:
        >>> s = torch.linspace(0.0, 1.0, 200).reshape(-1, 1, 1)
        >>> gates = ExitGates(1, 1).fit(s, s[:, 0] > 0.5)
        >>> gates(0, torch.tensor([[0.1], [0.9]])).round().tolist()
        [0.0, 1.0]
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, n_gates: int, n_features: int) -> None:
        super().__init__()
        # Buffers: a network's optimiser has no business with them, they are fitted by Newton's method.
        self.register_buffer("weight", torch.zeros(n_gates, n_features))
        self.register_buffer("bias", torch.zeros(n_gates))
        self.register_buffer("shift", torch.zeros(n_gates, n_features))
        self.register_buffer("scale", torch.ones(n_gates, n_features))

    def logits(self, gate: int, features: Tensor) -> Tensor:
        """The logit (n,) of one gate."""
        return ((features - self.shift[gate]) / self.scale[gate]) @ self.weight[gate] + self.bias[gate]

    def forward(self, gate: int, features: Tensor) -> Tensor:
        """g_l (n,) of features (n, F)."""
        return torch.sigmoid(self.logits(gate, features))

    def all(self, features: Tensor) -> Tensor:
        """G (n, L − 1) of features (n, L − 1, F)."""
        return torch.stack([self(gate, features[:, gate]) for gate in range(len(self.bias))], -1)

    def fit(self, features: Tensor, targets: Tensor, positive_weight: Tensor | None = None) -> "ExitGates":
        """Fit all gates to the end: the mean weighted cross-entropy with a ridge of 1e-4 on standardised weights.

        Args:
            features: (n, L − 1, F).
            targets: (n, L − 1), true where the gate should fire.
            positive_weight: (L − 1,), the weight of the samples that should leave; 1 by default.
        """
        scale, shift = torch.std_mean(features.double(), dim=0, correction=0)
        scale = torch.where(scale > 1e-9, scale, torch.ones_like(scale))
        weight, bias = logistic_regressions((features.double() - shift) / scale, targets, positive_weight)
        found: dict[str, Any] = {"weight": weight, "bias": bias, "shift": shift, "scale": scale}
        for name, value in found.items():
            getattr(self, name).copy_(value)
        return self


def logistic_regressions(x: Tensor, targets: Tensor, positive_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weights (G, F) and biases (G,) of G logistic regressions at once, by Newton's method with halved steps.

    Each minimises mean_i v_i [softplus(z_i) − t_i z_i] + 1e-4 ‖w‖² + 1e-6 b², with v_i = 1 or the weight of positives.
    The second ridge only matters where all targets are equal: the bias then ends at about ±10.

    Args:
        x: (n, G, F), standardised, float64.
        targets: (n, G).
        positive_weight: (G,) or None.
    """
    n, gates, width = x.shape
    t = targets.to(x.dtype)
    # (G, n, F + 1): one batched product per step.
    design = torch.cat([x, torch.ones(n, gates, 1, dtype=x.dtype)], -1).transpose(0, 1).contiguous()
    t = t.T.contiguous()
    v = torch.ones_like(t) if positive_weight is None else torch.where(t > 0.5, positive_weight.to(t)[:, None], 1.0)
    ridge = torch.full((width + 1,), _RIDGE, dtype=x.dtype)
    ridge[-1] = _BIAS_RIDGE
    beta = torch.zeros(gates, width + 1, dtype=x.dtype)

    def value(beta: Tensor) -> Tensor:
        z = (design @ beta.unsqueeze(-1)).squeeze(-1)
        return (v * (nn.functional.softplus(z) - t * z)).mean(1) + (ridge * beta * beta).sum(1)

    best = value(beta)
    # At the minimum the rounding of the value decides nothing.
    slack = 1e-13
    for _ in range(_MOST_STEPS):
        p = torch.sigmoid((design @ beta.unsqueeze(-1)).squeeze(-1))
        gradient = (design.transpose(1, 2) @ (v * (p - t)).unsqueeze(-1)).squeeze(-1) / n + 2 * ridge * beta
        curvature = (design.transpose(1, 2) * (v * p * (1 - p)).unsqueeze(1)) @ design / n + 2 * torch.diag(ridge)
        step = torch.linalg.solve(curvature, gradient)
        size = torch.ones(gates, dtype=x.dtype)
        for _ in range(30):
            trial = beta - size.unsqueeze(1) * step
            new = value(trial)
            worse = new > best + slack
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2, size)
        better = value(beta - size.unsqueeze(1) * step) <= best + slack
        beta = torch.where(better.unsqueeze(1), beta - size.unsqueeze(1) * step, beta)
        best = value(beta)
        if float((gradient * step).sum(1).abs().max()) < 1e-14:
            break
    return beta[:, :-1], beta[:, -1]
