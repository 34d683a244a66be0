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
        Of the parabola; at an edge of the grid the edge and its own value, for what lies beyond is not known.
    at_edge : array of bool, shape (draw,)
        Whether the least value is at an edge; also where there is no value at all.
    """
    best = values.argmin(axis=1)
    at_edge = (best == 0) | (best == len(grid) - 1)
    rows, inner = np.arange(len(best)), np.clip(best, 1, len(grid) - 2)
    left, middle, right = (values[rows, inner + i] for i in (-1, 0, 1))
    with np.errstate(invalid="ignore"):
        bend, tilt = left - 2 * middle + right, left - right
    # Beside a point without a value, and on a flat piece, the least value stays where it is.
    bent = ~at_edge & np.isfinite(bend) & (bend > 0)
    tilt = np.where(bent, tilt, 0.0)
    shift = 0.5 * tilt / np.where(bent, bend, np.inf)
    how_low = values[rows, best] - 0.25 * tilt * shift
    return grid[best] + shift * (grid[1] - grid[0]), how_low, at_edge
