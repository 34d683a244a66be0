"""Noise of log losses about their expectation."""

from typing import Any


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
    if (
        df is not None
    ):  # the Fisher information of a Student-t about its location is (df + 1) / (df + 3) / scale^2
        variance = variance * (df + 3) / (df + 1)
    return variance if group_sd is None else variance + group_sd**2
