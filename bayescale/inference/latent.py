"""The latent normals of a model, discrepancy weights and group offsets, integrated out given all else.

Given the law's coordinates and the scales (together: theta), log loss depends on the latents ~ N(0, I) almost
linearly, so their conditional posterior is close to Gaussian. `integrate` finds its mode by iteratively
reweighted least squares, draws from the Gaussian there, and returns an unbiased importance estimate of
p(losses, theta): what sampling over theta alone needs (Andrieu & Roberts 2009, doi:10.1214/07-AOS574).

Points are drawn in groups that share the discrepancy's lengths and so its basis, `bayescale.inference.basis`.
Weights that runs do not see, N(0, I) whatever the losses, are drawn in the end.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bayescale.inference.basis import Basis, basis_of
from bayescale.inference.matrices import cholesky, solve
from bayescale.inference.standard import LawStandard
from bayescale.model.model import Model, pointed_misfit

# Steps from the first guess towards the mode: of climbs, which do not yet know outliers, and of draws.
_CLIMBING_STEPS, _STEPS = 2, 1
# Steps are this much too long: they still cannot overshoot (majorisation allows 2), and converge in fewer.
_RELAXATION = 1.4
# Pairs of draws of the latents. A second costs a tenth of a fit's time, and rids it of wild estimates, which
# spoil the weights of all.
_PAIRS = 2
# So many points are taken together that temporaries of a number per point and run have this many numbers:
# on fewer, calls of NumPy cost more than what they do; more do not fit the cache.
_NUMBERS = 25_000


class Latents(NamedTuple):
    """Discrepancy weights, shape (point, weight), and standardised group offsets, (point, group)."""

    weights: np.ndarray
    offsets: np.ndarray

    def __add__(self, other: tuple) -> "Latents":
        return Latents(self.weights + other[0], self.offsets + other[1])

    def times(self, factor: float) -> "Latents":
        """Return both times a factor."""
        return Latents(factor * self.weights, factor * self.offsets)

    def log_normal(self) -> np.ndarray:
        """Return the log density of N(0, I), shape (point,)."""
        size = self.weights.shape[1] + self.offsets.shape[1]
        squares = (self.weights**2).sum(axis=1) + (self.offsets**2).sum(axis=1)
        return -0.5 * squares - 0.5 * size * math.log(2 * math.pi)


class Integrals(NamedTuple):
    """Unbiased estimates of p(losses, u), in logs, with a draw of the latents at each point.

    `latents`, shape (point, latent), holds discrepancy weights, then group offsets; `relative_variance` is
    that of the importance weights of the draws that an estimate is the mean of.
    """

    log_estimate: np.ndarray
    latents: np.ndarray
    relative_variance: np.ndarray


class LatentNormals:
    """Integrates a model's discrepancy weights and group offsets out.

    Points u are theta with the law's coordinates standardised given the scales (`LawStandard`).

    Parameters
    ----------
    model : Model
        With a discrepancy, a group effect or both.
    at : array, shape (coordinate,)
        Law coordinates of a mode of the law alone.
    on_blocks : callable
        As `map`: applies a function to every block of points, if need be on several threads.

    Attributes
    ----------
    size : int
        Number of coordinates of theta, which come first in the model's layout.
    shared_axes : list of int
        Coordinates of theta (log length, log stretch) whose equal values are worth sharing.
    """

    def __init__(self, model: Model, at: np.ndarray, on_blocks: Callable[..., Iterable] = map) -> None:
        self.model, self.standard, self.on_blocks = model, LawStandard(model, at), on_blocks
        latent = [b for n, b in model.layout.items() if n in ("discrepancy_coordinates", "group_offsets")]
        self.size = min(b.start for b in latent)
        self.shared_axes = model.shape_axes
        self.known_squares: np.ndarray | None = None

    def learn_outliers(self, u: np.ndarray) -> None:
        """Take squared residuals at a mode u, shape (size,), as a first idea of which runs are outliers."""
        conditional, _ = self._conditional(u[None], np.array([[0]]), every=True)
        log_mean, _ = conditional._log_mean(conditional.mode())
        squares = (self.model.log_loss - log_mean[0]) ** 2
        self.known_squares = squares if np.isfinite(squares).all() else None

    def log_marginal(self, u: np.ndarray, *, smooth: bool = False) -> np.ndarray:
        """Return Laplace's approximation of log p(losses, u), shape (point,).

        With `smooth`, none of the discrepancy's weights is left out, so that small differences are right.
        """

        def of(groups: np.ndarray) -> np.ndarray:
            with np.errstate(all="ignore"):
                conditional, log_jacobian = self._conditional(u, groups, every=smooth)
                return conditional.laplace() + log_jacobian

        out, blocks = np.empty(len(u)), self._blocks(u)
        for groups, log_marginal in zip(blocks, self.on_blocks(of, blocks), strict=True):
            out[groups.ravel()] = log_marginal
        return np.where(np.isfinite(out), out, -np.inf)

    def integrate(self, u: np.ndarray, rng: np.random.Generator) -> Integrals:
        """Estimate p(losses, u), and draw the latents, at points u."""

        def of(groups: np.ndarray, rng: np.random.Generator) -> Integrals:
            with np.errstate(all="ignore"):
                conditional, log_jacobian = self._conditional(u, groups, every=False)
                log_estimate, latents, relative_variance = conditional.integrate(rng)
            weights = conditional.basis.all_weights(latents.weights, rng)
            latent = np.concatenate([weights, latents.offsets], axis=1)
            return Integrals(log_estimate + log_jacobian, latent, relative_variance)

        blocks = self._blocks(u)
        found = self.on_blocks(of, blocks, rng.spawn(len(blocks)))
        out = Integrals(np.empty(len(u)), np.empty((len(u), self.model.size - self.size)), np.empty(len(u)))
        for groups, part in zip(blocks, found, strict=True):
            for whole, values in zip(out, part, strict=True):
                whole[groups.ravel()] = values
        return out._replace(log_estimate=np.where(np.isfinite(out.log_estimate), out.log_estimate, -np.inf))

    def _blocks(self, u: np.ndarray) -> list[np.ndarray]:
        """Split the groups of points u into blocks."""
        groups = self.model.groups(u)
        rows = max(1, _NUMBERS // (groups.shape[1] * len(self.model.log_loss)))
        return [groups[start : start + rows] for start in range(0, len(groups), rows)]

    def _basis(self, theta: np.ndarray, groups: np.ndarray, *, every: bool) -> Basis:
        return basis_of(self.model, theta, groups, self.standard.slope, every=every)

    def _conditional(
        self, u: np.ndarray, groups: np.ndarray, *, every: bool
    ) -> "tuple[_Conditional, np.ndarray]":
        basis = self._basis(u, groups, every=every)
        theta, log_jacobian = self.standard.to_theta(u[groups.ravel()], basis)
        return _Conditional(self.model, theta, basis, self.known_squares), log_jacobian

    def standardised(self, theta: np.ndarray) -> np.ndarray:
        """Return points u of theta, each of shape (point, size)."""
        alone = np.arange(len(theta))[:, None]
        return self.standard.from_theta(theta, self._basis(theta, alone, every=True))

    def unconstrained(self, u: np.ndarray, latents: np.ndarray) -> np.ndarray:
        """Return points of `Model.with_plain_weights`, shape (point, model.size)."""
        z = np.concatenate([u, latents], axis=1)
        for groups in self._blocks(u):
            block = groups.ravel()
            z[block, : self.size] = self.standard.to_theta(u[block], self._basis(u, groups, every=True))[0]
        return z


class _Conditional:
    """The posterior of the latents at points theta."""

    def __init__(
        self, model: Model, theta: np.ndarray, basis: Basis, known_squares: np.ndarray | None
    ) -> None:
        self.model, self.theta, self.basis, self.known_squares = model, theta, basis, known_squares
        sampled = model.coordinates.to_sampled(theta[:, model.layout["law_coordinates"]], np)
        self.log_prior = model.theta_log_prior(theta, sampled)
        self.floor = model.floor(sampled.values)
        self.reducible = np.maximum(model.law_loss(sampled.values, model.ratios) - self.floor, 1e-300)
        self.variance = model.noise_variance(theta)
        self.df = model.scale(theta, "noise_df")[:, None] if model.noise == "student-t" else None
        self.members = np.zeros((len(model.log_loss), 0))
        self.amplitude = self.group_sd = np.ones((len(theta), 1))
        if model.discrepancy is not None:
            self.amplitude = model.scale(theta, "discrepancy_sd")[:, None]
        if model.group is not None:
            self.members = np.eye(len(model.group_names))[model.group]
            self.group_sd = model.scale(theta, "group_sd")[:, None]

    def laplace(self) -> np.ndarray:
        """Return log p(losses, theta) by Laplace's approximation."""
        mode = self.mode()
        size = self.basis.size + self.members.shape[1]
        log_det = self._matrix(*self._curvature(mode)).log_det
        return self.log_joint(mode) + 0.5 * size * math.log(2 * math.pi) - log_det

    def integrate(self, rng: np.random.Generator) -> tuple[np.ndarray, Latents, np.ndarray]:
        """Return unbiased log estimates of p(losses, theta), a draw of the latents each, relative variances.

        From antithetic pairs of draws, which cancel the skewness of the conditional.
        """
        mode = self.mode()
        matrix = self._matrix(*self._curvature(mode))
        points = len(self.theta)
        sizes = self.basis.size, self.members.shape[1]
        normal = [Latents(*(rng.standard_normal((points, n)) for n in sizes)) for _ in range(_PAIRS)]
        drawn, log_estimates = list[Latents](), list[np.ndarray]()
        for half, shift in zip(normal, matrix.correlated(normal), strict=True):
            log_q = half.log_normal() + matrix.log_det
            pair = [mode + shift, mode + shift.times(-1.0)]
            log_estimates += [self.log_joint(latents) - log_q for latents in pair]
            drawn += pair
        logs = np.stack(log_estimates)
        logs = np.where(np.isfinite(logs), logs, -np.inf)
        # The largest of logs with Gumbel noise is each with the probability of its weight.
        chosen = (logs + rng.gumbel(size=logs.shape)).argmax(axis=0), np.arange(points)
        one_each = Latents(*(np.stack(parts)[chosen] for parts in zip(*drawn, strict=True)))
        total = np.logaddexp.reduce(logs, axis=0)
        relative_variance = len(logs) * np.exp(2 * (logs - total)).sum(axis=0) - 1
        return total - math.log(len(logs)), one_each, np.nan_to_num(relative_variance)

    def mode(self) -> Latents:
        """Return the mode of the latents, by iteratively reweighted least squares."""
        at = self._first_guess()
        for _ in range(_CLIMBING_STEPS if self.known_squares is None else _STEPS):
            log_mean, slope = self._log_mean(at)
            residual = self.model.log_loss - log_mean
            precision = self._majorising(residual**2)
            step = self._matrix(precision, slope).solve(
                self._back(precision * residual, slope) + at.times(-1.0)
            )
            at = at + step.times(_RELAXATION)
        return at

    def _first_guess(self) -> Latents:
        """Return the mode if each run pointed at its misfit, log(reducible loss / the law's), normally."""
        target, slope = pointed_misfit(self.model.log_loss, self.floor, self.reducible, np)
        slope = np.broadcast_to(slope, target.shape)
        known = self.known_squares
        precision = self._majorising(known) if known is not None else 1 / self.variance
        precision = np.broadcast_to(precision, slope.shape)
        pull = precision * slope * target
        return self._matrix(precision, slope).solve(self._back(pull, slope))

    def _majorising(self, squares: np.ndarray) -> np.ndarray:
        """Return the precision of the Normal that touches a run's noise from below at a squared residual."""
        if self.df is None:
            return np.broadcast_to(1 / self.variance, (len(self.theta), len(self.model.log_loss)))
        return (self.df + 1) / (self.df * self.variance + squares)

    def _back(self, pull: np.ndarray, slope: np.ndarray) -> Latents:
        weights = self.amplitude * self.basis.back(pull * slope)
        return Latents(weights, self.group_sd * (pull @ self.members))

    def log_joint(self, latents: Latents) -> np.ndarray:
        """Return log p(losses, theta, latents), shape (point,)."""
        likelihood = self.model.total_log_likelihood(self.theta, self._log_mean(latents)[0])
        return self.log_prior + latents.log_normal() + likelihood

    def _log_mean(self, latents: Latents) -> tuple[np.ndarray, np.ndarray]:
        """Return log expected loss and its derivative in the misfit, each (point, run)."""
        excess = self.reducible * np.exp(self.amplitude * self.basis.times(latents.weights))
        loss = self.floor + excess
        return np.log(loss) + self.group_sd * (latents.offsets @ self.members.T), excess / loss

    def _curvature(self, latents: Latents) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-likelihood's curvature in log loss, where positive, and the slope."""
        log_mean, slope = self._log_mean(latents)
        if self.df is None:
            return np.broadcast_to(1 / self.variance, slope.shape), slope
        squared = (self.model.log_loss - log_mean) ** 2 / self.variance
        bend = (self.df + 1) * (self.df - squared) / (self.df + squared) ** 2 / self.variance
        return np.maximum(bend, 0.0), slope

    def _matrix(self, precision: np.ndarray, slope: np.ndarray) -> "_Blocks":
        """Return I + J' diag(precision) J with J = [amplitude slope basis, group_sd members], by blocks.

        A run belongs to one group, so the offsets' block is diagonal.
        """
        block = self.basis.gram(precision * slope**2) * self.amplitude[..., None] ** 2
        block = block + np.eye(self.basis.size)
        diagonal = 1 + self.group_sd**2 * (precision @ self.members)
        cross = np.zeros((*block.shape[:2], self.members.shape[1]))
        if cross.size:
            cross = self.basis.crossed(precision * slope, self.members)
            cross = cross * (self.amplitude * self.group_sd)[..., None]
            block = block - (cross / diagonal[:, None]) @ cross.mT
        # Points without a finite density get weight zero; here they must only not stop the others.
        block[~np.isfinite(block).all(axis=(1, 2))] = np.eye(self.basis.size)
        return _Blocks(block, cross, diagonal)


@dataclass(frozen=True)
class _Blocks:
    """Schur complement of the weights, their block with the offsets, and the offsets' diagonal."""

    schur: np.ndarray
    cross: np.ndarray
    diagonal: np.ndarray

    @cached_property
    def factor(self) -> np.ndarray:
        return cholesky(self.schur)

    @cached_property
    def log_det(self) -> np.ndarray:
        """Half the log-determinant of the matrix, shape (point,)."""
        factor = np.log(np.diagonal(self.factor, axis1=1, axis2=2)).sum(axis=1)
        return factor + 0.5 * np.log(self.diagonal).sum(axis=1)

    def solve(self, right: Latents) -> Latents:
        """Return the matrix's inverse times `right`."""
        reduced = right.weights - (self.cross @ (right.offsets / self.diagonal)[..., None])[..., 0]
        weights = solve(self.schur, reduced[..., None])[..., 0]
        return Latents(weights, self._offsets(right.offsets / self.diagonal, weights))

    def correlated(self, normal: Sequence[Latents]) -> list[Latents]:
        """Return draws whose precision is the matrix, from standard normal ones."""
        weights = np.linalg.solve(self.factor.mT, np.stack([n.weights for n in normal], axis=-1))
        return [
            Latents(w, self._offsets(n.offsets / np.sqrt(self.diagonal), w))
            for n, w in zip(normal, np.moveaxis(weights, -1, 0), strict=True)
        ]

    def _offsets(self, alone: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return alone - (weights[:, None] @ self.cross)[:, 0] / self.diagonal
