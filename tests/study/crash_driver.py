"""Run a study with short batches, and die at a chosen moment: `crash_driver.py FILE DIR JOBS [CALL COUNT WHEN]`.

CALL is the function of `os` at which the process kills itself (fsync or replace), COUNT which call of it, and WHEN
whether "before" or "after" it is done.
"""

import os
import signal
import sys
from pathlib import Path

from gatewise.study import Store, read_design, run_study, runner


def die_at(call, count, when):
    real = getattr(os, call)
    calls = [0]

    def counted(*arguments, **options):
        calls[0] += 1
        if calls[0] == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, call, counted)


if __name__ == "__main__":
    file, folder, jobs, *crash = sys.argv[1:]
    runner.BATCH_SECONDS = 0.25
    store = Store.create(Path(folder), read_design(file))
    if crash:
        die_at(crash[0], int(crash[1]), crash[2])
    run_study(store, jobs=int(jobs))
