"""Law coordinates in units of their posterior spread given the scales, about their mean given these.

The larger the discrepancy, the less runs say about the law: its coordinates form a funnel over the scales,
which no proposal of one covariance fits, and whose axis bends. Standardised, z = mean(scales) + C(scales) u
as if the law were linear about its own mode and discrepancy and group offsets were integrated out, they do
not: on published tables two to three times as many draws are effective, and climbs find modes where a large
discrepancy goes with another law.
"""

import numpy as np

from bayescale.inference.basis import Basis, SeenBasis
from bayescale.inference.climbing import hessian
from bayescale.inference.matrices import cholesky, solve
from bayescale.model.model import Model
from bayescale.model.noise import normal_variance

_STEP = 1e-4
_PRIOR_STEP = 1e-2
# Residuals beyond so many times their median size are taken for outliers.
_OUTLYING = 5.0
# Coordinates are logarithms: a prior that bends less than this, or upwards, still keeps them near.
_LEAST_PRIOR_INFORMATION = 0.5


class LawStandard:
    """The map of a model's law coordinates, linear in the law about one point.

    Parameters
    ----------
    model : Model
        The model.
    at : array, shape (coordinate,)
        Law coordinates of a mode of the law alone.
    """

    def __init__(self, model: Model, at: np.ndarray) -> None:
        self.model, self.at = model, at
        steps = np.concatenate([np.zeros((1, len(at))), _STEP * np.eye(len(at))])
        values = model.coordinates.to_sampled(at + steps, np).values
        loss = model.law_loss(values, model.ratios)
        self.gradient = ((np.log(loss[1:]) - np.log(loss[0])) / _STEP).T  # (run, coordinate)
        self.slope = 1 - np.broadcast_to(model.floor(values), loss.shape)[0] / loss[0]
        self.information = self.gradient.T @ self.gradient
        residual = model.log_loss - np.log(loss[0])
        most = _OUTLYING * np.median(np.abs(residual))
        self.residual = np.clip(residual, -most, most)
        # Which runs are of which group, and sums over each group's, (group, ...).
        groups = np.arange(len(model.group_names))
        group = np.zeros(len(residual)) if model.group is None else model.group
        self.members = np.equal.outer(group, groups).astype(float)
        self.sums, self.residual_sums = self.members.T @ self.gradient, self.members.T @ self.residual
        bends, axes = np.linalg.eigh(np.nan_to_num(-hessian(self._log_prior, at, _PRIOR_STEP)))
        self.prior = (axes * np.maximum(bends, _LEAST_PRIOR_INFORMATION)) @ axes.T
        steps = _PRIOR_STEP * np.eye(len(at))
        rise = self._log_prior(at + steps) - self._log_prior(at - steps)
        self.prior_pull = np.nan_to_num(rise / (2 * _PRIOR_STEP))

    def _log_prior(self, z: np.ndarray) -> np.ndarray:
        sampled = self.model.coordinates.to_sampled(z, np)
        return self.model.law_log_prior(sampled.values, sampled.logs) + sampled.log_jacobian

    def _given(self, theta: np.ndarray, basis: Basis) -> tuple[np.ndarray, np.ndarray]:
        """Return, given the scales in theta, the lower factor R of the information R R' and the mean.

        As if all runs had the same noise: the coordinates need not be better than that.
        """
        model, size = self.model, len(self.at)
        variance = normal_variance(model.noise_variance(theta), model.noise_df(theta))
        precision = (1 / variance).mean(axis=1)
        shares = self._shares_of_offsets(theta, precision)
        squares = (self.sums[:, :, None] * self.sums[:, None]).reshape(-1, size * size)
        seen = self.information - (shares @ squares).reshape(-1, size, size)
        pointed = self.residual @ self.gradient - shares @ (self.sums * self.residual_sums[:, None])
        information = self.prior + precision[:, None, None] * seen
        pull = self.prior_pull + precision[:, None] * pointed
        if model.discrepancy is not None:
            lost, lost_pull = self._lost_to_discrepancy(theta, basis, precision, shares)
            information, pull = information - lost, pull - lost_pull
        information[~np.isfinite(information).all(axis=(1, 2))] = np.eye(size)  # as in `Basis`
        mean = self.at + solve(information, np.nan_to_num(pull)[..., None])[..., 0]
        return cholesky(information), mean

    def _shares_of_offsets(self, theta: np.ndarray, precision: np.ndarray) -> np.ndarray:
        """Return the share of its runs' sum that each group's offset takes, (point, group)."""
        if self.model.group is None:
            return np.zeros((len(theta), 0))
        ratio = (precision * self.model.scale(theta, "group_sd") ** 2)[:, None]
        return ratio / (1 + ratio * self.members.sum(axis=0))

    def _lost_to_discrepancy(
        self, theta: np.ndarray, basis: Basis, precision: np.ndarray, shares: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the information about the law, and the pull, that a discrepancy takes."""
        size = len(self.at)
        ratio = basis.by_group(precision * self.model.scale(theta, "discrepancy_sd") ** 2)[..., None]
        of_precision = basis.by_group(precision)[..., None]
        if isinstance(basis, SeenBasis) and self.model.group is None:  # combinations are seen independently
            effects, seen = self._effects(basis.whole)
            lost = of_precision * ratio / (1 + ratio * np.maximum(basis.information, 0)[:, None])
            squares = (effects[..., None] * effects[..., None, :]).reshape(*effects.shape[:2], -1)
            pull = lost @ (effects * seen[..., None])
            return (lost @ squares).reshape(-1, size, size), pull.reshape(-1, size)
        effects, seen = (e[:, None] for e in self._effects(basis.whole))
        squares = basis.squares[:, None]
        if self.model.group is not None:
            mixed = basis.whole.mT @ (self.slope[:, None] * self.members)  # (basis, weight, group)
            taken = mixed[:, None] * basis.by_group(shares)[:, :, None]
            effects, seen = effects - taken @ self.sums, seen - taken @ self.residual_sums
            squares = squares - taken @ mixed[:, None].mT
        one = np.eye(basis.whole.shape[-1])
        inner = one + ratio[..., None] * squares  # (basis, member, weight, weight)
        inner[~np.isfinite(inner).all(axis=(2, 3))] = one
        both = np.concatenate([effects, seen[..., None]], axis=-1)
        both = np.broadcast_to(both, (*inner.shape[:-1], size + 1))
        lost = both[..., :size].mT @ solve(inner, ratio[..., None] * both)
        lost = (of_precision[..., None] * lost).reshape(-1, size, size + 1)
        return lost[..., :size], lost[..., size]

    def _effects(self, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return products of bases with the law's gradient, (basis, weight, coordinate), and residuals."""
        return basis.mT @ (self.slope[:, None] * self.gradient), basis.mT @ (self.slope * self.residual)

    def to_theta(self, u: np.ndarray, basis: Basis) -> tuple[np.ndarray, np.ndarray]:
        """Return points theta, shape (point, size), and log |d theta / d u|, shape (point,).

        Parameters
        ----------
        u : array, shape (point, size)
            The law's coordinates standardised; scales as in theta.
        basis : Basis
            Of the discrepancy at these points.
        """
        theta, (root, mean) = u.copy(), self._given(u, basis)
        law = slice(len(self.at))
        theta[:, law] = mean + solve(root.mT, u[:, law, None])[..., 0]
        return theta, -np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)

    def from_theta(self, theta: np.ndarray, basis: Basis) -> np.ndarray:
        """Return points u, shape (point, size): the inverse of `to_theta`."""
        u, (root, mean), law = theta.copy(), self._given(theta, basis), slice(len(self.at))
        u[:, law] = (root.mT @ (theta[:, law] - mean)[..., None])[..., 0]
        return u
