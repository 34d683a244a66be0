"""Pareto-smoothed importance weights, and k-hat, which says whether they can be trusted.

Vehtari et al. 2024, arXiv:1507.02646. ArviZ has the same; its import alone takes longer than a whole fit of
the fast path, and a test holds the two equal.
"""

import math

import numpy as np


def smoothed_weights(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Replace the largest weights by quantiles of a generalised Pareto distribution fitted to them.

    Parameters
    ----------
    log_weights : array, shape (draw,)
        Logarithms of raw importance weights, up to a constant; -inf is a weight of zero.

    Returns
    -------
    log_weights : array, shape (draw,)
        Smoothed, with the same constant.
    k_hat : float
        Shape of the tail; weights can be relied on below .7. Infinite where too few are positive.
    """
    top = log_weights.max()
    count = int(np.isfinite(log_weights).sum())
    tail = int(min(count / 5, 3 * math.sqrt(count)))
    if tail < 5:
        return log_weights, math.inf
    order = np.argsort(log_weights)[-tail - 1 :]
    relative = np.exp(log_weights[order] - top)
    cutoff, exceedances = relative[0], relative[1:] - relative[0]
    if not exceedances[0] > 0:  # ties at the cutoff leave no tail to fit
        exceedances = np.maximum(exceedances, np.finfo(float).tiny)
    k, scale = _fit_pareto(exceedances)
    if not math.isfinite(k):
        return log_weights, math.inf
    quantile = (np.arange(tail) + 0.5) / tail
    with np.errstate(over="ignore"):  # none may exceed the largest raw weight
        smooth = cutoff + scale * np.expm1(-k * np.log1p(-quantile)) / k
    out = log_weights.copy()
    out[order[1:]] = np.minimum(np.log(smooth), 0.0) + top
    return out, k


def _fit_pareto(sorted_values: np.ndarray) -> tuple[float, float]:
    """Estimate shape and scale (Zhang & Stephens 2009), the shape with a weak prior at 1/2."""
    count = len(sorted_values)
    grid = 30 + int(math.sqrt(count))
    inverse = 1 - np.sqrt(grid / (np.arange(grid) + 0.5))
    inverse = inverse / (3 * sorted_values[int(count / 4 + 0.5) - 1]) + 1 / sorted_values[-1]
    with np.errstate(all="ignore"):
        shapes = np.log1p(-inverse[:, None] * sorted_values).mean(axis=1)
        profile = count * (np.log(-inverse / shapes) - shapes - 1)
        weights = 1 / np.exp(profile - profile[:, None]).sum(axis=1)
    weights = np.where(weights >= 10 * np.finfo(float).eps, weights, 0.0)
    posterior_mean = float(np.sum(inverse * weights) / weights.sum())
    shape = float(np.log1p(-posterior_mean * sorted_values).mean())
    scale = -shape / posterior_mean
    return (shape * count + 5) / (count + 10), scale
