"""Reports: figures and one self-contained HTML page on a fitted mixture of experts."""

from gatewise.report.evidence import Evidence, FittedRegressor
from gatewise.report.page import render_report, write_report

__all__ = ["Evidence", "FittedRegressor", "render_report", "write_report"]
