"""The discrepancy's basis at many points, and the products with it that integrals over its weights need."""

from copy import copy
from functools import cached_property

import numpy as np

from bayescale.model.model import SHAPE_SCALES, Model

# A combination of weights is seen if it moves log losses by this share of the discrepancy's scale.
_UNSEEN = 1e-3
# From so many points a group, and up to so many combinations, products of columns, made once for all, cost
# less than those of every point.
_MANY, _SMALL = 4, 20


class Basis:
    """The bases of groups of points, in combinations of weights about which runs say independent things.

    Points lie in the order of their groups, which are of one size; those of a group share its basis. Runs see
    only as many combinations as their number and the smoothness of the kernel leave.

    Parameters
    ----------
    basis : array, shape (group, run, weight)
        At tau = 1.
    slope : array, shape (run,)
        Derivative of log loss in the misfit.
    every : bool
        Keep combinations that runs do not see, too: how many are seen jumps from one length to the next.

    Attributes
    ----------
    information : array, shape (group, combination)
        Squared effect of every combination on log loss, summed over runs; ascending. There are as many as
        weights or as runs, whichever are fewer: about the rest no run says anything.
    basis : array, shape (group, run, seen)
        Of the combinations that are kept.
    size : int
        Their number.
    """

    def __init__(self, basis: np.ndarray, slope: np.ndarray, *, every: bool) -> None:
        weighted = basis * slope[:, None]
        self.information, self._combinations = _by_information(weighted)
        self.whole = basis @ self._combinations
        self._keep(every=every)

    def _keep(self, *, every: bool) -> None:
        seen = (self.information > _UNSEEN**2).sum(axis=1).max(initial=0)
        self.size = self.information.shape[1] if every else int(seen)
        kept = slice(self.information.shape[1] - self.size, None)
        self.basis, self._seen = self.whole[..., kept], self._combinations[..., kept]

    def by_group(self, points: np.ndarray) -> np.ndarray:
        """Return an array over points, shape (point, ...), as (group, member, ...)."""
        return points.reshape(len(self.basis), len(points) // len(self.basis), *points.shape[1:])

    def times(self, weights: np.ndarray) -> np.ndarray:
        """Return basis @ weights, shape (point, run)."""
        return _by_point(self.by_group(weights) @ self.basis.mT)

    def back(self, pull: np.ndarray) -> np.ndarray:
        """Return basis' @ pull, shape (point, weight)."""
        return _by_point(self.by_group(pull) @ self.basis)

    def gram(self, precision: np.ndarray) -> np.ndarray:
        """Return basis' diag(precision) basis, shape (point, weight, weight)."""
        grouped = self.by_group(precision)
        if grouped.shape[1] < _MANY or self.size > _SMALL:
            weighted = self.basis[:, None] * grouped[..., None]
            return _by_point(weighted.mT @ self.basis[:, None])
        products, where = self._products
        return (
            _by_point(grouped @ products.mT).take(where, axis=1).reshape(len(precision), self.size, self.size)
        )

    @cached_property
    def _products(self) -> tuple[np.ndarray, np.ndarray]:
        """Products of two columns, (group, pair, run), and which pair each entry of a gram matrix is of."""
        rows, columns = np.tril_indices(self.size)
        where = np.empty((self.size, self.size), int)
        where[rows, columns] = where[columns, rows] = np.arange(len(rows))
        across = np.ascontiguousarray(self.basis.mT)
        return across.take(rows, axis=1) * across.take(columns, axis=1), where.ravel()

    def crossed(self, precision: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Return basis' diag(precision) members, shape (point, weight, column of members)."""
        weighted = self.basis.mT[:, None] * self.by_group(precision)[:, :, None]
        return _by_point(weighted @ members)

    def seen(self, weights: np.ndarray) -> np.ndarray:
        """Return the combinations that are kept of all weights, each shape (point, weight)."""
        return _by_point(self.by_group(weights) @ self._seen)

    def with_groups(self, chosen: np.ndarray, other: "Basis") -> "Basis":
        """Return these bases, but another's of the groups that are chosen; of both what runs see."""
        mixed = copy(self)
        mixed.__dict__.pop("_products", None)
        of_group = chosen[:, None, None]
        mixed.information = np.where(chosen[:, None], other.information, self.information)
        mixed._combinations = np.where(of_group, other._combinations, self._combinations)
        mixed.whole = np.where(of_group, other.whole, self.whole)
        mixed._keep(every=False)
        return mixed

    def resized(self, latents: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """Return latents, this basis's combinations first, of more or fewer combinations.

        Those that are new, which runs do not see, are N(0, 1).
        """
        new = rng.standard_normal((len(latents), max(size - self.size, 0)))
        return np.concatenate([new, latents[:, max(self.size - size, 0) :]], axis=1)

    def all_weights(self, kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return discrepancy weights, shape (point, weight), from the combinations that are kept.

        Others are N(0, 1), whatever the losses.
        """
        free = self.by_group(rng.standard_normal((len(kept), self._seen.shape[1])))
        return _by_point(free + (self.by_group(kept) - free @ self._seen) @ self._seen.mT)


def _by_information(weighted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the information in each orthonormal combination of weights, ascending, and the combinations."""
    # At lengths that overflow nothing is seen: such points have no finite density, and must only not stop
    # the others.
    runs, weights = weighted.shape[1:]
    if weights <= runs:
        gram: np.ndarray = np.nan_to_num(weighted.mT @ weighted, posinf=0.0)
        information, combinations = np.linalg.eigh(gram)
        return information, combinations
    _, effects, combinations = np.linalg.svd(
        np.nan_to_num(weighted, posinf=0.0, neginf=0.0), full_matrices=False
    )
    return effects[:, ::-1] ** 2, combinations[:, ::-1].mT


def basis_of(model: Model, theta: np.ndarray, groups: np.ndarray, slope: np.ndarray, *, every: bool) -> Basis:
    """Return the basis of points theta, shape (point, size), by `Model.sharing_lengths` of them.

    Without a discrepancy it has no weights.
    """
    if model.discrepancy is None:
        return Basis(np.zeros((len(groups), len(slope), 0)), slope, every=every)
    first = theta[groups[:, 0]]
    lengths = model.lengths({n: model.scale(first, n) for n in SHAPE_SCALES if n in model.layout})
    return Basis(model.discrepancy.basis(model.axes, lengths, np), slope, every=every)


def _by_point(grouped: np.ndarray) -> np.ndarray:
    return grouped.reshape(grouped.shape[0] * grouped.shape[1], *grouped.shape[2:])
