"""Modes of a log-density, sought from many starts at once: where they are, and how wide."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bayescale.model.model import Model

LogDensity = Callable[[np.ndarray], np.ndarray]

_STEP = 1e-5
_SHRINK = np.array([1.0, 0.5, 0.2, 0.05, 0.01, 1e-3])
# Modes with a smaller share of the mass than this change no result.
MIN_SHARE = 0.01


@dataclass(frozen=True)
class Mode:
    """A local maximum of a log-density.

    Attributes
    ----------
    point : array, shape (size,)
        Where, in unconstrained coordinates.
    log_density : float
        Height.
    covariance : array, shape (size, size)
        Inverse curvature there.
    log_mass : float
        Logarithm of the Gaussian integral over the mode (Laplace), in nats.
    """

    point: np.ndarray
    log_density: float
    covariance: np.ndarray
    log_mass: float


def find_modes(model: Model, *, starts: int = 6, seed: int = 0) -> list[Mode]:
    """Find distinct modes of the posterior of a model without discrepancy, the one with most mass first.

    Climbs from the best of many prior draws, chosen to lie far from each other.
    """
    pool = prior_draws(model, 150 * starts, np.random.default_rng(seed))
    spread = pool.var(axis=0)
    best = pool[np.argsort(-model.log_density(pool))[: 15 * starts]]
    return climb(model.log_density, _far_apart(best, starts, spread), spread)


def climb(log_density: LogDensity, starts: np.ndarray, spread: np.ndarray, step: float = 1e-3) -> list[Mode]:
    """Climb from each start to a mode; return the distinct ones, the one with most mass first.

    Parameters
    ----------
    log_density : callable
        Of points, shape (point, size).
    starts : array, shape (start, size)
        Where to begin.
    spread : array, shape (size,)
        Rough variances, to precondition with.
    step : float
        Of the finite differences that give the curvature at a mode.
    """
    found = [_mode_at(log_density, point, step) for point in _bfgs(log_density, starts, spread)]
    # Where no climb ended at a proper maximum (a flat ridge, a bound), the highest end still shows the way.
    proper = [m for m, is_maximum in found if is_maximum] or [m for m, _ in found]
    modes: list[Mode] = []
    for mode in sorted(proper, key=lambda m: -m.log_mass):
        if all(_distance(mode, other) > 3 for other in modes):
            modes.append(mode)
    return modes


def shares(modes: Sequence[Mode]) -> np.ndarray:
    """Return each mode's share of the mass of them all."""
    masses = np.exp([m.log_mass - modes[0].log_mass for m in modes])
    return masses / masses.sum()


def prior_draws(model: Model, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw unconstrained points of a model without discrepancy from its prior, (draws, size)."""
    law = {n: prior.sample(rng, draws) for n, prior in model.centred.priors.items()}
    z = np.empty((draws, model.size))
    z[:, model.layout["law_coordinates"]] = model.coordinates.from_sampled(law)
    for name, prior in model.scale_priors.items():
        z[:, model.layout[name].start] = np.log(prior.sample(rng, draws))
    return z


def _far_apart(points: np.ndarray, count: int, spread: np.ndarray) -> np.ndarray:
    """Choose the first point and then, one by one, the point farthest from those chosen."""
    chosen, nearest = [0], np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = ((points - points[chosen[-1]]) ** 2 / spread).sum(axis=1)
        nearest = np.minimum(nearest, distance)
        chosen.append(int(nearest.argmax()))
    return points[chosen]


def _bfgs(log_density: LogDensity, points: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Maximise from all points at once; derivatives and line searches are batches of points.

    SciPy's optimisers take one start and one point at a time, which costs ten times as much here.
    """
    inverse = np.tile(np.diag(np.maximum(spread, 1e-6)), (len(points), 1, 1))
    value, gradient = _value_and_gradient(log_density, points)
    for _ in range(100):
        direction = (inverse @ gradient[..., None])[..., 0]
        direction *= np.minimum(1, 2 / np.maximum(np.abs(direction).max(axis=1), 1e-300))[:, None]
        trial = points[:, None] + _SHRINK[:, None] * direction[:, None]
        heights = log_density(trial.reshape(-1, points.shape[1])).reshape(len(points), -1)
        best = heights.argmax(axis=1)
        rose = heights[np.arange(len(points)), best] > value + 1e-10
        moved = np.where(rose[:, None], trial[np.arange(len(points)), best], points)
        value, new_gradient = _value_and_gradient(log_density, moved)
        for i in range(len(points)):
            inverse[i] = _updated(inverse[i], moved[i] - points[i], gradient[i] - new_gradient[i])
        gain = (new_gradient * (inverse @ new_gradient[..., None])[..., 0]).sum(axis=1)
        points, gradient = moved, new_gradient
        if np.all(~rose | (gain < 1e-5)):
            break
    return points[np.isfinite(value)]


def _updated(inverse: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    curvature = step @ change
    if not curvature > 1e-12:
        return inverse
    half = np.eye(len(step)) - np.outer(step, change) / curvature
    return half @ inverse @ half.T + np.outer(step, step) / curvature


def _value_and_gradient(log_density: LogDensity, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count, size = points.shape
    offsets = np.concatenate([np.zeros((1, size)), np.eye(size), -np.eye(size)]) * _STEP
    values = log_density((points[:, None] + offsets).reshape(-1, size)).reshape(count, -1)
    with np.errstate(invalid="ignore"):  # -inf on both sides, far from any mode
        gradient = (values[:, 1 : size + 1] - values[:, size + 1 :]) / (2 * _STEP)
    return values[:, 0], np.nan_to_num(gradient, nan=0.0, posinf=1e6, neginf=-1e6)


def _mode_at(log_density: LogDensity, point: np.ndarray, step: float) -> tuple[Mode, bool]:
    """Return the Gaussian about a point, and whether the point is a maximum.

    Directions that do not bend down get unit variance: coordinates are logarithms.
    """
    size = len(point)
    offsets = np.eye(size) * step
    corners = point + (offsets[:, None] + offsets[None]).reshape(-1, size)
    opposite = point + (offsets[:, None] - offsets[None]).reshape(-1, size)
    values = log_density(np.concatenate([corners, opposite, 2 * point - corners, point[None]]))
    height = float(values[-1])
    above, across, below = values[:-1].reshape(3, size, size)
    with np.errstate(invalid="ignore"):
        hessian = (above + below - across - across.T) / (4 * step**2)
    curvature = -(hessian + hessian.T) / 2
    if not np.all(np.isfinite(curvature)):
        curvature = np.zeros((size, size))
    eigenvalues, vectors = np.linalg.eigh(curvature)
    is_maximum = bool(eigenvalues.min() > 0)
    if not is_maximum:
        eigenvalues = np.maximum(eigenvalues, 1.0)
    log_mass = height + 0.5 * size * np.log(2 * np.pi) - 0.5 * np.log(eigenvalues).sum()
    return Mode(point, height, (vectors / eigenvalues) @ vectors.T, float(log_mass)), is_maximum


def _distance(mode: Mode, other: Mode) -> float:
    difference = mode.point - other.point
    return float(np.sqrt(difference @ np.linalg.solve(other.covariance, difference)))
