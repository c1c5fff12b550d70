"""Inference: standard errors, intervals, information criteria, and the summary as data and as text."""

from gatewise.fit.names import Names
from gatewise.inference.covariance import covariance, quantity_covariance
from gatewise.inference.criteria import Criteria, SquaredErrors, information_criteria, squared_errors
from gatewise.inference.parameters import confidence_intervals, parameter_table
from gatewise.inference.rivals import rival_changes, rivals_table
from gatewise.inference.summary import Summary, summarise

__all__ = [
    "Criteria",
    "Names",
    "SquaredErrors",
    "Summary",
    "confidence_intervals",
    "covariance",
    "information_criteria",
    "parameter_table",
    "quantity_covariance",
    "rival_changes",
    "rivals_table",
    "squared_errors",
    "summarise",
]
