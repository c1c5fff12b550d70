"""`gatewise routers bench`."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from gatewise.cli.common import ends_on_interrupt
from gatewise.exceptions import InputError
from gatewise.messages import choose

__all__ = ["bench"]

_PLAIN = "Linear, softmax, topk"
_MOST_NUMBERS = 2**28


def bench(
    d: Annotated[int, typer.Option("--d", min=1, metavar="N", help="The length of a token.")] = 256,
    experts: Annotated[int, typer.Option("--experts", min=1, metavar="N", help="How many experts.")] = 64,
    top_k: Annotated[int, typer.Option("--top-k", min=1, metavar="N", help="Of which each token takes so many.")] = 2,
    tokens: Annotated[int, typer.Option("--tokens", min=1, metavar="N", help="Tokens of a call.")] = 4096,
    gate: Annotated[
        list[str] | None, typer.Option("--gate", metavar="NAME", help="A gate; may be repeated. By default all.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Medians are of so many rounds.")] = 5,
    backward: Annotated[bool, typer.Option("--backward", help="Time the backward pass too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time our gates as routers beside a linear map with softmax and topk: CPU seconds of one thread, interleaved.

    Ratios are what can be compared: the seconds of a machine that does other things too can be anything.
    """
    from gatewise.gates import GATES

    unknown = next((name for name in gate or [] if name not in GATES), None)
    if unknown is not None:
        raise InputError(f"there is no gate {unknown!r}: {choose(unknown, sorted(GATES))}")
    if top_k > experts:
        raise InputError(f"--top-k is {top_k}, and there are {experts} experts")
    if max(tokens * d, tokens * experts, d * experts) > _MOST_NUMBERS:
        raise InputError("these sizes are too large to time here: no array may have more than 2^28 numbers")
    with ends_on_interrupt():
        calls, left_out = _calls(sorted(gate or GATES), d, experts, top_k, tokens, backward)
        seconds = _timed(calls, rounds)
    plain = statistics.median(seconds[_PLAIN])
    rows = {
        name: {"seconds": statistics.median(values), "ratio": statistics.median(values) / plain}
        for name, values in seconds.items()
    }
    if as_json:
        sizes = {"d": d, "experts": experts, "top_k": top_k, "tokens": tokens, "backward": backward, "rounds": rounds}
        print(json.dumps({"sizes": sizes, "rows": rows, "left_out": left_out}, indent=1))
        return
    width = max(map(len, rows))
    for name, row in rows.items():
        print(f"{name:{width}}  {1e3 * row['seconds']:9.2f} ms  {row['ratio']:6.2f} ×")
    for name, reason in left_out.items():
        print(f"{name} is left out: {reason}")


def _calls(
    gates: list[str], d: int, experts: int, top_k: int, tokens: int, backward: bool
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    import torch

    from gatewise.gates import GATES, build_gate
    from gatewise.nn import Router, Selection, initialise_router
    from gatewise.parts.options import part_options

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, d, generator=generator)
    linear = torch.nn.Linear(d, experts)

    def call(weights: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], object]:
        def run() -> object:
            with torch.set_grad_enabled(backward):
                found = weights(x.clone().requires_grad_() if backward else x)
                return found.square().mean().backward() if backward else found

        return run

    calls = {_PLAIN: call(lambda tokens: torch.softmax(linear(tokens), -1).topk(top_k).values)}
    left_out = {}
    # The K of the table, and of covariances those that a router of its sizes can have, where a gate has such an option.
    settings = {"n_active": min(experts, top_k), "covariance": "diagonal"}
    for name in gates:
        options = {option: value for option, value in settings.items() if option in (part_options(GATES[name]) or {})}
        try:
            router = Router(build_gate(name, d, experts, **options), Selection(top_k=top_k))
            initialise_router(router, generator=generator)
        except InputError as error:
            left_out[name] = str(error)
            continue
        calls[name] = call(lambda tokens, router=router: router(tokens)[1])
    return calls, left_out


def _timed(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    import torch

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for place in range(rounds + 1):
            for name, call in calls.items():
                began = time.process_time()
                call()
                # The first round warms up.
                if place:
                    seconds[name].append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    return seconds
