"""Rate studies: simulate, fit, measure the loss, estimate the slope; resumable, on one machine or many."""

from gatewise.study.compare import StudyComparison, compare
from gatewise.study.design import StudyDesign, catalogue, read_design
from gatewise.study.replicate import Laboratory, Task, all_tasks
from gatewise.study.runner import RunOutcome, run_study
from gatewise.study.slopes import Slope, StudySlopes, slopes
from gatewise.study.status import StudyStatus, study_status
from gatewise.study.store import Store

__all__ = [
    "Laboratory",
    "RunOutcome",
    "Slope",
    "Store",
    "StudyComparison",
    "StudyDesign",
    "StudySlopes",
    "StudyStatus",
    "Task",
    "all_tasks",
    "catalogue",
    "compare",
    "read_design",
    "run_study",
    "slopes",
    "study_status",
]
