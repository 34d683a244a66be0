"""Train a ladder: what is left of it, wherever it was stopped.

The output folder holds `runs.jsonl` (the records, appended as runs end), `runs.csv` and `runs.toml`
(the same as a run table), and, while tasks are in training, their checkpoints. A run is done when
its record is on the disk; until then its task's checkpoint stays. So a kill at any moment loses at
most the time since the last checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from .device import DeviceError, device_kind
from .executors import EXECUTORS, Workplace
from .ladder import Ladder, LadderError, tasks_of, workers_of
from .progress import Display
from .records import Record, append_records, mend_records, read_records, write_table
from .run import Run
from .sources import Source
from .task import Task
from .train import CheckpointError, runs_of_checkpoint

CUDA_STACK = 32
# A checkpoint written aside: a task's id, and the number of the process that wrote it.
_ASIDE = re.compile(r"[0-9a-f]{16}\.\d+")


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
    with _locked(folder):
        place = workplace(ladder, folder)
        mend_records(folder / "runs.jsonl")
        done = {record["run_id"] for record in read_records(folder / "runs.jsonl")}
        runs, left = settle(ladder, ladder.open_source(folder / "cache"), place.device, done)
        with Display(runs, left, done, place.device) as display:
            if len(runs) < ladder.asked:
                display.say(ladder.says_settled(runs))
            for task, records in EXECUTORS[executor](left, place, display.progress):
                append_records(folder / "runs.jsonl", records)
                place.checkpoint(task).unlink(missing_ok=True)
                done |= {record["run_id"] for record in records}
                display.finished(task, records)
        wanted = {run.id for run in runs}
        records = [r for r in read_records(folder / "runs.jsonl") if r["run_id"] in wanted]
        write_table(folder / "runs.csv", records, ladder.name)
        _sweep(folder / "checkpoints", done)
    return records


def _sweep(checkpoints: Path, done: set[str]) -> None:
    """Remove what kills leave: half a checkpoint, or one whose runs have records; all else is not ours."""
    for path in checkpoints.glob("*"):
        if path.suffix == ".pt":
            with contextlib.suppress(CheckpointError):
                if runs_of_checkpoint(path) <= done:
                    path.unlink()
        elif path.is_file() and _ASIDE.fullmatch(path.name):
            path.unlink()


def workplace(ladder: Ladder, folder: Path) -> Workplace:
    """Settle where a ladder's tasks are trained on this machine."""
    try:
        device = device_kind(ladder.engine.device)
    except DeviceError as error:
        raise LadderError(f"[engine] device: {error}") from None
    return Workplace(ladder, folder, device, workers_of(ladder.engine, device))


def settle(
    ladder: Ladder, source: Source, device: str, done: Collection[str]
) -> tuple[list[Run], list[Task]]:
    """Settle a ladder's runs, and the tasks that train on a device those that are not done, by their ids."""
    runs = ladder.runs(source)
    stack = ladder.engine.stack or (CUDA_STACK if device == "cuda" else 1)
    return runs, tasks_of([run for run in runs if run.id not in done], stack)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep a second ladder out; the lock ends with this process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise LadderError(f"cannot write to {folder} ({error.strerror}): give a folder with --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LadderError(
                f"another ladder is training in {folder}: wait for it, or give another folder with --out"
            ) from None
        yield
