"""Reports: figures and one self-contained HTML page on a fitted mixture of experts."""

from gatewise.report.evidence import Evidence
from gatewise.report.page import render_report, write_report

__all__ = ["Evidence", "render_report", "write_report"]
