"""Climbs of a log-density from many starts at once, to its modes: where they are, and how wide."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

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


def climb(
    log_density: LogDensity,
    starts: np.ndarray,
    inverse: np.ndarray,
    step: float = 1e-3,
    known: Sequence[Mode] = (),
) -> list[Mode]:
    """Climb from each start to a mode; return the distinct ones, the one with most mass first.

    Parameters
    ----------
    log_density : callable
        Of points, shape (point, size).
    starts : array, shape (start, size)
        Where to begin.
    inverse : array, shape (start, size, size) or (size, size)
        A first idea of the inverse curvature.
    step : float
        Of the finite differences that give the curvature at a mode.
    known : sequence of Mode
        Found before; they are returned too.
    """
    points, heights = _bfgs(log_density, starts, inverse)
    found = [(mode, True) for mode in known]
    highest = max([*heights, *(mode.log_density for mode in known)], default=-np.inf)
    for at in np.argsort(-heights):
        if heights[at] < highest - _HOPELESS:
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


def _is_new(point: np.ndarray, found: list[tuple[Mode, bool]]) -> bool:
    return all(_distance(point, mode) > 3 for mode, _ in found)


def _distance(point: np.ndarray, mode: Mode) -> float:
    difference = point - mode.point
    squared = float(difference @ np.linalg.solve(mode.covariance, difference))
    return math.sqrt(max(squared, 0.0))  # below zero by rounding


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

    Derivatives and line searches are batches of points: SciPy's optimisers take one start and one point at a
    time, which costs ten times as much here.
    """
    state = [points, *_value_and_gradient(log_density, points)]
    state += [np.array(np.broadcast_to(inverse, (len(points), *inverse.shape[-2:]))), np.ones(len(points))]
    ended = []
    for _ in range(150):
        points, value, gradient, inverse, share = state
        direction = (inverse @ gradient[..., None])[..., 0]
        promised = (direction * gradient).sum(axis=1)
        direction *= np.minimum(share, 2 / np.maximum(np.abs(direction).max(axis=1), 1e-300))[:, None]
        new_value, new_gradient = _value_and_gradient(log_density, points + direction)
        rose = new_value > value + _ARMIJO * (direction * gradient).sum(axis=1)
        change = np.where(np.isfinite(new_value)[:, None], gradient - new_gradient, 0.0)
        inverse = _updated(inverse, direction, change)
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
    """Return inverse curvatures, (point, size, size), that agree with what steps changed the gradients by."""
    curvature = (step * change).sum(axis=1)[:, None, None]
    bends = curvature > 1e-12
    share = step[:, :, None] / np.where(bends, curvature, 1.0)
    half = np.eye(step.shape[1]) - share * change[:, None]
    return np.where(bends, half @ inverse @ half.mT + share * step[:, None], inverse)


def _value_and_gradient(log_density: LogDensity, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Forward differences: a climb by them ends half a step from where it should, and half a step is nothing.
    count, size = points.shape
    offsets = np.concatenate([np.zeros((1, size)), np.eye(size)]) * _STEP
    values = log_density((points[:, None] + offsets).reshape(-1, size)).reshape(count, -1)
    with np.errstate(invalid="ignore"):  # -inf on both sides, far from any mode
        gradient = (values[:, 1:] - values[:, :1]) / _STEP
    return values[:, 0], np.nan_to_num(gradient, nan=0.0, posinf=1e6, neginf=-1e6)


def _mode_at(log_density: LogDensity, point: np.ndarray, step: float) -> tuple[Mode, bool]:
    """Return the Gaussian about a point, and whether the point is a maximum.

    Directions that do not bend down get unit variance: coordinates are logarithms.
    """
    size = len(point)
    height = float(log_density(point[None])[0])
    curvature = -hessian(log_density, point, step)
    if not np.all(np.isfinite(curvature)):
        curvature = np.zeros((size, size))
    eigenvalues, vectors = np.linalg.eigh(curvature)
    is_maximum = bool(eigenvalues.min() > 0)
    if not is_maximum:
        eigenvalues = np.maximum(eigenvalues, 1.0)
    log_mass = height + 0.5 * size * np.log(2 * np.pi) - 0.5 * np.log(eigenvalues).sum()
    return Mode(point, height, (vectors / eigenvalues) @ vectors.T, float(log_mass)), is_maximum


def hessian(function: LogDensity, at: np.ndarray, step: float) -> np.ndarray:
    """Return second derivatives, shape (size, size), of a function of points, shape (point, size)."""
    size = len(at)
    rows, columns = np.tril_indices(size)
    single = step * np.concatenate([np.eye(size), -np.eye(size)])
    pairs = single[rows] + single[columns]
    points = at + np.concatenate([np.zeros((1, size)), single, pairs, -pairs])
    values = function(points)
    with np.errstate(invalid="ignore"):
        ahead, behind = values[1 : size + 1], values[size + 1 : 2 * size + 1]
        both = values[2 * size + 1 :].reshape(2, -1).sum(axis=0)
        lower = (both + 2 * values[0] - (ahead + behind)[rows] - (ahead + behind)[columns]) / (2 * step**2)
    out = np.empty((size, size))
    out[rows, columns] = out[columns, rows] = lower
    return out
