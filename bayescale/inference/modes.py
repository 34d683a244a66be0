"""Modes of a log-density, sought from many starts at once: where they are, and how wide."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bayescale.model.model import Model

LogDensity = Callable[[np.ndarray], np.ndarray]

_STEP = 1e-5
# A step is made if it climbs by this share of what the gradient promises; else a quarter of it is tried next.
_ARMIJO = 0.1
_SHORTEST = 1e-4
# Climbs end where a step promises fewer nats than this: proposals need no more.
_ENOUGH = 1e-2
# A climb may take a poor idea of the curvature for arrival: the true one then promises more nats than this.
_ARRIVED = 0.2
_CLIMBS = 4
# Ends so many nats below the highest have no mass to speak of.
_HOPELESS = 50.0
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
    points, heights = _bfgs(log_density, starts, np.diag(np.maximum(spread, 1e-6)))
    found: list[tuple[Mode, bool]] = []
    for at in np.argsort(-heights):
        if found and heights[at] < found[0][0].log_density - _HOPELESS:
            break
        if _is_new(points[at], found):
            mode, is_maximum = _arrived(log_density, points[at], step)
            if _is_new(mode.point, found):
                found.append((mode, is_maximum))
    # Where no climb ended at a proper maximum (a flat ridge, a bound), the highest end still shows the way.
    proper = [m for m, is_maximum in found if is_maximum] or [m for m, _ in found]
    return sorted(proper, key=lambda m: -m.log_mass)


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


def _is_new(point: np.ndarray, found: list[tuple[Mode, bool]]) -> bool:
    return all(_distance(point, mode) > 3 for mode, _ in found)


def _arrived(log_density: LogDensity, point: np.ndarray, step: float) -> tuple[Mode, bool]:
    """Return the mode that a climb ended at, or would have, had it known the curvature there."""
    for _ in range(_CLIMBS):
        mode, is_maximum = _mode_at(log_density, point, step)
        gradient = _value_and_gradient(log_density, point[None])[1][0]
        if not 0.5 * gradient @ mode.covariance @ gradient > _ARRIVED:
            break
        further, height = _bfgs(log_density, point[None], mode.covariance)
        if not (height.size and height[0] > mode.log_density):
            break
        point = further[0]
    return mode, is_maximum


def _bfgs(log_density: LogDensity, points: np.ndarray, inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximise from all points at once; return where each climb ends, and how high.

    `inverse` is a first idea of the inverse curvature.

    Derivatives and line searches are batches of points: SciPy's optimisers take one start and one point at a
    time, which costs ten times as much here.
    """
    state = [points, *_value_and_gradient(log_density, points)]
    state += [np.tile(inverse, (len(points), 1, 1)), np.ones(len(points))]
    ended = []
    for _ in range(150):
        points, value, gradient, inverse, share = state
        direction = (inverse @ gradient[..., None])[..., 0]
        promised = (direction * gradient).sum(axis=1)
        direction *= np.minimum(share, 2 / np.maximum(np.abs(direction).max(axis=1), 1e-300))[:, None]
        new_value, new_gradient = _value_and_gradient(log_density, points + direction)
        rose = new_value > value + _ARMIJO * (direction * gradient).sum(axis=1)
        for i in np.flatnonzero(np.isfinite(new_value)):
            inverse[i] = _updated(inverse[i], direction[i], gradient[i] - new_gradient[i])
        points = np.where(rose[:, None], points + direction, points)
        value, gradient = np.where(rose, new_value, value), np.where(rose[:, None], new_gradient, gradient)
        share = np.where(rose, np.minimum(1, 4 * share), share / 4)
        done = (rose & (promised < _ENOUGH)) | (share < _SHORTEST)
        ended.append((points[done], value[done]))
        state = [x[~done] for x in (points, value, gradient, inverse, share)]
        if done.all():
            break
    ends, heights = (np.concatenate(x) for x in zip(*ended, state[:2], strict=True))
    return ends[np.isfinite(heights)], heights[np.isfinite(heights)]


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


def _distance(point: np.ndarray, mode: Mode) -> float:
    difference = point - mode.point
    return float(np.sqrt(difference @ np.linalg.solve(mode.covariance, difference)))
