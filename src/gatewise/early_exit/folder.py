"""A fitted model as a folder of JSON and safetensors, without its backbone."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor

from gatewise.early_exit.cache import fingerprint
from gatewise.early_exit.costs import CostTable, StageTimes
from gatewise.early_exit.gates import ExitGates
from gatewise.early_exit.outputs import ExitLogits
from gatewise.early_exit.policies import JEI, POLICIES, Policy
from gatewise.early_exit.training import ExitTraining, HeadSet, Point, Sweep
from gatewise.exceptions import InputError, ModelFolderError
from gatewise.files import new_folder
from gatewise.io.sealed import CONFIG_NAME, VERSION, canonical_checksum, checksum, damaged, read_member, read_sealed
from gatewise.messages import shown

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["SCHEMA_VERSION", "WEIGHTS_NAME", "exit_files", "load", "read_config", "save"]

SCHEMA_VERSION = 1
WEIGHTS_NAME = "exits.safetensors"
_LARGEST = 64 * 2**20
_GATES = {True: "calibrated", False: "plain"}


def save(model: "EarlyExitModel", folder: Path, overwrite: bool) -> None:
    """See `EarlyExitModel.save`."""
    files = exit_files(model)
    with new_folder(folder, overwrite=overwrite) as new:
        for name, content in files.items():
            new.write(name, content)


def exit_files(model: "EarlyExitModel") -> dict[str, bytes]:
    """The files of a folder of early exits, by name."""
    arrays: dict[str, Tensor] = {"temperatures": model.temperatures}
    arrays |= {f"heads.{name}": value for name, value in model.heads.state_dict().items()}
    config: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "gatewise_version": VERSION,
        "kind": "early exits",
        "exits": list(model.names),
        "widths": list(model.widths),
        "n_classes": model.n_classes,
        "backbone": fingerprint(model.backbone),
        "costs": _plain_costs(model.costs, arrays),
        "policy": None if model.policy is None else _plain_policy(model.policy, arrays),
        "sweep": None if model.sweep is None else _plain_sweep(model.sweep, arrays),
    }
    content = safetensors.torch.save({name: value.contiguous().clone() for name, value in arrays.items()})
    config["weights_sha256"] = checksum(content)
    config["sha256"] = canonical_checksum(config)
    return {CONFIG_NAME: (json.dumps(config, indent=1) + "\n").encode(), WEIGHTS_NAME: content}


def _plain_costs(costs: CostTable, arrays: dict[str, Tensor]) -> dict[str, Any]:
    import torch

    plain = {name: getattr(costs, name) for name in ("blocks", "heads", "decisions", "unit", "batch_size")}
    if costs.times is not None:
        plain["sizes"] = list(costs.times.sizes)
        for name in _TIMES:
            arrays[f"times.{name}"] = torch.from_numpy(np.ascontiguousarray(getattr(costs.times, name)))
    return plain


_TIMES = ("blocks", "heads", "decisions", "answers", "staying", "whole")


def _plain_policy(policy: Policy, arrays: dict[str, Tensor]) -> dict[str, Any]:
    plain, own = policy.state()
    arrays |= {f"policy.{name}": value for name, value in own.items()}
    return {"name": policy.name, **plain}


def _plain_sweep(sweep: Sweep, arrays: dict[str, Tensor]) -> dict[str, Any]:
    sets = [sweep.warm_up]
    sets += [point.heads for point in sweep.points.values() if point.heads is not sweep.warm_up]
    arrays["classes"] = sweep.warm_up.validation.labels()
    for number, heads in enumerate(sets):
        arrays |= {f"sets.{number}.state.{name}": value for name, value in heads.state.items()}
        arrays |= {f"sets.{number}.backbone.{name}": value for name, value in (heads.backbone or {}).items()}
        arrays[f"sets.{number}.logits"] = heads.validation.logits
        arrays[f"sets.{number}.temperatures"] = heads.temperatures
    for number, point in enumerate(sweep.points.values()):
        for calibrated, gates in point.gates.items():
            arrays |= {f"gates.{number}.{_GATES[calibrated]}.{name}": v for name, v in gates.state_dict().items()}
    return {
        "training": dataclasses.asdict(sweep.training),
        "lam": list(sweep.points),
        "sets": [next(i for i, each in enumerate(sets) if each is point.heads) for point in sweep.points.values()],
        "warmup_accuracies": sweep.warmup_accuracies,
        "seconds": sweep.seconds,
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a folder that `EarlyExitModel.save` wrote.

    Raises:
        ModelFolderError: it is missing, damaged, newer, or of something else.
    """
    config = read_sealed(folder, CONFIG_NAME, SCHEMA_VERSION, _LARGEST)[0]
    if config.get("kind") != "early exits":
        raise ModelFolderError(f"the folder {folder} holds no early exits: name one that EarlyExitModel.save wrote")
    return config


def load(model: "EarlyExitModel", folder: Path) -> None:
    """See `EarlyExitModel.load`."""
    config = read_config(folder)
    content = read_member(folder, WEIGHTS_NAME)
    if checksum(content) != config.get("weights_sha256"):
        raise damaged(folder, f"{WEIGHTS_NAME} was changed after it was written (its checksum does not match)")
    try:
        arrays = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise damaged(folder, f"{WEIGHTS_NAME} is not a safetensors file ({error})") from None
    ours = (list(model.names), list(model.widths), model.n_classes)
    theirs = (config.get("exits"), config.get("widths"), config.get("n_classes"))
    for what, mine, other in zip(("exits", "widths of heads", "number of classes"), ours, theirs, strict=True):
        if mine != other:
            raise ModelFolderError(f"the folder {folder} has the {what} {shown(other)}, and the model {shown(mine)}")
    try:
        sweep = None if config["sweep"] is None else _sweep(config["sweep"], arrays)
        costs = _costs(config["costs"], arrays)
        policy = None if config["policy"] is None else _policy(model, config["policy"], _under(arrays, "policy."))
        trained = sweep is not None and sweep.warm_up.backbone is not None
        if not trained and config["backbone"] != fingerprint(model.backbone):
            raise ModelFolderError(
                f"the folder {folder} is of another backbone: its parameters are not those of the model's; build the "
                "model with the backbone that was there when it was saved"
            )
        if sweep is not None and trained:
            model.backbone.load_state_dict(sweep.warm_up.backbone or {})
        model.heads.load_state_dict(_under(arrays, "heads."))
        model.temperatures.copy_(arrays["temperatures"])
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, StopIteration) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(folder, f"its parts do not fit ({type(error).__name__}: {shown(str(error))})") from None
    model.sweep, model.costs, model.policy = sweep, costs, policy
    if policy is not None and sweep is not None and trained and policy.setting in sweep.points:
        _with_backbone(model, sweep, float(policy.setting or 0.0))


def _with_backbone(model: "EarlyExitModel", sweep: Sweep, lam: float) -> None:
    model.backbone.load_state_dict(sweep.points[lam].heads.backbone or {})


def _under(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def _costs(plain: dict[str, Any], arrays: dict[str, Tensor]) -> CostTable:
    times = None
    if "sizes" in plain:
        times = StageTimes(tuple(plain["sizes"]), *(arrays[f"times.{name}"].numpy() for name in _TIMES))
    return CostTable(
        tuple(plain["blocks"]),
        tuple(plain["heads"]),
        tuple(plain["decisions"]),
        plain["unit"],
        plain["batch_size"],
        times,
    )


def _policy(model: "EarlyExitModel", plain: dict[str, Any], arrays: dict[str, Tensor]) -> Policy:
    policy = POLICIES[plain["name"]].restored(plain, arrays)
    if isinstance(policy, JEI):
        # A function is no data: it is the one that the model was built with.
        policy.inputs = model.gate_inputs
    return policy


def _sweep(plain: dict[str, Any], arrays: dict[str, Tensor]) -> Sweep:
    sets: dict[int, HeadSet] = {}
    for number in {0, *plain["sets"]}:
        own = _under(arrays, f"sets.{number}.")
        backbone = _under(own, "backbone.")
        sets[number] = HeadSet(
            _under(own, "state."),
            ExitLogits(own["logits"], arrays["classes"]),
            own["temperatures"],
            backbone or None,
        )
    points = {}
    for number, (lam, which) in enumerate(zip(plain["lam"], plain["sets"], strict=True)):
        gates = {}
        for calibrated, name in _GATES.items():
            state = _under(arrays, f"gates.{number}.{name}.")
            gates[calibrated] = ExitGates(*state["weight"].shape)
            gates[calibrated].load_state_dict(state)
        points[float(lam)] = Point(sets[which], gates)
    training = ExitTraining.of(plain["training"])
    return Sweep(training, sets[0], points, plain["warmup_accuracies"], plain["seconds"])
