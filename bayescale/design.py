"""Design: which runs tell most about a target per FLOP; linear-Gaussian, from joint draws.

Draws of the target and of every candidate's expected log loss have a joint covariance. To first order
a run conditions it as a Gaussian: the target's variance falls by cov^2 / (variance of the candidate + noise),
and all other covariances by the same rank-one update, so that the next run is chosen knowing what this one
will tell. Where there are several targets, the sum of their variances is what is to fall.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Candidates tried as the first run.
_FIRSTS = 24


@dataclass(frozen=True)
class Step:
    """One run chosen.

    Attributes
    ----------
    candidate : int
        Which.
    gain : float
        By how much it lowers the targets' total variance, after the runs chosen before it.
    correlation : float
        Of its expected loss with the target, given the runs chosen before it; the strongest, of several.
    variance : array, shape (target,)
        The targets', after it.
    """

    candidate: int
    gain: float
    correlation: float
    variance: np.ndarray


def gains(covariance: np.ndarray, noise_variance: np.ndarray) -> np.ndarray:
    """Return by how much one run of each candidate lowers the targets' total variance, shape (candidate,).

    Parameters
    ----------
    covariance : array, shape (candidate + target, candidate + target)
        Of the candidates' expected log losses and, last, of the targets.
    noise_variance : array, shape (candidate,)
        Of one run's log loss about its expectation.
    """
    count = len(noise_variance)
    return _gains(covariance[:count, count:], np.diag(covariance)[:count] + noise_variance)


def _gains(cross: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return (cross**2).sum(axis=1) / variance


def condition(covariance: np.ndarray, candidate: int, noise_variance: float) -> np.ndarray:
    """Return the covariance once a run of one candidate is known."""
    column = covariance[:, candidate]
    return covariance - np.outer(column, column) / (column[candidate] + noise_variance)


def choose_runs(
    covariance: np.ndarray,
    noise_variance: np.ndarray,
    cost: np.ndarray,
    budget: float,
    *,
    times: int,
    least_gain: float = 0.0,
) -> list[Step]:
    """Choose runs one by one, by gain per cost, until the budget is spent.

    That alone may spend the budget on cheap runs where one dear run would do, so each of the candidates that
    tell most by themselves is also tried as the first (Khuller et al. 1999), and the best choice is returned.

    Parameters
    ----------
    covariance, noise_variance
        As in `gains`.
    cost : array, shape (candidate,)
        Of one run of each.
    budget : float
        In the unit of cost.
    times : int
        How often a candidate may be chosen, each time as a run with another seed.
    least_gain : float
        Runs that lower the target's variance by less are not worth their trouble (or are Monte Carlo error).
    """
    alone = np.where(cost <= budget, gains(covariance, noise_variance), 0.0)
    firsts = [None, *np.argsort(-alone)[:_FIRSTS].tolist()]
    options = [
        _greedy(covariance, noise_variance, cost, budget, times, least_gain, first)
        for first in firsts
        if first is None or alone[first] > least_gain
    ]
    return max(options, key=lambda steps: sum(s.gain for s in steps))


def _greedy(
    covariance: np.ndarray,
    noise_variance: np.ndarray,
    cost: np.ndarray,
    budget: float,
    times: int,
    least_gain: float,
    first: int | None,
) -> list[Step]:
    left = budget * (1 + 1e-9)
    count = len(cost)
    times_left = np.full(count, times)
    # Of a pool's thousands of candidates only variances and covariances with the targets are kept up to date;
    # a chosen run's column of the covariance is conditioned when it is chosen, as `condition` would have.
    cross, variance = covariance[:count, count:].copy(), np.diag(covariance).copy()
    columns = np.empty((len(covariance), 0))
    steps: list[Step] = []
    while True:
        gain = _gains(cross, np.maximum(variance[:count], 0) + noise_variance)
        gain[(times_left == 0) | (cost > left) | (gain < least_gain)] = -np.inf
        best = int(np.argmax(gain / cost)) if steps or first is None else first
        if not gain[best] > 0:
            return steps
        strength = cross[best] / np.sqrt(variance[best] * variance[count:])
        correlation = float(strength[np.abs(strength).argmax()])
        column = covariance[:, best] - columns @ columns[best]
        column = column / np.sqrt(column[best] + noise_variance[best])
        columns = np.column_stack([columns, column])
        cross -= np.outer(column[:count], column[count:])
        variance -= column**2
        steps.append(Step(best, float(gain[best]), correlation, variance[count:].copy()))
        left -= cost[best]
        times_left[best] -= 1


def joint_covariance(draws: Sequence[np.ndarray]) -> np.ndarray:
    """Return the covariance of blocks of draws, each of shape (draw, ...), side by side."""
    joined = np.concatenate([d.reshape(len(d), -1) for d in draws], axis=1)
    centred = joined - joined.mean(axis=0)
    return centred.T @ centred / len(centred)
