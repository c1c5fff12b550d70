"""What the studies of routers in networks share: routers, text, a small transformer, and how it is trained."""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.gates import DenseToSparseGate, TemperatureSchedule, build_gate
from gatewise.nn import MLPBank, NetworkBank, Router, RouterMonitor, Selection, SparseMoE, initialise_router
from gatewise.nn.balance import balance_loss, recording
from gatewise.parts.activations import activation_names, register_activation

N_EXPERTS, TOP_K = 8, 2
D, HEADS, LAYERS, CONTEXT, HIDDEN, NEAR = 48, 4, 1, 64, 48, 4
BLOCK = 2048
BALANCE = 0.01
"""The weight of the loss of balance, the same for all routers."""

if "square" not in activation_names():
    register_activation("square", torch.square)


@dataclass(frozen=True)
class RouterKind:
    """A router by what it is made from.

    Attributes:
        gate: the name of a gate.
        options: of the gate.
        schedule: None, or the temperature at the start and at the end; it falls over the first half of the training.
    """

    gate: str
    options: dict[str, Any] = field(default_factory=dict)
    schedule: tuple[float, float] | None = None


ROUTERS = {
    "softmax": RouterKind("softmax"),
    "modified softmax": RouterKind("modified_softmax"),
    "sigmoid": RouterKind("sigmoid"),
    "cosine": RouterKind("cosine"),
    "cosine, temperature .1": RouterKind("cosine", {"temperature": 0.1}),
    "perturbed cosine": RouterKind("perturbed_cosine"),
    "Laplace": RouterKind("laplace"),
    "dense-to-sparse, scheduled": RouterKind("dense_to_sparse", {"free_temperature": False}, (2.0, 0.25)),
    "activation dense-to-sparse": RouterKind("activation_dense_to_sparse"),
    "hierarchical": RouterKind("hierarchical"),
}
"""Those that both studies compare, each as `SparseMoE(d, name)` makes it, but for two temperatures."""
FREE = RouterKind("dense_to_sparse")
SCHEDULED = ROUTERS["dense-to-sparse, scheduled"]
DENSE = {"dense, equal active": TOP_K * HIDDEN, "dense, equal total": N_EXPERTS * HIDDEN}
"""Hidden units of one network that every token passes: as many as a token meets, and as many as there are."""
MODELS = (*ROUTERS, *DENSE)


def seeded(*names: object) -> torch.Generator:
    """A generator of its own for each use: what one model draws more than another changes nothing else."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, names)).encode()))


def router_of(
    kind: RouterKind, d: int, seed: int, place: str, top_k: int = TOP_K, n_experts: int = N_EXPERTS
) -> Router:
    """A router with the start that `SparseMoE` gives it, from random numbers of its own."""
    gate = build_gate(kind.gate, d, n_experts, **kind.options)
    initialise_router(gate, generator=seeded(seed, place, "router"))
    # A single weight divided by its sum is 1, and the gate would have no gradient.
    return Router(gate, Selection(top_k=top_k, renormalise="none" if top_k == 1 else "sum"))


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """The same numbers for every parameter that two models share by name and shape; routers and norms stay.

    There are no other vectors: layers have no biases. Matrices are uniform on ±1/√(inputs), embeddings normal with
    standard deviation 0.1.
    """
    for name, parameter in model.named_parameters():
        if ".router." in f".{name}" or parameter.ndim < 2:
            continue
        draw = seeded(seed, name)
        if "embed" in name:
            parameter.normal_(0.0, 0.1, generator=draw)
        else:
            bound = 1.0 / math.sqrt(math.prod(parameter.shape[1:]) if parameter.ndim == 4 else parameter.shape[-1])
            parameter.uniform_(-bound, bound, generator=draw)


class OneNetwork(nn.Module):
    """An ordinary hidden layer in the place of a sparse one: a bank of one expert."""

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.experts = MLPBank(1, d, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """f₁(x)."""
        return self.experts.networks()[0](x)


class Block(nn.Module):
    """h + W softmax(QKᵀ/√d)V of earlier characters, then h + the layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.before, self.middle = nn.LayerNorm(D), nn.LayerNorm(D)
        self.mixed, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.layer = layer

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, d) ↦ (B, L, d)."""
        b, n, _ = h.shape
        q, k, v = self.mixed(self.before(h)).view(b, n, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(seen.transpose(1, 2).reshape(b, n, D))
        return h + self.layer(self.middle(h))


class Transformer(nn.Module):
    """Characters (B, L) ↦ logits of the next ones (B, L, alphabet), with a layer that is given in every block."""

    def __init__(self, alphabet: int, layer: Callable[[str], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(alphabet, D) for _ in range(NEAR))
        self.embed_place = nn.Embedding(CONTEXT, D)
        self.blocks = nn.ModuleList(Block(layer(f"blocks.{index}")) for index in range(LAYERS))
        self.last = nn.LayerNorm(D)
        self.head = nn.Linear(D, alphabet, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        h = self.embed_place.weight[: ids.shape[1]]
        for back, embed in enumerate(self.embed):
            h = h + nn.functional.pad(embed(ids), (0, 0, back, 0))[:, : ids.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(self.last(h))


@dataclass(frozen=True)
class Text:
    """Characters as numbers, in blocks that are for training or for validation.

    Attributes:
        train: (blocks, 2,048).
        held: (blocks, 2,048), every tenth block.
        alphabet: how many characters there are.
        checksum: CRC-32 of the text.
    """

    train: Tensor
    held: Tensor
    alphabet: int
    checksum: str

    def batch(self, size: int, draw: torch.Generator) -> Tensor:
        """Windows (size, CONTEXT + 1) within blocks for training."""
        rows = torch.randint(len(self.train), (size, 1), generator=draw)
        begins = torch.randint(BLOCK - CONTEXT, (size, 1), generator=draw)
        return self.train[rows, begins + torch.arange(CONTEXT + 1)]

    def held_windows(self, most: int | None = None) -> Tensor:
        """All windows (n, CONTEXT + 1) of the held-out blocks, each one character into the next."""
        return self.held.unfold(1, CONTEXT + 1, CONTEXT).reshape(-1, CONTEXT + 1)[:most]


@cache
def text() -> Text:
    """The help on topics of the Python language that comes with it, each paragraph once: some stand there often."""
    paragraphs: dict[str, None] = {}
    for name in sorted(topics):
        paragraphs |= dict.fromkeys(part.strip() for part in topics[name].split("\n\n"))
    whole = "\n\n".join(paragraphs)
    places = {character: place for place, character in enumerate(sorted(set(whole)))}
    ids = torch.tensor([places[character] for character in whole])
    blocks = ids[: len(ids) // BLOCK * BLOCK].view(-1, BLOCK)
    held = torch.arange(len(blocks)) % 10 == 9
    return Text(blocks[~held], blocks[held], len(places), f"{zlib.crc32(whole.encode()):08x}")


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        steps: how many.
        batch: windows or pictures of a step.
        rate: the learning rate, reached in a line over the first twentieth of the steps.
        decay: whether the rate then falls to a tenth along a cosine.
        optimiser: "adam" (AdamW) or "sgd" with momentum .9.
    """

    steps: int
    batch: int = 8
    rate: float = 3e-3
    decay: bool = True
    optimiser: str = "adam"

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.rate * (step + 1) / warm
        if not self.decay:
            return self.rate
        share = (step - warm) / max(1, self.steps - warm)
        return self.rate * (0.55 + 0.45 * math.cos(math.pi * share))

    def optimiser_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """With weight decay on nothing."""
        if self.optimiser == "sgd":
            return torch.optim.SGD(model.parameters(), lr=self.rate, momentum=0.9)
        return torch.optim.AdamW(model.parameters(), lr=self.rate, weight_decay=0.0, fused=True)


def train(
    model: nn.Module,
    training: Training,
    loss_of: Callable[[int], Tensor],
    schedule: tuple[float, float] | None = None,
    look: Callable[[int], None] | None = None,
) -> None:
    """Steps of the optimiser on the loss and the routers' loss of balance.

    Args:
        model: with or without routers.
        training: how.
        loss_of: the loss of the model on the batch of a step.
        schedule: of the routers' temperature.
        look: called after every step with the number of steps taken.
    """
    optimiser = training.optimiser_of(model)
    routers = [module for module in model.modules() if isinstance(module, Router)]
    schedules = [
        TemperatureSchedule(router.gate, *schedule, steps=max(1, training.steps // 2))
        for router in routers
        if schedule is not None and isinstance(router.gate, DenseToSparseGate)
    ]
    model.train()
    for step in range(training.steps):
        for group in optimiser.param_groups:
            group["lr"] = training.rate_at(step)
        if routers:
            with recording(model) as calls:
                loss = loss_of(step)
            loss = loss + BALANCE * sum(balance_loss(call) for (call,) in calls.values())
        else:
            loss = loss_of(step)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        for each in schedules:
            each.step()
        if look is not None:
            look(step + 1)


@torch.no_grad()
def bits_per_character(model: nn.Module, windows: Tensor) -> float:
    """The mean of −log₂ p(next character) over windows."""
    model.eval()
    total = 0.0
    for part in windows.split(128):
        logits = model(part[:, :-1]).flatten(0, 1)
        total += float(nn.functional.cross_entropy(logits, part[:, 1:].flatten(), reduction="sum"))
    model.train()
    return total / math.log(2.0) / windows[:, 1:].numel()


def text_loss(model: nn.Module, training: Training, seed: int) -> Callable[[int], Tensor]:
    """Cross-entropy of a step's batch: the same batches for every model of a seed."""
    draw = seeded(seed, "batches")

    def loss(step: int) -> Tensor:
        windows = text().batch(training.batch, draw)
        return nn.functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())

    return loss


class Settling:
    """How much the routers' choices for some held-out tokens change from one moment to the next.

    Args:
        model: with routers.
        inputs: of the model.
        every: how many steps lie between two moments.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, every: int) -> None:
        self._monitor, self._inputs, self._every = RouterMonitor(model, mask=None), inputs, max(1, every)
        self._monitor.probe(inputs)
        self.changes: list[float] = []

    def __call__(self, step: int) -> None:
        """Look, if it is time."""
        if step % self._every == 0:
            found = self._monitor.probe(self._inputs)
            self.changes.append(round(sum(found.values()) / len(found), 5))


INSIDE = ("representation_collapse", "rank_after")
ROUTING = ("load_entropy", "max_over_mean", "dead", "token_entropy", *INSIDE)


@torch.no_grad()
def routing_measures(model: nn.Module, inputs: Tensor, names: tuple[str, ...] = ROUTING) -> dict[str, float | None]:
    """The monitor's measures of all routers on some inputs: their mean over layers, None where one has no value."""
    model.eval()
    with RouterMonitor(model, mask=None, representations=any(name in INSIDE for name in names)) as monitor:
        for part in inputs.split(128):
            model(part)
    model.train()
    rows = [monitor.measures(layer) for layer in monitor.layers]
    found = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    return {name: round(value, 5) if math.isfinite(value) else None for name, value in found.items()}


def sparse(kind: RouterKind, d: int, seed: int, bank: NetworkBank, place: str, top_k: int = TOP_K) -> SparseMoE:
    """A sparse layer of these experts. One grouped product costs less than eight small ones."""
    return SparseMoE(d, router_of(kind, d, seed, place, top_k, bank.n_experts), bank, path="grouped")


def layer_of(name: str, seed: int, place: str) -> nn.Module:
    """The layer of one of `MODELS`: experts with a router, or one network that every token passes."""
    if name in DENSE:
        return OneNetwork(D, DENSE[name])
    return sparse(ROUTERS[name], D, seed, MLPBank(N_EXPERTS, D, HIDDEN), place)
