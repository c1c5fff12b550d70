"""What skipping saves in time: MiniLM in batches of 64, 16 and 1, and a conv net against its table of measured times.

    python benchmarks/exits_time.py --minilm DIR --newsgroups DIR --fashion DIR

CPU seconds of one thread, the full network and the one with exits in turn, medians of the rounds. For MiniLM it prints
shares of multiply-adds and of time, and time saved over multiply-adds saved; for the conv net what the measured table
predicts of the time of every policy over what it takes.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import argparse
import csv
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatewise.early_exit import POLICIES, EarlyExitModel
from gatewise.early_exit.data import FASHION_MNIST, load_images
from gatewise.early_exit.inputs import call
from gatewise.early_exit.networks import conv_network, train_classifier
from gatewise.exceptions import InputError

torch.set_num_threads(1)

OUT = Path(__file__).parent / "out" / "exits_time.json"


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def in_turn(model: EarlyExitModel, batches: list[Any], rounds: int) -> tuple[float, float]:
    """Medians of the full network and of the one with exits."""
    full, early = [], []
    with torch.no_grad():
        for place in range(rounds + 1):
            times = (
                seconds(lambda: [call(model.backbone, batch) for batch in batches]),
                seconds(lambda: [model.infer(batch) for batch in batches]),
            )
            # The first round warms up.
            if place:
                full.append(times[0])
                early.append(times[1])
    return statistics.median(full), statistics.median(early)


def minilm(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time saved over multiply-adds saved."""
    from transformers import AutoModel, AutoTokenizer

    backbone = AutoModel.from_pretrained(options.minilm, dtype=torch.float32, add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.minilm)
    csv.field_size_limit(10**9)
    with (Path(options.newsgroups) / "20newsgroups-test.tab").open(encoding="utf-8") as file:
        rows = [(row[0], row[1]) for row in list(csv.reader(file, delimiter="\t"))[3:] if len(row) == 2]
    random.Random(0).shuffle(rows)
    rows = rows[: options.texts + 192]
    classes = sorted({label for label, _ in rows})

    def encoded(texts: list[str]) -> dict[str, Tensor]:
        short = [text[:2000] for text in texts]
        return dict(tokenizer(short, padding=True, truncation=True, max_length=options.tokens, return_tensors="pt"))

    def batched(part: list[tuple[str, str]], size: int) -> list[dict[str, Tensor]]:
        return [encoded([text for _, text in part[start : start + size]]) for start in range(0, len(part), size)]

    model = EarlyExitModel(
        backbone, exits="encoder.layer.*", n_classes=len(classes), example=encoded([text for _, text in rows[:4]])
    )
    y = torch.tensor([classes.index(label) for label, _ in rows])
    cache = model.cache_features([(b, y[i * 64 : (i + 1) * 64]) for i, b in enumerate(batched(rows, 64))])
    # Times do not ask whether answers are right: validation data are the training data, and have all classes.
    model.fit(cache, None, cache, lam=0.1, joint=False, warmup_epochs=3)
    found = []
    for size in (64, 16, 1):
        part = rows[: options.texts if size > 1 else options.texts // 4]
        batches = batched(part, size)
        for budget in (0.35, 0.6):
            model.set_policy("max_prob", budget=budget)
            full, early = in_turn(model, batches, options.rounds)
            share = float(torch.cat([model.infer(batch).cost for batch in batches]).mean())
            row = {
                "batch": size,
                "multiply-adds": round(share, 3),
                "time": round(early / full, 3),
                "saved over saved": round((1 - early / full) / (1 - share), 3),
            }
            print(row, flush=True)
            found.append(row)
    return found


def conv(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Predicted over real time of every policy."""
    x, y = load_images("idx", options.fashion)
    torch.manual_seed(0)
    network = train_classifier(conv_network(1, 10), x[:6000], y[:6000], epochs=1)
    model = EarlyExitModel(network, exits=[0, 1, 2, 3, 4], n_classes=10, example=x[:2])
    model.fit(x[6000:8000], y[6000:8000], x[8000:9000], y[8000:9000], lam=0.2, joint=False, warmup_epochs=3)
    found = []
    for size in (64, 1):
        images = x[9000 : 9000 + (512 if size > 1 else 64)]
        for name, policy in POLICIES.items():
            if policy.needs_labels:
                continue
            try:
                model.set_policy(name, **({"setting": 2} if name in ("fixed", "patience") else {"budget": 0.6}))
            except InputError as error:
                print(name, size, error)
                continue
            exits = model.simulate(images).exit_index
            predicted, real = [], []
            for _ in range(options.rounds):
                # Table and time in turn, so that both meet the same machine.
                costs = model.measure_costs(images[:size], size, repeats=3, clock="cpu")
                predicted.append(costs.predicted_milliseconds(exits, size, model.policy.used))
                real.append([1000.0 * seconds(partial(model.infer, batch)) for batch in images.split(size)])
            model.costs = counted(model, x[:2])
            # Of every batch the median, as of every part of the table.
            spent = sum(map(statistics.median, zip(*real, strict=True)))
            ratio = statistics.median(predicted) / spent
            row = {"policy": name, "batch": size, "predicted over real": round(ratio, 3)}
            print(row, flush=True)
            found.append(row)
    return found


def counted(model: EarlyExitModel, example: Tensor) -> Any:
    """Multiply-adds again, in which the policies' budgets are meant."""
    from gatewise.early_exit.counting import count_multiply_adds

    return count_multiply_adds(model, example)


def main() -> None:
    """Both parts, as far as their data are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion", default=str(FASHION_MNIST))
    parser.add_argument("--minilm", default="")
    parser.add_argument("--newsgroups", default="")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if Path(options.fashion).exists():
        found["conv"] = conv(options)
    if options.minilm and options.newsgroups:
        found["minilm"] = minilm(options)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(OUT)


if __name__ == "__main__":
    main()
