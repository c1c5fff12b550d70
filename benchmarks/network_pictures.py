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
    python benchmarks/network_pictures.py --only softmax  one cell, beside the kept one; --seed 0 to 4
    python benchmarks/network_pictures.py --small      seconds, to see that all is made; no figures
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from torch import Tensor, nn

from network_compared import REFERENCE, dense_table, model_table, router_study
from network_models import ROUTERS, D, Training, initialise, layer_of, routing_measures, seeded, train
from network_study import Study, command, mean_of, number

ANGLES = (-37.5, -12.5, 12.5, 37.5)
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
    model = Network(layer_of(name, seed, "layer"))
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


def measured(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accuracy on an angle that was seen and on each that was held out, and the loads of a router."""
    angles = [f"{np.mean([one['by angle'][angle] for one in rows]):.1f}" for angle in rows[0]["by angle"]]
    loads = [number(mean_of(rows, what), 1) if name in ROUTERS else "–" for what in LOADS]
    return [f"{mean_of(rows, 'seen'):.1f}", *angles, *loads]


def tables(kept: dict[str, Any]) -> dict[str, str]:
    """Accuracy on the held-out angle, with differences to the softmax router and to dense models."""
    angles = " | ".join(f"{angle}°".replace("-", "−") for angle in kept["cells"][REFERENCE][0]["by angle"])
    head = (
        "| model | held-out angle, % | minus softmax, points, 95 % interval | an angle that was seen "
        f"| {angles} | max/mean load | dead |"
    )
    columns = {"held-out angle,": "held", "seen angle,": "seen"}
    return {
        "network_pictures.py": model_table(kept, "held", 1, head, measured, most_first=True),
        "network_pictures.py, dense": dense_table(kept, columns, 1),
    }


def study(small: bool = False) -> Study:
    """The cells of this study."""
    training = SMALL if small else WHOLE
    return router_study("network-pictures", cell, training, tables, angles=list(ANGLES))


if __name__ == "__main__":
    command(study, "Accuracy on digits turned by an angle that was not seen, with each router.")
