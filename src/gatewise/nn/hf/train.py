"""Train the routers and nothing else."""

from torch import nn

from gatewise.nn.readers import readers_of

__all__ = ["train_routers_only"]


def train_routers_only(model: nn.Module) -> tuple[str, ...]:
    """Let gradients reach the parameters of the routers alone, the swapped ones and the model's own.

    Correction biases stay without gradients. `model.requires_grad_(True)` undoes it.

    Returns:
        The names of the parameters that are trained.

    Raises:
        InputError: there is no router that can be read.

    Example:
        >>> from gatewise.nn import SparseMoE
        >>> train_routers_only(nn.Sequential(SparseMoE(8, "cosine", n_experts=4)))
        ('0.router.gate.weight', '0.router.gate.bias')
    """
    readers = readers_of(model)
    model.requires_grad_(False)
    for reader in readers.values():
        for value in reader.gate_parameters:
            value.requires_grad_(True)
    return tuple(name for name, value in model.named_parameters() if value.requires_grad)
