"""What a router costs beside Linear + softmax + topk: `python benchmarks/routers.py`.

CPU seconds of one thread, all routers in turn in each of the rounds, medians of the rounds as ratios; and the memory
that is allocated beyond the input, by PyTorch's profiler, in multiples of the logits. d = 256, E = 64, 4,096 tokens,
top-2, float32, no gradient.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from common import OUTPUT, machine, write_json
from gatewise.gates import GATES, build_gate
from gatewise.nn import Router, initialise_router

TOKENS, D, EXPERTS, ROUNDS = 4096, 256, 64, 15
OPTIONS = {"top_k": {"n_active": 2}, "gaussian": {"covariance": "diagonal"}}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens, linear = torch.randn(TOKENS, D), torch.nn.Linear(D, EXPERTS)
    calls: dict[str, Callable[[], object]] = {
        "Linear + softmax + topk": lambda: torch.softmax(linear(tokens), -1).topk(2)
    }
    for name in sorted(GATES):
        gate = build_gate(name, D, EXPERTS, **OPTIONS.get(name, {}))
        if gate.most_routing_features is None:
            initialise_router(gate)
            router = Router(gate)
            calls[name] = lambda router=router: router(tokens)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for _ in range(ROUNDS):
            for name, call in calls.items():
                began = time.process_time()
                call()
                seconds[name].append(time.process_time() - began)
        allocated = {name: _allocated(call) / (4 * TOKENS * EXPERTS) for name, call in calls.items()}
    plain = statistics.median(seconds["Linear + softmax + topk"])
    rows = {
        name: {"ratio": statistics.median(values) / plain, "allocations": allocated[name]}
        for name, values in seconds.items()
    }
    for name, row in rows.items():
        print(f"{name:<28} {row['ratio']:5.2f} ×   {row['allocations']:5.1f} × the logits")
    write_json("routers.json", {"machine": machine(), "plain_seconds": plain, "rows": rows})
    print(OUTPUT / "routers.json")


def _allocated(call: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    return sum(max(0, event.self_cpu_memory_usage) for event in found.key_averages())


if __name__ == "__main__":
    sys.exit(main())
