"""The discrepancy's basis at many points, and the products with it that integrals over its weights need."""

import numpy as np

from bayescale.model.model import SHAPE_SCALES, Model

# A combination of weights that moves no run by more than this share of the discrepancy's scale is not seen.
_UNSEEN = 1e-3


def basis_at(model: Model, theta: np.ndarray) -> "Basis":
    """Return the basis at tau = 1 at points theta, shape (point, size), which may share their lengths.

    Without a discrepancy it has no weights.
    """
    if model.discrepancy is None:
        return SharedBasis(np.zeros((len(model.log_loss), 0)))
    lengths = model.lengths({n: model.scale(theta, n) for n in SHAPE_SCALES if n in model.layout})
    if (lengths == lengths[0]).all():
        return SharedBasis(model.discrepancy.basis(model.axes, lengths[0], np))
    return OwnBases(model.discrepancy.basis(model.axes, lengths, np))


class SharedBasis:
    """One basis for all points, shape (run, seen), of the combinations of weights that runs see.

    `seen`, shape (weight, seen), holds the combinations. Products of columns are made once.
    """

    def __init__(self, basis: np.ndarray) -> None:
        self.basis, self.seen = _seen(basis)
        self.size = self.basis.shape[1]
        rows, columns = np.tril_indices(self.size)
        where = np.empty((self.size, self.size), int)
        where[rows, columns] = where[columns, rows] = np.arange(len(rows))
        self.unpack = where.ravel()
        self.products = self.basis[:, rows] * self.basis[:, columns]

    def times(self, weights: np.ndarray) -> np.ndarray:
        """Return basis @ weights, shape (point, run)."""
        return weights @ self.basis.T

    def back(self, pull: np.ndarray) -> np.ndarray:
        """Return basis' @ pull, shape (point, weight)."""
        return pull @ self.basis

    def gram(self, precision: np.ndarray) -> np.ndarray:
        """Return basis' diag(precision) basis, shape (point, weight, weight)."""
        return (precision @ self.products)[:, self.unpack].reshape(len(precision), self.size, self.size)

    def crossed(self, precision: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Return basis' diag(precision) members, shape (point, weight, group)."""
        products = (self.basis[:, :, None] * members[:, None, :]).reshape(len(members), -1)
        return (precision @ products).reshape(len(precision), self.size, members.shape[1])

    def all_weights(self, seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return discrepancy weights, shape (point, weight), from their seen combinations."""
        free = rng.standard_normal((len(seen), len(self.seen)))
        return free + (seen - free @ self.seen) @ self.seen.T


class OwnBases:
    """As `SharedBasis`, with a basis for each point, shape (point, run, weight)."""

    def __init__(self, basis: np.ndarray) -> None:
        self.basis, self.size = basis, basis.shape[2]

    def times(self, weights: np.ndarray) -> np.ndarray:
        return (self.basis @ weights[..., None])[..., 0]

    def back(self, pull: np.ndarray) -> np.ndarray:
        return (pull[:, None] @ self.basis)[:, 0]

    def gram(self, precision: np.ndarray) -> np.ndarray:
        return (self.basis * precision[..., None]).mT @ self.basis

    def crossed(self, precision: np.ndarray, members: np.ndarray) -> np.ndarray:
        return (self.basis * precision[..., None]).mT @ members


Basis = SharedBasis | OwnBases


def _seen(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the basis of the combinations of weights that runs see, (run, seen), and these, (weight, seen).

    They are orthonormal, so that their coordinates are N(0, I) as the weights are.
    """
    runs, weights = basis.shape
    values, vectors = np.linalg.eigh(basis @ basis.T if runs < weights else basis.T @ basis)
    vectors, size = vectors[:, values > _UNSEEN**2], np.sqrt(values[values > _UNSEEN**2])
    if runs < weights:
        return vectors * size, basis.T @ vectors / size
    return basis @ vectors, vectors
