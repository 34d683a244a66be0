"""Train a ladder: what is left of it, wherever it was stopped.

The output folder holds `runs.jsonl` (the records, appended as runs end), `runs.csv` and `runs.toml`
(the same as a run table), and, while tasks are in training, their checkpoints. A run is done when
its record is on the disk; until then its task's checkpoint stays. So a kill at any moment loses at
most the time since the last checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from .device import device_kind
from .executors import EXECUTORS, Workplace
from .ladder import Ladder, LadderError, tasks_of, workers_of
from .progress import Display
from .records import Record, append_records, read_records, write_table
from .run import Run
from .sources import Source
from .task import Task

CUDA_STACK = 32


def train_ladder(ladder: Ladder, folder: Path, executor: str = "process") -> list[Record]:
    """Train every run of a ladder that `folder` has no record of.

    Parameters
    ----------
    ladder : Ladder
    folder : Path
        Output folder, made if need be.
    executor : {"process", "ray"}

    Returns
    -------
    list of Record
        Of all the ladder's runs, those trained before included.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        place = workplace(ladder, folder)
        runs, tasks = settle(ladder, ladder.open_source(folder / "cache"), place.device)
        done = {record["run_id"] for record in read_records(folder / "runs.jsonl")}
        left = [task for task in tasks if any(run.id not in done for run in task.runs)]
        with Display(runs, left, done, place.device) as display:
            for task, records in EXECUTORS[executor](left, place, display.progress):
                fresh = [record for record in records if record["run_id"] not in done]
                append_records(folder / "runs.jsonl", fresh)
                place.checkpoint(task).unlink(missing_ok=True)
                done |= {record["run_id"] for record in fresh}
                display.finished(task, records)
        # A kill between a record and here, or a worker that outlived it, leaves a checkpoint behind.
        for task in tasks:
            place.checkpoint(task).unlink(missing_ok=True)
        wanted = {run.id for run in runs}
        records = [r for r in read_records(folder / "runs.jsonl") if r["run_id"] in wanted]
        write_table(folder / "runs.csv", records, ladder.name)
    return records


def workplace(ladder: Ladder, folder: Path) -> Workplace:
    """Settle where a ladder's tasks are trained on this machine."""
    device = device_kind(ladder.engine.device)
    return Workplace(ladder, folder, device, workers_of(ladder.engine, device))


def settle(ladder: Ladder, source: Source, device: str) -> tuple[list[Run], list[Task]]:
    """Settle a ladder's runs and the tasks that train them on a device."""
    runs = ladder.runs(source)
    stack = ladder.engine.stack or (CUDA_STACK if device == "cuda" else 1)
    return runs, tasks_of(runs, stack)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second ladder out of the folder; the lock ends with this process, however it ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LadderError(
                f"another ladder is training in {folder}: wait for it, or give another folder with --out"
            ) from None
        yield
