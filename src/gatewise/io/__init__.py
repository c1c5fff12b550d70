"""Files in and out: tables, model folders, and outputs that are written whole or not at all."""

from gatewise.io.atomic import NewFolder, new_folder, write_file
from gatewise.io.coding import (
    CategoricalColumn,
    ColumnCoding,
    NumericColumn,
    PredictionData,
    TrainingData,
    prepare_prediction,
    prepare_training,
)
from gatewise.io.model_folder import ModelMetadata, SavedModel, load_model, model_files, save_model
from gatewise.io.predictions import predict_table
from gatewise.io.tables import Column, Table, parse_csv, parse_parquet, read_table

__all__ = [
    "CategoricalColumn",
    "Column",
    "ColumnCoding",
    "ModelMetadata",
    "NewFolder",
    "NumericColumn",
    "PredictionData",
    "SavedModel",
    "Table",
    "TrainingData",
    "load_model",
    "model_files",
    "new_folder",
    "parse_csv",
    "parse_parquet",
    "predict_table",
    "prepare_prediction",
    "prepare_training",
    "read_table",
    "save_model",
    "write_file",
]
