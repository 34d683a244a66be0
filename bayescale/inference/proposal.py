"""Multivariate Student-t proposals of importance sampling, whose tails outlive the posterior's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

# At four degrees of freedom the quantiles have a closed form (Shaw 2006).
_DF = 4.0
# What rounding leaves of the height above a plane, as a share of an axis.
_FLAT = 1e-7
# Points that share values on some axes: their matrices are made at once.
_GROUP = 12
# Of expectation-maximisation: later ones move a mixture by less than its weights' noise.
_MIXTURE_STEPS = 15


@dataclass(frozen=True, eq=False)
class StudentT:
    """A multivariate Student-t with 4 degrees of freedom.

    Attributes
    ----------
    location : array, shape (size,)
        Its centre.
    scale : array, shape (size, size)
        Its scale matrix.
    """

    location: np.ndarray
    scale: np.ndarray

    @cached_property
    def _factor(self) -> np.ndarray:
        return np.linalg.cholesky(self.scale)

    @property
    def is_proper(self) -> bool:
        """Whether the scale has a factor by more than rounding: points that lie in a plane have none."""
        try:
            heights = np.diagonal(self._factor)
        except np.linalg.LinAlgError:
            return False
        return bool(np.all(heights > _FLAT * np.sqrt(np.diagonal(self.scale))))

    def logpdf(self, points: np.ndarray) -> np.ndarray:
        """Return the log density at points, shape (point, size)."""
        size = len(self.location)
        distance = (np.linalg.solve(self._factor, (points - self.location).T) ** 2).sum(axis=0)
        constant = math.lgamma((_DF + size) / 2) - math.lgamma(_DF / 2) - size / 2 * math.log(_DF * math.pi)
        log_det = np.log(np.diagonal(self._factor)).sum()
        return constant - log_det - (_DF + size) / 2 * np.log1p(distance / _DF)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw points, shape (count, size)."""
        normal = rng.standard_normal((count, len(self.location))) @ self._factor.T
        return self.location + normal * np.sqrt(_DF / rng.chisquare(_DF, (count, 1)))

    def sample_shared(
        self, count: int, axes: Sequence[int], values: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw points of which many share each of a few values on some axes, shape (count, size).

        Every point is distributed as by `sample`. The shared values of the first axis are stratified over its
        quantiles; those of further axes follow a lattice over them, so that few values cover all axes evenly.
        """
        values = min(values, count)
        shared, rest = list(axes), np.delete(np.arange(len(self.location)), axes)
        drawn = _quantile((np.arange(values) + rng.random(values)) / values)[:, None]
        for known in range(1, len(shared)):  # given those known, the next is Student-t again
            spread = np.sqrt((_DF + (drawn**2).sum(axis=1)) / rng.chisquare(_DF + known, values))
            lattice = (np.arange(values) * math.sqrt(known + 4) + rng.random()) % 1
            drawn = np.column_stack([drawn, spread * _normal_quantile(lattice)])
        stratum = ((np.arange(count) + rng.random()) * values / count).astype(int)
        drawn = drawn[stratum]
        factor = np.linalg.cholesky(self.scale[np.ix_(shared + list(rest), shared + list(rest))])
        chi = rng.chisquare(_DF + len(shared), count)
        spread = np.sqrt((_DF + (drawn**2).sum(axis=1)) / chi)[:, None]
        normal = np.concatenate([drawn, spread * rng.standard_normal((count, len(rest)))], axis=1)
        points = np.empty((count, len(self.location)))
        points[:, shared + list(rest)] = normal @ factor.T
        return self.location + points


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of Student-t components.

    Attributes
    ----------
    shares : array, shape (component,)
        Summing to one.
    components : sequence of StudentT
        The components.
    """

    shares: np.ndarray
    components: Sequence[StudentT]

    def component_logpdf(self, points: np.ndarray) -> np.ndarray:
        """Return log(share x density) of each component, shape (component, point)."""
        densities = np.stack([c.logpdf(points) for c in self.components])
        return np.log(self.shares)[:, None] + densities

    def logpdf(self, points: np.ndarray) -> np.ndarray:
        """Return the log density at points, shape (point, size)."""
        return np.logaddexp.reduce(self.component_logpdf(points), axis=0)

    def sample(self, count: int, rng: np.random.Generator, shared_axes: Sequence[int]) -> np.ndarray:
        """Draw points, shape (count, size), from components in proportion to their shares, one after another.

        With `shared_axes`, in groups that share their values there, all of one size if that divides `count`.
        """
        group = _GROUP if len(shared_axes) else 1
        groups = -(-count // group)
        ends = (np.cumsum(self.shares)[:-1] * groups + rng.random()).astype(int)
        numbers = np.diff(ends, prepend=0, append=groups)
        parts = []
        for component, number in zip(self.components, numbers, strict=True):
            if number and len(shared_axes):
                parts.append(component.sample_shared(number * group, shared_axes, number, rng))
            elif number:
                parts.append(component.sample(number, rng))
        return np.concatenate(parts)[:count]

    def of(self, axes: np.ndarray) -> "Mixture":
        """Return the distribution of some coordinates, whatever the others."""
        square = np.ix_(axes, axes)
        return Mixture(self.shares, [StudentT(c.location[axes], c.scale[square]) for c in self.components])

    def widened(self, share: float, factor: float) -> "Mixture":
        """Return the mixture with a share of it spread wider, its scales multiplied: safe in the tails."""
        wide = [StudentT(c.location, factor * c.scale) for c in self.components]
        shares = np.concatenate([(1 - share) * self.shares, share * self.shares])
        return Mixture(shares, [*self.components, *wide])

    def refitted(
        self, points: np.ndarray, weights: np.ndarray, typical: np.ndarray | None = None
    ) -> "Mixture":
        """Return the mixture moved to weighted points, as far as their number supports.

        One step of expectation-maximisation: each point counts for the components in proportion to their
        densities there. `weights` sum to one. What the points do not support of a component's scale matrix is
        taken from `typical`, if given, and else from the scale that it has.
        """
        logs = self.component_logpdf(points)
        owned = np.exp(logs - np.logaddexp.reduce(logs, axis=0)) * weights
        shares, components = [], []
        for component, mine in zip(self.components, owned, strict=True):
            total = float(mine.sum())
            effective = total**2 / float((mine**2).sum()) if total > 0 else 0.0
            # Below some 20 effective points per coordinate a covariance is mostly noise.
            trust = min(1.0, effective / (20 * points.shape[1]))
            shares.append(max(total, 0.02))
            if effective < 2:
                components.append(component)
                continue
            mean = mine @ points / total
            centred = points - mean
            covariance = (centred.T * mine) @ centred / total
            prior = component.scale if typical is None else typical
            moved = StudentT(mean, trust * covariance + (1 - trust) * prior)
            components.append(moved if moved.is_proper else component)
        return Mixture(np.array(shares) / sum(shares), components)

    def split(
        self, points: np.ndarray, weights: np.ndarray, components: int, rng: np.random.Generator
    ) -> "Mixture":
        """Return a mixture of several components fitted to weighted points, by expectation-maximisation.

        They begin at points drawn by weight, each as wide as this mixture; `weights` sum to one.
        """
        away = np.stack([c.location for c in self.components])
        away = away - self.shares @ away
        scales = np.stack([c.scale for c in self.components])
        typical = (away.T * self.shares) @ away + np.tensordot(self.shares, scales, 1)
        starts = points[rng.choice(len(points), components, p=weights)]
        mixture = Mixture(np.full(components, 1 / components), [StudentT(s, typical) for s in starts])
        for _ in range(_MIXTURE_STEPS):
            mixture = mixture.refitted(points, weights, typical)
        return mixture


_normal_quantile = np.vectorize(NormalDist().inv_cdf, otypes=[float])


def _quantile(u: np.ndarray) -> np.ndarray:
    alpha = np.sqrt(4 * u * (1 - u))
    return np.sign(u - 0.5) * 2 * np.sqrt(np.maximum(np.cos(np.arccos(alpha) / 3) / alpha - 1, 0.0))
