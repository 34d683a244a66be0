"""Discrimination: which runs tell most, per FLOP, about which of several laws is right; linear-Gaussian.

Each law says that the log losses of runs S are jointly Normal, with a mean and covariance of its own. What
they are expected to tell about which law is right, the mutual information of law and losses, has no closed
form, but a lower bound by pairs of laws has (Kolchinsky & Tracey 2017, arXiv:1706.02419),

    - sum_i p_i log sum_j p_j exp(-B_ij),

with B the Bhattacharyya distance of two Normals. A further run adds to B_ij, conditioned on those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Self

import numpy as np


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

    def conditioned(self, candidate: int) -> "Prediction":
        """Return the prediction once a run of a candidate has ended at a loss of zero.

        Of a difference of two predictions that is what remains of it, whatever the run ends at.
        """
        column = self.covariance[:, candidate]
        share = column / (column[candidate] + self.noise_variance)
        mean = self.mean - share * self.mean[candidate]
        return replace(self, mean=mean, covariance=self.covariance - np.outer(share, column))


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


@dataclass(frozen=True, eq=False)
class Pairs:
    """What runs tell about which law is right, from Bhattacharyya distances of all pairs of laws.

    Attributes
    ----------
    value : float
        Information about which law is right, nats.
    """

    value: float
    _log_probability: np.ndarray
    _predictions: tuple[Prediction, ...]  # conditioned on the runs so far
    _between: dict[tuple[int, int], Prediction]  # mean of the covariances, difference of the means
    _distance: dict[tuple[int, int], float]

    def values_with(self, candidates: np.ndarray) -> np.ndarray:
        """Return the information, nats, if one run of each of these candidates is added."""
        count = len(self._predictions)
        exponents = np.zeros((count, count, len(candidates)))
        for i, j in self._between:
            exponents[i, j] = exponents[j, i] = -self._distance_with(i, j, candidates)
        mixed = np.logaddexp.reduce(self._log_probability[:, None] + exponents, axis=1)
        return -np.exp(self._log_probability) @ mixed

    def add(self, candidate: int) -> Self:
        """Condition all on one run of a candidate."""
        only = np.array([candidate])
        distance = {pair: float(self._distance_with(*pair, only)[0]) for pair in self._between}
        return replace(
            self,
            value=float(self.values_with(only)[0]),
            _predictions=tuple(p.conditioned(candidate) for p in self._predictions),
            _between={pair: p.conditioned(candidate) for pair, p in self._between.items()},
            _distance=distance,
        )

    def _distance_with(self, i: int, j: int, candidates: np.ndarray) -> np.ndarray:
        one, two, middle = (
            np.diag(p.covariance)[candidates] + p.noise_variance
            for p in (self._predictions[i], self._predictions[j], self._between[i, j])
        )
        shift = self._between[i, j].mean[candidates]
        return self._distance[i, j] + shift**2 / (8 * middle) + 0.5 * np.log(middle / np.sqrt(one * two))


def pairs_of(laws: Sequence[Prediction]) -> Pairs:
    """Return what is known of which of several laws is right before any run."""
    between = {
        (i, j): Prediction(
            1.0,
            laws[i].mean - laws[j].mean,
            (laws[i].covariance + laws[j].covariance) / 2,
            (laws[i].noise_variance + laws[j].noise_variance) / 2,
        )
        for i, j in combinations(range(len(laws)), 2)
    }
    log_probability = np.log([law.probability for law in laws])
    return Pairs(0.0, log_probability, tuple(laws), between, dict.fromkeys(between, 0.0))
