"""Whether Python may look at the numbers of a tensor."""

import torch
from torch import Tensor

__all__ = ["readable"]


def readable(x: Tensor) -> bool:
    """Whether Python may look at the numbers: not in a trace, in a transform of `torch.func`, or on the meta device."""
    # There is no public name for what asks whether `torch.vmap` or another transform runs.
    transformed = torch._C._functorch.maybe_current_level() is not None  # pyright: ignore[reportPrivateUsage]
    return not (x.is_meta or torch.compiler.is_compiling() or transformed)
