"""A small convolutional network, for examples, studies and the command line: six blocks and a linear end."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.nn.arguments import whole

__all__ = ["conv_network", "train_classifier"]


class _Block(nn.Sequential):
    def __init__(self, into: int, out: int, pool: bool) -> None:
        parts: list[nn.Module] = [nn.MaxPool2d(2)] if pool else []
        parts += [nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        super().__init__(*parts)


class _End(nn.Sequential):
    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_classes))


def conv_network(
    n_channels: int, n_classes: int, widths: Sequence[int] = (16, 16, 32, 32, 64, 64), size: int = 28
) -> nn.Sequential:
    """Blocks of convolution, batch norm and rectifier, children 0, 1, …, and a linear end.

    Where the width grows the map is halved, as long as it has four places a side.

    Args:
        n_channels: of the images.
        n_classes: C.
        widths: channels of each block.
        size: places a side.

    Raises:
        InputError: a size below 1.

    Example:
        >>> conv_network(1, 10, (4, 8), size=8)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    for name, value in (("n_channels", n_channels), ("n_classes", n_classes), ("size", size)):
        whole(name, value)
    if not widths:
        raise InputError("widths is empty: give the channels of each block")
    blocks: list[nn.Module] = []
    into = n_channels
    for number, width in enumerate(widths):
        whole("each width", width)
        pool = number > 0 and width > into and size >= 8
        size = size // 2 if pool else size
        blocks.append(_Block(into, width, pool))
        into = width
    return nn.Sequential(*blocks, _End(into, n_classes))


def train_classifier(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    epochs: int = 3,
    learning_rate: float = 3e-3,
    batch_size: int = 128,
    seed: int = 0,
) -> nn.Module:
    """Train a whole network by AdamW with a one-cycle rate, and put it into evaluation mode.

    Args:
        network: x ↦ logits.
        x: (n, …).
        y: (n,).
        epochs: passes over the data.
        learning_rate: the highest.
        batch_size: samples of a step.
        seed: of their order.
    """
    whole("epochs", epochs)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate)
    steps = epochs * -(-len(y) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(y), generator=generator).split(batch_size):
            loss = nn.functional.cross_entropy(network(x[index]), y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()
