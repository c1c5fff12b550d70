"""`gatewise predict`: a saved model's predictions for a table."""

from pathlib import Path
from typing import Annotated

import typer

from gatewise.cli.common import MissingChoice, ends_on_interrupt

__all__ = ["predict"]


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="The folder of a fit (its --out), or the model folder in it.")
    ],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A CSV or parquet file, or the name of a shipped data set.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the predictions: a .csv or .parquet file.")],
    level: Annotated[float, typer.Option(metavar="REAL", help="Probability of the prediction interval.")] = 0.95,
    missing: Annotated[
        MissingChoice, typer.Option(help="Refuse missing values, or drop their rows.")
    ] = MissingChoice.REFUSE,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoding of a CSV file, for example latin-1.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
) -> None:
    """Write a saved model's mean or class probabilities, interval and expert weights for each row of a table.

    If the table has the target, also the log density, the responsibilities and the probability integral transform.
    """
    with ends_on_interrupt():
        from gatewise.io import check_source, check_table_name, find_model_folder

        check_table_name(out)
        # What is not there is refused before anything heavy is loaded.
        folder = find_model_folder(model)
        check_source(data)
        from gatewise.io import load_model, open_table, predict_table, prepare_prediction, write_table

        saved = load_model(folder)
        table = open_table(data, encoding)
        metadata = saved.metadata
        coded = prepare_prediction(
            table,
            metadata.column_coding(),
            metadata.target_names,
            offset=metadata.offset_name,
            exposure=metadata.exposure_name,
            classes=metadata.class_names is not None,
            missing=missing.value,
        )
        write_table(out, predict_table(saved, coded, level=level), overwrite=overwrite)
    for note in coded.notes:
        print(note)
    print(out)
