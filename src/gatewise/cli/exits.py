"""`gatewise exits`: networks that answer early."""

from pathlib import Path
from typing import Annotated

import typer

from gatewise.cli.common import ends_on_interrupt

__all__ = ["exits"]

exits = typer.Typer(
    name="exits",
    help="Early exits: train heads and policies, and say what they save.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_DESIGN = "design.json"
_BACKBONE = "backbone.safetensors"
_EXITS = "exits"


@exits.callback()
def _exits() -> None:
    """Early exits: train heads and policies, and say what they save."""


@exits.command("train", short_help="Train a network with exits.")
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Data, backbone, training and policy.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that Gatewise wrote.")] = False,
) -> None:
    """Train heads and gates for every lambda, and choose the policy; write a folder.

    Of images a small convolutional network is trained first. Texts (train.jsonl and test.jsonl, lines with "text" and
    "label") are read by an encoder of transformers in a folder on this machine, which stays as it is.
    """
    import safetensors.torch

    from gatewise.cli.exits_design import parts_of, read_design
    from gatewise.early_exit.folder import exit_files
    from gatewise.early_exit.networks import train_classifier
    from gatewise.files import check_new_folder, new_folder

    design = read_design(config).at_home()
    check_new_folder(out, overwrite=overwrite)
    with ends_on_interrupt():
        parts = parts_of(design)
        model = design.model(parts)
        backbone = design.backbone
        if design.backbone_is_trained:
            x, y = parts["train"]
            train_classifier(model.backbone, x, y, backbone.epochs, backbone.learning_rate, seed=backbone.seed)
        model.fit(*parts["train"], *parts["validation"], lam=design.lam, **design.training)
        policy = design.policy
        model.set_policy(
            policy.name, lam=policy.lam, budget=policy.budget, setting=policy.setting, calibrate=policy.calibrate
        )
        accuracy = model.all_logits(*parts["validation"]).correct().double().mean(0)
        output = (
            model.simulate(*parts["validation"])
            if model.chosen().needs_labels
            else model.simulate(parts["validation"][0])
        )
        files = {f"{_EXITS}/{name}": content for name, content in exit_files(model).items()}
        if design.backbone_is_trained:
            weights = {name: value.contiguous() for name, value in model.backbone.state_dict().items()}
            files[_BACKBONE] = safetensors.torch.save(weights)
        with new_folder(out, overwrite=overwrite) as folder:
            folder.write(_DESIGN, (design.model_dump_json(indent=1) + "\n").encode())
            for name, content in files.items():
                folder.write(name, content)
    print("exit  cost   validation accuracy")
    for exit, (cost, right) in enumerate(zip(model.costs.relative(), accuracy.tolist(), strict=True)):
        print(f"{exit + 1:<4}  {cost:.3f}  {100 * right:.1f} %")
    right = float((output.predictions == parts["validation"][1]).double().mean())
    print(f"policy {policy.name}: {100 * right:.1f} % at {float(output.cost.mean()):.3f} of the cost")
    for remark in model.chosen().remarks:
        print(f"  {remark}")
    print(f"written: {out}; see `gatewise exits evaluate {out}`")


@exits.command("evaluate", short_help="Every policy on the test data.")
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `gatewise exits train` wrote.")],
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.html", help="Write an HTML page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="One temperature for each exit, for all policies.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page that is there.")] = False,
) -> None:
    """Accuracy, calibration and cost of every policy on test data, and conformal sets, as a table, JSON or a page."""
    import json

    from gatewise.cli.exits_design import ExitsDesign, parts_of
    from gatewise.early_exit.evaluation import evaluate as evaluated
    from gatewise.files import check_new_file
    from gatewise.io.sealed import read_member
    from gatewise.report import write_report

    if report is not None:
        check_new_file(report, overwrite=overwrite)
    with ends_on_interrupt():
        design = ExitsDesign.parse(_plain(read_member(folder, _DESIGN), folder), f"{folder / _DESIGN}")
        parts = parts_of(design)
        model = design.model(parts)
        if design.backbone_is_trained:
            _load_backbone(model.backbone, folder)
        model.load(folder / _EXITS)
        found = evaluated(model, *parts["test"], calibrate=calibrate, calibration=parts["calibration"])
        if report is not None:
            write_report(found, report, overwrite=overwrite)
    if as_json:
        print(json.dumps(_without_nan(found.to_dict()), indent=1))
        return
    print(f"{found.n:,} test samples; costs in shares of the network without exits ({found.unit})")
    print(f"{found.ece_estimator}; bias: confidence - accuracy; in percent")
    print(found.table())
    near = max(point.scores.near for result in found.policies.values() for point in result.points)
    print(f"decisions within 1e-6 of their threshold: at most {near} samples of a policy")
    if report is not None:
        print(report)


def _plain(content: bytes, folder: Path) -> object:
    import json

    from gatewise.io.sealed import damaged

    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(folder, f"{_DESIGN} is not JSON ({error})") from None


def _load_backbone(backbone: object, folder: Path) -> None:
    import safetensors
    import safetensors.torch
    from torch import nn

    from gatewise.io.sealed import damaged, read_member

    assert isinstance(backbone, nn.Module)
    try:
        backbone.load_state_dict(safetensors.torch.load(read_member(folder, _BACKBONE)))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise damaged(folder, f"{_BACKBONE} does not fit ({str(error).splitlines()[0]})") from None


def _without_nan(value: object) -> object:
    """JSON has no number for what is not one."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))) else value
