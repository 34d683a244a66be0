"""The discrepancy's basis at many points, and the products with it that integrals over its weights need."""

from functools import cached_property

import numpy as np

from bayescale.model.model import SHAPE_SCALES, Model

# A combination of weights is seen if it moves log losses by this share of the discrepancy's scale.
_UNSEEN = 1e-3
# From so many points a group, and up to so many combinations, products of columns, made once for all, cost
# less than those of every point.
_MANY, _SMALL = 4, 20


class Basis:
    """The bases of groups of points.

    Points lie in the order of their groups, which are of one size; those of a group share its basis. Where
    there are more weights than runs, it is in as many orthonormal combinations of weights as there are runs:
    about the rest no run says anything.

    Parameters
    ----------
    basis : array, shape (group, run, weight)
        At tau = 1.
    slope : array, shape (run,)
        Derivative of log loss in the misfit.

    Attributes
    ----------
    whole, basis : array, shape (group, run, weight)
        Of weights or combinations of them: of all, and of those that are kept, here all.
    size : int
        Number of those that are kept.
    """

    def __init__(self, basis: np.ndarray, slope: np.ndarray) -> None:
        self._combinations: np.ndarray | None = None
        runs, weights = basis.shape[1:]
        if weights > runs:
            self._combinations = np.linalg.qr(_finite(basis).mT)[0]
            basis = basis @ self._combinations
        self.whole = self.basis = basis
        self.size, self._slope = basis.shape[-1], slope

    @cached_property
    def squares(self) -> np.ndarray:
        """Products of all weights' effects on log loss, summed over runs, shape (group, weight, weight)."""
        weighted = self.whole * self._slope[:, None]
        return weighted.mT @ weighted

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
        """Return what the basis multiplies, (point, combination), of all weights, (point, weight)."""
        if self._combinations is None:
            return weights
        return _by_point(self.by_group(weights) @ self._combinations)

    def all_weights(self, kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return discrepancy weights, shape (point, weight), from the combinations that are kept.

        Others are N(0, 1), whatever the losses.
        """
        if self._combinations is None:
            return kept
        free = self.by_group(rng.standard_normal((len(kept), self._combinations.shape[1])))
        back = self._combinations.mT
        return _by_point(free + (self.by_group(kept) - free @ self._combinations) @ back)

    def take(self, chosen: np.ndarray, other: "Basis") -> None:
        """Take another's bases of the groups that are chosen, in place of these."""
        for made_of_these in ("_products", "squares"):
            self.__dict__.pop(made_of_these, None)
        self.basis[chosen] = other.basis[chosen]
        if self._combinations is not None and other._combinations is not None:
            self._combinations[chosen] = other._combinations[chosen]


class SeenBasis(Basis):
    """Bases in those combinations of weights about which runs say something, each independent of the others.

    The more points share a basis, the better these pay. Runs see only as many as their number and the
    smoothness of the kernel leave, and how many jumps from one length to the next.

    Attributes
    ----------
    information : array, shape (group, combination)
        Squared effect of every combination on log loss, summed over runs; ascending.
    basis : array, shape (group, run, combination)
        Of those that are seen, the last of `whole`.
    """

    def __init__(self, basis: np.ndarray, slope: np.ndarray) -> None:
        self.information, combinations = _by_information(basis * slope[:, None])
        seen = (self.information > _UNSEEN**2).sum(axis=1).max(initial=0)
        kept = slice(self.information.shape[1] - int(seen), None)
        self.whole = basis @ combinations
        self._combinations = combinations[..., kept]
        self.basis, self.size, self._slope = self.whole[..., kept], int(seen), slope

    @property
    def squares(self) -> np.ndarray:
        return self.information[..., None] * np.eye(self.information.shape[1])


def _by_information(weighted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the information in each orthonormal combination of weights, ascending, and the combinations."""
    runs, weights = weighted.shape[1:]
    if weights <= runs:
        information, combinations = np.linalg.eigh(_finite(weighted.mT @ weighted))
        return information, combinations
    _, effects, combinations = np.linalg.svd(_finite(weighted), full_matrices=False)
    return effects[:, ::-1] ** 2, combinations[:, ::-1].mT


def _finite(matrices: np.ndarray) -> np.ndarray:
    # At lengths that overflow nothing is seen: such points have no finite density, and must only not stop
    # the others.
    return np.nan_to_num(matrices, posinf=0.0, neginf=0.0)


def basis_at(model: Model, theta: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the basis at points theta, shape (point, size), by `Model.sharing_lengths` of them.

    It has shape (group, run, weight); without a discrepancy there are no weights.
    """
    if model.discrepancy is None:
        return np.zeros((len(groups), len(model.log_loss), 0))
    first = theta[groups[:, 0]]
    lengths = model.lengths({n: model.scale(first, n) for n in SHAPE_SCALES if n in model.layout})
    basis: np.ndarray = model.discrepancy.basis(model.axes, lengths, np)
    return basis


def _by_point(grouped: np.ndarray) -> np.ndarray:
    return grouped.reshape(grouped.shape[0] * grouped.shape[1], *grouped.shape[2:])
