"""Discrimination: which runs tell most, per FLOP, about which of several laws is right; linear-Gaussian.

Each law says that the log losses of runs S are jointly Normal, with a mean and covariance of its own. What
they are expected to tell about which law is right, the mutual information of law and losses, has no closed
form, but a lower bound by pairs of laws has (Kolchinsky & Tracey 2017, arXiv:1706.02419),

    - sum_i p_i log sum_j p_j exp(-B_ij),

with B the Bhattacharyya distance of two Normals. A further run adds to B_ij, conditioned on those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bayescale.design import condition

# Candidates tried as the first run.
_FIRSTS = 12


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one law says of candidate runs.

    Attributes
    ----------
    probability : float
        Of the law.
    mean : array, shape (candidate,)
        Of log loss.
    covariance : array, shape (candidate, candidate)
        Of expected log loss.
    noise_variance : float
        Of one run about its expectation.
    """

    probability: float
    mean: np.ndarray
    covariance: np.ndarray
    noise_variance: float

    def of_runs(self, candidates: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and covariance of the log losses of runs, given as candidates' indices."""
        index = np.asarray(candidates, int)
        noise = self.noise_variance * np.eye(len(index))
        return self.mean[index], self.covariance[np.ix_(index, index)] + noise


@dataclass(frozen=True)
class Step:
    """One run chosen: which candidate, and the information after it, nats."""

    candidate: int
    information: float


def choose_between(
    laws: Sequence[Prediction], cost: np.ndarray, budget: float, *, times: int, least_gain: float
) -> tuple[list[Step], np.ndarray]:
    """Choose runs one by one, by information per cost, until the budget is spent.

    Each of the candidates that tell most by themselves is also tried as the first, as in
    `bayescale.design.choose_runs`.

    Parameters
    ----------
    laws : sequence of Prediction
        At least two.
    cost : array, shape (candidate,)
        Of one run of each.
    budget : float
        In the unit of cost.
    times : int
        How often a candidate may be chosen.
    least_gain : float
        Nats; runs that tell less are not chosen.

    Returns
    -------
    steps : list of Step
    alone : array, shape (candidate,)
        Information of one run of each candidate, nats.
    """
    alone = _Choice(laws).information_with_each()
    firsts = np.argsort(-np.where(cost <= budget, alone, 0.0))[:_FIRSTS]
    options = [
        _greedy(laws, cost, budget, times, least_gain, first)
        for first in [None, *firsts.tolist()]
        if first is None or (cost[first] <= budget and alone[first] > least_gain)
    ]
    return max(options, key=lambda steps: steps[-1].information if steps else 0.0), alone


def divergence(of: Prediction, other: Prediction, candidates: Sequence[int]) -> float:
    """Return the log Bayes factor for a law over another, nats, that runs should give if it is right."""
    if not len(candidates):
        return 0.0
    (mean, covariance), (mean2, covariance2) = of.of_runs(candidates), other.of_runs(candidates)
    shift = mean2 - mean
    quadratic = float(shift @ np.linalg.solve(covariance2, shift))
    ratio = np.linalg.solve(covariance2, covariance)
    log_det = float(np.linalg.slogdet(covariance2)[1] - np.linalg.slogdet(covariance)[1])
    return 0.5 * (float(np.trace(ratio)) - len(mean) + quadratic + log_det)


def _greedy(
    laws: Sequence[Prediction],
    cost: np.ndarray,
    budget: float,
    times: int,
    least_gain: float,
    first: int | None,
) -> list[Step]:
    left, times_left = budget * (1 + 1e-9), np.full(len(cost), times)
    choice, steps = _Choice(laws), list[Step]()
    while True:
        information = choice.information_with_each()
        gain = information - (steps[-1].information if steps else 0.0)
        gain[(times_left == 0) | (cost > left) | (gain < least_gain)] = -np.inf
        best = int(np.argmax(gain / cost)) if steps or first is None else first
        if not gain[best] > 0:
            return steps
        choice.add(best)
        steps.append(Step(best, float(information[best])))
        left -= cost[best]
        times_left[best] -= 1


class _Choice:
    """The runs chosen so far: Bhattacharyya distances of pairs of laws, all predictions conditioned."""

    def __init__(self, laws: Sequence[Prediction]) -> None:
        self.noise = [law.noise_variance for law in laws]
        self.covariances = [law.covariance for law in laws]
        self.log_probability = np.log([law.probability for law in laws])
        self.pairs = list(combinations(range(len(laws)), 2))
        self.shifts = {(i, j): laws[i].mean - laws[j].mean for i, j in self.pairs}
        self.middles = {(i, j): (laws[i].covariance + laws[j].covariance) / 2 for i, j in self.pairs}
        self.distance = dict.fromkeys(self.pairs, 0.0)

    def information_with_each(self) -> np.ndarray:
        """Return the information, nats, if one run of each candidate is added, shape (candidate,)."""
        count = len(self.log_probability)
        exponents = np.zeros((count, count, len(self.covariances[0])))
        for i, j in self.pairs:
            exponents[i, j] = exponents[j, i] = -self._with_each(i, j)
        mixed = np.logaddexp.reduce(self.log_probability[:, None] + exponents, axis=1)
        return -np.exp(self.log_probability) @ mixed

    def add(self, candidate: int) -> None:
        """Condition all on one run of a candidate."""
        for i, j in self.pairs:
            self.distance[i, j] = float(self._with_each(i, j)[candidate])
            middle, noise = self.middles[i, j], (self.noise[i] + self.noise[j]) / 2
            column, shift = middle[:, candidate], self.shifts[i, j]
            self.shifts[i, j] = shift - column * shift[candidate] / (column[candidate] + noise)
            self.middles[i, j] = condition(middle, candidate, noise)
        self.covariances = [
            condition(c, candidate, noise) for c, noise in zip(self.covariances, self.noise, strict=True)
        ]

    def _with_each(self, i: int, j: int) -> np.ndarray:
        """Return the distance of two laws if one run of each candidate is added."""
        one, two = (np.diag(self.covariances[k]) + self.noise[k] for k in (i, j))
        middle = np.diag(self.middles[i, j]) + (self.noise[i] + self.noise[j]) / 2
        added = self.shifts[i, j] ** 2 / (8 * middle) + 0.5 * np.log(middle / np.sqrt(one * two))
        return self.distance[i, j] + added
