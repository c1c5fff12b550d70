"""Files in and out: tables, model folders and predictions."""

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
from gatewise.io.predictions import check_level, check_table_name, predict_table, write_table
from gatewise.io.sources import open_table, usual_features
from gatewise.io.tables import Column, Table, parse_csv, parse_parquet, read_table

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
    "check_table_name",
    "code_frame",
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
