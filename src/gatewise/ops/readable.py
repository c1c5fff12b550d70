"""Whether Python may look at the numbers of a tensor."""

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level

__all__ = ["readable"]


def readable(x: Tensor) -> bool:
    """Whether Python may look at the numbers: not in a trace, in a transform of `torch.func`, or on the meta device."""
    # There is no public name for what asks whether `torch.vmap` or another transform runs.
    return not (x.is_meta or torch.compiler.is_compiling() or maybe_current_level() is not None)
