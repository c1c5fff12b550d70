"""Students of a known mixture: how far a trained one is from the truth, as a function and expert by expert.

f(x) = Σᵢ wᵢ(x) hᵢ(x), w a softmax of β₁ᵢᵀx + β₀ᵢ over all experts or over the K largest, x ~ N(0, I) in ℝ⁴, and
y = f(x) + noise in ℝ⁴. Students of several sample sizes, or of several K, are trained side by side in one batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from network_models import seeded

D = 4
NOISE = 0.5

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class ExpertKind:
    """Experts with 16 numbers: σ(Ax) with A (4, 4), or Dσ(Ux) with two hidden units.

    Attributes:
        function: σ.
        output_weights: whether there is a D.
    """

    function: Callable[[Tensor], Tensor]
    output_weights: bool = False

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> Parameters:
        """First or true numbers of experts, (…, k) many."""
        if not self.output_weights:
            return {"inner": torch.randn(*shape, D, D, generator=generator) / math.sqrt(D)}
        return {
            "inner": torch.randn(*shape, 2, D, generator=generator) / math.sqrt(D),
            "outer": torch.randn(*shape, D, 2, generator=generator),
        }

    def outputs(self, parameters: Parameters, x: Tensor) -> Tensor:
        """hᵢ(x), (b, n, 4) ↦ (b, k, n, 4)."""
        found = self.function(torch.einsum("bnd,bkhd->bknh", x, parameters["inner"]))
        return torch.einsum("bknh,bkoh->bkno", found, parameters["outer"]) if self.output_weights else found


EXPERTS = {
    "linear": ExpertKind(lambda z: z),
    "polynomial": ExpertKind(torch.square),
    "tanh unit": ExpertKind(torch.tanh),
    "GELU unit": ExpertKind(torch.nn.functional.gelu),
    "two-layer tanh": ExpertKind(torch.tanh, True),
    "two-layer GELU": ExpertKind(torch.nn.functional.gelu, True),
}


def weights_of(parameters: Parameters, x: Tensor, active: Tensor) -> Tensor:
    """Softmax over the `active` (b,) largest logits, (b, n, 4) ↦ (b, k, n)."""
    logits = torch.einsum("bnd,bkd->bkn", x, parameters["slope"]) + parameters["bias"].unsqueeze(-1)
    rank = logits.detach().argsort(1, descending=True).argsort(1)
    return logits.masked_fill(rank >= active.view(-1, 1, 1), -torch.inf).softmax(1)


def mixture(kind: ExpertKind, parameters: Parameters, x: Tensor, active: Tensor) -> Tensor:
    """f(x), (b, n, 4) ↦ (b, n, 4)."""
    return (weights_of(parameters, x, active).unsqueeze(-1) * kind.outputs(parameters, x)).sum(1)


def truth(kind: ExpertKind, n_experts: int, seed: int) -> Parameters:
    """A teacher, in a batch of one: gate slopes of length 2."""
    draw = seeded(seed, "teacher")
    slope = torch.randn(1, n_experts, D, generator=draw)
    gate = {"slope": 2.0 * slope / slope.norm(dim=-1, keepdim=True), "bias": torch.zeros(1, n_experts)}
    return {**gate, **kind.draw(draw, (1, n_experts))}


@dataclass(frozen=True)
class Lesson:
    """What students learn from, and how long.

    Attributes:
        true_experts: k* of the teacher.
        true_active: K of the teacher.
        experts: k of the students.
        sizes: how many rows each student has: the first ones of the same rows.
        active: K of each student.
        steps: of Adam, with 256 rows each and a rate that falls from .02 to 0 along a cosine.
    """

    true_experts: int
    true_active: int
    experts: int
    sizes: tuple[int, ...]
    active: tuple[int, ...]
    steps: int


def taught(kind: ExpertKind, lesson: Lesson, seed: int) -> dict[str, list[float]]:
    """Of each student the squared error of its function, and how far its experts are from true ones.

    Returns:
        `excess`: E‖f − f*‖²/E‖f* − E f*‖² on new rows. `experts`: Σᵢ w̄ᵢ minⱼ E‖hᵢ − h*ⱼ‖²/E‖h*ⱼ‖², w̄ the mean weights.
    """
    teacher, one = truth(kind, lesson.true_experts, seed), torch.tensor([lesson.true_active])
    draw, b = seeded(seed, "rows"), len(lesson.sizes)
    x = torch.randn(1, max(lesson.sizes), D, generator=draw)
    y = mixture(kind, teacher, x, one) + NOISE * torch.randn(1, x.shape[1], D, generator=draw)
    start = seeded(seed, "student")
    student = {
        "slope": 0.1 * torch.randn(1, lesson.experts, D, generator=start),
        "bias": torch.zeros(1, lesson.experts),
        **kind.draw(start, (1, lesson.experts)),
    }
    student = {name: value.repeat(b, *[1] * (value.ndim - 1)).requires_grad_() for name, value in student.items()}
    active, sizes = torch.tensor(lesson.active), torch.tensor(lesson.sizes).view(-1, 1)
    optimiser = torch.optim.Adam(student.values(), lr=0.02, fused=True)
    for step in range(lesson.steps):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * (1.0 + math.cos(math.pi * step / lesson.steps))
        rows = (torch.rand(b, 256, generator=draw) * sizes).long()
        loss = (mixture(kind, student, x[0, rows], active) - y[0, rows]).square().mean((1, 2)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        new = torch.randn(1, 8192, D, generator=seeded(seed, "new"))
        aim, many = mixture(kind, teacher, new, one), new.expand(b, -1, -1)
        spread = (aim - aim.mean(1, keepdim=True)).square().mean()
        excess = (mixture(kind, student, many, active) - aim).square().mean((1, 2)) / spread
        own, true = kind.outputs(student, many), kind.outputs(teacher, new)
        apart = (own.unsqueeze(2) - true.unsqueeze(1)).square().mean((-1, -2)) / true.square().mean((-1, -2))
        share = weights_of(student, many, active).mean(-1)
        experts = (share * apart.amin(-1)).sum(-1)
    return {"excess": _rounded(excess), "experts": _rounded(experts)}


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
