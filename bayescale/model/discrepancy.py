"""Discrepancy: the smooth misfit between a law and the truth, a Gaussian process over the inputs.

Axes are decades of compute and of tokens per parameter, then of each further input (`axes_of`). The
process is carried by its values at a grid of knots over the table (deterministic training conditional,
Quinonero-Candela & Rasmussen 2005), whitened: delta(x) = tau * k(x, Z) chol(K)^-T v with v ~ N(0, I). The
squared-exponential kernel factorises over axes, each with its own length, so its matrices are a handful of
knots wide. A forecast
adds the variance that the knots do not explain, which grows to tau^2 far from the table; a Hilbert-space
basis would instead fall to zero at the edge of its box, where forecasts are made.

The weights v are not sampled as they stand either: runs determine them to a small fraction of their prior,
differently for every law, tau and length. `Discrepancy.weights` maps standard normal coordinates through
the Gaussian approximation of v given all else, so that what is sampled stays standard normal.

Functions that take ``xp`` work in NumPy (any leading shape) and in ``pytensor.tensor``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayescale.errors import FitError
from bayescale.model.linear import log_diagonal, solve_lower, solve_upper

_JITTER = 1e-8
# Knots no further apart than this (decades), or than the length that a prior expects, if that is less: at a
# length of 1 decade, about the shortest that tables ask for, they leave 1.5% of the process's variance
# between them unexplained.
_SPACING = 1.0
# More of them take minutes and gigabytes.
_MOST_KNOTS = 400
# Random features of one drawn function: enough that values at a point are Gaussian for all purposes.
_FEATURES = 128


@dataclass(frozen=True)
class Discrepancy:
    """The knots that carry the discrepancy.

    Attributes
    ----------
    knots : tuple of tuple of float
        Per axis, knot positions in decades from the centre.
    """

    knots: tuple[tuple[float, ...], ...]

    @property
    def size(self) -> int:
        """Number of whitened weights v."""
        return int(np.prod([len(k) for k in self.knots]))

    def basis(self, axes: np.ndarray, lengths: Any, xp: Any) -> Any:
        """Return the basis that weights multiply, shape (..., point, weight), at tau = 1.

        Parameters
        ----------
        axes : array, shape (axis, point)
            Decades from the centre.
        lengths : array, shape (..., axis)
            Length scales, decades.
        xp : module
            NumPy or ``pytensor.tensor``.
        """
        out: Any = None
        for axis, (x, knots) in enumerate(zip(axes, map(np.asarray, self.knots), strict=True)):
            half_precision = 0.5 / lengths[..., axis, None, None] ** 2
            between = np.subtract.outer(knots, knots) ** 2
            kernel = xp.exp(-half_precision * between) + _JITTER * np.eye(len(knots))
            cross = xp.exp(-half_precision * np.subtract.outer(knots, x) ** 2)
            side = solve_lower(xp.linalg.cholesky(kernel), cross, xp).mT
            out = side if out is None else _row_products(out, side, xp)
        return out

    def weights(
        self, standard: Any, scaled_basis: Any, target: Any, precision: Any, xp: Any
    ) -> tuple[Any, Any]:
        """Map standard normal coordinates to weights v, near their conditional posterior.

        With v ~ N(0, I) and ``target = scaled_basis @ v`` seen with the given precision, v would be
        N(A^-1 b, A^-1), A = I + basis' P basis and b = basis' P target.

        Parameters
        ----------
        standard : array, shape (..., weight)
            The coordinates.
        scaled_basis : array, shape (..., point, weight)
            tau times `basis`.
        target, precision : array, shape (..., point)
            The discrepancy each run points to, and how precisely.

        Returns
        -------
        weights : array, shape (..., weight)
        log_jacobian : array, shape (...)
            log |dv / dstandard|.
        """
        weighted = scaled_basis * precision[..., None]
        factor = xp.linalg.cholesky(weighted.mT @ scaled_basis + np.eye(self.size))
        projected = solve_lower(factor, weighted.mT @ target[..., None], xp)
        weights = solve_upper(factor.mT, projected + standard[..., None], xp)[..., 0]
        return weights, -log_diagonal(factor, xp)

    def unexplained(self, axes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return a square root of what the knots leave unexplained, (draw, point, point), at tau = 1."""
        kernel = np.ones((len(lengths), axes.shape[1], axes.shape[1]))
        for x, length in zip(axes, lengths.T, strict=True):
            kernel *= np.exp(-0.5 * (np.subtract.outer(x, x) / length[:, None, None]) ** 2)
        basis = self.basis(axes, lengths, np)
        rest = kernel - basis @ basis.mT
        # The rest vanishes wherever a target sits on the table, hence the jitter.
        return np.linalg.cholesky(rest + 1e-7 * np.eye(axes.shape[1]))

    def draw_unexplained(self, axes: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw what the knots leave unexplained jointly at many points, shape (draw, point), at tau = 1.

        A function drawn from the prior, less its own interpolation from the knots (pathwise conditioning,
        arXiv:2002.09309). The function is a sum of random Fourier features, whose frequencies are fresh in
        every draw, so that covariances are exact; the cost is linear in points.
        """
        knots = np.stack([g.ravel() for g in np.meshgrid(*map(np.asarray, self.knots), indexing="ij")])
        points = np.concatenate([axes, knots], axis=1)
        out = np.empty((len(lengths), axes.shape[1]))
        chunk = max(1, 2_000_000 // (_FEATURES * points.shape[1]))
        for start in range(0, len(lengths), chunk):
            ell = lengths[start : start + chunk]
            frequency = rng.standard_normal((len(ell), _FEATURES, len(axes))) / ell[:, None]
            phase = rng.uniform(0, 2 * np.pi, (len(ell), _FEATURES, 1))
            weight = rng.standard_normal((len(ell), 1, _FEATURES)) * np.sqrt(2 / _FEATURES)
            drawn = (weight @ np.cos(frequency @ points + phase))[:, 0]
            here, at_knots = drawn[:, : axes.shape[1]], drawn[:, axes.shape[1] :]
            out[start : start + chunk] = here - self._interpolated(axes, ell, at_knots)
        return out

    def _interpolated(self, axes: np.ndarray, lengths: np.ndarray, at_knots: np.ndarray) -> np.ndarray:
        # basis = k(x, Z) chol(K)^-T: the weights of values at the knots are chol(K)^-1 values, axis by axis.
        values = at_knots.reshape(len(lengths), *(len(k) for k in self.knots))
        for axis, knots in enumerate(map(np.asarray, self.knots), start=1):
            half_precision = 0.5 / lengths[:, axis - 1, None, None] ** 2
            between = np.subtract.outer(knots, knots) ** 2
            factor = np.linalg.cholesky(np.exp(-half_precision * between) + _JITTER * np.eye(len(knots)))
            moved = np.moveaxis(values, axis, 1)
            solved = solve_lower(factor, moved.reshape(len(lengths), len(knots), -1), np)
            values = np.moveaxis(solved.reshape(moved.shape), 1, axis)
        weights = values.reshape(len(lengths), -1, 1)
        return (self.basis(axes, lengths, np) @ weights)[..., 0]


def _row_products(left: Any, right: Any, xp: Any) -> Any:
    # Row-wise Kronecker product: every column of one side times every column of the other.
    products = left[..., :, None] * right[..., None, :]
    if xp is np:
        return products.reshape(*products.shape[:-2], -1)
    points, columns, more = products.type.shape
    return products.reshape((points, columns * more))


def axes_of(inputs: Sequence[str], ratios: np.ndarray) -> np.ndarray:
    """Turn log-ratios to the centre, shape (input, point), into axes in decades, (axis, point).

    Of N and D they are log10 C and log10 D/N, and compute is no third. Of D and U, unique tokens, the second
    is log10 D/U: misfit along epochs, and one value where nothing is repeated.
    """
    decades = dict(zip(inputs, ratios / np.log(10), strict=True))
    if {"D", "U"} <= set(inputs):
        decades["U"] = decades["D"] - decades["U"]
    if {"N", "D"} <= set(inputs):
        n, d = decades.pop("N"), decades.pop("D")
        decades.pop("C", None)
        return np.stack([n + d, d - n, *decades.values()])
    return np.stack(list(decades.values()))


def stretch_of(inputs: Sequence[str]) -> np.ndarray:
    """Return the power of the stretch by which each axis's length is multiplied, shape (axis,).

    Misfit reaches further along compute than along tokens per parameter, or less far: which, the runs say.
    """
    powers = np.zeros(len(axes_of(inputs, np.zeros((len(inputs), 1)))))
    if {"N", "D"} <= set(inputs):
        powers[:2] = 0.5, -0.5
    return powers


def knots_over(axes: np.ndarray, length: float = _SPACING) -> tuple[tuple[float, ...], ...]:
    """Place knots over a table's axes, shape (axis, run), for misfits of an expected length, decades.

    Raises
    ------
    FitError
        If that takes too many.
    """
    spacing, knots = min(length, _SPACING), []
    ends = [(float(x.min()), float(x.max())) for x in axes]
    counts = [1 + int(np.ceil((high - low) / spacing - 1e-9)) for low, high in ends]
    if np.prod(counts) > _MOST_KNOTS:
        raise FitError(
            f"prior of 'discrepancy_length': a misfit of {length:g} decades, its middle, takes "
            f"{np.prod(counts)} knots over this table; expected a length that takes at most {_MOST_KNOTS}"
        )
    for (low, high), count in zip(ends, counts, strict=True):
        knots.append(tuple(np.linspace(low, high, count).tolist()))
    return tuple(knots)
