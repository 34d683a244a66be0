"""Greedy choice: runs one by one, by what they add per cost, until a budget is spent."""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

# Candidates tried as the first run.
_FIRSTS = 4


class Knowledge(Protocol):
    """What is known once some runs are trained, and how much that is worth."""

    @property
    def value(self) -> float:
        """What is to grow."""
        ...

    def values_with(self, candidates: np.ndarray) -> np.ndarray:
        """Return the value if one run of each of these candidates is added, shape (candidate,)."""
        ...

    def add(self, candidate: int) -> Self:
        """Return what is known with one run of a candidate more."""
        ...


@dataclass(frozen=True)
class Step:
    """One run chosen: which candidate, and what it adds to the value after those chosen before it."""

    candidate: int
    gain: float


def choose_runs(
    start: Knowledge, cost: np.ndarray, budget: float, *, times: int, least_gain: float
) -> list[Step]:
    """Choose runs one by one, by gain per cost, until the budget is spent.

    That alone may spend the budget on cheap runs where one dear run would do, so each of the candidates that
    tell most by themselves is also tried as the first (Khuller et al. 1999), and the best choice is returned.

    Parameters
    ----------
    start : Knowledge
        Before any run.
    cost : array, shape (candidate,)
        Of one run of each.
    budget : float
        In the unit of cost.
    times : int
        How often a candidate may be chosen, each time as a run with another seed.
    least_gain : float
        Runs that add less are not worth their trouble (or are Monte Carlo error).
    """
    affordable = np.flatnonzero(cost <= budget)
    alone = start.values_with(affordable) - start.value
    firsts = affordable[np.argsort(-alone)[:_FIRSTS]].tolist()
    options = [_one_by_one(start, cost, budget, times, least_gain, first) for first in (None, *firsts)]
    return max(options, key=lambda steps: sum(s.gain for s in steps))


def _one_by_one(
    known: Knowledge, cost: np.ndarray, budget: float, times: int, least_gain: float, first: int | None
) -> list[Step]:
    left, times_left, steps = budget * (1 + 1e-9), np.full(len(cost), times), list[Step]()
    while True:
        possible = np.flatnonzero((times_left > 0) & (cost <= left))
        if first is not None and not steps:
            possible = np.array([first])
        gain = known.values_with(possible) - known.value
        if not np.any(gain > least_gain):
            return steps
        worth = np.where(gain > least_gain, gain / cost[possible], -np.inf)
        best = int(np.argmax(worth))
        candidate = int(possible[best])
        known = known.add(candidate)
        steps.append(Step(candidate, float(gain[best])))
        left -= cost[candidate]
        times_left[candidate] -= 1
