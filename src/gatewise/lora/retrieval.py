"""The router by retrieval: each row goes to the adapter of the training example that is nearest to it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.lora.routers import ROUTERS, ByRow, Setting
from gatewise.lora.situation import Rows
from gatewise.messages import listed

__all__ = ["Retrieval"]

Embedder = Callable[[Sequence[str]], Tensor]


@ROUTERS.register
class Retrieval(ByRow):
    """Each row goes to the adapter whose example has the largest cosine with the row's prompt.

    The choice is made when a sequence begins, for the whole sequence, as in the paper (which embeds 1,000 examples of
    each data set by MiniLM).

    Args:
        embed: texts ↦ vectors (n, d): any embedder, as `SentenceTransformer(…).encode` with `convert_to_tensor=True`.
        examples: texts of each adapter's domain, by the adapter's name.
        decode: token ids of one row ↦ its text, as a tokenizer's `decode`.

    Raises:
        InputError: an adapter has no examples, or the embedder gives no vector for each text.

    Example:
        >>> def embed(texts):
        ...     return torch.tensor([[text.count("a"), text.count("b")] for text in texts], dtype=torch.float32)
        >>> router = Retrieval(embed, {"first": ["aa", "aab"], "second": ["bb"]}, decode=str)
        >>> router.nearest(["abb", "a"])
        ['second', 'first']
    """

    name = "retrieval"

    def __init__(
        self, embed: Embedder, examples: Mapping[str, Sequence[str]], decode: Callable[[Sequence[int]], str]
    ) -> None:
        empty = [name for name, texts in examples.items() if not texts]
        if empty or not examples:
            raise InputError(f"retrieval needs examples of every adapter, and {listed(empty) or 'none'} has none")
        self._embed = embed
        self._decode = decode
        self._owners = [name for name, texts in examples.items() for _ in texts]
        self._vectors = self._embedded([text for texts in examples.values() for text in texts])

    @property
    def chooser(self) -> Callable[[dict[str, Any]], Rows | None]:
        """The nearest example's adapter for each row of `input_ids`."""
        return self._choose

    def nearest(self, texts: Sequence[str]) -> list[str]:
        """The adapter of the example that is nearest to each text.

        Raises:
            InputError: the embedder gives no vector for each text.
        """
        return [self._owners[index] for index in (self._embedded(texts) @ self._vectors.T).argmax(-1).tolist()]

    def check(self, adapters: Sequence[str], setting: Setting) -> None:
        """Every adapter must have examples, and every example an adapter."""
        super().check(adapters, setting)
        strangers = sorted(set(self._owners) ^ set(adapters))
        if strangers:
            raise InputError(
                f"retrieval needs examples of each adapter of the pool and of no other: see {listed(strangers)}"
            )

    def options(self) -> dict[str, Any]:
        """None: an embedder is no plain data.

        Raises:
            InputError: always.
        """
        raise InputError("a router by retrieval cannot be saved, since its embedder is code: attach it after loading")

    def _embedded(self, texts: Sequence[str]) -> Tensor:
        vectors = torch.as_tensor(self._embed(list(texts))).detach().float().cpu()
        if vectors.ndim != 2 or len(vectors) != len(texts) or not bool(torch.isfinite(vectors).all()):
            raise InputError(
                f"the embedder must give one finite vector for each of {len(texts)} texts, not {tuple(vectors.shape)}"
            )
        return torch.nn.functional.normalize(vectors, dim=-1)

    def _choose(self, arguments: dict[str, Any]) -> Rows | None:
        ids, mask = arguments.get("input_ids"), arguments.get("attention_mask")
        if not isinstance(ids, Tensor):
            raise InputError("retrieval reads the prompt's tokens: call the model with input_ids")
        kept = torch.ones_like(ids) if mask is None or mask.shape != ids.shape else mask
        texts = [self._decode(row[keep.bool()].tolist()) for row, keep in zip(ids, kept, strict=True)]
        return tuple(self.nearest(texts))
