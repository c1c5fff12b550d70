"""Symmetries that several gates share, beside the translation of what stands in every logit."""

import torch
from torch import nn

from gatewise.parts.parameters import Parameters, Symmetry

__all__ = ["anything", "exchange", "scale"]


def anything(module: nn.Module) -> Symmetry:
    """With one expert its weight is 1 whatever the parameters are: all of them may move."""
    sizes = {name: value.numel() for name, value in module.named_parameters()}

    def act(parameters: Parameters, amount: torch.Tensor) -> Parameters:
        pieces = dict(zip(sizes, amount.split(list(sizes.values())), strict=True))
        return {name: value + pieces[name].reshape(value.shape) for name, value in parameters.items()}

    return Symmetry(
        name="one expert",
        sentence="the only expert has the weight 1 at every input: no parameter of the gate has an effect",
        dimension=sum(sizes.values()),
        act=act,
        kind="free",
    )


def scale(powers: dict[str, float], additions: dict[str, float], sentence: str) -> Symmetry:
    """Some parameters times powers of c = exp(t), and a multiple of t added to others, which are logarithms.

    Args:
        powers: the exponent of c by the name of the parameter that it multiplies.
        additions: the multiple of log c by the name of the parameter to which it is added.
        sentence: what it does and why nothing changes.
    """

    def act(parameters: Parameters, amount: torch.Tensor) -> Parameters:
        moved = dict(parameters)
        for name, power in powers.items():
            moved[name] = parameters[name] * torch.exp(power * amount)
        for name, multiple in additions.items():
            moved[name] = parameters[name] + multiple * amount
        return moved

    return Symmetry(name="scale", sentence=sentence, dimension=1, act=act, kind="scale")


def exchange(why: str) -> Symmetry:
    """Of two experts, (β₁₁, β₁₂) ↦ (−β₁₂, −β₁₁), for gates where `why` makes the difference of logits the same."""

    def act(parameters: Parameters, amount: torch.Tensor) -> Parameters:
        return {**parameters, "weight": -parameters["weight"].flip(0)}

    return Symmetry(
        name="exchange",
        sentence=f"the two experts exchange their slopes and both change sign: {why}",
        dimension=0,
        act=act,
        kind="discrete",
    )
