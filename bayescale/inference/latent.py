"""The latent normals of a model, discrepancy weights and group offsets, integrated out given all else.

Given the law's coordinates and the scales (together: theta), log loss depends on the latents ~ N(0, I) almost
linearly, so their conditional posterior is close to Gaussian. `integrate` finds its mode by iteratively
reweighted least squares, draws from the Gaussian there, and returns an unbiased importance estimate of
p(losses, theta): what sampling over theta alone needs (Andrieu & Roberts 2009, doi:10.1214/07-AOS574).

Points are drawn in groups that share the discrepancy's lengths and so its basis, `bayescale.inference.basis`.
Weights that runs do not see, N(0, I) whatever the losses, are drawn in the end.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from bayescale.inference.basis import Basis, SeenBasis, basis_at
from bayescale.inference.conditional import Conditional
from bayescale.inference.standard import LawStandard
from bayescale.model.model import Model

# So many points are taken together that temporaries of a number per point and run have this many numbers:
# on fewer, calls of NumPy cost more than what they do; more do not fit the cache.
_NUMBERS = 25_000


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
        self._weights = model.size - self.size - len(model.group_names)
        self.known_squares: np.ndarray | None = None

    def learn_outliers(self, u: np.ndarray) -> None:
        """Take squared residuals at a mode u, shape (size,), as a first idea of which runs are outliers."""
        conditional, _ = self._conditional(u[None], np.array([[0]]), Basis)
        squares = conditional.residual(conditional.mode())[0] ** 2
        self.known_squares = squares if np.isfinite(squares).all() else None

    def log_marginal(self, u: np.ndarray, *, smooth: bool = False) -> np.ndarray:
        """Return Laplace's approximation of log p(losses, u), shape (point,).

        With `smooth`, none of the discrepancy's weights is left out, so that small differences are right.
        """
        kind = Basis if smooth else SeenBasis

        def of(groups: np.ndarray) -> np.ndarray:
            with np.errstate(all="ignore"):
                conditional, log_jacobian = self._conditional(u, groups, kind)
                return conditional.laplace() + log_jacobian

        return self._log_density(of, u)

    def log_ratio(
        self,
        theta: np.ndarray,
        latents: np.ndarray | None,
        precision: np.ndarray | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return log p(losses, theta, latents) over the density of a Gaussian of the latents, shape (point,).

        The Gaussian is that about their mode or, with a precision of each run relative to the noise's scale,
        that under Normal noise. At latents as `integrate` returns them or, without any, at a draw of it each.
        """

        def of(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            with np.errstate(all="ignore"):
                conditional = self._conditional_at(theta[groups.ravel()], self.basis(theta, groups))
                about = conditional.about_mode if precision is None else conditional.given(precision).gaussian
                gaussian = about(rng)
                if latents is None:
                    return conditional.log_joint(gaussian.draw) - gaussian.log_q
                at = self.in_basis(latents[groups.ravel()], conditional.basis)
                return conditional.log_joint(at) - gaussian.log_density(at)

        return self._log_density(of, theta, rng)

    def in_basis(self, latents: np.ndarray, basis: Basis) -> np.ndarray:
        """Return latents, (point, latent), with weights as combinations that a basis multiplies."""
        weights, offsets = np.split(latents, [self._weights], axis=1)
        return np.concatenate([basis.seen(weights), offsets], axis=1)

    def in_weights(self, latents: np.ndarray, basis: Basis, rng: np.random.Generator) -> np.ndarray:
        """Return latents with combinations as weights: the inverse of `in_basis`."""
        combinations, offsets = np.split(latents, [basis.size], axis=1)
        return np.concatenate([basis.all_weights(combinations, rng), offsets], axis=1)

    def integrate(self, u: np.ndarray, rng: np.random.Generator) -> Integrals:
        """Estimate p(losses, u), and draw the latents, at points u."""

        def of(groups: np.ndarray, rng: np.random.Generator) -> Integrals:
            with np.errstate(all="ignore"):
                conditional, log_jacobian = self._conditional(u, groups, SeenBasis)
                log_estimate, drawn, relative_variance = conditional.integrate(rng)
            latents = self.in_weights(drawn, conditional.basis, rng)
            return Integrals(log_estimate + log_jacobian, latents, relative_variance)

        blocks = self._blocks(u)
        found = self.on_blocks(of, blocks, rng.spawn(len(blocks)))
        out = Integrals(np.empty(len(u)), np.empty((len(u), self.model.size - self.size)), np.empty(len(u)))
        for groups, part in zip(blocks, found, strict=True):
            for whole, values in zip(out, part, strict=True):
                whole[groups.ravel()] = values
        return out._replace(log_estimate=np.where(np.isfinite(out.log_estimate), out.log_estimate, -np.inf))

    def _log_density(
        self, of: Callable[..., np.ndarray], u: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Return what a function finds at every block of points u; what is no number is minus infinity."""
        out, blocks = np.empty(len(u)), self._blocks(u)
        own = [] if rng is None else [rng.spawn(len(blocks))]
        for groups, found in zip(blocks, self.on_blocks(of, blocks, *own), strict=True):
            out[groups.ravel()] = found
        return np.where(np.isfinite(out), out, -np.inf)

    def _blocks(self, u: np.ndarray) -> list[np.ndarray]:
        """Split the groups of points u into blocks."""
        groups = self.model.sharing_lengths(u)
        rows = max(1, _NUMBERS // (groups.shape[1] * len(self.model.log_loss)))
        return [groups[start : start + rows] for start in range(0, len(groups), rows)]

    def basis(self, theta: np.ndarray, groups: np.ndarray, kind: type[Basis] = Basis) -> Basis:
        """Return the basis at points theta, shape (point, size), by `Model.sharing_lengths` of them."""
        return kind(basis_at(self.model, theta, groups), self.standard.slope)

    def _conditional(
        self, u: np.ndarray, groups: np.ndarray, kind: type[Basis]
    ) -> tuple[Conditional, np.ndarray]:
        basis = self.basis(u, groups, kind)
        theta, log_jacobian = self.standard.to_theta(u[groups.ravel()], basis)
        return self._conditional_at(theta, basis), log_jacobian

    def _conditional_at(self, theta: np.ndarray, basis: Basis) -> Conditional:
        return Conditional(self.model, theta, basis, self.known_squares)

    def standardised(self, theta: np.ndarray) -> np.ndarray:
        """Return points u of theta, each of shape (point, size)."""
        u = np.empty_like(theta)
        for groups in self._blocks(theta):
            block = groups.ravel()
            u[block] = self.standard.from_theta(theta[block], self.basis(theta, groups))
        return u

    def unconstrained(self, u: np.ndarray, latents: np.ndarray) -> np.ndarray:
        """Return points of `Model.with_plain_weights`, shape (point, model.size)."""
        z = np.concatenate([u, latents], axis=1)
        for groups in self._blocks(u):
            block = groups.ravel()
            z[block, : self.size] = self.standard.to_theta(u[block], self.basis(u, groups))[0]
        return z
