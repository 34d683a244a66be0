"""Where a ladder's tasks are trained: a pool of processes on this machine, or a Ray cluster.

An executor is a function: it takes tasks and a workplace, and yields the records of each task as it
ends, in whatever order. Whoever consumes them stores them; nothing else is written to the ladder's
folder but checkpoints.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .device import Device, first_line, measure
from .ladder import Ladder
from .records import Record
from .sources import Source, SourceError
from .task import Progress, Task
from .train import CheckpointError, train

LOOK_SECONDS = 0.2
ATTEMPTS = 3  # workers that die so often before any task ends are not unlucky


class ExecutorError(RuntimeError):
    """Tasks that could not be trained; the message says what to do."""


@dataclass(frozen=True)
class Workplace:
    """What a worker needs besides the task.

    Parameters
    ----------
    ladder : Ladder
    folder : Path
        The ladder's output folder.
    device : {"cpu", "cuda"}
    workers : int
        Tasks at a time.
    """

    ladder: Ladder
    folder: Path
    device: str
    workers: int

    def checkpoint(self, task: Task) -> Path:
        """Return where a task's state is kept."""
        return self.folder / "checkpoints" / f"{task.id}.pt"


Finished = tuple[Task, list[Record]]
Executor = Callable[[Sequence[Task], Workplace, Callable[[Progress], None]], Iterator[Finished]]

_source: Source | None = None  # of this worker process: opened once, used by all its tasks
_machine: Device | None = None  # as measured while it was idle; None to measure it here
_report: Callable[[Progress], None] = lambda progress: None  # noqa: E731


def train_at(task: Task, place: Workplace) -> list[Record]:
    """Train one task in this process."""
    global _source
    if _source is None or _source.fingerprint != task.runs[0].source:
        _source = place.ladder.open_source(place.folder / "cache")
    if _source.fingerprint != task.runs[0].source:
        raise ExecutorError(
            f"[source] has fingerprint {_source.fingerprint}, but this ladder's runs are of "
            f"{task.runs[0].source}: its files have changed since the ladder was read, or differ on this "
            "node; make them the same and start again: finished runs are kept"
        )
    try:
        return train(
            task,
            _source,
            device=place.device,
            machine=_machine,
            checkpoint=place.checkpoint(task),
            checkpoint_seconds=place.ladder.engine.checkpoint_seconds,
            report=_report,
        )
    except torch.OutOfMemoryError:
        run = task.runs[0]
        raise ExecutorError(
            f"the GPU's memory is too small for {len(task.branches[0])} runs at a time of "
            f"{run.shape.parameters()['total']:,} parameters and {run.batch_tokens:,} tokens a step: lower "
            "[engine] stack or workers, and start again: finished runs are kept"
        ) from None


def run_in_processes(
    tasks: Sequence[Task], place: Workplace, report: Callable[[Progress], None]
) -> Iterator[Finished]:
    """Train tasks in a pool of processes, one compute thread each.

    A worker that dies (killed, out of memory) takes the pool with it, and one whose GPU failed can
    use it no more; the tasks left are begun again, from their checkpoints, in a new pool.
    """
    left, attempts = list(tasks), 0
    while left:
        try:
            for task, records in _one_pool(left, place, report):
                left.remove(task)
                attempts = 0
                yield task, records
        except (BrokenProcessPool, torch.AcceleratorError) as error:
            attempts += 1
            if attempts == ATTEMPTS:
                died = isinstance(error, BrokenProcessPool)
                what = "died" if died else f"lost its GPU ({first_line(error)})"
                guard = ' (a script must train under `if __name__ == "__main__":`)' if died else ""
                raise ExecutorError(
                    f"a worker process {what} {ATTEMPTS} times, {len(left)} tasks are left: is memory short? "
                    f"Lower [engine] workers or stack, and start again: finished runs are kept{guard}"
                ) from None


def _one_pool(
    tasks: Sequence[Task], place: Workplace, report: Callable[[Progress], None]
) -> Iterator[Finished]:
    # Two threads on a shared machine can cost 50 times one thread's step time, spinning workers
    # likewise.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    context = multiprocessing.get_context("spawn")
    news = context.Queue()
    # Workers that share a GPU would each measure what the others leave of it.
    machine = measure("cuda", place.ladder.engine.precision) if place.device == "cuda" else None
    pool = ProcessPoolExecutor(min(place.workers, len(tasks)), context, _start_worker, (news, machine))
    try:
        futures = {pool.submit(train_at, task, place): task for task in tasks}
        waiting: set[Future[list[Record]]] = set(futures)
        while waiting:
            done, waiting = wait(waiting, LOOK_SECONDS, FIRST_COMPLETED)
            _drain(news, report)
            for future in done:
                yield futures[future], future.result()
    finally:
        _stop(pool)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the pool now: an interrupted ladder must not go on training in the background."""
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


def _start_worker(news: Any, machine: Device | None) -> None:
    import signal
    import threading

    global _report, _machine
    _machine = machine
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _report = news.put


def _end_with_parent() -> None:
    """End this worker, idle or training, when its parent was killed: a successor will train its task."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _drain(news: Any, report: Callable[[Progress], None]) -> None:
    while True:
        try:
            report(news.get_nowait())
        except queue.Empty:
            return


def run_on_ray(
    tasks: Sequence[Task], place: Workplace, report: Callable[[Progress], None]
) -> Iterator[Finished]:
    """Train tasks on a Ray cluster: the one that RAY_ADDRESS names, else one on this machine.

    A task that loses its node is begun again on another: from its checkpoint where nodes share the
    output folder, else from the start, which gives the same records. On GPUs, `workers` tasks share
    one. Ray shows no progress within a task.
    """
    try:
        import ray
    except ImportError:
        raise ExecutorError("ray is not installed: pip install 'bayescale[ray]'") from None

    begun = not ray.is_initialized()
    if begun:
        address = os.environ.get("RAY_ADDRESS")
        ray.init(address=address, num_cpus=None if address else place.workers, log_to_driver=False)
    share: dict[str, Any] = {"num_gpus": 1 / place.workers} if place.device == "cuda" else {"num_cpus": 1}
    remote = ray.remote(max_retries=ATTEMPTS, **share)(_train_on_ray)
    try:
        futures = {remote.remote(task, place): task for task in tasks}
        while futures:
            done, _ = ray.wait(list(futures), num_returns=1)
            yield futures.pop(done[0]), ray.get(done[0])
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, (ExecutorError, CheckpointError, SourceError)):
            raise cause from None  # it says what to do, without Ray's traceback
        raise ExecutorError(f"Ray gave up ({error}): start again, finished runs are kept") from None
    finally:
        if begun:
            ray.shutdown()


def _train_on_ray(task: Task, place: Workplace) -> list[Record]:
    torch.set_num_threads(1)
    return train_at(task, place)


EXECUTORS: dict[str, Executor] = {"process": run_in_processes, "ray": run_on_ray}
