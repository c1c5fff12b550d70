"""Which tokens of a model's call count, and of which domain each is."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["OTHERS", "Batch", "Domains", "Labels", "Rows"]

OTHERS = "(others)"
"""The domain of what comes after the most domains that are told apart."""

Labels = Tensor | Sequence[Any] | str | int
"""One label for all tokens, one for each sequence, or one for each token."""


class Domains:
    """Labels and the whole numbers that stand for them, as many as are told apart.

    Args:
        most: how many; what comes later is counted together.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.names: list[str] = []
        self._codes: dict[str, int] = {}

    def codes(self, labels: Labels) -> Tensor:
        """Codes of labels, of the labels' shape: () for one label.

        Raises:
            InputError: the labels are neither text nor whole numbers.
        """
        if isinstance(labels, Tensor):
            if labels.is_floating_point() or labels.is_complex():
                raise InputError(f"domains must be whole numbers or names, not {labels.dtype}")
            values, places = labels.unique(return_inverse=True)
            table = torch.tensor([self._code(value) for value in values.tolist()], dtype=torch.int64)
            return table.to(labels.device)[places] if len(table) else places
        if isinstance(labels, str | Integral) or not isinstance(labels, Iterable):
            return torch.tensor(self._code(labels))
        return torch.tensor([self._code(label) for label in labels], dtype=torch.int64)

    def _code(self, label: object) -> int:
        if isinstance(label, Tensor) and label.ndim == 0:
            label = label.item()
        if not isinstance(label, str | Integral):
            raise InputError(f"domains must be whole numbers or names, not {shown(label)}")
        name = str(label)
        if name not in self._codes:
            if len(self.names) >= self.most - 1 and name != OTHERS:
                return self._code(OTHERS)
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]


class Rows(NamedTuple):
    """What a router's rows are.

    Attributes:
        kept: which of them count, whole numbers (n,), or None for all.
        codes: the domains of those that count (n,), or None.
        fit: whether masks and domains have an entry for each row; those that have not are left out of account.
    """

    kept: Tensor | None
    codes: Tensor | None
    fit: bool


class Batch:
    """The tokens of a call of a model: where they lie in the rows that a router sees.

    Args:
        shape: (B, S) of the model's input, if it is known.
        masks: each True where a token counts: (B, L) with L ≥ S, of which the last S columns are the call's tokens, as
            when text is generated with a cache; or any shape with one entry for each token.
        codes: domains: (), (B,), or one for each token.
    """

    def __init__(self, shape: tuple[int, int] | None, masks: Sequence[Tensor], codes: Tensor | None) -> None:
        self._shape = shape
        self._masks = [self._tail(mask).reshape(-1) for mask in masks]
        self._codes = codes
        self._found: dict[tuple[int, torch.device], Rows] = {}

    def rows(self, n_tokens: int, device: torch.device) -> Rows:
        """What the rows of a router are.

        A router that sees as many rows as tokens count has left out the others already.

        Args:
            n_tokens: how many rows the router saw.
            device: where it did.
        """
        key = n_tokens, device
        if key not in self._found:
            self._found[key] = self._rows(n_tokens, device)
        return self._found[key]

    def _rows(self, n_tokens: int, device: torch.device) -> Rows:
        lengths = {len(mask) for mask in self._masks}
        full = n_tokens if self._shape is None else self._shape[0] * self._shape[1]
        if self._shape is None and len(lengths) == 1:
            (full,) = lengths
        joined = None
        if lengths == {full}:
            joined = torch.stack([mask.to(device) for mask in self._masks]).all(0)
        places = None if joined is None else joined.nonzero().squeeze(-1)
        codes = self._domains(full, device)
        fit = lengths <= {full} and (codes is None) == (self._codes is None)
        if n_tokens == full:
            # Where nothing is left out, nothing needs to be gathered.
            kept = None if places is None or len(places) == full else places
            return Rows(kept, codes if kept is None or codes is None else codes[kept], fit)
        if places is not None and len(places) == n_tokens:
            return Rows(None, None if codes is None else codes[places], fit)
        # Of rows that are something else only what holds for all tokens is known.
        one = None if self._codes is None or self._codes.ndim else self._codes.to(device).expand(n_tokens)
        return Rows(None, one, not lengths and (one is None) == (self._codes is None))

    def _tail(self, mask: Tensor) -> Tensor:
        """The mask of the call's own tokens: the last S columns."""
        if self._shape is None or mask.ndim != 2 or mask.shape[0] != self._shape[0]:
            return mask
        return mask[:, max(0, mask.shape[1] - self._shape[1]) :]

    def _domains(self, full: int, device: torch.device) -> Tensor | None:
        """The domain of each of all tokens, or None where labels are none or do not fit."""
        codes = None if self._codes is None else self._codes.to(device)
        if codes is None or codes.numel() == full:
            return codes if codes is None else codes.reshape(-1)
        if codes.ndim == 0:
            return codes.expand(full)
        each, rest = divmod(full, len(codes)) if codes.ndim == 1 and len(codes) else (0, 1)
        if rest or self._shape not in (None, (len(codes), each)):
            return None
        return codes.repeat_interleave(each)
