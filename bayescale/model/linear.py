"""The few matrix operations that run alike in NumPy (any leading shape) and in ``pytensor.tensor``."""

from typing import Any

import numpy as np


def solve_lower(factor: Any, right: Any, xp: Any) -> Any:
    """Solve ``factor @ x = right`` for a lower-triangular factor, over the last two axes."""
    if xp is np:  # NumPy's batched solver is far faster than a loop over triangular ones
        return np.linalg.solve(factor, right)
    return xp.linalg.solve_triangular(factor, right, lower=True, b_ndim=2)


def solve_upper(factor: Any, right: Any, xp: Any) -> Any:
    """Solve ``factor @ x = right`` for an upper-triangular factor, over the last two axes."""
    if xp is np:
        return np.linalg.solve(factor, right)
    return xp.linalg.solve_triangular(factor, right, lower=False, b_ndim=2)


def log_diagonal(factor: Any, xp: Any) -> Any:
    """Sum of the logarithms of the diagonal of the last two axes."""
    return xp.log(xp.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)
