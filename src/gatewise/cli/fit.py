"""`gatewise fit`: a table in, a fitted mixture of experts with its report out."""

import dataclasses
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gatewise.cli.command_text import command_text
from gatewise.cli.common import MissingChoice, as_text, ends_on_interrupt, parse_options, split_names
from gatewise.cli.words import for_command_line
from gatewise.exceptions import GatewiseWarning, InputError
from gatewise.messages import shown
from gatewise.spec.options import PlainFitOptions, help_of

if TYPE_CHECKING:
    from gatewise.estimators import GatedClassifier, GatedRegressor
    from gatewise.inference import Summary
    from gatewise.io import Table, TrainingData

__all__ = ["fit"]


def _option(name: str, **more: Any) -> Any:
    """An option of the command line that is one of a fit's, with the fit's help."""
    text = help_of(name)
    return typer.Option(help=(text[0].upper() if text[0].isascii() else text[0]) + text[1:] + ".", **more)


class ObjectiveChoice(StrEnum):
    """What a fit makes best."""

    LIKELIHOOD = "likelihood"
    LEAST_SQUARES = "least_squares"


class StandardiseChoice(StrEnum):
    """Whether a fit standardises its inputs."""

    AUTO = "auto"
    OFF = "off"


def _starts(text: str) -> int | str:
    """The number of starts, or "auto"."""
    if text == "auto":
        return text
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(f"{shown(text)} is neither a whole number of at least 1 nor auto")
    return int(text)


def fit(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A CSV or parquet file, or the name of a shipped data set (see `gatewise datasets`); a file of that "
            "name wins.",
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(
            metavar="COLUMN",
            help="The column to explain: numbers, or names of classes for the categorical family. Repeat it for "
            "targets with several columns: those of a multivariate_gaussian.",
        ),
    ],
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMNS",
            help="Columns that the experts see, separated by commas or in repeated options. Default: all columns but "
            "those with another role; for a shipped data set with its usual target, its usual features. Text "
            "columns are coded with an indicator per level but the first.",
        ),
    ] = None,
    gate_features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMNS",
            help="Columns that the gate sees, features or not; `none` for constant weights. Default: the features.",
        ),
    ] = None,
    experts: Annotated[int, typer.Option(min=1, metavar="K", help="The number of experts K.")] = 2,
    gate: Annotated[str, typer.Option(metavar="NAME", help="The gate; `gatewise gates` lists them.")] = "softmax",
    gate_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="An option of the gate; repeat it for others. Values are JSON, or else text."
        ),
    ] = None,
    expert: Annotated[
        str, typer.Option(metavar="NAME", help="The kind of expert; `gatewise experts` lists them.")
    ] = "linear",
    expert_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the experts, as --gate-option.")
    ] = None,
    family: Annotated[
        str, typer.Option(metavar="NAME", help="The distribution of the target; `gatewise families` lists them.")
    ] = "gaussian",
    family_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the family, as --gate-option.")
    ] = None,
    trials: Annotated[
        str | None,
        typer.Option(
            metavar="N|COLUMN",
            help="The trials of each row of the binomial family: their number, or the column that has it.",
        ),
    ] = None,
    objective: Annotated[ObjectiveChoice, _option("objective")] = ObjectiveChoice.LIKELIHOOD,
    standardise: Annotated[StandardiseChoice, _option("standardise")] = StandardiseChoice.AUTO,
    exposure: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="A column of exposures of counts, positive; its logarithm is the offset."),
    ] = None,
    shared_scale: Annotated[bool, typer.Option("--shared-scale", help="One scale for all experts.")] = False,
    seed: Annotated[int, _option("seed", min=0, metavar="S")] = PlainFitOptions.seed,
    starts: Annotated[Any, _option("n_starts", parser=_starts, metavar="N|auto")] = PlainFitOptions.n_starts,
    max_iter: Annotated[int, _option("max_iter", min=1, metavar="N")] = PlainFitOptions.max_iter,
    tol: Annotated[float, _option("tol", metavar="REAL")] = PlainFitOptions.tol,
    time_limit: Annotated[float | None, _option("time_limit", metavar="SECONDS")] = PlainFitOptions.time_limit,
    scale_floor: Annotated[float, _option("scale_floor", metavar="REAL")] = PlainFitOptions.scale_floor,
    gate_ridge: Annotated[float, _option("gate_ridge", metavar="REAL")] = PlainFitOptions.gate_ridge,
    expert_ridge: Annotated[float, _option("expert_ridge", metavar="REAL")] = PlainFitOptions.expert_ridge,
    variance_prior: Annotated[
        tuple[float, float] | None, _option("variance_prior", metavar="A B")
    ] = PlainFitOptions.variance_prior,
    jobs: Annotated[int | None, _option("n_jobs", metavar="N")] = PlainFitOptions.n_jobs,
    weights: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A column of row weights, with frequency meaning.")
    ] = None,
    missing: Annotated[
        MissingChoice, typer.Option(help="Refuse missing values, or drop their rows.")
    ] = MissingChoice.REFUSE,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoding of a CSV file, for example latin-1.")
    ] = None,
    level: Annotated[
        float, typer.Option(metavar="REAL", help="Level of the confidence and prediction intervals.")
    ] = 0.95,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder for the model, the summary, the predictions and the report."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if Gatewise wrote it.")] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Print a line per start to the error output; unasked only if that is a terminal."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON; notes go to the error output.")
    ] = False,
) -> None:
    """Fit a mixture of experts to a table by maximum likelihood, or by least squares.

    Prints the summary; with --out also writes the model, the summary, the predictions and a report, all or nothing.
    """
    with ends_on_interrupt():
        from gatewise.files import check_new_folder
        from gatewise.io import check_level, check_source, open_table, usual_features

        target = [as_text(name) for name in target]
        weights, exposure = (None if name is None else as_text(name) for name in (weights, exposure))
        # What would be refused after the fit is refused before it.
        check_level(level)
        if out is not None:
            check_new_folder(out, overwrite=overwrite)
        check_source(data)
        parts: dict[str, Any] = {
            "gate_options": parse_options("--gate-option", gate_option),
            "expert_options": parse_options("--expert-option", expert_option),
        }
        own: dict[str, Any] = {
            "family": family,
            "family_options": parse_options("--family-option", family_option),
            "shared_scale": shared_scale,
            "objective": objective.value,
            "scale_floor": scale_floor,
            "variance_prior": variance_prior,
        }
        notes: list[str] = []
        chosen = usual_features(data, target[0]) if features is None else split_names(features)
        if features is None and chosen is not None:
            notes.append(f"features: {', '.join(map(repr, chosen))} (the usual ones of this data set)")
        gate_names = None if gate_features is None else split_names(gate_features)
        if gate_names == ["none"]:
            gate_names = []
        table = open_table(data, encoding)
        used = [*target, *(table.names if chosen is None else chosen), *(gate_names or []), weights, exposure]
        # Before torch is loaded, which takes longer than all else that may be refused.
        table.check(name for name in used if name is not None)
        from gatewise.families import family_takes
        from gatewise.io import prepare_training

        classes = family_takes(family, "n_classes")
        if classes:
            _refuse_for_classes(own)
        if trials is not None or family_takes(family, "trials"):
            target, own["family_options"] = _with_trials(as_text(trials or ""), table, target, own)
        training = prepare_training(
            table,
            target,
            features=chosen,
            gate_features=gate_names,
            weights=weights,
            exposure=exposure,
            classes=classes,
            missing=missing.value,
        )
        from gatewise.estimators import GatedClassifier, GatedRegressor

        shared: dict[str, Any] = {
            "n_experts": experts,
            "gate": gate,
            "expert": expert,
            "gate_features": None if gate_names is None else training.gate_features,
            "expert_features": None if training.features == list(training.design.columns) else training.features,
            "standardise": standardise.value,
            "n_starts": starts,
            "max_iter": max_iter,
            "tol": tol,
            "time_limit": time_limit,
            "gate_ridge": gate_ridge,
            "expert_ridge": expert_ridge,
            "n_jobs": jobs,
            # On a terminal progress is shown unasked.
            "verbose": verbose or (sys.stderr is not None and sys.stderr.isatty()),
            "random_state": seed,
        }
        estimator = GatedClassifier(**shared, **parts) if classes else GatedRegressor(**shared, **parts, **own)
        with warnings.catch_warnings():
            # What the fit warns about stands in the summary.
            warnings.simplefilter("ignore", GatewiseWarning)
            _fit_to(estimator, training, weights, exposure)
        if estimator.result_.n_rows < estimator.n_parameters_:
            raise InputError(
                f"{data}: the model has {estimator.n_parameters_} parameters and the table only "
                f"{estimator.result_.n_rows} usable rows; use fewer experts or features, or more rows"
            )
        summary = for_command_line(estimator).summary(level)
        notes += training.notes
        text = "\n\n".join(["\n".join(notes), summary.to_text()] if notes else [summary.to_text()])
        written = []
        if out is not None:
            command = command_text(context, leave_out=("out", "overwrite", "as_json"))
            written = _write_outputs(
                out, overwrite, as_text(data), training, estimator, exposure, summary, text, level, command
            )
    if as_json:
        print(summary.to_json())
        for note in notes:
            print(note, file=sys.stderr)
        return
    print(text)
    if written:
        print("\n".join(["", "written:", *written]))


def _with_trials(
    trials: str, table: "Table", target: list[str], own: dict[str, Any]
) -> tuple[list[str], dict[str, Any] | None]:
    """The columns of the target and the options of the family, with the trials; "" where they were not given."""
    from gatewise.families import FAMILIES, family_takes

    options = own["family_options"]
    if not family_takes(own["family"], "trials"):
        takers = " or ".join(name for name in FAMILIES if family_takes(name, "trials"))
        raise InputError(f"--trials belongs to --family {takers}, not to {shown(own['family'])}")
    known = [*(["--family-option"] if "trials" in (options or {}) else []), *(["--target"] if target[1:] else [])]
    if trials and known:
        raise InputError(f"--trials gives the trials, and so does {known[0]}: give them once")
    if not trials:
        if not known:
            raise InputError(
                f"the {own['family']} family needs the trials beside the successes {shown(target[0])}: give --trials "
                "COLUMN, or --trials 10, for example, if it is 10 in all rows"
            )
        return target, options
    if not (trials.isascii() and trials.isdigit()):
        return [*target, trials], options
    if trials in table.names:
        raise InputError(
            f"--trials {trials} may be the number or the column of that name: give --family-option trials={trials} for "
            f"the number, or --target {trials} after the successes for the column"
        )
    return target, {**(options or {}), **(parse_options("--trials", [f"trials={trials}"]) or {})}


def _refuse_for_classes(own: dict[str, Any]) -> None:
    """Refuse the options that the categorical family has no use for."""
    if own["family_options"]:
        raise InputError("--family-option has no meaning for classes: their number is counted in the target")
    if own["objective"] != ObjectiveChoice.LIKELIHOOD:
        raise InputError("--objective least_squares needs targets that are numbers, and those of classes are not")
    unused = {"--shared-scale": own["shared_scale"], "--variance-prior": own["variance_prior"] is not None}
    unused["--scale-floor"] = own["scale_floor"] != PlainFitOptions.scale_floor
    for option, given in unused.items():
        if given:
            raise InputError(f"{option} has no meaning for the categorical family, which has no scale: leave it out")


def _fit_to(
    estimator: "GatedRegressor | GatedClassifier", training: "TrainingData", weights: str | None, exposure: str | None
) -> None:
    """Fit, with weights and offset under the names of their columns."""
    import pandas as pd

    from gatewise.estimators import GatedClassifier

    weight = None if training.weights is None else pd.Series(training.weights, name=weights)
    offset = None if training.offset is None else pd.Series(training.offset, name=f"log({exposure})")

    if isinstance(estimator, GatedClassifier):
        if offset is not None:
            raise InputError("the categorical family has no exposure: only families of counts do")
        estimator.fit(training.design, training.target, sample_weight=weight)
    else:
        estimator.fit(training.design, training.target, sample_weight=weight, offset=offset)


def _write_outputs(
    out: Path,
    overwrite: bool,
    data_name: str,
    training: "TrainingData",
    estimator: "GatedRegressor | GatedClassifier",
    exposure: str | None,
    summary: "Summary",
    text: str,
    level: float,
    command: str,
) -> list[str]:
    """Write the folder of a fit, whole or not at all; the paths of its files, the report's last."""
    from gatewise.files import new_folder
    from gatewise.io import SavedModel, predict_table
    from gatewise.report import render_report

    metadata = estimator.folder_metadata(training.coding, exposure)
    # The folder knows classes by their names.
    named = training
    if metadata.class_names is not None:
        named = dataclasses.replace(training, target=training.target.astype(str))
    predictions = predict_table(SavedModel(estimator.model_, metadata), named, level=level)
    files = {f"model/{name}": content for name, content in estimator.folder_files(metadata).items()}
    files |= {
        "summary.json": (summary.to_json() + "\n").encode(),
        "summary.txt": (text + "\n").encode(),
        "predictions.csv": predictions.to_csv(index=False, lineterminator="\n").encode(),
        "report.html": render_report(
            for_command_line(estimator),
            training.design,
            training.target,
            sample_weight=training.weights,
            offset=training.offset,
            data_name=data_name,
            level=level,
            command=command,
        ).encode(),
    }
    with new_folder(out, overwrite=overwrite) as folder:
        for name, content in files.items():
            folder.write(name, content)
    return [str(out / name) for name in files]
