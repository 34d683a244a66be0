"""What a person sees of a ladder: its runs before they are trained, and as they train."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from types import TracebackType

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .batches import stacked
from .device import measure
from .flops import training_flops
from .ladder import cost
from .records import Record
from .run import Run
from .sources import Source
from .stack import Stack
from .task import Progress, Task

TIMED_STEPS = 4
WIDEST, ID_SPARE = 1000, 12  # columns of a table; digits of a run's id that it can do without
SLOW_STEP = 1.0  # seconds: one such step tells enough


def short(number: float, unit: str = "") -> str:
    """Print a number with three digits and a decimal prefix: 41200 is 41.2k."""
    for limit, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * limit:  # 999,999 is 1M, not 1e+03k
            return f"{number / limit:.3g}{prefix}{unit}"
    return f"{number:.3g}{unit}"


def clock(seconds: float) -> str:
    """Print a duration: 75 is 1:15, and 3,675 is 1:01:15."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def step_seconds(task: Task, source: Source, device: str) -> float:
    """Measure the time of one training step of a task, in seconds."""
    torch.set_num_threads(1)  # as a worker has: more spin against whatever else the machine does
    runs = task.branches[0]
    stack = Stack(runs, device)
    windows = stacked(runs, source, 0)
    start = time.perf_counter()
    stack.step(windows, 0, 0.0)
    if device == "cpu" and time.perf_counter() - start > SLOW_STEP:
        return time.perf_counter() - start
    start = time.perf_counter()
    for step in range(TIMED_STEPS):
        stack.step(windows, step, 0.0)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / TIMED_STEPS


def forecast_seconds(tasks: Sequence[Task], source: Source, device: str) -> dict[str, float]:
    """Forecast the time of each task, by id, from a few of its steps measured on this machine."""
    validation = source.validation_windows * tasks[0].runs[0].shape.context
    seconds: dict[str, float] = {}
    steps: dict[tuple[str, int], float] = {}
    for task in tasks:
        alike = (task.runs[0].stack_key, len(task.branches[0]))
        if alike not in steps:
            steps[alike] = step_seconds(task, source, device)
        # An evaluation is a forward pass, a third of a step's work.
        evaluation = validation / task.runs[0].batch_tokens / 3 * len(task.branches)
        seconds[task.id] = steps[alike] * (task.steps + evaluation)
    return seconds


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of several workers ends, each taking the next task when free."""
    ends = [0.0] * workers
    for task in seconds:
        ends[ends.index(min(ends))] += task
    return max(ends)


def print_plan(runs: Sequence[Run], tasks: Sequence[Task], source: Source, device: str, workers: int) -> None:
    """Print every run with N, D, FLOPs and time, and the totals (`--dry-run`); tasks are those not done."""
    seconds = forecast_seconds(tasks, source, device) if tasks else {}
    left = {run.id: seconds[task.id] / len(task.runs) for task in tasks for run in task.runs}
    table = Table(
        "run", "params", "non-emb", "tokens", "seed", "batch", "steps", "LR", "FLOPs", "time",
        box=None, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    flops = 0.0
    for run in runs:
        counts, compute = run.shape.parameters(), training_flops(run.shape, run.tokens)["compute"]
        flops += compute
        table.add_row(
            run.id, short(counts["total"]), short(counts["non_embedding"]), short(run.tokens),
            str(run.seed), str(run.batch_tokens), str(run.steps),
            f"{dict(run.learning_rate)['matrix']:.2g}", f"{compute:.2e}".replace("e+", "e"),
            f"{left[run.id]:.1f} s" if run.id in left else "done",
        )  # fmt: skip
    console = _wide_enough(table)
    console.print(table)
    entropy = source.entropy_rate
    console.print(
        f"source {source.kind} {source.fingerprint}, entropy rate {entropy or 'unknown'} nats/token"
    )
    console.print(
        f"{len(runs)} runs, {flops:.3e} FLOPs, about {clock(makespan(list(seconds.values()), workers))} "
        f"with {workers} at a time on {device}"
    )


def _wide_enough(table: Table) -> Console:
    """Return a console that crops no number: a narrow terminal shows the first digits of ids, a file all."""
    console, whole = Console(), Console(width=WIDEST).measure(table).maximum
    return Console(width=max(console.width, whole - ID_SPARE if console.is_terminal else whole))


class Display:
    """Live progress on a terminal; elsewhere a line per finished run.

    Parameters
    ----------
    runs : sequence of Run
        All the ladder's.
    tasks : sequence of Task
        Those to be trained.
    done : collection of str
        Ids of runs that have a record already.
    device : str
    """

    def __init__(
        self, runs: Sequence[Run], tasks: Sequence[Task], done: Collection[str], device: str
    ) -> None:
        self._console = Console(stderr=True)
        self._tasks = {task.id: task for task in tasks}
        self._total, self._done = len(runs), len([run for run in runs if run.id in done])
        self._work, self._work_done = sum(map(cost, tasks)), 0.0
        self._started = time.perf_counter()
        self._news: dict[str, Progress] = {}
        precision = runs[0].precision if runs else "fp32"
        self._ceiling = measure(device, precision).ceiling_flops
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Display:
        if self._done:
            self._console.print(f"{self._done} of {self._total} runs have a record already")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False)

    def progress(self, news: Progress) -> None:
        """Take in a look at a task in training."""
        if news.task in self._tasks:
            self._news[news.task] = news
            self._draw()

    def finished(self, task: Task, records: Sequence[Record]) -> None:
        """Take in a task's end."""
        self._news.pop(task.id, None)
        self._work_done += cost(task)
        for record in records:
            self._done += 1
            loss = "-" if record["loss"] is None else f"{record['loss']:.4f}"
            self._console.print(
                f"[{self._done}/{self._total}] N {short(record['params'])} D "
                f"{short(record['tokens'])} "
                f"seed {record['seed']} loss {loss} {record['status']}, "
                f"{record['measured']['wall_seconds']:.1f} s, "
                f"{short(record['measured']['tokens_per_second'])} tokens/s, "
                f"MFU {record['measured']['mfu_ceiling']:.0%}, ladder ends in {self._eta()}",
                markup=False,
                highlight=False,
            )
        self._draw()

    def _eta(self) -> str:
        share = self._work_done / self._work
        return clock((time.perf_counter() - self._started) * (1 / share - 1)) if share else "?"

    def _draw(self) -> None:
        if not self._console.is_terminal:
            return
        table = Table("params", "tokens", "runs", "step", "loss", "tokens/s", "MFU", "ETA")
        for task_id, news in self._news.items():
            task = self._tasks[task_id]
            run = task.branches[news.branch][0]
            rate = news.tokens_per_second
            left = (run.steps - news.step) * run.batch_tokens * len(task.branches[0])
            table.add_row(
                short(run.shape.parameters()["total"]), short(run.tokens), str(len(task.runs)),
                f"{news.step}/{run.steps}", f"{news.loss:.4f}", short(rate),
                f"{rate * training_flops(run.shape, 1)['compute'] / self._ceiling:.0%}",
                clock(left / rate),
            )  # fmt: skip
        table.caption = f"{self._done} of {self._total} runs, ladder ends in {self._eta()}"
        self._live.update(table, refresh=True)
