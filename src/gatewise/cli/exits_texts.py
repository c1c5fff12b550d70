"""Texts with classes for `gatewise exits`: JSON lines, read by the encoder in a folder of transformers' models."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["load_encoder", "load_texts"]

Rows = list[tuple[str, str]]


def load_encoder(folder: Path) -> nn.Module:
    """The model in a folder, which stays as it is.

    Raises:
        MissingExtraError: transformers is not installed.
        ModelFolderError: the folder is no model's, or damaged.
    """
    from gatewise.nn.hf import load_model
    from gatewise.nn.hf.texts import quiet

    quiet()
    return load_model(folder).float()


def load_texts(
    folder: Path, encoder: Path, length: int
) -> tuple[tuple[dict[str, Tensor], Tensor], tuple[dict[str, Tensor], Tensor]]:
    """Token ids with masks, and classes, of `train.jsonl` and `test.jsonl` in a folder.

    Args:
        folder: its files have a line for each sample, such as {"text": "good", "label": "positive"}.
        encoder: the folder of the model, with its tokenizer.
        length: the most tokens of a text.

    Raises:
        InputError: a file is missing, a line is no such object, or a test row has a class that is not in training.
        ModelFolderError: there is no tokenizer.
    """
    from gatewise.nn.hf.texts import load_tokenizer

    if not encoder.is_dir():
        raise InputError(f"there is no model folder {encoder}: name one with config.json and weights in safetensors")
    train = _rows(folder / "train.jsonl")
    test = _rows(folder / "test.jsonl")
    classes = sorted({label for _, label in train})
    if len(classes) < 2:
        raise InputError(f"{folder / 'train.jsonl'} has texts of one class only, {shown(classes[0])}")
    if unknown := [label for _, label in test if label not in classes]:
        raise InputError(
            f"{folder / 'test.jsonl'} has the class {shown(unknown[0])}, which no row of the training data has"
        )
    tokenizer = load_tokenizer(encoder)
    return _encoded(tokenizer, train, classes, length), _encoded(tokenizer, test, classes, length)


def _encoded(tokenizer: Any, rows: Rows, classes: list[str], length: int) -> tuple[dict[str, Tensor], Tensor]:
    # Padding at the end, whatever the tokenizer prefers: only that can be cut when samples leave.
    found = tokenizer(
        [text for text, _ in rows],
        padding=True,
        truncation=True,
        max_length=length,
        padding_side="right",
        return_tensors="pt",
    )
    inputs = {name: found[name] for name in ("input_ids", "attention_mask")}
    return inputs, torch.tensor([classes.index(label) for _, label in rows])


def _rows(path: Path) -> Rows:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    found: Rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"line {number} of {path} is not JSON: {shown(line[:80])}") from None
        text, label = (row.get("text"), row.get("label")) if isinstance(row, dict) else (None, None)
        if not isinstance(text, str) or not text.strip() or not isinstance(label, str | int):
            raise InputError(
                f'line {number} of {path} must have a "text" that is not empty and a "label", a string or a whole '
                f"number, not {shown(line[:80])}"
            )
        found.append((text, str(label)))
    if not found:
        raise InputError(f"{path} has no rows")
    return found
