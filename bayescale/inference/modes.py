"""Posterior modes, found from many starts at once: whether there is one, where, and how wide it is."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from bayescale.model.model import Model

_STEP = 1e-5


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


def find_modes(model: Model, *, starts: int = 12, seed: int = 0) -> list[Mode]:
    """Find distinct modes of the model's posterior, the one with most mass first.

    Optimises from the best of many prior draws. Meant for models without discrepancy, whose few
    coordinates make numerical derivatives cheap: each takes one batched evaluation.
    """
    rng = np.random.default_rng(seed)
    pool = _prior_draws(model, 200 * starts, rng)
    density = model.log_density(pool)
    pool = pool[np.argsort(density)[::-1][: starts * 10]][::10]
    modes: list[Mode] = []
    for start in pool:
        found = optimize.minimize(  # type: ignore[call-overload]
            lambda z: -float(model.log_density(z[None])[0]),
            start,
            jac=lambda z: -_gradient(model, z),
            method="BFGS",
            options={"gtol": 1e-4, "maxiter": 500},
        )
        if not np.isfinite(found.fun):
            continue
        mode = _mode_at(model, found.x)
        if mode and all(_distance(mode, other) > 3 for other in modes):
            modes.append(mode)
    return sorted(modes, key=lambda m: -m.log_mass)


def _prior_draws(model: Model, draws: int, rng: np.random.Generator) -> np.ndarray:
    law = {n: prior.sample(rng, draws) for n, prior in model.centred.priors.items()}
    z = np.empty((draws, model.size))
    z[:, model.layout["law_coordinates"]] = model.coordinates.from_sampled(law)
    for name, prior in model.scale_priors.items():
        z[:, model.layout[name].start] = np.log(prior.sample(rng, draws))
    return z


def _mode_at(model: Model, point: np.ndarray) -> Mode | None:
    size, step = len(point), 1e-3
    offsets = np.eye(size) * step
    corners = point + (offsets[:, None] + offsets[None]).reshape(-1, size)
    opposite = point + (offsets[:, None] - offsets[None]).reshape(-1, size)
    values = [model.log_density(z).reshape(size, size) for z in (corners, opposite)]
    mirrored = model.log_density(2 * point - corners).reshape(size, size)
    with np.errstate(invalid="ignore"):
        hessian = (values[0] + mirrored - values[1] - values[1].T) / (4 * step**2)
    curvature = -(hessian + hessian.T) / 2
    eigenvalues = np.linalg.eigvalsh(curvature) if np.all(np.isfinite(curvature)) else np.zeros(1)
    if eigenvalues.min() <= 0:
        return None
    height = float(model.log_density(point[None])[0])
    log_mass = height + 0.5 * size * np.log(2 * np.pi) - 0.5 * np.log(eigenvalues).sum()
    return Mode(point, height, np.linalg.inv(curvature), float(log_mass))


def _gradient(model: Model, z: np.ndarray) -> np.ndarray:
    offsets = np.eye(len(z)) * _STEP
    values = model.log_density(np.concatenate([z + offsets, z - offsets]))
    with np.errstate(invalid="ignore"):  # -inf on both sides, far from any mode
        gradient = (values[: len(z)] - values[len(z) :]) / (2 * _STEP)
    return np.nan_to_num(gradient, nan=0.0, posinf=1e6, neginf=-1e6)


def _distance(mode: Mode, other: Mode) -> float:
    difference = mode.point - other.point
    return float(np.sqrt(difference @ np.linalg.solve(other.covariance, difference)))
