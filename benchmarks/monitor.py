"""What watching costs, and what moewatch says of the same models: `python benchmarks/monitor.py`.

Overhead: a training step (forward, backward, SGD) of two layers of 64 experts, 256/512 GLU, 4,096 tokens, top-2,
float32, with and without a monitor, in turn; CPU seconds of one thread, the median over rounds of the ratio.

Beside it: tiny models of six types of transformers, healthy and with one router that sends all tokens to the same two
experts, through `RouterMonitor` and, if it is installed, moewatch 0.1.0 (`pip install --target DIR --no-deps
moewatch==0.1.0`, then PYTHONPATH=DIR).
"""

import argparse
import contextlib
import importlib.util
import io
import re
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn

from common import OUTPUT, machine, write_json
from gatewise.nn import RouterMonitor, SparseMoE

TOKENS, D, HIDDEN, EXPERTS, ROUNDS = 4096, 256, 512, 64, 9
TYPES = ("mixtral", "olmoe", "deepseek_v3", "gpt_oss", "glm4_moe", "qwen3_5_moe_text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=("overhead", "types"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {"machine": machine()}
    if arguments.only != "types":
        found["overhead"] = overhead(arguments.rounds)
    if arguments.only != "overhead":
        found["types"] = types()
    write_json("monitor.json", found)
    print(OUTPUT / "monitor.json")


class Model(nn.Module):
    """Two sparse layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SparseMoE(D, "softmax", "glu", n_experts=EXPERTS, hidden=HIDDEN) for _ in range(2))

    def forward(self, x, attention_mask=None):
        """Tokens (…, d)."""
        for layer in self.layers:
            x = x + layer(x)
        return x


def overhead(rounds: int) -> dict[str, float]:
    """The part of a training step that is added by watching."""
    torch.manual_seed(0)
    model = Model().train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.randn(8, TOKENS // 8, D)
    mask = torch.ones(8, TOKENS // 8, dtype=torch.int64)
    mask[:, -5:] = 0

    def step() -> float:
        began = time.process_time()
        optimiser.zero_grad()
        model(x, attention_mask=mask).square().mean().backward()
        optimiser.step()
        return time.process_time() - began

    def watched(**options) -> float:
        monitor = RouterMonitor(model, **options)
        with monitor:
            began = time.process_time()
            step()
            monitor.step()
            return time.process_time() - began

    calls = {
        "plain": step,
        "watched": watched,
        "watched, with representations": lambda: watched(representations=True),
        "watched, with experts": lambda: watched(experts=True),
    }
    for call in calls.values():
        call()
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(call())
    rows = {}
    for name, values in seconds.items():
        ratios = [value / plain for value, plain in zip(values, seconds["plain"], strict=True)]
        rows[name] = {"seconds": statistics.median(values), "ratio": statistics.median(ratios), "all": ratios}
        print(f"{name:<32} {1e3 * rows[name]['seconds']:8.0f} ms   {rows[name]['ratio']:6.3f} ×", flush=True)
    rows["watching alone"] = _alone(x.reshape(-1, D), mask)
    print(f"{'watching alone':<32} {1e3 * rows['watching alone']:8.2f} ms")
    return rows


def _alone(x, mask) -> float:
    """CPU seconds of what a monitor does in a step: both routers' calls with it, less those without."""
    model = Model()
    routers = [layer.router for layer in model.layers]

    def routed() -> float:
        began = time.process_time()
        for router in routers:
            router(x)
        return time.process_time() - began

    with torch.no_grad():
        plain, seen = [], []
        for _ in range(41):
            plain.append(routed())
            with RouterMonitor(routers) as monitor, monitor.batch(mask=mask.bool()):
                seen.append(routed())
    return statistics.median(seen) - statistics.median(plain)


def types() -> dict[str, dict[str, str]]:
    """What is said of healthy and of collapsed models."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.nn.hf.planted import plant_collapse
    from tests.nn.hf.tiny_models import tiny_model, tiny_tokens

    rows = {}
    for model_type in TYPES:
        for state in ("healthy", "collapsed"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = tiny_model(model_type, bias=0.0)
            layer = RouterMonitor(model).layers[-1]
            if state == "collapsed":
                plant_collapse(model, layer, (2, 5))
            with RouterMonitor(model) as monitor, torch.no_grad():
                for seed in range(10):
                    model(tiny_tokens(4, 32, seed))
            said = "; ".join(f"{one.layer}: {one.kind} {one.experts}" for one in monitor.findings()) or "nothing"
            other = _moewatch(model, tiny_tokens)
            rows[f"{model_type}, {state}"] = {"gatewise": said, "moewatch": other}
            print(f"{model_type}, {state}\n  gatewise: {said}\n  moewatch: {other}")
    return rows


def _moewatch(model, tiny_tokens) -> str:
    if importlib.util.find_spec("moewatch") is None:
        return "not installed"
    import moewatch

    batches = [{"input_ids": tiny_tokens(4, 32, seed)} for seed in range(40)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            report = moewatch.audit(model, batches, steps=40, config=moewatch.WatchConfig.aggressive())
            text = str(report.summary())
        except Exception as error:  # noqa: BLE001 - whatever it does is what is reported
            return f"{type(error).__name__}: {error}"[:300]
    return re.sub(r"[═─\s]+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text)).strip()[:600]


if __name__ == "__main__":
    sys.exit(main())
