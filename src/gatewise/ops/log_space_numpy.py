"""Log-space primitives on plain arrays."""

import numpy as np

__all__ = ["log_softmax_columns"]


def log_softmax_columns(logits: np.ndarray) -> np.ndarray:
    """Log-weights of each column of finite logits (k, n)."""
    centred = logits - logits.max(axis=0)
    return centred - np.log(np.exp(centred).sum(axis=0))
