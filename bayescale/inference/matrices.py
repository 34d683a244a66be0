"""Batches of small symmetric matrices, of which some may be singular to rounding, or worse."""

import numpy as np

# Rounding of huge precisions leaves matrices that are singular or negative. Such points lie far from the
# posterior, and must only not stop the others.


def solve(matrices: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return inverses of matrices times `right`, shape (..., size, column)."""
    try:
        return np.linalg.solve(matrices, right)
    except np.linalg.LinAlgError:
        values, vectors = _eigen(matrices)
        return vectors @ ((vectors.mT @ right) / values[..., None])


def cholesky(matrices: np.ndarray) -> np.ndarray:
    """Return lower Cholesky factors, shape (..., size, size)."""
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        values, vectors = _eigen(matrices)
        return np.linalg.cholesky((vectors * values[:, None]) @ vectors.mT)


def _eigen(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(matrices)
    least = 1e-10 * np.abs(values).max(axis=-1, keepdims=True)
    return np.maximum(values, np.maximum(least, np.finfo(float).tiny)), vectors
