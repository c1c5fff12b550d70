"""Total collapse planted in one router of a model: every token goes to the same K experts."""

import torch
from torch import nn

from gatewise.nn.readers import RouterReader, readers_of

__all__ = ["plant_collapse"]


def plant_collapse(model: nn.Module, layer: str, experts: tuple[int, ...]) -> None:
    """Send every token of a router to these K experts, by what its class has: a table, a correction bias, or logits."""
    reader = readers_of(model)[layer]
    table = getattr(reader.module, "tid2eid", None)
    if table is not None:
        with torch.no_grad():
            table.copy_(torch.tensor(experts).expand_as(table))
    elif reader.correction_bias is not None:
        reader.correction_bias[list(experts)] = 100.0
    else:
        reader.module.register_forward_hook(_ruled(reader, experts), with_kwargs=True)


def _ruled(reader: RouterReader, experts: tuple[int, ...]):
    def hook(module, arguments, keywords, outputs):
        routing = reader.routing(arguments, keywords, outputs)
        logits = routing.logits.clone()
        logits[:, list(experts)] = 20.0
        weights, indices = routing.selection(logits, None, routing.normalised)
        shape = outputs[2].shape
        return logits.reshape(outputs[0].shape), weights.to(outputs[1].dtype).reshape(shape), indices.reshape(shape)

    return hook
