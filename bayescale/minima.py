"""Minima of curves known on a grid."""

import numpy as np


def lowest(values: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where each row is lowest and how low, by a parabola through its least value and both neighbours.

    Parameters
    ----------
    values : array, shape (draw, grid)
        Infinite where there is no value.
    grid : array, shape (grid,)
        Evenly spaced, three points or more.

    Returns
    -------
    where, how_low : array, shape (draw,)
        Of the parabola; at an edge, or beside a point without a value, the point itself and its own value.
    at_edge : array of bool, shape (draw,)
        Whether the least value is at an edge of the grid, beyond which a lower one may lie, or there is none.
    """
    best = values.argmin(axis=1)
    inner = np.clip(best, 1, len(grid) - 2)
    rows = np.arange(len(best))
    left, middle, right = (values[rows, inner + i] for i in (-1, 0, 1))
    at_edge = (best != inner) | ~np.isfinite(middle)
    left, middle, right = np.where(at_edge | ~np.isfinite(left + right), 0.0, [left, middle, right])
    tilt, bend = left - right, left - 2 * middle + right
    shift = 0.5 * tilt / np.where(bend > 0, bend, np.inf)
    how_low = values[rows, best] - 0.25 * tilt * shift
    return grid[best] + shift * (grid[1] - grid[0]), how_low, at_edge
