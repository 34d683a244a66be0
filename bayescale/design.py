"""Design: what a run tells about targets, what it teaches of noise and misfit included.

Posterior draws of the targets and of every candidate's expected log loss fall into groups of like noise and
discrepancy. Within a group all are taken as jointly Gaussian, and a run conditions them in closed form. A run
also makes groups more or less probable, by how well they foretell its loss: so small runs, too, narrow a
band, by making large misfits less plausible. What is left of the targets' standard deviation is its mean over
outcomes simulated from the draws (nested Monte Carlo, but of the groups' probabilities only).

Correlations within one small group are partly chance, and dozens of cheap runs would seem to explain a target
away. So a group has standard deviations of its own, but correlations that lean on all groups of its law.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

# Groups of draws, and simulated outcomes; fewer outcomes where there are many candidates.
_GROUPS = 8
_OUTCOMES, _FEWEST_OUTCOMES = 64, 16
_CELLS = 30_000  # outcomes x candidates from which on outcomes are fewer
# The share of a group's covariance that is made of the correlations in all groups.
_COMMON = 0.75
# Many targets are replaced by the directions in which this share of their variance lies.
_VARIANCE_KEPT = 0.99


@dataclass(frozen=True, eq=False)
class Draws:
    """Posterior draws of one law, of what a plan looks at.

    Attributes
    ----------
    targets : array, shape (draw,) or (draw, target)
    log_losses : array, shape (draw, candidate)
        Expected log loss of each candidate.
    noise_variance : array, shape (draw,)
        Of one run's log loss about its expectation.
    kind : array, shape (draw, coordinate)
        What draws of a group have in common: logs of noise and discrepancy.
    """

    targets: np.ndarray
    log_losses: np.ndarray
    noise_variance: np.ndarray
    kind: np.ndarray

    def pick(self, part: np.ndarray) -> Self:
        """Return some of the draws, by index."""
        parts = (self.targets, self.log_losses, self.noise_variance, self.kind)
        return type(self)(*(x[part] for x in parts))


@dataclass(frozen=True, eq=False)
class _Group:
    """Draws of one kind, as a Gaussian of candidates and, last, targets."""

    mean: np.ndarray
    deviations: np.ndarray  # shape (row, column); their cross product is the covariance
    noise_variance: float


@dataclass(frozen=True, eq=False)
class Belief:
    """What is known of targets after some runs: per simulated outcome, a mixture of groups' Gaussians.

    Attributes
    ----------
    sd : float
        Root of the targets' total variance, expected over outcomes.
    """

    sd: float
    _groups: tuple[_Group, ...]
    _worlds: Draws  # draws that outcomes are simulated from
    _seed: tuple[int, int]  # of the next run's noise: the plan's, and the number of runs so far
    _log_weight: np.ndarray  # shape (group, outcome)
    _mean: np.ndarray  # shape (group, outcome, column)
    _variance: np.ndarray  # shape (group, column)
    _cross: np.ndarray  # of candidates with targets, shape (group, candidate, target)
    _columns: tuple[
        np.ndarray, ...
    ]  # per group, what runs explain: their cross product leaves the covariance

    @property
    def value(self) -> float:
        """Minus the standard deviation."""
        return -self.sd

    def values_with(self, candidates: np.ndarray) -> np.ndarray:
        """Return the value if one run of each of these candidates is added, shape (candidate,)."""
        surprise, variance = self._surprise(candidates)
        log_weight = self._log_weight[:, :, None] + _log_normal(surprise, variance[:, None])
        gain = self._cross[:, candidates] / variance[..., None]
        total = np.zeros(surprise.shape[1:])
        weight = _normalised(log_weight)
        for target in range(gain.shape[2]):
            column = self._cross.shape[1] + target
            step = gain[:, :, target]
            mean = self._mean[:, :, column, None] + step[:, None] * surprise
            left = self._variance[:, column, None] - step * self._cross[:, candidates, target]
            total += _mixed_variance(weight, mean, np.maximum(left, 0)[:, None])
        return -np.sqrt(total).mean(axis=0)

    def add(self, candidate: int) -> Self:
        """Return the belief with one run of a candidate more."""
        surprise, variance = (a[..., 0] for a in self._surprise(np.array([candidate])))
        count, columns = self._cross.shape[1], list(self._columns)
        mean, left, cross = self._mean.copy(), self._variance.copy(), self._cross.copy()
        for g, group in enumerate(self._groups):
            column = group.deviations.T @ group.deviations[:, candidate] - columns[g] @ columns[g][candidate]
            mean[g] += np.outer(surprise[g], column) / variance[g]
            column = column / np.sqrt(variance[g])
            columns[g] = np.column_stack([columns[g], column])
            left[g] = np.maximum(left[g] - column**2, 0)
            cross[g] -= np.outer(column[:count], column[count:])
        log_weight = self._log_weight + _log_normal(surprise, variance[:, None])
        seed, runs = self._seed
        return replace(
            self, sd=_expected_sd(log_weight, mean[:, :, count:], left[:, count:]), _seed=(seed, runs + 1),
            _log_weight=log_weight, _mean=mean, _variance=left, _cross=cross, _columns=tuple(columns),
        )  # fmt: skip

    def _surprise(self, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return outcomes less means, (group, outcome, candidate), and variances, (group, candidate)."""
        # The same noise for all candidates: they are compared, and chance is not to tell them apart.
        chance = np.random.default_rng(self._seed).standard_normal(len(self._worlds.noise_variance))
        chance *= np.sqrt(self._worlds.noise_variance)
        seen = self._worlds.log_losses[:, candidates] + chance[:, None]
        noise = np.array([g.noise_variance for g in self._groups])
        return seen - self._mean[:, :, candidates], self._variance[:, candidates] + noise[:, None]


def belief_from(laws: Sequence[Draws], *, seed: int) -> Belief:
    """Return what is known before any run.

    Parameters
    ----------
    laws : sequence of Draws
        Of one law or of several, each with as many draws as it is probable.
    seed : int
        Of the simulated outcomes.
    """
    every = _joined(laws)
    targets = _main_directions(every.targets)
    columns = np.concatenate([every.log_losses, targets], axis=1)
    count, width = every.log_losses.shape[1], columns.shape[1]
    members, groups, first = list[np.ndarray](), list[_Group](), 0
    for law in laws:
        parts = [first + part for part in _alike(law.kind, len(columns) / _GROUPS)]
        groups += _groups_of([columns[part] for part in parts], [every.noise_variance[p] for p in parts])
        members += parts
        first += len(law.kind)
    worlds = every.pick(_spread(np.concatenate(members), count))
    shape = (len(groups), len(worlds.targets))
    log_weight = np.log([len(part) / first for part in members])[:, None] * np.ones(shape)
    mean = np.repeat(np.stack([g.mean for g in groups])[:, None], shape[1], axis=1)
    variance = np.stack([(g.deviations**2).sum(axis=0) for g in groups])
    cross = np.stack([g.deviations[:, :count].T @ g.deviations[:, count:] for g in groups])
    sd = _expected_sd(log_weight, mean[:, :, count:], variance[:, count:])
    explained = tuple(np.empty((width, 0)) for _ in groups)
    return Belief(sd, tuple(groups), worlds, (seed, 0), log_weight, mean, variance, cross, explained)


def _joined(laws: Sequence[Draws]) -> Draws:
    """Return the draws of all laws as one; their kinds have no coordinate in common."""
    targets = [law.targets.reshape(len(law.targets), -1) for law in laws]
    return Draws(
        np.concatenate(targets),
        np.concatenate([law.log_losses for law in laws]),
        np.concatenate([law.noise_variance for law in laws]),
        np.empty((sum(map(len, targets)), 0)),
    )


def _spread(order: np.ndarray, candidates: int) -> np.ndarray:
    """Return draws, evenly spaced over all groups, to simulate outcomes from."""
    outcomes = int(np.clip(_CELLS // candidates, _FEWEST_OUTCOMES, _OUTCOMES))
    return order[np.linspace(0, len(order) - 1, min(outcomes, len(order))).astype(int)]


def _main_directions(targets: np.ndarray) -> np.ndarray:
    """Return the targets' coordinates in the fewest directions that hold almost all of their variance."""
    centred = targets - targets.mean(axis=0)
    _, size, directions = np.linalg.svd(centred, full_matrices=False)
    share = np.cumsum(size**2) / np.sum(size**2)
    return centred @ directions[: 1 + int(np.searchsorted(share, _VARIANCE_KEPT))].T


def _alike(kind: np.ndarray, size: float) -> list[np.ndarray]:
    """Split draws in halves, each time where they differ most, down to groups of a size; return indices."""
    scaled = (kind - kind.mean(axis=0)) / np.maximum(kind.std(axis=0), 1e-12)

    def halves(part: np.ndarray) -> list[np.ndarray]:
        if len(part) < 2 * size:
            return [part]
        widest = int(scaled[part].std(axis=0).argmax())
        ordered = part[np.argsort(scaled[part, widest], kind="stable")]
        return halves(ordered[: len(part) // 2]) + halves(ordered[len(part) // 2 :])

    return halves(np.arange(len(kind)))


def _groups_of(columns: list[np.ndarray], noise_variance: list[np.ndarray]) -> list[_Group]:
    """Return the groups of one law; a group's covariance is its own and that of all, scaled to its sds."""
    means = [part.mean(axis=0) for part in columns]
    own = [(part - mean) / np.sqrt(len(part)) for part, mean in zip(columns, means, strict=True)]
    sds = [np.sqrt((deviations**2).sum(axis=0)) for deviations in own]
    total = sum(map(len, columns))
    scaled = [d * np.sqrt(len(d) / total) / np.where(sd > 0, sd, 1) for d, sd in zip(own, sds, strict=True)]
    common = np.sqrt(_COMMON) * np.concatenate(scaled)
    return [
        _Group(mean, np.concatenate([np.sqrt(1 - _COMMON) * d, common * sd]), float(noise.mean()))
        for mean, d, sd, noise in zip(means, own, sds, noise_variance, strict=True)
    ]


def _log_normal(surprise: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return -0.5 * (surprise**2 / variance + np.log(variance))


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    weight = np.exp(log_weight - log_weight.max(axis=0))
    return weight / weight.sum(axis=0)


def _mixed_variance(weight: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the variance of mixtures, whose parts are the first axis."""
    middle = (weight * mean).sum(axis=0)
    return (weight * (variance + (mean - middle) ** 2)).sum(axis=0)


def _expected_sd(log_weight: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    """Return the expected root of the total variance of targets (the last axis)."""
    mixed = _mixed_variance(_normalised(log_weight)[..., None], mean, variance[:, None])
    return float(np.sqrt(mixed.sum(axis=-1)).mean())
