"""How good routers among LoRA adapters are, where it can be known: `python benchmarks/adapter_study.py`.

Four tasks on six letters (turn, next letter, the one after, swap pairs). A tiny model is trained on all of them with
noisy answers; then each task has an adapter, of ranks 4, 8, 8 and 16 and partly different modules, and gates. Tests:
(a) one task per sequence, which the router is not told; (b) two tasks in one sequence. Token accuracy of the answers.

Designs: "mixed": each task has its own letters, and the base has seen sequences of two tasks (b4 of the prototypes);
"never_mixed": it has not; "same_letters": all tasks share their letters and a mark tells them apart (b3). Models: a
Llama of three layers and a T5 of two and two. Every cell, a model, a design and a seed, is a file; what is there is not
made again. The table has means over seeds, and paired intervals over seeds for the difference to PHATGOOSE by tokens.

    python benchmarks/adapter_study.py                       five seeds of everything (about an hour on two cores)
    python benchmarks/adapter_study.py --seeds 0 --cells llama:mixed
    python benchmarks/adapter_study.py --small --out DIR     a minute, to see that the table is made; no figures
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from common import OUTPUT, machine
from gatewise.files import write_file
from gatewise.lora import GateSet, Oracle, Single, attach_router, paired_interval, train_gates

LETTERS, TASKS, BEGIN, SEPARATE, ANSWER = 6, 4, 1, 2, 3
OPERATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda s: s.roll(1, -1),
    lambda s: (s + 1) % LETTERS,
    lambda s: (s + 2) % LETTERS,
    lambda s: s.view(*s.shape[:-1], -1, 2).flip(-1).reshape(s.shape),
)
RANKS = (4, 8, 8, 16)
MODULES = {
    "llama": (
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"),
        ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"),
    ),
    "t5": (
        ("q", "k", "v", "o", "wi", "wo"),
        ("q", "v", "o", "wi", "wo"),
        ("q", "k", "v", "wi", "wo"),
        ("q", "k", "v", "o", "wi", "wo"),
    ),
}
DESIGNS = ("mixed", "never_mixed", "same_letters")
REFERENCE = "phatgoose"


@dataclass(frozen=True)
class Effort:
    """How much is trained and tested."""

    base_steps: int
    adapter_steps: int
    gate_steps: int
    test_rows: int


WHOLE = {"llama": Effort(350, 70, 40, 64), "t5": Effort(600, 100, 40, 64)}
SMALL = {"llama": Effort(20, 5, 5, 8), "t5": Effort(20, 5, 5, 8)}


class Maker:
    """Sequences of a design for a kind of model, from one generator."""

    def __init__(self, kind: str, design: str, seed: int) -> None:
        self.kind = kind
        self.same = design == "same_letters"
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return 4 + TASKS + TASKS * LETTERS

    def segments(self, n: int, tasks: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Questions (n, 6) and answers (n, 6) of the tasks (n,) as tokens, and the marks (n, 1)."""
        letters = torch.randint(0, LETTERS, (n, 6), generator=self.generator)
        every = torch.stack([operation(letters) for operation in OPERATIONS])
        other = torch.randint(0, TASKS, (n,), generator=self.generator)
        wrong = torch.rand(n, generator=self.generator) < noise
        answers = every[torch.where(wrong, other, tasks), torch.arange(n)]
        offset = 4 + TASKS + (torch.zeros_like(tasks) if self.same else tasks * LETTERS)
        marks = 4 + tasks if self.same else torch.full_like(tasks, BEGIN)
        return letters + offset[:, None], answers + offset[:, None], marks[:, None]

    def batch(self, first: Tensor, second: Tensor, noise: float = 0.0) -> dict[str, Tensor]:
        """Rows of two segments, with labels for the answers."""
        n = len(first)
        parts = [self.segments(n, tasks, noise) for tasks in (first, second)]
        if self.kind == "t5":
            ids = torch.cat([part for q, _, mark in parts for part in (mark, q)], 1)
            return {"input_ids": ids, "labels": torch.cat([answers for _, answers, _ in parts], 1)}
        arrow = torch.full((n, 1), SEPARATE)
        ids = torch.cat([part for q, a, mark in parts for part in (mark, q, arrow, a)], 1)
        labels = torch.full_like(ids, -100)
        for begin in (8, 22):
            labels[:, begin : begin + 6] = ids[:, begin : begin + 6]
        return {"input_ids": ids, "labels": labels}

    def of(self, task: int, n: int, noise: float = 0.0) -> dict[str, Tensor]:
        """Rows of one task."""
        tasks = torch.full((n,), task)
        return self.batch(tasks, tasks, noise)

    def pair(self, n: int) -> tuple[Tensor, Tensor]:
        """Two different tasks for each row."""
        first = torch.randint(0, TASKS, (n,), generator=self.generator)
        return first, (first + torch.randint(1, TASKS, (n,), generator=self.generator)) % TASKS


def base_model(maker: Maker) -> Any:
    """A tiny model with random weights."""
    if maker.kind == "t5":
        config = T5Config(
            vocab_size=maker.vocabulary,
            d_model=64,
            d_kv=16,
            d_ff=176,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=0,
            decoder_start_token_id=0,
        )
        return T5ForConditionalGeneration(config)
    config = LlamaConfig(
        vocab_size=maker.vocabulary,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


def descend(
    model: Any,
    parameters: list[Any],
    batches: Callable[[], dict[str, Tensor]],
    steps: int,
    rate: float,
    clip: float | None = None,
) -> None:
    """AdamW on batches made one after the other."""
    optimiser = torch.optim.AdamW(parameters, lr=rate)
    model.train()
    for _ in range(steps):
        loss = model(**batches()).loss
        optimiser.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimiser.step()
    model.eval()


def trained(maker: Maker, design: str, effort: Effort) -> tuple[PeftModel, dict[str, GateSet]]:
    """The base, its adapters with their gates, and one adapter of all tasks."""
    base = base_model(maker)

    def noisy() -> dict[str, Tensor]:
        tasks = torch.arange(TASKS).repeat(12)
        order = torch.randperm(48, generator=maker.generator) if design != "never_mixed" else torch.arange(48)
        return maker.batch(tasks, tasks[order], 0.8)

    descend(base, list(base.parameters()), noisy, effort.base_steps, 3e-3, clip=1.0)
    names = [f"t{task}" for task in range(TASKS)]
    configs = {
        name: LoraConfig(r=rank, lora_alpha=rank, target_modules=list(modules))
        for name, rank, modules in zip(names, RANKS, MODULES[maker.kind], strict=True)
    }
    configs["all"] = LoraConfig(r=16, lora_alpha=16, target_modules=list(MODULES[maker.kind][0]))
    model = get_peft_model(base, configs["t0"], adapter_name="t0")
    for name, config in configs.items():
        if name != "t0":
            model.add_adapter(name, config)
    for name in configs:
        model.set_adapter(name)
        chosen = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if name == "all":
            every = torch.arange(TASKS).repeat(8)
            descend(model, chosen, lambda every=every: maker.batch(every, every), TASKS * effort.adapter_steps, 5e-3)
        else:
            task = names.index(name)
            descend(model, chosen, lambda task=task: maker.of(task, 32), effort.adapter_steps, 5e-3)
    gates = {}
    for task, name in enumerate(names):
        batches = [maker.of(task, 32) for _ in range(effort.gate_steps)]
        gates[name] = train_gates(model, name, batches, effort.gate_steps)
    return model, gates


@torch.no_grad()
def accuracy(model: PeftModel, batch: Mapping[str, Tensor]) -> float:
    """Share of the answers' tokens that are right, in per cent."""
    logits, labels = model(**batch).logits, batch["labels"]
    if not model.config.is_encoder_decoder:
        logits, labels = logits[:, :-1], labels[:, 1:]
    kept = labels != -100
    return 100.0 * float((logits.argmax(-1)[kept] == labels[kept]).double().mean())


def measured(model: PeftModel, gates: dict[str, GateSet], maker: Maker, rows: int) -> dict[str, dict[str, float]]:
    """Accuracy of every router on the tests."""
    names = list(gates)
    tasks = torch.arange(TASKS).repeat_interleave(rows)
    own = [names[task] for task in tasks.tolist()]
    tests = {"a": maker.batch(tasks, tasks), "b": maker.batch(*maker.pair(TASKS * rows))}
    routers: dict[str, tuple[Any, dict[str, Any]]] = {
        REFERENCE: ("phatgoose", {}),
        "phatgoose top-1": ("phatgoose", {"top_k": 1}),
        "phatgoose per sequence": ("phatgoose", {"granularity": "sequence"}),
        "phatgoose shared by modules": ("phatgoose", {"granularity": "shared"}),
        "phatgoose with LayerNorm's eps": ("phatgoose", {"eps": 1e-5}),
        "average activation": ("average_activation", {}),
        "Arrow": ("arrow", {}),
        "uniform": ("uniform", {}),
        "merged factors": ("merged_factors", {}),
        "random": ("random", {}),
        **{f"single {name}": (Single(name), {}) for name in names},
    }
    found: dict[str, dict[str, float]] = {}
    plain = {"top_k": 2, "granularity": "token", "eps": None}
    with attach_router(model, names, gates=gates) as routed:
        for label, (router, setting) in routers.items():
            torch.manual_seed(0)
            routed.with_router(router, **{**plain, **setting})
            found[label] = {test: accuracy(model, batch) for test, batch in tests.items()}
        with model.disable_adapter():
            found["base"] = {test: accuracy(model, batch) for test, batch in tests.items()}
        routed.with_router(Oracle(), **plain)
        with routed.rows(own):
            found["oracle"] = {"a": accuracy(model, tests["a"])}
    model.set_adapter("all")
    found["multitask"] = {test: accuracy(model, batch) for test, batch in tests.items()}
    # A task whose adapter is not in the pool.
    outside = maker.of(TASKS - 1, rows)
    kept = names[:-1]
    with attach_router(model, kept, gates={name: gates[name] for name in kept}) as routed:
        for label, router in (
            (REFERENCE, "phatgoose"),
            ("average activation", "average_activation"),
            ("Arrow", "arrow"),
            ("uniform", "uniform"),
        ):
            routed.with_router(router)
            found[label]["outside"] = accuracy(model, outside)
        with model.disable_adapter():
            found["base"]["outside"] = accuracy(model, outside)
    return found


def cell(kind: str, design: str, seed: int, effort: Effort) -> dict[str, Any]:
    """One cell of the study."""
    began = time.process_time()
    torch.manual_seed(seed)
    maker = Maker(kind, design, seed)
    model, gates = trained(maker, design, effort)
    found = measured(model, gates, maker, effort.test_rows)
    moved = {name: gate.share_moved for name, gate in gates.items()}
    return {
        "model": kind,
        "design": design,
        "seed": seed,
        "accuracy": found,
        "gates moved": moved,
        "cpu seconds": round(time.process_time() - began, 1),
        "machine": machine(),
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Means over seeds, and paired differences to the reference."""
    lines = [
        "| model, design, test | router | accuracy | minus PHATGOOSE | 95% interval | seeds |",
        "|---|---|---|---|---|---|",
    ]
    groups = sorted({(entry["model"], entry["design"]) for entry in cells})
    for kind, design in groups:
        mine = [entry["accuracy"] for entry in cells if (entry["model"], entry["design"]) == (kind, design)]
        for test in ("a", "b", "outside"):
            reference = [found[REFERENCE][test] for found in mine]
            rows = []
            for router in mine[0]:
                if test not in mine[0][router]:
                    continue
                values = [found[router][test] for found in mine]
                differences = [value - base for value, base in zip(values, reference, strict=True)]
                low, middle, high = paired_interval(differences)
                interval = "" if router == REFERENCE or len(mine) < 2 else f"{low:+.1f} to {high:+.1f}"
                rows.append((sum(values) / len(values), router, middle, interval))
            for mean, router, middle, interval in sorted(rows, key=lambda row: -row[0]):
                difference = "" if router == REFERENCE else f"{middle:+.1f}"
                head = f"{kind}, {design}, {test}"
                lines.append(f"| {head} | {router} | {mean:.1f} | {difference} | {interval} | {len(mine)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="How good routers among LoRA adapters are, where it can be known.")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--cells", nargs="*", default=[f"{kind}:{design}" for kind in MODULES for design in DESIGNS])
    parser.add_argument("--small", action="store_true", help="train next to nothing")
    parser.add_argument("--out", type=Path, default=OUTPUT / "adapter_study")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for seed in chosen.seeds:
        for name in chosen.cells:
            kind, design = name.split(":")
            path = chosen.out / f"{kind}-{design}-{seed}.json"
            if not path.exists():
                found = cell(kind, design, seed, (SMALL if chosen.small else WHOLE)[kind])
                write_file(path, json.dumps(found, indent=1).encode())
                print(path, found["cpu seconds"], "CPU s", flush=True)
    cells = [json.loads(path.read_text()) for path in sorted(chosen.out.glob("*-*-*.json"))]
    text = table(cells)
    write_file(chosen.out / "table.md", f"{text}\n".encode(), overwrite=True)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
