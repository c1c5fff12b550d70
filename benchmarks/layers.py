"""Sparse layers beside those of other packages: `python benchmarks/layers.py`.

Forward and backward of 4,096 tokens, d = 256, 512 hidden units, top-2, float32, CPU seconds of one thread: all layers
in turn in each of nine rounds, medians as ratios to ours. What is not installed is left out and named: transformers
(Mixtral's block, grouped and eager), st-moe-pytorch, mixture-of-experts. The last two drop tokens, so that they compute
something else.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from common import OUTPUT, machine, write_json
from gatewise.nn import SparseMoE

TOKENS, D, HIDDEN, ROUNDS = 4096, 256, 512, 9
Call = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, nargs="*", default=[8, 64])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for n_experts in arguments.experts:
        seconds = measure(layers(n_experts))
        ours = {"glu": statistics.median(seconds["Gatewise, GLU"]), "mlp": statistics.median(seconds["Gatewise, MLP"])}
        for name, values in seconds.items():
            middle = statistics.median(values)
            kind = "mlp" if "MLP" in name else "glu"
            rows[f"{name}, E = {n_experts}"] = {"seconds": middle, "ratio": middle / ours[kind]}
            print(
                f"E = {n_experts:<3} {name:<44} {1e3 * middle:8.0f} ms  {middle / ours[kind]:6.2f} × ours", flush=True
            )
    write_json("layers.json", {"machine": machine(), "rows": rows})
    print(OUTPUT / "layers.json")


def measure(calls: dict[str, Call]) -> dict[str, list[float]]:
    """CPU seconds of forward and backward of each layer, one list each, interleaved."""
    tokens = torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            x = tokens.clone().requires_grad_()
            began = time.process_time()
            call(x).square().mean().backward()
            seconds[name].append(time.process_time() - began)
    return seconds


def layers(n_experts: int) -> dict[str, Call]:
    """Layers by name; each takes tokens (T, d)."""
    torch.manual_seed(0)
    found: dict[str, Call] = {
        "Gatewise, GLU": SparseMoE(D, "softmax", "glu", n_experts=n_experts, hidden=HIDDEN),
        "Gatewise, MLP": SparseMoE(D, "softmax", "mlp", n_experts=n_experts, hidden=HIDDEN),
    }
    if _installed("transformers"):
        found |= {f"transformers, {kind}": _mixtral(n_experts, kind) for kind in ("grouped_mm", "eager")}
    if _installed("st_moe_pytorch"):
        from st_moe_pytorch import MoE

        other = MoE(dim=D, num_experts=n_experts, gating_top_n=2, expert_hidden_mult=HIDDEN / D)
        found["st-moe-pytorch (drops tokens), b = 4"] = lambda x, other=other: other(x.reshape(4, -1, D))[0]
    if _installed("mixture_of_experts"):
        from mixture_of_experts import MoE as Peer

        peer = Peer(dim=D, num_experts=n_experts, hidden_dim=HIDDEN)
        for batch in (4, 1):
            found[f"mixture-of-experts MLP (drops tokens), b = {batch}"] = lambda x, batch=batch: peer(
                x.reshape(batch, -1, D)
            )[0]
    return found


def _mixtral(n_experts: int, implementation: str) -> Call:
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MixtralConfig(hidden_size=D, intermediate_size=HIDDEN, num_local_experts=n_experts, num_experts_per_tok=2)
    config._experts_implementation = implementation
    block = MixtralSparseMoeBlock(config)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.02)

    def call(x: torch.Tensor) -> torch.Tensor:
        found = block(x.unsqueeze(0))
        return found[0] if isinstance(found, tuple) else found

    return call


def _installed(name: str) -> bool:
    if importlib.util.find_spec(name) is None:
        print(f"{name} is not installed: left out", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
