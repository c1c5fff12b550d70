"""Reports: figures and one self-contained HTML page on what was fitted."""

from gatewise.report import early_exit as early_exit
from gatewise.report.evidence import Evidence
from gatewise.report.page import fit_page
from gatewise.report.routing import routing_page
from gatewise.report.write import render_report, write_report

__all__ = ["Evidence", "fit_page", "render_report", "routing_page", "write_report"]
