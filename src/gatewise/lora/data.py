"""Documents from a file of JSON lines, and batches of them for a model of transformers."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from gatewise.exceptions import InputError
from gatewise.messages import listed, shown
from gatewise.nn.arguments import whole

__all__ = ["Document", "batches_of", "load_base", "read_documents"]

_KEYS = ("text", "prompt", "completion", "domain")
_NOT_PREDICTED = -100


@dataclass(frozen=True)
class Document:
    """A document: what is read, and what is to be predicted.

    Attributes:
        prompt: what is only read; empty where all is to be predicted.
        text: what is to be predicted.
        domain: a name, or None.
    """

    prompt: str
    text: str
    domain: str | None = None


def read_documents(path: str | os.PathLike[str]) -> list[Document]:
    """The documents of a file with one JSON object per line: {"text": …} or {"prompt": …, "completion": …}.

    Either may have a "domain". Empty lines are left out.

    Raises:
        InputError: the file cannot be read, a line is no such object, or some documents have a domain and others none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the documents in {path} cannot be read: {error}") from None
    found = [_document(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InputError(f"there are no documents in {path}")
    if len({document.domain is None for document in found}) > 1:
        raise InputError(f"some documents in {path} have a domain and others none: give all of them one, or none")
    return found


def _document(path: str | os.PathLike[str], number: int, line: str) -> Document:
    where = f"line {number} of {path}"
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON: {error}; it begins with {shown(line[:40])}") from None
    if not isinstance(entry, dict) or not ("text" in entry) != ({"prompt", "completion"} <= entry.keys()):
        raise InputError(f'{where} must be {{"text": …}} or {{"prompt": …, "completion": …}}, not {shown(entry)}')
    strangers = [key for key in entry if key not in _KEYS]
    if strangers:
        raise InputError(f"{where} has {listed(strangers)}, and only {', '.join(_KEYS)} are known")
    for key, value in entry.items():
        if not isinstance(value, str):
            raise InputError(f"{where} has a {key} that is no text: {shown(value)}")
    if not entry.get("text", entry.get("completion")):
        raise InputError(f"{where} has nothing to predict: its text is empty")
    return Document(entry.get("prompt", ""), entry.get("text", entry.get("completion", "")), entry.get("domain"))


def load_base(model: str, dtype: str = "float32") -> tuple[Any, Any]:
    """A model of transformers with its tokenizer, from a folder or a name; safetensors only, and no code from it.

    Args:
        model: the folder or name.
        dtype: of its weights, "float32", "bfloat16" or "float16".

    Raises:
        InputError: it cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        base = kind.from_pretrained(model, trust_remote_code=False, use_safetensors=True, dtype=getattr(torch, dtype))
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the model {shown(model)} cannot be loaded: {first}") from None
    return base.eval(), tokenizer


def batches_of(
    documents: Sequence[Document], tokenizer: Any, *, length: int, size: int, encoder_decoder: bool
) -> list[dict[str, Tensor]]:
    """Batches of documents, padded on the right, with labels where something is to be predicted.

    Args:
        documents: in their order.
        tokenizer: of the model.
        length: the most tokens of a document; later ones are cut off.
        size: documents of a batch.
        encoder_decoder: whether the prompt goes into an encoder, and must be there.

    Raises:
        InputError: a size is out of range, or a document does not suit the model.
    """
    whole("length", length, least=2)
    whole("the batch's size", size)
    padding = next((value for value in (tokenizer.pad_token_id, tokenizer.eos_token_id) if value is not None), 0)
    found = []
    for begin in range(0, len(documents), size):
        part = documents[begin : begin + size]
        if encoder_decoder:
            if not all(document.prompt for document in part):
                raise InputError("a model with an encoder needs documents with a prompt and a completion")
            inputs = [tokenizer(document.prompt)["input_ids"][:length] for document in part]
            labels = [tokenizer(text_target=document.text)["input_ids"][:length] for document in part]
        else:
            inputs, labels = [], []
            for document in part:
                before = tokenizer(document.prompt)["input_ids"] if document.prompt else []
                after = tokenizer(document.text, add_special_tokens=not before)["input_ids"]
                inputs.append([*before, *after][:length])
                labels.append([*[_NOT_PREDICTED] * len(before), *after][:length])
        ids = _padded(inputs, padding)
        mask = _padded([[1] * len(row) for row in inputs], 0)
        found.append({"input_ids": ids, "attention_mask": mask, "labels": _padded(labels, _NOT_PREDICTED)})
    return found


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    longest = max(1, *map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
