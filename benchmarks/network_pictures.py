"""Routers on pictures that are turned as none before: `python benchmarks/network_pictures.py`.

The digits that come with scikit-learn, turned by −37.5, −12.5, 12.5 and 37.5 degrees; an angle is a domain, and none is
0, which would be the only one with sharp pixels. A small network, a convolution and one sparse layer of eight experts
on its 16 places, is trained on three angles and tested on the fourth, each angle once, with digits that it has seen at
no angle: a seed divides them into 70 % for training and the rest. The models are those of `network_text.py`, with the
same batches and, where shapes agree, the same first weights for a seed.

Every cell, a model and a seed with all angles, is a file in `benchmarks/out/network-pictures`; what is there is not
made again.

    python benchmarks/network_pictures.py --write      five seeds (minutes on two cores); tables to docs/
    python benchmarks/network_pictures.py --part 0/2   every second cell, to share between cores
    python benchmarks/network_pictures.py --small      seconds, to see that all is made; no figures
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gatewise.nn import MLPBank
from network_models import (
    BALANCE,
    DENSE,
    HIDDEN,
    MODELS,
    N_EXPERTS,
    ROUTERS,
    D,
    OneNetwork,
    Training,
    initialise,
    routing_measures,
    seeded,
    sparse,
    train,
)
from network_study import ROOT, Study, command, corrected, difference, mean_of, number, paired, shown

ANGLES = (-37.5, -12.5, 12.5, 37.5)
REFERENCE = "softmax"
LOADS = ("max_over_mean", "dead")
WHOLE, SMALL = Training(steps=60, batch=32, rate=1e-2), Training(steps=2, batch=4, rate=1e-2)


@cache
def turned() -> tuple[Tensor, Tensor]:
    """Pictures (angles, n, 1, 8, 8) on [0, 1], bilinearly between pixels and 0 outside, and their digits (n,)."""
    digits: Any = load_digits()
    pictures = digits.images.astype(np.float32) / 16.0
    every = [rotate(pictures, angle, axes=(2, 1), reshape=False, order=1) for angle in ANGLES]
    return torch.tensor(np.stack(every)).unsqueeze(2), torch.tensor(digits.target)


class Network(nn.Module):
    """A convolution, one residual layer on 16 places, their mean, and ten logits."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, D, 3, padding=1, stride=2, bias=False)
        self.embed_place = nn.Parameter(torch.zeros(16, D))
        self.before, self.last = nn.LayerNorm(D), nn.LayerNorm(D)
        self.layer = layer
        self.head = nn.Linear(D, 10, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 1, 8, 8) ↦ (B, 10)."""
        h = torch.relu(self.stem(pictures)).flatten(2).transpose(1, 2) + self.embed_place
        h = h + self.layer(self.before(h))
        return self.head(self.last(h).mean(1))


def accuracy_of(name: str, seed: int, out: int, training: Training) -> dict[str, Any]:
    """A model that has not seen one angle, on that angle."""
    pictures, digits = turned()
    order = torch.randperm(len(digits), generator=seeded(seed, "division"))
    rows, new = order[: 7 * len(order) // 10], order[7 * len(order) // 10 :]
    seen = torch.tensor([place for place in range(len(ANGLES)) if place != out])
    kind = ROUTERS.get(name)
    if kind is None:
        model = Network(OneNetwork(D, DENSE[name]))
    else:
        model = Network(sparse(kind, D, seed, MLPBank(N_EXPERTS, D, HIDDEN), "layer"))
    initialise(model, seed)
    draw = seeded(seed, "batches")

    def loss(step: int) -> Tensor:
        chosen = rows[torch.randint(len(rows), (training.batch,), generator=draw)]
        angles = seen[torch.randint(len(seen), (training.batch,), generator=draw)]
        return nn.functional.cross_entropy(model(pictures[angles, chosen]), digits[chosen])

    train(model, training, loss, None if kind is None else kind.schedule)
    model.eval()
    with torch.no_grad():
        right = [
            (model(pictures[place, new]).argmax(-1) == digits[new]).double().mean() for place in (out, int(seen[1]))
        ]
    found: dict[str, Any] = {"held": round(100.0 * float(right[0]), 3), "seen": round(100.0 * float(right[1]), 3)}
    return found if kind is None else {**found, **routing_measures(model, pictures[out, new], LOADS)}


def cell(name: str, seed: int, training: Training) -> dict[str, Any]:
    """All angles of one model and seed."""
    torch.set_num_threads(1)
    angles = ANGLES if training == WHOLE else ANGLES[:2]
    rows = [accuracy_of(name, seed, out, training) for out in range(len(angles))]
    found: dict[str, Any] = {what: round(mean_of(rows, what), 4) for what in ("held", "seen")}
    found["by angle"] = {str(angle): row["held"] for angle, row in zip(angles, rows, strict=True)}
    if name in ROUTERS:
        found |= {what: round(mean_of(rows, what), 4) for what in LOADS}
    return found


def tables(kept: dict[str, Any]) -> dict[str, str]:
    """Accuracy on the held-out angle, with differences to the softmax router."""
    cells, seeds = paired(kept["cells"])
    angles = list(cells[REFERENCE][0]["by angle"])
    base = [cell["held"] for cell in cells[REFERENCE]]
    others = corrected(
        {name: difference([one["held"] for one in rows], base) for name, rows in cells.items() if name != REFERENCE}
    )
    lines = [
        f"{seeds} seeds, {len(others)} comparisons.",
        "",
        f"| model | held-out angle, % | minus softmax, points, 95 % interval | an angle that was seen | "
        f"{' | '.join(f'{angle}°'.replace('-', '−') for angle in angles)} | max/mean load | dead |",
        f"|---|---|---|---|{'---|' * len(angles)}---|---|",
    ]
    for name in sorted(cells, key=lambda name: -mean_of(cells[name], "held")):
        rows = cells[name]
        row = [name, f"{mean_of(rows, 'held'):.1f}", shown(others[name], 1) if name in others else ""]
        row.append(f"{mean_of(rows, 'seen'):.1f}")
        row += [f"{np.mean([one['by angle'][angle] for one in rows]):.1f}" for angle in angles]
        row += [number(mean_of(rows, what), 1) for what in LOADS] if name in ROUTERS else ["–"] * len(LOADS)
        lines.append(f"| {' | '.join(row)} |")
    return {"network_pictures.py": "\n".join(lines)}


def study(small: bool = False) -> Study:
    """The cells of this study."""
    training = SMALL if small else WHOLE
    return Study(
        name="network-pictures",
        names=MODELS,
        cell=lambda name, seed: cell(name, seed, training),
        plan={**asdict(training), "angles": list(ANGLES), "d": D, "hidden": HIDDEN, "balance": BALANCE},
        tables=tables,
        kept=ROOT / "docs" / "network-pictures.json",
        page=ROOT / "docs" / "which-network-router.md",
    )


if __name__ == "__main__":
    command(study, "Accuracy on digits turned by an angle that was not seen, with each router.")
