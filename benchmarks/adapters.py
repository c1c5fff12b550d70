"""What routing among LoRA adapters costs: `python benchmarks/adapters.py`.

A Llama of two layers with random weights, adapters of rank 8 on all seven linear modules, top-2, float32, one thread,
no gradient; 2,048 tokens in sequences of 256 (1,024 at d = 512). CPU seconds, all ways in turn in each of five rounds,
medians: the base, one adapter as peft runs it, peft's own Arrow, and PHATGOOSE here. Peak memory above the weights by
PyTorch's profiler. Then 256 tokens generated with a KV cache.
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")

import torch
from peft import ArrowConfig, LoraConfig, PeftModel, create_arrow_model, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from common import OUTPUT, cpu_seconds, machine, write_json
from gatewise.lora import GateSet, attach_router
from gatewise.lora.places import fingerprint_of, places_of

ROUNDS = 5
RANK = 8
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of routing among LoRA adapters.")
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 256, 512])
    parser.add_argument("--adapters", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--memory-adapters", type=int, nargs="*", default=[8, 32, 128])
    parser.add_argument("--new-tokens", type=int, default=256)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for d in chosen.sizes:
        for n_adapters in chosen.adapters:
            rows.append(forward(d, n_adapters))
            print(rows[-1], flush=True)
        for n_adapters in chosen.memory_adapters:
            rows.append(memory(d, n_adapters))
            print(rows[-1], flush=True)
        rows.append(generation(d, 8, chosen.new_tokens))
        print(rows[-1], flush=True)
    write_json("adapters.json", {"machine": machine(), "rows": rows})
    print(OUTPUT / "adapters.json")


def base_model(d: int) -> LlamaForCausalLM:
    """The Llama, the same for one d."""
    torch.manual_seed(0)
    heads = max(2, d // 32)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=d,
        intermediate_size=int(2.75 * d),
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config).eval()


def adapted(d: int, n_adapters: int) -> PeftModel:
    """The Llama with adapters of random weights."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=MODULES, init_lora_weights=False)
    model = get_peft_model(base_model(d), config, adapter_name="a0")
    for index in range(1, n_adapters):
        model.add_adapter(f"a{index}", config)
    return model.eval()


def random_gates(model: PeftModel) -> dict[str, GateSet]:
    """Gates of random directions: what a router costs does not depend on what it has learned."""
    found = {}
    for name in model.peft_config:
        sizes = {place: view.n_features for place, view in places_of(model, [name]).items()}
        vectors = {place: torch.randn(size) for place, size in sizes.items()}
        found[name] = GateSet(vectors, vectors, dict.fromkeys(sizes, 0.1), (), fingerprint_of(model, name)[0])
    return found


def tokens_of(d: int) -> torch.Tensor:
    """The input: sequences of 256."""
    return torch.randint(0, 256, (4 if d >= 512 else 8, 256))


def interleaved(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU milliseconds of each call, all in turn in each round."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            gc.collect()
            seconds[name].append(cpu_seconds(call)[0])
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


@torch.no_grad()
def forward(d: int, n_adapters: int) -> dict[str, Any]:
    """One forward pass, five ways."""
    plain, one, routed = base_model(d), adapted(d, 1), adapted(d, n_adapters)
    with tempfile.TemporaryDirectory() as folder:
        routed.save_pretrained(folder)
        paths = [str(Path(folder, f"a{index}")) for index in range(n_adapters)]
        arrow = create_arrow_model(base_model(d), paths, ArrowConfig(top_k=2, router_temperature=1.0)).eval()
    ids = tokens_of(d)
    attach_router(routed, gates=random_gates(routed))
    calls = {
        "base": lambda: plain(ids),
        "one adapter": lambda: one(ids),
        "peft's Arrow": lambda: arrow(ids),
        "routed": lambda: routed(ids),
    }
    found = interleaved(calls)
    return {
        "kind": "forward",
        "d": d,
        "adapters": n_adapters,
        "tokens": ids.numel(),
        "ms": {name: round(value, 1) for name, value in found.items()},
        "arrow / routed": round(found["peft's Arrow"] / found["routed"], 2),
        "routed / one": round(found["routed"] / found["one adapter"], 2),
    }


@torch.no_grad()
def memory(d: int, n_adapters: int) -> dict[str, Any]:
    """Peak memory of one forward pass above the weights."""
    one, routed, ids = adapted(d, 1), adapted(d, n_adapters), tokens_of(d)
    attach_router(routed, gates=random_gates(routed))
    alone, among = peak(lambda: one(ids)), peak(lambda: routed(ids))
    return {
        "kind": "memory",
        "d": d,
        "adapters": n_adapters,
        "MB": {"one adapter": round(alone, 1), "routed": round(among, 1)},
        "routed / one": round(among / alone, 3),
    }


def peak(call: Callable[[], object]) -> float:
    """Megabytes allocated at once during a call, beyond what was there."""
    call()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        most = max(most, current)
    return most / 2**20


@torch.no_grad()
def generation(d: int, n_adapters: int, new_tokens: int) -> dict[str, Any]:
    """Tokens generated one after the other with a KV cache."""
    one, routed, prompt = adapted(d, 1), adapted(d, n_adapters), torch.randint(0, 256, (1, 16))
    attach_router(routed, gates=random_gates(routed))
    options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
    began = time.perf_counter()
    found = interleaved(
        {
            "one adapter": lambda: one.generate(prompt, **options),
            "routed": lambda: routed.generate(prompt, **options),
        }
    )
    return {
        "kind": "generation",
        "d": d,
        "adapters": n_adapters,
        "new tokens": new_tokens,
        "ms": {name: round(value) for name, value in found.items()},
        "routed / one": round(found["routed"] / found["one adapter"], 2),
        "seconds": round(time.perf_counter() - began),
    }


if __name__ == "__main__":
    sys.exit(main())
