"""Train one task: a stack of runs, with its trunk's branches, checkpointed and resumable.

On CPU a resumed task ends with the weights of an uninterrupted one, bit for bit: a batch is a
function of the step, and the checkpoint holds all else.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .batches import stream
from .device import Device, compiles_kernels, measure
from .evaluate import Evaluation, evaluate
from .outcome import Outcome, record_of
from .records import Record
from .run import Run
from .sources import Source
from .stack import Stack
from .task import Progress, Task

PROBE_EVERY = 16  # steps between looks at the gradient noise and for runs that blew up
REPORT_SECONDS = 0.5
# On an H100: what fusing a stack's step costs, and the share of a step's time that it saves.
FUSE_SECONDS, FUSE_SAVES, FUSE_AT_LOOK = 20.0, 0.4, 3


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message says what to do."""


@dataclass
class _Position:
    """Where a task stands; what a checkpoint holds."""

    runs: list[str]  # ids of the task's
    branch: int = 0
    step: int = 0
    state: Any = None  # of the stack
    trunk: Any = None  # (step, state, probes so far) to go back to after this branch
    probes: list[tuple[int, Any]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    seconds: float = 0.0


def train(
    task: Task,
    source: Source,
    *,
    device: str = "cpu",
    machine: Device | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 15.0,
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[Record]:
    """Train a task to its end, from its checkpoint if there is one.

    Parameters
    ----------
    task : Task
    source : Source
        The one that the task's runs were planned on.
    device : {"cpu", "cuda"}
    machine : Device, optional
        What is known of the device; measured at the end of a run by default.
    checkpoint : Path, optional
        File to keep the task's state in; whoever stores the records removes it.
    checkpoint_seconds : float
        Time between checkpoints.
    report : callable
        Called about twice a second.

    Returns
    -------
    list of Record
        One per run, in the order of `task.runs`.
    """
    stack = Stack(task.branches[0], device)
    at = _Position([run.id for run in task.runs])
    if checkpoint and checkpoint.exists():
        at = _Position(**_read(checkpoint))
        stack.load(at.state)
    trainer = _Trainer(task, source, stack, at, machine, checkpoint, checkpoint_seconds, report)
    while at.branch < len(task.branches):
        trainer.train_branch()
    return at.records


@dataclass
class _Trainer:
    task: Task
    source: Source
    stack: Stack
    at: _Position
    machine: Device | None
    checkpoint: Path | None
    checkpoint_seconds: float
    report: Callable[[Progress], None]
    looks: int = 0
    looked: float = 0.0  # when, at the look before this one

    def train_branch(self) -> None:
        at, runs = self.at, self.task.branches[self.at.branch]
        first = runs[0]
        blown_up = False
        batches = stream(runs, self.source, at.step, self.stack.device.type)
        since = saved = reported = time.perf_counter()
        while at.step < first.steps and not blown_up:
            if first.trunk and at.step == first.branch_step:
                at.trunk = (at.step, self.stack.state(), len(at.probes))
            blown_up = self._step(runs, next(batches))
            now = time.perf_counter()
            at.seconds, since = at.seconds + now - since, now  # drawing batches and waiting included
            if now - reported > REPORT_SECONDS:
                reported = now
                self._report(first)
            if self.checkpoint and now - saved > self.checkpoint_seconds:
                self._save()
                saved = time.perf_counter()
        batches.close()
        self._finish(runs)

    def _step(self, runs: Sequence[Run], windows: Tensor) -> bool:
        """Train one step; return whether every row has blown up."""
        at = self.at
        look = at.step % PROBE_EVERY == 0
        halves = look and windows.shape[1] > 1
        probe = self.stack.step(windows, at.step, runs[0].share(at.step), halves=halves)
        if probe is not None:
            at.probes.append((at.step, probe))
        at.step += 1
        if look:
            self._fuse_if_it_pays()
        return look and not bool(self.stack.losses.isfinite().any())

    def _fuse_if_it_pays(self) -> None:
        """Judge at the third look: the first two see graphs being captured."""
        now, self.looks = time.perf_counter(), self.looks + 1
        if self.looks == FUSE_AT_LOOK and self.stack.device.type == "cuda" and compiles_kernels():
            left = (self.task.steps - self.at.step) * (now - self.looked) / PROBE_EVERY
            if left * FUSE_SAVES > FUSE_SECONDS:
                self.stack.fuse()
        self.looked = now

    def _finish(self, runs: Sequence[Run]) -> None:
        at, stack = self.at, self.stack
        if stack.device.type == "cuda":
            start = time.perf_counter()
            torch.cuda.synchronize()
            at.seconds += time.perf_counter() - start
        machine = self.machine or measure(stack.device.type, runs[0].precision)
        for row, scored in enumerate(evaluate(stack, self.source)):
            outcome = Outcome(
                evaluation=scored,
                status=_status(scored, runs[row]),
                gradient_norm=stack.optimiser.norm[row].item(),
                noise_scale=noise_scale([(s, p[row]) for s, p in at.probes], runs[row]),
                train_loss=stack.losses[row].item(),
                seconds=at.seconds,
                rows=len(runs),
            )
            at.records.append(record_of(runs[row], self.source, machine, outcome))
        at.branch += 1
        if at.trunk and at.branch < len(self.task.branches):
            at.step, state, probes = at.trunk
            stack.load(state)
            del at.probes[probes:]
            # A branch costs its cooldown; the trunk's own time is shared by all that follow.
            at.seconds *= at.step / runs[0].steps
            if self.checkpoint:
                self._save()

    def _report(self, first: Run) -> None:
        at = self.at
        rate = at.step * first.batch_tokens * len(self.task.branches[0]) / max(at.seconds, 1e-9)
        loss = self.stack.losses.nanmean().item()
        self.report(Progress(self.task.id, at.branch, at.step, loss, rate))

    def _save(self) -> None:
        assert self.checkpoint is not None
        self.at.state = self.stack.state()
        aside = self.checkpoint.with_suffix(f".{os.getpid()}")
        try:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                torch.save(vars(self.at), file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.checkpoint)
        except (OSError, RuntimeError) as error:  # torch's own error of a full disk speaks of positions
            why = error.__context__ if isinstance(error.__context__, OSError) else error
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise CheckpointError(
                f"{self.checkpoint} cannot be written ({why}): make room, or give another folder with --out, "
                "and start again: finished runs are kept"
            ) from None


def runs_of_checkpoint(checkpoint: Path) -> set[str]:
    """Return the ids of the runs that a checkpoint is of."""
    return set(_read(checkpoint)["runs"])


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        # A checkpoint holds plain lists and tensors only: nothing in it is executed.
        found: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        if isinstance(found, dict) and found.keys() == {f.name for f in fields(_Position)}:
            return found
    except Exception:  # what is no checkpoint can make its reader raise anything
        pass
    raise CheckpointError(
        f"{checkpoint} is no checkpoint of this version: delete it, and its runs begin from their start"
    )


def _status(scored: Evaluation, run: Run) -> str:
    """Return "finished", "nan", or "diverged": worse than knowing nothing but the vocabulary."""
    if not math.isfinite(scored.loss):
        return "nan"
    return "diverged" if scored.loss > math.log(run.shape.vocabulary) else "finished"


def noise_scale(probes: Sequence[tuple[int, Any]], run: Run) -> float | None:
    """Estimate the simple gradient-noise scale, in tokens (arXiv:1812.06162, appendix A).

    Parameters
    ----------
    probes : sequence of (int, (2,) tensor)
        Step, and squared gradient norms: mean over half batches, whole batch. The later half of the
        run is used.
    run : Run

    Returns
    -------
    float or None
        trace(covariance) / |gradient|^2 in tokens; None where noise hides the gradient altogether, 0 where
        there is none to be seen.
    """
    late = [norms for step, norms in probes if step >= run.steps // 2]
    if not late:
        return None
    half, whole = torch.stack(late).double().mean(dim=0).tolist()
    trace, gradient = (half - whole) * run.batch_tokens, 2 * whole - half
    return max(trace, 0.0) / gradient if gradient > 0 and math.isfinite(trace) else None
