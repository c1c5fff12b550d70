"""Rate studies: simulate, fit, measure the loss, estimate the slope; resumable, on one machine or many."""

from gatewise.study.design import StudyDesign, catalogue, read_design
from gatewise.study.replicate import Laboratory, Task, all_tasks
from gatewise.study.runner import RunOutcome, run_study
from gatewise.study.status import StudyStatus, study_status
from gatewise.study.store import Store

__all__ = [
    "Laboratory",
    "RunOutcome",
    "Store",
    "StudyDesign",
    "StudyStatus",
    "Task",
    "all_tasks",
    "catalogue",
    "read_design",
    "run_study",
    "study_status",
]
