"""What `gatewise exits train` reads: data, backbone, training and policy, in TOML."""

from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from gatewise.cli.exits_texts import load_encoder, load_texts
from gatewise.early_exit import EarlyExitModel
from gatewise.early_exit.data import LOADERS, load_images
from gatewise.early_exit.inputs import n_rows, rows
from gatewise.early_exit.networks import conv_network
from gatewise.exceptions import InputError
from gatewise.spec.toml import Table, problem_of, read_toml

__all__ = ["ExitsDesign", "Parts", "parts_of", "read_design"]

Parts = dict[str, tuple[Any, Tensor]]
"""Images or tokens, and classes, of "train", "validation", "calibration" and "test"."""


class DataTable(Table):
    """Where the data are, and how they are divided.

    Attributes:
        kind: "digits" (of scikit-learn, which need no folder), one of `gatewise.early_exit.data.LOADERS`, or "jsonl",
            for texts.
        folder: on this machine.
        validation: share of the training data for temperatures, gates and policies.
        calibration: share of the training data for conformal sets.
        most: at most so many training samples, and a quarter as many test samples.
        seed: of the division.
    """

    kind: Literal["digits", "idx", "cifar", "svhn", "arrays", "image_folder", "jsonl"]
    folder: str = ""
    validation: float = Field(default=0.2, gt=0.0, lt=1.0)
    calibration: float = Field(default=0.1, gt=0.0, lt=1.0)
    most: int | None = Field(default=None, ge=100)
    seed: int = Field(default=0, ge=0, le=2**31)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.validation + self.calibration >= 0.9:
            raise ValueError("validation and calibration leave less than a tenth of the training data")
        if (self.kind == "digits") != (not self.folder):
            raise ValueError("digits need no folder" if self.folder else f"{self.kind} needs the folder of the files")
        return self


class BackboneTable(Table):
    """The network: of images six blocks of convolutions, trained first; of texts an encoder that is there.

    Attributes:
        model: the folder of an encoder of transformers with its tokenizer, for texts; it stays as it is.
        length: the most tokens of a text.
        widths: channels of the blocks.
        exits: after which blocks: numbers, of images all but the last by default; of an encoder a pattern.
        epochs: of its training.
        learning_rate: the highest.
        seed: of its start and of the order of samples.
    """

    model: str = ""
    length: int = Field(default=128, ge=2, le=2**20)
    widths: list[int] = Field(default=[16, 16, 32, 32, 64, 64], min_length=2, max_length=64)
    exits: list[int] | list[str] | str | None = None
    epochs: int = Field(default=3, ge=1, le=1000)
    learning_rate: float = Field(default=3e-3, gt=0.0)
    seed: int = Field(default=0, ge=0, le=2**31)


class PolicyTable(Table):
    """Who leaves where when the model is used.

    Attributes:
        name: of the policy.
        lam: one of lam, budget and setting.
        budget: a share of the network's cost.
        setting: the policy's own number.
        calibrate: whether each exit has its temperature.
    """

    name: str = "optimal_stopping"
    lam: float | None = None
    budget: float | None = None
    setting: float | None = None
    calibrate: bool = True


class ExitsDesign(Table):
    """All of it.

    Attributes:
        data: where the data are.
        backbone: the network.
        lam: λ of the sweep.
        training: fields of `gatewise.early_exit.ExitTraining`.
        policy: who leaves where.
    """

    data: DataTable
    backbone: BackboneTable = BackboneTable()
    lam: list[float] = Field(default=[0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0], min_length=1)
    training: dict[str, Any] = Field(default_factory=dict)
    policy: PolicyTable = PolicyTable(budget=0.5)

    @classmethod
    def parse(cls, plain: object, name: str) -> Self:
        """A design from plain data.

        Raises:
            InputError: unknown or impossible values.
        """
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise InputError(f"{name}: {problem_of(error)}") from None

    @model_validator(mode="after")
    def _encoder_for_texts(self) -> Self:
        if (self.data.kind == "jsonl") != bool(self.backbone.model):
            raise ValueError(
                "backbone.model is an encoder of texts, and needs data.kind = 'jsonl'"
                if self.backbone.model
                else "texts need an encoder: give its folder as backbone.model"
            )
        return self

    @property
    def backbone_is_trained(self) -> bool:
        """Whether the backbone is ours, and kept with the exits."""
        return not self.backbone.model

    def at_home(self) -> Self:
        """The same design with whole paths, so that it can be read from any folder."""
        data = self.data.model_copy(update={"folder": _whole(self.data.folder)})
        backbone = self.backbone.model_copy(update={"model": _whole(self.backbone.model)})
        return self.model_copy(update={"data": data, "backbone": backbone})

    def model(self, parts: Parts) -> EarlyExitModel:
        """The network with its exits, an encoder as it is in its folder, a network of ours untrained.

        Raises:
            InputError: the exits are not there, or the sizes do not fit.
        """
        x, _ = parts["train"]
        n_classes = int(max(int(labels.max()) for _, labels in parts.values())) + 1
        example = rows(x, torch.arange(min(4, n_rows(x))))
        exits: Any = self.backbone.exits
        if self.backbone.model:
            encoder = load_encoder(Path(self.backbone.model))
            return EarlyExitModel(encoder, exits=exits or "encoder.layer.*", n_classes=n_classes, example=example)
        torch.manual_seed(self.backbone.seed)
        network: nn.Module = conv_network(x.shape[1], n_classes, self.backbone.widths, min(x.shape[2:]))
        chosen = list(range(len(self.backbone.widths) - 1)) if exits is None else exits
        return EarlyExitModel(network, exits=chosen, n_classes=n_classes, example=example)


def _whole(path: str) -> str:
    return str(Path(path).resolve()) if path else ""


def read_design(path: Path) -> ExitsDesign:
    """The design in a TOML file.

    Raises:
        InputError: it cannot be read, is no TOML, or has unknown or impossible values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    return ExitsDesign.parse(read_toml(text, str(path)), str(path))


def parts_of(design: ExitsDesign) -> Parts:
    """Images or tokens, and classes, of every part.

    Raises:
        InputError: the files are missing or damaged, or a part would have no samples.
    """
    data = design.data
    generator = torch.Generator().manual_seed(data.seed)
    train: tuple[Any, Tensor]
    test: tuple[Any, Tensor]
    if data.kind == "jsonl":
        backbone = design.backbone
        train, test = load_texts(Path(data.folder), Path(backbone.model), backbone.length)
    elif data.kind == "digits":
        x, y = _digits()
        order = torch.randperm(len(y), generator=generator)
        held, rest = order[: len(y) // 5], order[len(y) // 5 :]
        train, test = (x[rest], y[rest]), (x[held], y[held])
    else:
        assert data.kind in LOADERS
        train, test = (load_images(data.kind, data.folder, part) for part in ("train", "test"))
    if data.most is not None:
        test = _taken(test, torch.arange(min(data.most // 4, len(test[1]))))
    order = torch.randperm(len(train[1]), generator=generator)[: data.most]
    edges = [round(len(order) * share) for share in (data.validation, data.validation + data.calibration)]
    pieces = {"validation": order[: edges[0]], "calibration": order[edges[0] : edges[1]], "train": order[edges[1] :]}
    found: Parts = {name: _taken(train, index) for name, index in pieces.items()} | {"test": test}
    if empty := [name for name, (_, labels) in found.items() if not len(labels)]:
        raise InputError(f"{data.folder or data.kind} has too few samples: none are left for the {empty[0]} part")
    return found


def _taken(part: tuple[Any, Tensor], index: Tensor) -> tuple[Any, Tensor]:
    return rows(part[0], index), part[1][index]


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16.0
    return images, torch.tensor(classes, dtype=torch.long)
