"""Hoffmann et al.'s approaches 1 and 2 (arXiv:2203.15556): how the compute-optimal params grow with compute.

Baselines, offered as such: each is a straight line through a few optima in logarithms, without a law of the
loss, without noise and without a band. Approach 1 takes for optimal the runs that no cheaper run beats, so
its optima lie on whatever grid of sizes was trained. Approach 2 fits a parabola to the losses at each budget,
but a sum of two power laws is no parabola: the vertex is shifted, most where the sizes spread widely or
lopsidedly about the optimum (arXiv:2603.22339). A curve through every loss (Porian et al.,
arXiv:2406.19146) has no such bias, but follows the noise. `bayescale.allocate` answers the same question
from a posterior.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bayescale.errors import FitError
from bayescale.runs import RunTable

# Runs whose budgets differ by less are runs of one budget: published budgets are rounded to about this.
SAME_BUDGET = 0.05


@dataclass(frozen=True, eq=False)
class OptimalParams:
    """Compute-optimal params as a power of compute: params = coefficient * compute**exponent.

    Attributes
    ----------
    exponent : float
        Of compute; .5 grows params and tokens alike.
    coefficient : float
        Params at one FLOP.
    compute : array, shape (optimum,)
        Budgets that have an optimum, FLOP.
    params : array, shape (optimum,)
        The optimum at each.
    left_out : tuple of float
        Budgets without one (FLOP): fewer than three sizes, or losses that still fall at the edge.
    """

    exponent: float
    coefficient: float
    compute: np.ndarray
    params: np.ndarray
    left_out: tuple[float, ...] = ()

    def at(self, compute: float) -> float:
        """Return the optimal params of a budget (FLOP)."""
        return self.coefficient * compute**self.exponent


def envelope(table: RunTable) -> OptimalParams:
    """Approach 1: a line through the params of those runs that no cheaper run beats.

    Parameters
    ----------
    table : RunTable
        With params and compute.

    Raises
    ------
    TableError, FitError
        If a column is missing, or fewer than two budgets have an optimum.
    """
    compute, params, loss = (table.column(c) for c in ("compute", "params", "loss"))
    order = np.lexsort((loss, compute))
    best = np.minimum.accumulate(loss[order])
    on_it = order[np.concatenate([[True], best[1:] < best[:-1]])]
    return _line(table, compute[on_it], params[on_it])


def isoflop(table: RunTable) -> OptimalParams:
    """Approach 2: the vertex of a parabola of loss in log params at each budget, and a line through them.

    Parameters
    ----------
    table : RunTable
        With params and compute; budgets are runs whose compute agrees within 5%.

    Raises
    ------
    TableError, FitError
        If a column is missing, or fewer than two budgets have an optimum.
    """
    return _isoflop(table, _vertex)


def isoflop_interpolated(table: RunTable) -> OptimalParams:
    """Approach 2 with a curve through the losses (Akima, log loss in log params) in the parabola's place.

    Parameters
    ----------
    table : RunTable
        With params and compute; budgets are runs whose compute agrees within 5%.

    Raises
    ------
    TableError, FitError
        If a column is missing, or fewer than two budgets have an optimum.
    """
    return _isoflop(table, _lowest)


def _isoflop(table: RunTable, optimum: Callable[[np.ndarray, np.ndarray], float | None]) -> OptimalParams:
    compute, params, loss = (table.column(c) for c in ("compute", "params", "loss"))
    budgets, optima, left_out = [], [], []
    for rows in _budgets(compute):
        budget = float(np.exp(np.log(compute[rows]).mean()))
        found = None
        if len(np.unique(params[rows])) >= 3:
            found = optimum(np.log(params[rows]), loss[rows])
        if found is None:
            left_out.append(budget)
        else:
            budgets.append(budget)
            optima.append(np.exp(found))
    return _line(table, np.array(budgets), np.array(optima), tuple(left_out))


def _budgets(compute: np.ndarray) -> Iterator[np.ndarray]:
    order = np.argsort(compute)
    logs = np.log(compute[order])
    start = 0
    while start < len(order):
        end = int(np.searchsorted(logs, logs[start] + SAME_BUDGET, side="right"))
        yield order[start:end]
        start = end


def _vertex(log_params: np.ndarray, loss: np.ndarray) -> float | None:
    """Return where a parabola through the losses is lowest; None where that is not among the sizes."""
    middle = log_params.mean()
    curvature, slope, _ = np.polyfit(log_params - middle, loss, 2)
    if curvature <= 0:
        return None
    vertex = float(middle - slope / (2 * curvature))
    return vertex if log_params.min() < vertex < log_params.max() else None


def _lowest(log_params: np.ndarray, loss: np.ndarray) -> float | None:
    """Return where an Akima curve through the log losses is lowest; None where that is at an end."""
    from scipy.interpolate import Akima1DInterpolator

    sizes, which = np.unique(log_params, return_inverse=True)
    # Runs of one size and budget count by their mean.
    mean = np.bincount(which, np.log(loss)) / np.bincount(which)
    grid = np.linspace(sizes[0], sizes[-1], 4001)
    lowest = int(np.argmin(Akima1DInterpolator(sizes, mean)(grid)))
    return float(grid[lowest]) if 0 < lowest < len(grid) - 1 else None


def _line(
    table: RunTable, compute: np.ndarray, params: np.ndarray, left_out: tuple[float, ...] = ()
) -> OptimalParams:
    if len(compute) < 2 or np.ptp(np.log(compute)) < SAME_BUDGET:
        raise FitError(
            f"table {table.name!r}: {len(compute)} budget(s) have an optimum; expected at least 2: runs of "
            "several sizes at each of several budgets"
        )
    exponent, intercept = np.polyfit(np.log(compute), np.log(params), 1)
    return OptimalParams(float(exponent), float(np.exp(intercept)), compute, params, left_out)
