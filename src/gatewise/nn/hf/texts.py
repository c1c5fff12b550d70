"""Texts and lists of token ids from files, as sequences for a model."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.messages import shown

__all__ = ["TokenFile", "has_tokenizer", "load_tokenizer", "quiet", "read_text", "read_tokens"]

_TOKENS = "input_ids"
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


@dataclass(frozen=True)
class TokenFile:
    """The tokens of a file.

    Attributes:
        name: of the file.
        domain: the name without its ending.
        sequences: token ids, each (S,).
        names: gives what is shown of some token ids.
    """

    name: str
    domain: str
    sequences: tuple[Tensor, ...]
    names: Callable[[Tensor], list[str]]

    @property
    def n_tokens(self) -> int:
        """How many there are."""
        return sum(map(len, self.sequences))

    def batches(self, length: int, size: int, most: int) -> Iterator[Tensor]:
        """Token ids (B, S): sequences cut to pieces of this length, those of equal length together.

        Nothing is padded.

        Args:
            length: the longest piece.
            size: the most pieces in a batch.
            most: how many tokens at most, from the beginning.
        """
        pieces: list[Tensor] = []
        for sequence in self.sequences:
            for piece in sequence[: max(0, most)].split(length):
                # A sequence without tokens is split into one piece without.
                if len(piece):
                    pieces.append(piece)
                    most -= len(piece)
        for same in sorted({len(piece) for piece in pieces}, reverse=True):
            alike = [piece for piece in pieces if len(piece) == same]
            for begin in range(0, len(alike), size):
                yield torch.stack(alike[begin : begin + size])


def quiet() -> None:
    """Let transformers show no progress and no warnings, as a command line that has its own words."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def has_tokenizer(model_dir: str | Path) -> bool:
    """Whether there is a tokenizer in a model's folder."""
    return any((Path(model_dir) / name).is_file() for name in _TOKENIZERS)


def load_tokenizer(model_dir: str | Path) -> Any:
    """The tokenizer in a model's folder; nothing is downloaded, and no code of the folder is run.

    Raises:
        ModelFolderError: there is none, it cannot be read, or it asks for code of its own.
    """
    folder = Path(model_dir)
    file = folder / "tokenizer_config.json"
    try:
        configuration = json.loads(file.read_bytes()) if file.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"cannot read {file}: {shown(str(error))}") from None
    if isinstance(configuration, dict) and "auto_map" in configuration:
        raise ModelFolderError(f"{file} asks for code of its own (auto_map), which is never run: give token ids")
    if not has_tokenizer(folder):
        raise ModelFolderError(f"{folder} has no tokenizer, so that a text cannot be read: give token ids")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - parsers of tokenizers raise a plain Exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFolderError(f"cannot load the tokenizer in {folder}: {shown(reason)}") from None


def read_text(path: Path, tokenizer: Any) -> TokenFile:
    """The tokens of a text in UTF-8.

    Raises:
        InputError: there is no such file, it is no text, or it is empty.
    """
    content = _content(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: byte {error.start} is {content[error.start]:#04x}") from None
    if "\0" in text:
        raise InputError(f"{path} is no text: it holds the character NUL")
    # Lines of any length go through at once; a tokenizer warns of texts that are longer than its model.
    ids = tokenizer(text, add_special_tokens=False, verbose=False)[_TOKENS] if text.strip() else []
    if not ids:
        raise InputError(f"{path} is empty: there is no token in it")
    return TokenFile(
        path.name, path.stem, (torch.tensor(ids),), lambda some: [tokenizer.decode([one]) for one in some.tolist()]
    )


def read_tokens(path: Path) -> TokenFile:
    """Token ids of a file: *.safetensors with `input_ids` (n, S) or (S,), or JSON with a list, or a list of lists.

    With an `attention_mask` of the same shape in the safetensors file, tokens where it is 0 are left out.

    Raises:
        InputError: there is no such file, it is damaged, or holds no token ids.
    """
    sequences = _from_safetensors(path) if path.suffix == ".safetensors" else _from_json(path)
    sequences = tuple(sequence for sequence in sequences if len(sequence))
    if not sequences:
        raise InputError(f"{path} is empty: there is no token in it")
    if any(int(sequence.min()) < 0 for sequence in sequences):
        raise InputError(f"{path} holds a negative token id")
    return TokenFile(path.name, path.stem, sequences, lambda some: [f"{one} " for one in some.tolist()])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


def _from_safetensors(path: Path) -> Sequence[Tensor]:
    if not path.is_file():
        raise InputError(f"cannot read {path}: there is no such file")
    try:
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {shown(str(error))}") from None
    ids, mask = tensors.get(_TOKENS), tensors.get("attention_mask")
    if ids is None or ids.ndim not in (1, 2) or ids.is_floating_point() or ids.is_complex():
        raise InputError(f"{path} must hold whole numbers named {_TOKENS!r}, (n, S) or (S,)")
    if mask is not None and mask.shape != ids.shape:
        raise InputError(f"{path}: the attention_mask is {tuple(mask.shape)} and input_ids {tuple(ids.shape)}")
    rows = ids.long().reshape(-1, ids.shape[-1])
    if mask is None:
        return list(rows)
    return [row[kept] for row, kept in zip(rows, mask.reshape(rows.shape) != 0, strict=True)]


def _from_json(path: Path) -> Sequence[Tensor]:
    try:
        found = json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {shown(str(error))}") from None
    lists = [found] if isinstance(found, list) and not any(isinstance(one, list) for one in found) else found
    if not isinstance(lists, list) or not all(isinstance(one, list) and all(map(_is_id, one)) for one in lists):
        raise InputError(f"{path} must hold a list of token ids, or a list of such lists")
    return [torch.tensor(one, dtype=torch.int64) for one in lists]


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62
