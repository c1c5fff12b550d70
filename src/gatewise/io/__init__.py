"""Files in and out: tables, model folders and predictions.

The names below are loaded when they are first used: what is refused early needs neither torch nor pandas.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatewise.io.checks import check_level, check_table_name
    from gatewise.io.coding import (
        CategoricalColumn,
        ColumnCoding,
        NumericColumn,
        PredictionData,
        TrainingData,
        code_frame,
        prepare_prediction,
        prepare_training,
    )
    from gatewise.io.model_folder import ModelMetadata, SavedModel, load_model, model_files, save_model
    from gatewise.io.predictions import predict_table, write_table
    from gatewise.io.reading import parse_csv, parse_parquet, read_table
    from gatewise.io.sealed import find_model_folder
    from gatewise.io.sources import check_source, open_table, usual_features
    from gatewise.io.tables import Column, Table

__all__ = [
    "CategoricalColumn",
    "Column",
    "ColumnCoding",
    "ModelMetadata",
    "NumericColumn",
    "PredictionData",
    "SavedModel",
    "Table",
    "TrainingData",
    "check_level",
    "check_source",
    "check_table_name",
    "code_frame",
    "find_model_folder",
    "load_model",
    "model_files",
    "open_table",
    "parse_csv",
    "parse_parquet",
    "predict_table",
    "prepare_prediction",
    "prepare_training",
    "read_table",
    "save_model",
    "usual_features",
    "write_table",
]

_HOME = {
    "CategoricalColumn": "coding",
    "Column": "tables",
    "ColumnCoding": "coding",
    "ModelMetadata": "model_folder",
    "NumericColumn": "coding",
    "PredictionData": "coding",
    "SavedModel": "model_folder",
    "Table": "tables",
    "TrainingData": "coding",
    "check_level": "checks",
    "check_source": "sources",
    "check_table_name": "checks",
    "code_frame": "coding",
    "find_model_folder": "sealed",
    "load_model": "model_folder",
    "model_files": "model_folder",
    "open_table": "sources",
    "parse_csv": "reading",
    "parse_parquet": "reading",
    "predict_table": "predictions",
    "prepare_prediction": "coding",
    "prepare_training": "coding",
    "read_table": "reading",
    "save_model": "model_folder",
    "usual_features": "sources",
    "write_table": "predictions",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"gatewise.io.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gatewise.io' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
