"""Law coordinates in units of their posterior spread given the scales, about their mean given these.

The larger the discrepancy, the less runs say about the law: its coordinates form a funnel over the scales,
which no proposal of one covariance fits, and whose axis bends. Standardised, z = mean(scales) + C(scales) u
as if the law were linear about its own mode and discrepancy and group offsets were integrated out, they do
not: on published tables two to three times as many draws are effective, and climbs find modes where a large
discrepancy goes with another law.
"""

import numpy as np

from bayescale.inference.basis import Basis
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
        # As if every run had an offset of its own: too wide, which costs less than too narrow.
        group_sd = None if model.group is None else model.scale(theta, "group_sd")[:, None]
        variance = normal_variance(model.noise_variance(theta), model.noise_df(theta), group_sd)
        precision = (1 / variance).mean(axis=1)
        information = self.prior + precision[:, None, None] * self.information
        pull = self.prior_pull + precision[:, None] * (self.residual @ self.gradient)
        if model.discrepancy is not None:
            ratio = basis.by_group(precision * model.scale(theta, "discrepancy_sd") ** 2)[..., None]
            known = np.maximum(basis.information, 0)[:, None]
            lost = basis.by_group(precision)[..., None] * ratio / (1 + ratio * known)
            effects = basis.whole.mT @ (self.slope[:, None] * self.gradient)  # (group, weight, coordinate)
            squares = (effects[..., None] * effects[..., None, :]).reshape(*effects.shape[:2], -1)
            information = information - (lost @ squares).reshape(-1, size, size)
            seen = basis.whole.mT @ (self.slope * self.residual)  # (group, weight)
            pull = pull - (lost @ (effects * seen[..., None])).reshape(-1, size)
        information[~np.isfinite(information).all(axis=(1, 2))] = np.eye(size)  # as in `Basis`
        mean = self.at + solve(information, np.nan_to_num(pull)[..., None])[..., 0]
        return cholesky(information), mean

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
