"""Replicates: runs that share every input tell noise apart from lack of fit.

Runs of one configuration, params and tokens included where the law knows nothing of them, differ by seed
alone, so their scatter is pure error whatever the law; what is
left of the residuals of their means is lack of fit (Box & Draper 1987, section 3.2). Runs of other groups are
no replicates of each other, nor is a row that stands in the table twice.

>>> import bayescale as bs
>>> fit = bs.fit(bs.load("zipf-facts"))  # doctest: +SKIP
>>> print(bs.lack_of_fit(fit))  # doctest: +SKIP
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayescale.errors import FitError
from bayescale.sensitivity import Setting, refit

if TYPE_CHECKING:
    import pandas as pd

    from bayescale.fitting import Fit

_ALONE = Setting("no discrepancy", "", 1.0, {"discrepancy": False})


@dataclass(frozen=True)
class LackOfFit:
    """Pure error of replicates, and what the law alone leaves unexplained beside it.

    Attributes
    ----------
    configurations, repeated : int
        Distinct inputs (and groups, where there are any) in the table, and how many of them were run more
        than once.
    pure_error : float
        Relative standard deviation of loss between replicates.
    interval : tuple of float
        Its 90% interval, from the chi-squared distribution.
    degrees_of_freedom : int
        Of the pure error.
    lack_of_fit : float
        Root mean square of the configurations' mean residuals about the law alone and groups' offsets,
        relative to the loss, after their pure error is taken out; zero where that explains them.
    failures : tuple of str
        Why the fit of the law alone is not to be relied on, nor then the lack of fit.
    """

    configurations: int
    repeated: int
    pure_error: float
    interval: tuple[float, float]
    degrees_of_freedom: int
    lack_of_fit: float
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"replicates ({self.repeated} of {self.configurations} configurations): noise "
            f"{self.pure_error:.2%} of the loss (90%: {low:.2%} - {high:.2%}, "
            f"{self.degrees_of_freedom} degrees of freedom); lack of fit of the law alone "
            f"{self.lack_of_fit:.2%}" + "".join(f" (do not rely on it: {reason})" for reason in self.failures)
        )


def lack_of_fit(fit: "Fit") -> LackOfFit | None:
    """Split what the law leaves unexplained into noise between replicates and lack of fit.

    Parameters
    ----------
    fit : Fit
        Its law is taken at the posterior's mean loss of each run, its group's offset in it; of a fit with
        discrepancy, that of the law fitted alone: what a discrepancy explains, the law does not try to.

    Returns
    -------
    LackOfFit or None
        None where no two runs share all inputs; the same run listed twice is one.

    Raises
    ------
    FitError
        If the loss of the law is not positive at some run.
    """
    from bayescale.fitting import require_fit

    require_fit(fit)
    model = fit.model
    shared = np.vstack([_inputs(fit), _groups(fit)])
    once = _distinct_runs(fit, shared)
    _, where, counts = np.unique(shared[:, once], axis=1, return_inverse=True, return_counts=True)
    where = where.ravel()
    freedom = int((counts - 1).sum())
    if freedom == 0:
        return None
    alone = refit(fit, _ALONE) if fit.options["discrepancy"] else fit
    expected = np.exp(alone.model.log_mean_at(alone.z.reshape(-1, alone.model.size))).mean(axis=0)[once]
    if not np.all(expected > 0):
        raise FitError(f"law {fit.law.name!r} has no positive loss at some run of table {fit.table.name!r}")
    residual = model.log_loss[once] - np.log(expected)
    means = np.bincount(where, residual) / counts
    squares = float(((residual - means[where]) ** 2).sum())
    variance = squares / freedom
    explained = float(np.mean(variance / counts))
    return LackOfFit(
        configurations=len(counts),
        repeated=int((counts > 1).sum()),
        pure_error=float(np.sqrt(variance)),
        interval=_interval(squares, freedom),
        degrees_of_freedom=freedom,
        lack_of_fit=float(np.sqrt(max(0.0, float(np.mean(means**2)) - explained))),
        failures=tuple(alone.diagnostics.failures),
    )


def _inputs(fit: "Fit") -> np.ndarray:
    """Return what configurations differ in, shape (input, run): the law's inputs, and sizes beside them."""
    sizes = {"params", "tokens", "unique_tokens"} & set(fit.table.frame)
    # Compute that is measured differs from run to run of one configuration.
    measured = {"compute"} if {"params", "tokens"} <= sizes else set()
    columns = sorted((sizes | set(fit.law.columns)) - measured)
    inputs = fit.table.frame[columns]
    if {"tokens", "unique_tokens"} <= set(
        columns
    ):  # of a larger pool, or one without limit, a run sees no more
        inputs = inputs.assign(unique_tokens=np.fmin(inputs["unique_tokens"], inputs["tokens"]))
    return inputs.to_numpy(float).T


def _groups(fit: "Fit") -> np.ndarray:
    """Return the groups whose offsets runs share, as codes of shape (grouping, run)."""
    codes = [] if fit.model.group is None else [fit.model.group]
    if "group" in fit.table.frame:
        codes.append(_codes(fit.table.frame["group"]))
    return np.array(codes, float).reshape(len(codes), len(fit.table))


def _distinct_runs(fit: "Fit", shared: np.ndarray) -> np.ndarray:
    """Return the places of runs, each once: one whose loss and seed are another's too is listed twice."""
    told = [shared, fit.model.log_loss[None]]
    if "seed" in fit.table.frame:
        told.append(_codes(fit.table.frame["seed"])[None])
    return np.sort(np.unique(np.vstack(told), axis=1, return_index=True)[1])


def _codes(labels: "pd.Series") -> np.ndarray:
    """Return a number for each distinct label, shape (run,); labels that are missing share one."""
    return np.unique([str(label) for label in labels], return_inverse=True)[1]


def _interval(squares: float, freedom: int) -> tuple[float, float]:
    from scipy.stats import chi2

    return float(np.sqrt(squares / chi2.ppf(0.95, freedom))), float(
        np.sqrt(squares / chi2.ppf(0.05, freedom))
    )
