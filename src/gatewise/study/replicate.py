"""One task of a study: simulate a data set, fit one method to it, measure the fit; the outcome is a row."""

import functools
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from gatewise.exceptions import GatewiseError, InputError
from gatewise.fit import FitOptions, StartRecord, fit
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.ops.threads import single_threaded
from gatewise.study.descent import descend, objective_at
from gatewise.study.design import StudyDesign
from gatewise.study.distances import distance_of
from gatewise.study.measures import measure_fit, measure_model
from gatewise.study.models import allocation, at_truth, constraints_of, holds, near, prototype, true_model
from gatewise.study.simulate import generator_of_starts, simulate
from gatewise.study.tables import Method
from gatewise.theory import MixingMeasure

__all__ = ["UNREPEATABLE", "Laboratory", "Row", "Task", "all_tasks", "laboratory"]

Row = dict[str, str | int | float | bool]
"""One replicate: what `Laboratory.run` says."""

UNREPEATABLE = ("seconds",)
"""Columns that another run of the same task may have otherwise."""

# By how much an objective may lie below the truth's: what adding up the rows in another order can do.
_ROUNDING = 1e-11


@dataclass(frozen=True, order=True)
class Task:
    """A method on the data set of one size and replicate.

    Attributes:
        method: its name.
        n: the size.
        replicate: counted from 0.
    """

    method: str
    n: int
    replicate: int

    @property
    def key(self) -> str:
        """METHOD/N/REPLICATE."""
        return f"{self.method}/{self.n}/{self.replicate}"

    @classmethod
    def parse(cls, key: str, design: StudyDesign) -> Self:
        """The task of that key.

        Raises:
            InputError: it is none of the design's.
        """
        parts = key.split("/")
        if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
            method, n, replicate = parts[0], int(parts[1]), int(parts[2])
            if n in design.all_sizes() and replicate < design.replicates:
                return cls(design.method(method).name, n, replicate)
        raise InputError(
            f"{shown(key)} is no key of this study: keys are METHOD/N/REPLICATE with a size of the design and a "
            f"replicate from 0 to {design.replicates - 1}, such as {all_tasks(design)[0].key}"
        )


def all_tasks(design: StudyDesign) -> list[Task]:
    """Every task, replicate by replicate, so that a study that is cut short has seen all sizes."""
    return [
        Task(method.name, n, replicate)
        for replicate in range(design.replicates)
        for n in design.all_sizes()
        for method in design.methods
    ]


@functools.lru_cache(maxsize=4)
def laboratory(design_json: str) -> "Laboratory":
    """The laboratory of a design given as JSON, kept by each worker process."""
    return Laboratory(StudyDesign.model_validate_json(design_json))


class Laboratory:
    """A design with its models built and checked: task ↦ row, the same bits wherever and whenever it runs.

    Args:
        design: the study.

    Raises:
        InputError: a part, a start, a loss or a name in the design cannot be used; all of it is tried once.
    """

    def __init__(self, design: StudyDesign) -> None:
        self.design = design
        self.truth = true_model(design)
        self.true_measure = MixingMeasure.of(self.truth)
        for method in design.methods:
            model = prototype(design, method)
            holds(method, model)
            self._options(method, model, "auto", 1, 0)
            if method.starts.near or method.descent is not None:
                self._near(method, 2, 0, 0, at_the_truth=True)
        self._losses = [table for table in design.losses if not table.is_distance]
        self._distances = {
            table.name: distance_of(design, self.truth, table) for table in design.losses if table.is_distance
        }
        measure_fit(self.true_measure, self.true_measure, self._losses)
        named = {name for name, _ in self.truth.named_parameters()}
        if unknown := sorted(set(design.box) - named):
            raise InputError(f"box speaks of {shown(unknown[0])}: there are {', '.join(sorted(named))}")

    def run(self, task: Task) -> Row:
        """The row of a task; a failure is a row too, with the status FAILED and its reason."""
        began = time.thread_time()
        row: Row = {"key": task.key, "method": task.method, "n": task.n, "replicate": task.replicate}
        try:
            with single_threaded():
                row |= {"error": "", **self._outcome(task)}
        except (GatewiseError, ArithmeticError, ValueError, RuntimeError, MemoryError) as error:
            row |= {"status": "FAILED", "error": f"{type(error).__name__}: {error}"}
        return {**row, "seconds": time.thread_time() - began}

    def _outcome(self, task: Task) -> Row:
        method = self.design.method(task.method)
        x, y = simulate(self.design, self.truth, task.n, task.replicate)
        true_objective = objective_at(self.truth, x, y, method.objective)
        allowed = _ROUNDING * (abs(true_objective) + task.n)
        best: tuple[float, MixtureOfExperts, Row] | None = None
        attempts = 0
        for attempt in range(method.starts.retries + 1 if method.descent is None else 1):
            attempts += 1
            last = attempt > 0 and attempt == method.starts.retries
            found = self._attempt(method, task, attempt, last, x, y)
            if best is None or found[0] > best[0]:
                best = found
            if best[0] >= true_objective - allowed:
                break
        assert best is not None
        objective, model, outcome = best
        measures, cells = measure_model(model, self.true_measure, self._losses)
        return {
            **outcome,
            "objective": objective,
            "true_objective": true_objective,
            "below_truth": objective < true_objective - allowed,
            "attempts": attempts,
            "outside_box": self._outside(model),
            "cells": ",".join(map(str, cells)),
            **measures,
            **{f"loss.{name}": distance(model) for name, distance in self._distances.items()},
        }

    def _attempt(
        self, method: Method, task: Task, attempt: int, at_the_truth: bool, x: np.ndarray, y: np.ndarray
    ) -> tuple[float, MixtureOfExperts, Row]:
        """Objective, model and the fit's own columns of the row."""
        models: list[MixtureOfExperts] = []
        if method.starts.near or method.descent is not None:
            models = self._near(method, task.n, task.replicate, attempt, at_the_truth=at_the_truth)
        if method.descent is not None:
            generator = generator_of_starts(
                self.design.seed, _number(f"{method.name} descent"), task.n, task.replicate, 0
            )
            held = holds(method, models[0])
            model = descend(models[0], held, x, y, method.objective, method.descent, generator)
            status = "DESCENT" if method.descent.epochs else "START"
            ended: Row = {"status": status, "starts": 1, "iterations": 0, "kept_start": "given"}
            return objective_at(model, x, y, method.objective), model, ended
        blank = models[0] if models else prototype(self.design, method)
        n_starts = len(models) + method.starts.data
        options = self._options(method, blank, models or "auto", n_starts, attempt)
        result = fit(blank, x, y, options=options)
        ended = {
            "status": result.status.name,
            "starts": n_starts,
            "iterations": sum(record.n_iterations for record in result.starts),
            "kept_start": _kept(result.starts),
        }
        return result.objective, result.model, ended

    def _near(
        self, method: Method, n: int, replicate: int, attempt: int, *, at_the_truth: bool
    ) -> list[MixtureOfExperts]:
        """Starts near the truth; at the truth itself for the last attempt."""
        generator = generator_of_starts(self.design.seed, _number(method.name), n, replicate, attempt)
        found = []
        for _ in range(1 if at_the_truth else max(method.starts.near, 1)):
            cells = allocation(self.truth.n_experts, method.n_experts, generator)
            model = at_truth(self.design, self.truth, method, cells)
            if not at_the_truth:
                model = near(model, method.starts, holds(method, model), n, generator)
            found.append(model)
        return found

    def _options(
        self,
        method: Method,
        model: MixtureOfExperts,
        init: str | Sequence[MixtureOfExperts],
        n_starts: int,
        attempt: int,
    ) -> FitOptions:
        equivariant = model.gate.affine_equivariant and model.experts.affine_equivariant
        defaults = {"standardise": "auto" if equivariant else "off"}
        try:
            return FitOptions(
                n_starts=n_starts,
                init=init,
                objective=method.objective,
                constraints=constraints_of(holds(method, model)),
                seed=attempt,
                **{**defaults, **method.options},
            )
        except TypeError as error:
            raise InputError(f"method {method.name}: options: {error}") from None

    def _outside(self, model: MixtureOfExperts) -> int:
        """How many numbers of the fit lie outside the design's box."""
        own = dict(model.named_parameters())
        return sum(
            int(((own[name] < low) | (own[name] > high)).sum())
            for name, (low, high) in self.design.box.items()
            if name in own
        )


def _kept(starts: Sequence[StartRecord]) -> str:
    """How the kept start was made."""
    first = [record for record in starts if record.optimum == 0]
    return max(first or starts, key=lambda record: record.objective).strategy


def _number(name: str) -> int:
    return zlib.crc32(name.encode())
