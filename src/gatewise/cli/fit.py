"""`gatewise fit`: a table in, a fitted mixture of experts with its report out."""

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatewise.cli.common import MissingChoice, ends_on_interrupt, split_names
from gatewise.exceptions import GatewiseWarning, InputError

if TYPE_CHECKING:
    from gatewise.estimators import GatedRegressor
    from gatewise.inference import Summary
    from gatewise.io import TrainingData

__all__ = ["fit"]


def fit(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A CSV or parquet file, or the name of a shipped data set (see `gatewise datasets`); a file of that "
            "name wins.",
        ),
    ],
    target: Annotated[str, typer.Option(metavar="COLUMN", help="The column to explain.")],
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMNS",
            help="Columns that the experts see, separated by commas or in repeated options. Default: all columns but "
            "the target and the weights; for a shipped data set with its usual target, its usual features. Text "
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
    gate: Annotated[str, typer.Option(metavar="NAME", help="The kind of gate: softmax.")] = "softmax",
    expert: Annotated[str, typer.Option(metavar="NAME", help="The kind of expert: linear or constant.")] = "linear",
    family: Annotated[str, typer.Option(metavar="NAME", help="The distribution of the target: gaussian.")] = "gaussian",
    shared_scale: Annotated[bool, typer.Option("--shared-scale", help="One scale for all experts.")] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="Seed of the random starts.")] = 0,
    starts: Annotated[int, typer.Option(min=1, metavar="N", help="The number of starts.")] = 20,
    max_iter: Annotated[
        int, typer.Option(min=1, metavar="N", help="The largest number of iterations per start.")
    ] = 500,
    tol: Annotated[float, typer.Option(metavar="REAL", help="Tolerance of the relative gradient.")] = 1e-8,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds after which the best so far is returned.")
    ] = None,
    scale_floor: Annotated[
        float,
        typer.Option(metavar="REAL", help="Smallest scale of an expert, relative to the one-expert residual scale."),
    ] = 1e-3,
    gate_ridge: Annotated[
        float, typer.Option(metavar="REAL", help="Ridge penalty on the gate's contrasts, for gates that separate.")
    ] = 0.0,
    variance_prior: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="A B",
            help="Inverse-gamma prior on each variance relative to the one-expert residual variance, for scales that "
            "shrink without end.",
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes for the starts; -1 for all cores.")] = None,
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON; notes go to the error output.")
    ] = False,
) -> None:
    """Fit a mixture of experts to a table by maximum likelihood.

    Prints the summary; with --out also writes the model, the summary, the predictions and a report, all or nothing.
    """
    with ends_on_interrupt():
        from gatewise.io import check_level, check_new_folder, open_table, prepare_training, usual_features

        # What would be refused after the fit is refused before it.
        check_level(level)
        if out is not None:
            check_new_folder(out, overwrite=overwrite)
        notes: list[str] = []
        chosen = usual_features(data, target) if features is None else split_names(features)
        if features is None and chosen is not None:
            notes.append(f"features: {', '.join(map(repr, chosen))} (the usual ones of this data set)")
        gate_names = None if gate_features is None else split_names(gate_features)
        if gate_names == ["none"]:
            gate_names = []
        training = prepare_training(
            open_table(data, encoding),
            target,
            features=chosen,
            gate_features=gate_names,
            weights=weights,
            missing=missing.value,
        )
        from gatewise.estimators import GatedRegressor

        estimator = GatedRegressor(
            n_experts=experts,
            gate=gate,
            expert=expert,
            family=family,
            gate_features=None if gate_names is None else training.gate_features,
            expert_features=None if training.features == list(training.design.columns) else training.features,
            shared_scale=shared_scale,
            n_starts=starts,
            max_iter=max_iter,
            tol=tol,
            time_limit=time_limit,
            scale_floor=scale_floor,
            gate_ridge=gate_ridge,
            variance_prior=variance_prior,
            n_jobs=jobs,
            verbose=True,
            random_state=seed,
        )
        with warnings.catch_warnings():
            # What the fit warns about stands in the summary.
            warnings.simplefilter("ignore", GatewiseWarning)
            estimator.fit(training.design, training.target, sample_weight=training.weights)
        if estimator.result_.n_rows < estimator.n_parameters_:
            raise InputError(
                f"{data}: the model has {estimator.n_parameters_} parameters and the table only "
                f"{estimator.result_.n_rows} usable rows; use fewer experts or features, or more rows"
            )
        summary = estimator.summary(level)
        notes += training.notes
        text = "\n\n".join(["\n".join(notes), summary.to_text()] if notes else [summary.to_text()])
        written = [] if out is None else _write_outputs(out, overwrite, data, training, estimator, summary, text, level)
    if as_json:
        print(summary.to_json())
        for note in notes:
            print(note, file=sys.stderr)
        return
    print(text)
    if written:
        print("\n".join(["", "written:", *written]))


def _write_outputs(
    out: Path,
    overwrite: bool,
    data_name: str,
    training: "TrainingData",
    estimator: "GatedRegressor",
    summary: "Summary",
    text: str,
    level: float,
) -> list[str]:
    """Write the folder of a fit, whole or not at all; the paths of its files, the report's last."""
    from gatewise.io import ModelMetadata, SavedModel, model_files, new_folder, predict_table
    from gatewise.report import render_report

    metadata = ModelMetadata(
        feature_names=tuple(estimator.expert_feature_names_),
        gate_feature_names=tuple(estimator.gate_feature_names_),
        target_name=estimator.target_name_,
        coding=training.coding,
    )
    predictions = predict_table(SavedModel(estimator.model_, metadata), training, level=level)
    files = {f"model/{name}": content for name, content in model_files(estimator.model_, metadata).items()}
    files |= {
        "summary.json": (summary.to_json() + "\n").encode(),
        "summary.txt": (text + "\n").encode(),
        "predictions.csv": predictions.to_csv(index=False, lineterminator="\n").encode(),
        "report.html": render_report(
            estimator,
            training.design,
            training.target,
            sample_weight=training.weights,
            data_name=data_name,
            level=level,
        ).encode(),
    }
    with new_folder(out, overwrite=overwrite) as folder:
        for name, content in files.items():
            folder.write(name, content)
    return [str(out / name) for name in files]
