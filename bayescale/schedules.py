"""A learning-rate schedule as columns, for laws of loss curves: ``annealing`` and ``multi-power``.

The loss falls with the area under the learning rate and, beyond that, with what its past drops have done:
their momentum, the annealing area (Tissue et al. 2024, arXiv:2408.11029), or their sum, each with a worth
that saturates in the area since (Luo et al. 2025, arXiv:2503.12811).

>>> area, annealed = schedule_areas([1, 2, 3], [0.1, 0.1, 0.05], decay=0.5)
>>> area.round(2).tolist(), annealed.round(2).tolist()
([0.1, 0.2, 0.25], [0.0, 0.0, 0.05])
"""

from typing import Any

import numpy as np

from bayescale.errors import TableError
from bayescale.runs import RunTable

# C, beta and gamma that Luo et al. print for their model of 400M params; they vary little between sizes.
_MULTI_POWER = (2.03, 0.594, 0.635)
# Laws see inputs by their logarithms: an area of none is this share of the highest learning rate instead.
_NONE = 1e-9


def schedule_areas(step: Any, learning_rate: Any, *, decay: float = 0.999) -> tuple[np.ndarray, np.ndarray]:
    """Return S1 = sum of learning rates, and S2 = sum of the momentum of their drops, up to each step given.

    The momentum decays by `decay` a step and grows by the drop: m_i = decay m_(i-1) + lr_(i-1) - lr_i.

    Parameters
    ----------
    step : array of int, shape (row,)
        Rising, from 1. Learning rates between rows are interpolated; before the first row they rise linearly
        from 0 (a warm-up), which counts as area but not as (negative) annealing.
    learning_rate : array, shape (row,)
        At those steps; S1 and S2 are in its unit.
    decay : float
        Of the momentum, per step.

    Raises
    ------
    TableError
        If steps do not rise or learning rates are negative.
    """
    from scipy.signal import lfilter

    rows, rates, drops = _every_step(step, learning_rate)
    momentum = lfilter([1.0], [1.0, -decay], drops)
    return np.cumsum(rates)[rows - 1], np.cumsum(momentum)[rows - 1]


def schedule_reduction(
    step: Any, learning_rate: Any, *, shape: tuple[float, float, float] = _MULTI_POWER
) -> np.ndarray:
    """Return the sum of drop * (1 - (1 + C S / lr**gamma)**-beta), S the area since, at each step given.

    Parameters
    ----------
    step, learning_rate : array, shape (row,)
        As in `schedule_areas`.
    shape : tuple
        C, beta and gamma of arXiv:2503.12811, equation 2; held, not fitted: they stand inside the sum.

    Returns
    -------
    array, shape (row,)
        In the unit of the learning rate.
    """
    constant, beta, gamma = shape
    rows, rates, drops = _every_step(step, learning_rate)
    area, dropped = np.cumsum(rates), np.flatnonzero(drops)
    out = np.zeros(len(rows))
    for i, row in enumerate(rows):
        k = dropped[dropped < row]
        # A drop to 0 has done all it can as soon as there is any area behind it, and nothing before.
        with np.errstate(divide="ignore", invalid="ignore"):
            saturation = constant * (area[row - 1] - area[k] + rates[k]) * rates[k] ** -gamma
        saturation = np.nan_to_num(saturation, nan=0.0, posinf=np.inf)
        out[i] = (drops[k] * (1 - (1 + saturation) ** -beta)).sum()
    return out


def _every_step(step: Any, learning_rate: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows' steps, and the learning rate and its drop at every step up to the last."""
    rows, rate = np.nan_to_num(np.asarray(step, float)).astype(int), np.asarray(learning_rate, float)
    if rows.size == 0 or rows[0] < 1 or np.any(np.diff(rows) <= 0) or not np.all(rate >= 0):
        raise TableError("a schedule needs steps that rise from 1 or more, and learning rates of 0 or more")
    every = np.arange(1, rows[-1] + 1)
    rates = np.where(every < rows[0], rate[0] * every / rows[0], np.interp(every, rows, rate))
    drops = np.where(every > rows[0], -np.diff(rates, prepend=0.0), 0.0)
    # A warm-up is no negative annealing, whether rows show it or not.
    return rows, rates, np.where(np.maximum.accumulate(drops > 0), drops, 0.0)


def with_schedule_areas(table: RunTable, *, decay: float = 0.999) -> RunTable:
    """Return a table of loss curves with ``lr_area``, ``lr_annealed`` and ``lr_reduction``.

    Each ``group`` is a curve with a schedule of its own.

    Parameters
    ----------
    table : RunTable
        With columns ``step`` and ``learning_rate``, and ``group`` where there are several curves.
    decay : float
        As in `schedule_areas`. What is 0 or less is written as 1e-9 of the highest learning rate: inputs of
        laws are positive.

    Examples
    --------
    >>> import bayescale as bs
    >>> curves = bs.with_schedule_areas(bs.pull("multipower-100m"))  # doctest: +SKIP
    >>> bs.point_fit(curves, "annealing")  # doctest: +SKIP
    """
    step, rate = table.column("step"), table.column("learning_rate")
    frame = table.frame
    curves = frame["group"].to_numpy(str) if "group" in frame else np.zeros(len(table), str)
    areas = np.empty((3, len(table)))
    for curve in np.unique(curves):
        rows = np.flatnonzero(curves == curve)
        areas[:2, rows] = schedule_areas(step[rows], rate[rows], decay=decay)
        areas[2, rows] = schedule_reduction(step[rows], rate[rows])
    area, annealed, reduction = np.maximum(areas, _NONE * rate.max())
    return RunTable(
        frame.assign(lr_area=area, lr_annealed=annealed, lr_reduction=reduction), table.meta, table.rows
    )
