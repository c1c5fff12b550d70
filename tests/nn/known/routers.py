"""One router of every class that is known, with weights and biases drawn at random."""

import importlib
from types import SimpleNamespace

import torch
from torch import nn

from gatewise.nn.known import CONTRACTS, RouterContract

D, E, K = 16, 12, 3

# Every name under which some model's configuration has a size or an option.
SIZES = {
    "hidden_size": D,
    **dict.fromkeys(("num_experts", "num_local_experts", "moe_num_experts", "n_routed_experts"), E),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), K),
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "group_limited_greedy",
    "norm_topk_prob": True,
    **dict.fromkeys(("routed_scaling_factor", "route_scale", "router_scaling_factor"), 1.75),
    "expert_selection_fn": "softmax",
    "scoring_func": "sqrtsoftplus",
    "moe_norm_min": 1e-12,
    "moe_router_logit_softcapping": 1.5,
    "router_jitter_noise": 0.1,
    "input_jitter_noise": 0.0,
    "vocab_size": 50,
}

# Options by which a class routes in another way.
OTHERS = (
    {"norm_topk_prob": False},
    {"topk_method": "greedy", "n_group": None, "topk_group": None},
    {"expert_selection_fn": "sigmoid"},
    {"expert_selection_fn": "sigmoid", "norm_topk_prob": False},
    {"scoring_func": "sigmoid"},
    {"moe_router_logit_softcapping": 0.0},
    {"n_group": 1, "topk_group": 1},
)


def every_class() -> list[tuple[str, str, RouterContract]]:
    """Model type, class and contract of all rows."""
    return [(name, path, contract) for contract in CONTRACTS for name, path in contract.routers.items()]


def stub_configuration(**options) -> SimpleNamespace:
    return SimpleNamespace(**{**SIZES, **options})


def random_router(path: str, contract: RouterContract, **options) -> tuple[nn.Module, nn.Module]:
    """A router, and a layer that holds it as `gate`, with the bias if the layer keeps it."""
    module, _, name = path.partition(":")
    router = getattr(importlib.import_module(module), name)(stub_configuration(**options)).eval()
    layer = nn.Module()
    layer.gate = router
    if contract.bias is not None and contract.bias.place == "argument":
        layer.register_buffer(contract.bias.path, torch.zeros(E))
    generator = torch.Generator().manual_seed(len(path))
    with torch.no_grad():
        for value in (*router.parameters(), *layer.buffers()):
            if value.is_floating_point():
                # Biases of both signs, as large as the scores, so that they change the choice.
                value.copy_(0.4 * torch.randn(value.shape, generator=generator))
            else:
                value.random_(0, E, generator=generator)
    return router, layer


def call(router: nn.Module, layer: nn.Module, contract: RouterContract, x: torch.Tensor) -> tuple:
    """The arguments of one call and what came out."""
    arguments: tuple = (x,)
    if contract.bias is not None and contract.bias.place == "argument":
        arguments += (getattr(layer, contract.bias.path),)
    if contract.skipped:
        arguments += (torch.arange(x.shape[:-1].numel()) % 50,)
    return arguments, router(*arguments)
