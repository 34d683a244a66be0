"""A task: runs that are trained together because they share a stack or a trunk."""

from __future__ import annotations

from dataclasses import dataclass

from .run import Run
from .sources.source import digest


@dataclass(frozen=True)
class Task:
    """Runs trained together: rows of a stack, and for each row the branches of its trunk.

    Parameters
    ----------
    branches : tuple of tuple of Run
        branches[b][row], by ascending steps; a ladder without trunks has one branch.
    """

    branches: tuple[tuple[Run, ...], ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, branch by branch."""
        return tuple(run for branch in self.branches for run in branch)

    @property
    def id(self) -> str:
        """Hash of its runs' ids."""
        return digest([run.id for run in self.runs])

    @property
    def steps(self) -> int:
        """Steps to train, each branch's cooldown included and the trunk counted once."""
        last = self.branches[-1][0].steps
        return last + sum(branch[0].cooldown_steps for branch in self.branches[:-1])


@dataclass(frozen=True)
class Progress:
    """A look at a task in training."""

    task: str
    branch: int
    step: int
    loss: float
    tokens_per_second: float
