"""Noise of log losses about their expectation: Student-t, or Normal where there are no degrees of freedom."""

from typing import Any, Literal

import numpy as np

Noise = Literal["student-t", "normal"]


def log_density(residual: np.ndarray, variance: np.ndarray, df: np.ndarray | None) -> np.ndarray:
    """Return the log density of residuals, shape (point, run).

    Parameters
    ----------
    residual : array, shape (point, run)
        Log losses less what is expected of them.
    variance : array, shape (point, run) or (point, 1)
        Squared scale.
    df : array, shape (point, 1), optional
        Degrees of freedom.
    """
    squared = residual**2 / variance
    if df is None:
        return -0.5 * (squared + np.log(variance) + np.log(2 * np.pi))
    return _student_constant(df) - 0.5 * np.log(variance) - (df + 1) / 2 * np.log1p(squared / df)


def total_log_density(residual: np.ndarray, variance: np.ndarray, df: np.ndarray | None) -> np.ndarray:
    """Return the sum of `log_density` over runs, shape (point,), in half the time."""
    squared, runs = residual**2 / variance, residual.shape[1]
    log_sd = 0.5 * np.log(variance).sum(axis=1) * (runs / variance.shape[1])
    if df is None:
        return -0.5 * squared.sum(axis=1) - log_sd - 0.5 * runs * np.log(2 * np.pi)
    tails = (df[:, 0] + 1) / 2 * _sum_of_log1p(squared / df)
    return runs * _student_constant(df[:, 0]) - log_sd - tails


def normal_variance(variance: Any, df: Any = None, group_sd: Any = None) -> Any:
    """Return the variance of a Normal that tells as much about a run's expected log loss as the run does.

    Parameters
    ----------
    variance : array
        Squared relative scale of the run's noise.
    df : array, optional
        Degrees of freedom, of Student-t noise.
    group_sd : array, optional
        Of the offset, if the run has one of its own.
    """
    if df is not None:
        # The Fisher information of a Student-t about its location is (df + 1) / (df + 3) / scale^2.
        variance = variance * (df + 3) / (df + 1)
    return variance if group_sd is None else variance + group_sd**2


def _student_constant(df: np.ndarray) -> np.ndarray:
    """Return the log of the Student-t density at its centre, for scale 1.

    log(Gamma(x + 1/2) / Gamma(x)) at x = df / 2, by recurrence from x + 12, where four terms of its series in
    1 / (x + 12 - 1/4) leave less than rounding. SciPy's log-gamma would do, but takes a third of a second to
    import, and loses digits at large df.
    """
    x = 0.5 * df[..., None] + np.arange(12)
    w = 0.5 * df + 11.75
    v = w**-2
    series = v * (1 / 64 + v * (-5 / 2048 + v * (61 / 49152 - v * 1385 / 1048576)))
    return 0.5 * np.log(w / (df * np.pi)) + series - np.log(1 + 0.5 / x).sum(axis=-1)


def _sum_of_log1p(x: np.ndarray) -> np.ndarray:
    """Return the sum of log(1 + x) over the last axis, as logs of products: most of the logs are saved."""
    factors = 1 + x
    for _ in range(3):  # products of some eight: squared residuals of 10^30 sds do not overflow
        half, odd = divmod(factors.shape[-1], 2)
        if half < 16:
            break
        rest = factors[..., 2 * half :]
        factors = factors[..., :half] * factors[..., half : 2 * half]
        if odd:
            factors[..., :1] *= rest
    return np.log(factors).sum(axis=-1)
