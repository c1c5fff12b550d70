"""An estimator as a folder: what a fit leaves behind is written whole, and comes back in another process as it was."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import narwhals as nw
import numpy as np
from pydantic import ValidationError
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.fit import FitResult
from gatewise.inference import Names, SquaredErrors, Summary
from gatewise.io import CategoricalColumn, ColumnCoding, ModelMetadata, code_frame
from gatewise.io.fit_folder import fit_files, load_fit, save_fit
from gatewise.io.pack import register_record
from gatewise.model import MixtureOfExperts

__all__ = ["FittedData", "Storable"]

# What is raised where the parts of a folder, each in order, do not fit each other.
_MISFITS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)


@dataclass(frozen=True)
class FittedData:
    """What an estimator knows of the data that it was fitted to, and needs to take others like them.

    Attributes:
        features: the names of all columns of X.
        are_named: whether they are X's own.
        expert_columns: the columns that the experts see.
        gate_columns: the columns that the gate sees.
        target_columns: the names of the columns of y, where it has several.
        offset: what the offset is called, or None if there is none.
    """

    features: list[str]
    are_named: bool
    expert_columns: list[int]
    gate_columns: list[int]
    target_columns: tuple[str, ...] = ()
    offset: str | None = None


register_record(FittedData)


class Storable(BaseEstimator, ABC):
    """The part of an estimator that saves and loads it."""

    _stored_as: ClassVar[str]

    result_: FitResult
    model_: MixtureOfExperts
    target_name_: str
    _data: FittedData
    _names: Names
    _errors: SquaredErrors | None
    # Of the folder that it comes from, None of a fit.
    _metadata: ModelMetadata | None

    def save(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fitted estimator as a model folder, whole or not at all; `load` brings it back.

        The folder holds plain JSON and arrays, no code: the model (config.json, weights.safetensors), which
        `gatewise.load_model` and the command `gatewise predict` take too, and its fit (fit.json, fit.safetensors). The
        data are not in it. Parts of one's own come back if their classes are registered before loading.

        Args:
            directory: the folder; its parent must exist. An empty folder of that name is used.
            overwrite: whether an existing model folder may be replaced; one that holds anything else never is.

        Raises:
            NotFittedError: (scikit-learn's) nothing is fitted.
            InputError: a part or a parameter is no plain data, so that it could not be brought back.
            OutputError: the folder cannot be written, exists, or is not a model folder.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> import numpy as np
            >>> from gatewise import GatedRegressor
            >>> x = np.linspace(-1.0, 1.0, 200)[:, None]
            >>> y = np.abs(x[:, 0]) + 0.3 * np.random.default_rng(0).normal(size=200)
            >>> regressor = GatedRegressor(1).fit(x, y)
            >>> with tempfile.TemporaryDirectory() as parent:
            ...     regressor.save(Path(parent, "model"))
            ...     loaded = GatedRegressor.load(Path(parent, "model"))
            >>> bool((loaded.predict(x) == regressor.predict(x)).all())
            True
            >>> loaded.summary().to_text() == regressor.summary().to_text()
            True
        """
        check_is_fitted(self)
        save_fit(directory, self.model_, self.folder_metadata(), self._state(), overwrite=overwrite)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """The estimator that `save` wrote: parameters, predictions, standard errors and summary are the same.

        No code is run from the folder.

        Args:
            directory: the folder that `save` wrote, or the one that the command `gatewise fit` wrote. An estimator
                from the latter takes tables with the columns of the fitted file, and codes their text as that was.

        Raises:
            ModelFolderError: the folder is missing, incomplete or damaged, was changed after it was written, is of a
                newer version, names unknown classes, holds another kind of estimator, or a model without its fit.
        """
        saved, state = load_fit(directory)
        kind = state.get("estimator")
        if kind != cls._stored_as:
            raise ModelFolderError(
                f"the model folder {directory} holds a {kind}, not a {cls._stored_as}: load it with {kind}.load"
            )
        try:
            estimator = cls(**state["parameters"])
            estimator._take_state(state, saved.metadata)
        except _MISFITS as error:
            raise ModelFolderError(
                f"the model folder {directory} is damaged: its parts do not fit each other "
                f"({type(error).__name__}: {error}); save the model again"
            ) from error
        return estimator

    def folder_metadata(self, coding: ColumnCoding | None = None, exposure: str | None = None) -> ModelMetadata:
        """The names of the fitted model's inputs and target, as its folder has them.

        Args:
            coding: how the columns of X were made from those of a table, or None if they are these columns.
            exposure: the column whose logarithm was the offset, or None.

        Raises:
            NotFittedError: (scikit-learn's) nothing is fitted.
            InputError: the coding makes other columns.

        Example:
            >>> import numpy as np
            >>> from gatewise import GatedRegressor
            >>> x = np.linspace(-1.0, 1.0, 200)[:, None]
            >>> GatedRegressor(1).fit(x, x[:, 0] ** 2).folder_metadata().feature_names
            ('x0',)
        """
        check_is_fitted(self)
        if self._metadata is not None:
            return self._metadata
        data, names = self._data, self._names
        inputs = {*names.features, *names.gate_features}
        columns = tuple(_fresh(name, inputs) for name in data.target_columns)
        target = ", ".join(columns) or _fresh(names.target, inputs)
        taken = {target, *columns, *inputs}
        labels = self._own_state().get("classes")
        try:
            return ModelMetadata(
                feature_names=tuple(names.features),
                gate_feature_names=tuple(names.gate_features),
                target_name=target,
                coding=coding,
                offset_name=None if exposure is not None or data.offset is None else _fresh(data.offset, taken),
                exposure_name=exposure,
                class_names=None if labels is None else tuple(str(label) for label in labels),
                target_columns=columns or None,
                objective="least_squares" if self.result_.kind == "least_squares" else "likelihood",
            )
        except ValidationError as error:
            raise InputError(f"the fit cannot be saved: {error.errors()[0]['msg']}") from None

    def folder_files(self, metadata: ModelMetadata) -> dict[str, bytes]:
        """The files that `save` writes, by name, with these metadata.

        Raises:
            NotFittedError: (scikit-learn's) nothing is fitted.
            InputError: a part or a parameter is no plain data.
        """
        check_is_fitted(self)
        return fit_files(self.model_, metadata, self._state())

    @abstractmethod
    def summary(self, level: float = 0.95) -> Summary:
        """Everything a reader of the fit needs."""

    @abstractmethod
    def _keep(self, result: FitResult, errors: SquaredErrors | None = None) -> None:
        """Keep the result of a fit to the present `_data` with the present `_names`."""

    @abstractmethod
    def _set_estimates(self) -> None:
        """Set what follows from the result that is kept."""

    def _own_state(self) -> dict[str, Any]:
        """What only this kind of estimator has to keep."""
        return {}

    def _take_own_state(self, state: dict[str, Any]) -> None:
        """Take back what `_own_state` gave."""

    def _coded(self, X: Any) -> Any:
        """X with its text coded as in training, where it is a table with the columns from before the coding."""
        coding = None if self._metadata is None else self._metadata.coding
        if coding is None or not any(isinstance(column, CategoricalColumn) for column in coding.columns):
            return X
        table = nw.from_native(X, eager_only=True, pass_through=True)
        if not isinstance(table, nw.DataFrame) or set(coding.coded_names) <= set(table.columns):
            return X
        return code_frame(table, coding)

    def _state(self) -> dict[str, Any]:
        return {
            "estimator": self._stored_as,
            "parameters": self.get_params(deep=False),
            "result": self.result_,
            "names": self._names,
            "errors": self._errors,
            "data": self._data,
            **self._own_state(),
        }

    def _take_state(self, state: dict[str, Any], metadata: ModelMetadata) -> None:
        """Become what the state was taken from; the summary is made once, to see that everything fits."""
        result, names, data, errors = (state[name] for name in ("result", "names", "data", "errors"))
        sizes = (len(data.expert_columns), len(data.gate_columns))
        if sizes != (result.model.experts.n_features, result.model.gate.n_features):
            raise InputError("the columns are not those of the model")
        chosen = [[data.features[column] for column in part] for part in (data.expert_columns, data.gate_columns)]
        if chosen != [names.features, names.gate_features] or (errors is None) != (result.kind == "likelihood"):
            raise InputError("the names are not those of the fit")
        self._data, self._names, self._metadata = data, names, metadata
        self.n_features_in_ = len(data.features)
        if data.are_named:
            self.feature_names_in_ = np.array(data.features, dtype=object)
        self._keep(result, errors)
        self._take_own_state(state)
        self._set_estimates()
        self.summary()


def _fresh(name: str, taken: set[str]) -> str:
    """A name that is not taken: the folder's names are those of the columns of one table."""
    while name in taken:
        name += "_"
    return name
