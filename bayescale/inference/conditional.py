"""The posterior of a model's latent normals at points theta: its mode, and Gaussian draws about it."""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bayescale.inference.basis import Basis
from bayescale.inference.matrices import cholesky, solve
from bayescale.model.model import Model, pointed_misfit
from bayescale.model.noise import total_log_density

# Steps from the first guess towards the mode: of climbs, which do not yet know outliers, and of draws.
_CLIMBING_STEPS, _STEPS = 6, 1
# Steps are this much too long: they still cannot overshoot (majorisation allows 2), and converge in fewer.
_RELAXATION = 1.4
# Where runs are grouped, each counts for this share at least of the curvature that a majorising Normal has.
_LEAST_BEND = 0.3
# Pairs of draws of the latents. A second costs a tenth of a fit's time, and rids it of wild estimates, which
# spoil the weights of all.
_PAIRS = 2


def log_normal(latents: np.ndarray) -> np.ndarray:
    """Return the log density of N(0, I) over the last axis."""
    return -0.5 * (latents**2).sum(axis=-1) - 0.5 * latents.shape[-1] * math.log(2 * math.pi)


def one_of_each(
    drawn: Sequence[np.ndarray], log_estimates: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the log mean of estimates, one of their draws at each point, and their relative variance."""
    logs = np.stack(log_estimates)
    logs = np.where(np.isfinite(logs), logs, -np.inf)
    # The largest of logs with Gumbel noise is each with the probability of its weight.
    chosen = (logs + rng.gumbel(size=logs.shape)).argmax(axis=0), np.arange(logs.shape[1])
    total = np.logaddexp.reduce(logs, axis=0)
    relative_variance = len(logs) * np.exp(2 * (logs - total)).sum(axis=0) - 1
    return total - math.log(len(logs)), np.stack(drawn)[chosen], np.nan_to_num(relative_variance)


class Conditional:
    """The posterior of the latents at points theta.

    Latents have shape (point, latent): discrepancy weights, in the combinations that the basis keeps, then
    standardised group offsets.
    """

    def __init__(
        self, model: Model, theta: np.ndarray, basis: Basis, known_squares: np.ndarray | None
    ) -> None:
        self.model, self.theta, self.basis, self.known_squares = model, theta, basis, known_squares
        self._sampled = model.coordinates.to_sampled(theta[:, model.layout["law_coordinates"]], np)
        self.floor = model.floor(self._sampled.values)
        self.reducible = np.maximum(model.law_loss(self._sampled.values, model.ratios) - self.floor, 1e-300)
        self.variance = model.noise_variance(theta)
        self.df = model.noise_df(theta)
        self.members = np.zeros((len(model.log_loss), 0))
        self.amplitude = self.group_sd = np.ones((len(theta), 1))
        if model.discrepancy is not None:
            self.amplitude = model.scale(theta, "discrepancy_sd")[:, None]
        if model.group is not None:
            self.members = np.eye(len(model.group_names))[model.group]
            self.group_sd = model.scale(theta, "group_sd")[:, None]
        self.size = basis.size + self.members.shape[1]

    @cached_property
    def _log_prior(self) -> np.ndarray:
        return self.model.theta_log_prior(self.theta, self._sampled)

    def laplace(self) -> np.ndarray:
        """Return log p(losses, theta) by Laplace's approximation."""
        mode, matrix = self._about_mode()
        return self.log_joint(mode) + 0.5 * self.size * math.log(2 * math.pi) - matrix.log_det

    def about_mode(self, rng: np.random.Generator) -> "Gaussian":
        """Return the Gaussian about the latents' mode."""
        return Gaussian.of(*self._about_mode(), rng)

    def _about_mode(self) -> tuple[np.ndarray, "_Blocks"]:
        """Return the latents' mode, and their precision there."""
        mode = self.mode()
        return mode, self._matrix(*self._curvature(mode))

    def integrate(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return unbiased log estimates of p(losses, theta), a draw of the latents each, relative variances.

        From antithetic pairs of draws, which cancel the skewness of the conditional.
        """
        drawn, log_estimates = list[np.ndarray](), list[np.ndarray]()
        for latents, log_q in self.gaussian_pairs(_PAIRS, rng):
            log_estimates.append(self.log_joint(latents) - log_q)
            drawn.append(latents)
        return one_of_each(drawn, log_estimates, rng)

    def gaussian_pairs(self, pairs: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return antithetic pairs of draws from the Gaussian about the mode, each with its log density."""
        mode, matrix = self._about_mode()
        normal = rng.standard_normal((pairs, *mode.shape))
        log_qs = log_normal(normal) + matrix.log_det
        drawn = []
        for shift, log_q in zip(matrix.solve(matrix.pull(normal)), log_qs, strict=True):
            drawn += [(mode + shift, log_q), (mode - shift, log_q)]
        return drawn

    def given(self, precision: np.ndarray) -> "Conditional":
        """Return the posterior if noise were Normal, each run's precision so many times that of its scale."""
        normal = copy(self)
        shape = self.reducible.shape
        normal.variance, normal.df = np.broadcast_to(self.variance / precision, shape), None
        normal.known_squares = None
        return normal

    def gaussian(self, rng: np.random.Generator) -> "Gaussian":
        """Return the Gaussian that the latents all but have under Normal noise."""
        return Gaussian.pulled(*self._pointed(), rng)

    def residual(self, latents: np.ndarray) -> np.ndarray:
        """Return log losses less what is expected of them, shape (point, run)."""
        return self.model.log_loss - self._log_mean(latents)[0]

    def mode(self) -> np.ndarray:
        """Return the mode of the latents, by iteratively reweighted least squares."""
        pull, matrix = self._pointed()
        at = matrix.solve(pull)
        for _ in range(_CLIMBING_STEPS if self.known_squares is None else _STEPS):
            log_mean, slope = self._log_mean(at)
            residual = self.model.log_loss - log_mean
            precision = self._majorising(residual**2)
            gradient = self._back(precision * residual, slope) - at
            at = at + _RELAXATION * self._matrix(precision, slope).solve(gradient)
        return at

    def _pointed(self) -> tuple[np.ndarray, "_Blocks"]:
        """Return pull and precision of the latents if each run pointed at its misfit normally.

        That is at log(reducible loss / the law's).
        """
        known = self.known_squares
        precision = self._majorising(known) if known is not None else 1 / self.variance
        precision = np.broadcast_to(precision, self.reducible.shape)
        offset = self._pointed_offset(precision)
        target, slope = pointed_misfit(self.model.log_loss - offset, self.floor, self.reducible, np)
        pull = precision * (slope * target + offset)
        slope = np.broadcast_to(slope, target.shape)
        matrix = self._matrix(precision, slope)
        return self._back(pull, slope), matrix

    def _pointed_offset(self, precision: np.ndarray) -> np.ndarray | float:
        """Return how far each run's group is from the law, as far as an offset explains that."""
        if not self.members.size:
            return 0.0
        law = self.floor + self.reducible
        known = precision @ self.members
        mean = (precision * (self.model.log_loss - np.log(law))) @ self.members / known
        other = 1 / known
        if self.basis.size:
            other = other + (self.amplitude * (self.reducible / law).mean(axis=1, keepdims=True)) ** 2
        return (mean * self.group_sd**2 / (self.group_sd**2 + other)) @ self.members.T

    def _majorising(self, squares: np.ndarray) -> np.ndarray:
        """Return the precision of the Normal that touches a run's noise from below at a squared residual."""
        if self.df is None:
            return np.broadcast_to(1 / self.variance, (len(self.theta), len(self.model.log_loss)))
        return (self.df + 1) / (self.df * self.variance + squares)

    def _back(self, pull: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Return J' @ pull, shape (point, latent), with J the derivative of log loss in the latents."""
        on_weights = self.amplitude * self.basis.back(pull * slope)
        return np.concatenate([on_weights, self.group_sd * (pull @ self.members)], axis=1)

    def log_joint(self, latents: np.ndarray) -> np.ndarray:
        """Return log p(losses, theta, latents), shape (point,)."""
        likelihood = total_log_density(self.residual(latents), self.variance, self.df)
        return self._log_prior + log_normal(latents) + likelihood

    def _log_mean(self, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log expected loss and its derivative in the misfit, each (point, run)."""
        weights, offsets = np.split(latents, [self.basis.size], axis=1)
        misfit = self.amplitude * self.basis.times(weights)
        excess = self.reducible * np.exp(misfit)
        loss = self.floor + excess
        log_mean = np.log(loss)
        if self.members.size:
            log_mean = log_mean + self.group_sd * (offsets @ self.members.T)
        return log_mean, excess / loss

    def _curvature(self, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-likelihood's curvature in log loss, where positive, and the slope."""
        log_mean, slope = self._log_mean(latents)
        if self.df is None:
            return np.broadcast_to(1 / self.variance, slope.shape), slope
        squared = (self.model.log_loss - log_mean) ** 2 / self.variance
        bend = (self.df + 1) * (self.df - squared) / (self.df + squared) ** 2 / self.variance
        if not self.members.size:
            return np.maximum(bend, 0.0), slope
        # Two runs of a group that lie apart bend the likelihood upwards between them, and no other run has a
        # say: by the curvature there an offset would be as free as its prior, and its integral as large.
        return np.maximum(bend, _LEAST_BEND * self._majorising(squared * self.variance)), slope

    def _matrix(self, precision: np.ndarray, slope: np.ndarray) -> "_Blocks":
        """Return I + J' diag(precision) J with J = [amplitude slope basis, group_sd members], by blocks.

        A run belongs to one group, so the offsets' block is diagonal.
        """
        block = self.basis.gram(precision * (self.amplitude * slope) ** 2)
        # Points without a finite density get weight zero; here they must only not stop the others.
        block[~np.isfinite(block.trace(axis1=1, axis2=2))] = 0.0
        block += np.eye(self.basis.size)
        diagonal = 1 + self.group_sd**2 * (precision @ self.members)
        cross = np.zeros((*block.shape[:2], self.members.shape[1]))
        if cross.size:
            cross = self.basis.crossed(precision * slope, self.members)
            cross = cross * (self.amplitude * self.group_sd)[..., None]
            block -= (cross / diagonal[:, None]) @ cross.mT
            block[~np.isfinite(block).all(axis=(1, 2))] = np.eye(self.basis.size)
        return _Blocks(block, cross, diagonal)


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian of the latents at each point, and a draw of it.

    Attributes
    ----------
    mean, draw : array, shape (point, latent)
    precision : _Blocks
    log_q : array, shape (point,)
        Log density of the draw.
    """

    mean: np.ndarray
    precision: "_Blocks"
    draw: np.ndarray
    log_q: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, precision: "_Blocks", rng: np.random.Generator) -> "Gaussian":
        """Return that of a mean."""
        normal = rng.standard_normal(mean.shape)
        shift = precision.solve(precision.pull(normal))
        return cls(mean, precision, mean + shift, log_normal(normal) + precision.log_det)

    @classmethod
    def pulled(cls, pull: np.ndarray, precision: "_Blocks", rng: np.random.Generator) -> "Gaussian":
        """Return that whose mean is the precision's inverse times a pull; that takes one decomposition."""
        normal = rng.standard_normal(pull.shape)
        mean, shift = precision.solve(np.stack([pull, precision.pull(normal)]))
        return cls(mean, precision, mean + shift, log_normal(normal) + precision.log_det)

    def log_density(self, latents: np.ndarray) -> np.ndarray:
        """Return its log density at latents, shape (point,)."""
        return log_normal(self.precision.standard(latents - self.mean)) + self.precision.log_det


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

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return the matrix's inverse times `right`, shape (..., point, latent)."""
        on_weights, on_offsets = self._split(right)
        alone = on_offsets / self.diagonal
        reduced = on_weights - (self.cross @ alone[..., None])[..., 0]
        columns = np.moveaxis(reduced.reshape(math.prod(right.shape[:-2]), *self.schur.shape[:2]), 0, -1)
        weights = np.moveaxis(solve(self.schur, columns), -1, 0).reshape(reduced.shape)
        offsets = alone - (weights[..., None, :] @ self.cross)[..., 0, :] / self.diagonal
        return np.concatenate([weights, offsets], axis=-1)

    def pull(self, normal: np.ndarray) -> np.ndarray:
        """Return what `solve` makes draws of this precision of, (..., point, latent), from normals."""
        of_weights, of_offsets = self._split(normal)
        scaled = of_offsets / np.sqrt(self.diagonal)
        pull = self.factor @ of_weights[..., None] + self.cross @ scaled[..., None]
        return np.concatenate([pull[..., 0], np.sqrt(self.diagonal) * of_offsets], axis=-1)

    def standard(self, latents: np.ndarray) -> np.ndarray:
        """Return the standard normals that `solve` and `pull` make latents of, each (point, latent)."""
        weights, offsets = self._split(latents)
        alone = offsets + (weights[:, None] @ self.cross)[:, 0] / self.diagonal
        normal = (self.factor.mT @ weights[..., None])[..., 0]
        return np.concatenate([normal, np.sqrt(self.diagonal) * alone], axis=1)

    def _split(self, latents: np.ndarray) -> list[np.ndarray]:
        return np.split(latents, [self.schur.shape[-1]], axis=-1)
