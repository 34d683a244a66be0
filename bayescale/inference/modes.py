"""Where climbs to the modes of a law's posterior start: prior draws, with the best of what is linear."""

from collections.abc import Sequence

import numpy as np

from bayescale.errors import FitError
from bayescale.inference.climbing import Mode, climb
from bayescale.laws import sample_priors
from bayescale.model.model import Model

# Prior draws, how many of the best are kept, and how many of those, far from each other, climbs start from.
_SEARCH = (250, 50, 5)
# Laws of more parameters than Chinchilla's have modes that five climbs miss, once in a few dozen tables.
_LARGE, _LARGE_SEARCH = 6, (1000, 100, 12)
# Of the finite differences that give the gradient of a law's losses.
_STEP = 1e-5
# A positive parameter that least squares would have negative starts at this share of its prior draw.
_LEAST_SHARE = 0.02


def find_modes(model: Model, *, seed: int = 0) -> list[Mode]:
    """Find distinct modes of the posterior of a model without discrepancy, the one with most mass first.

    Climbs from the best of many draws of what the loss is not linear in, chosen to lie far from each other.

    Raises
    ------
    FitError
        If there is none.
    """
    draws, best_of, starts = _LARGE_SEARCH if len(model.centred.names) >= _LARGE else _SEARCH
    pool = _profiled(model, prior_draws(model, draws, np.random.default_rng(seed)))
    pool = pool[np.isfinite(pool).all(axis=1)]  # of wide priors some draws have an infinite loss
    spread = pool.var(axis=0)
    best = pool[np.argsort(-model.log_density(pool))[:best_of]]
    chosen = far_apart(best, starts, spread)
    found = climb(model.log_density, chosen, _expected_covariance(model, chosen, spread))
    if not found:
        raise no_mode(model)
    return found


def no_mode(model: Model) -> FitError:
    """Return the error that a model's posterior has no mode."""
    return FitError(
        f"law {model.law.name!r} has no posterior mode on this table; its priors may be far from the "
        "data: see `bayescale.prior_predictive`"
    )


def prior_draws(model: Model, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw unconstrained points of a model without discrepancy from its prior, (draws, size)."""
    law = sample_priors(model.centred.priors, rng, draws)
    z = np.empty((draws, model.size))
    z[:, model.layout["law_coordinates"]] = model.coordinates.from_sampled(law)
    for name, prior in model.scale_priors.items():
        z[:, model.layout[name].start] = np.log(prior.sample(rng, draws))
    return z


def _profiled(model: Model, pool: np.ndarray) -> np.ndarray:
    """Return points with the best values, given the rest, of what the loss is linear in, and of the noise."""
    names = [model.centred.derived.centred[n] for n in model.law.linear_parameters]
    law, noise = model.layout["law_coordinates"], model.layout["noise_sd"].start
    values = model.coordinates.to_sampled(pool[:, law], np).values
    best = pool.copy()
    with np.errstate(all="ignore"):
        if names:
            values |= _linear_solution(model, values, names)
            best[:, law] = model.coordinates.from_sampled(values)
        residual = model.log_loss - np.log(model.law_loss(values, model.ratios))
        best[:, noise] = np.log(np.median(np.abs(residual), axis=1) / 0.67 + 1e-5)
    # A draw without such values starts as it is: a law must not run out of starts.
    return np.where(np.isfinite(best).all(axis=1)[:, None], best, pool)


def _linear_solution(
    model: Model, values: dict[str, np.ndarray], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return relative least squares values of parameters in which the loss is linear, shape (point,)."""
    zero = {n: np.zeros_like(values[n]) for n in names}
    rest = model.law_loss(values | zero, model.ratios)
    columns = [model.law_loss(values | zero | {n: zero[n] + 1}, model.ratios) - rest for n in names]
    terms = np.stack(columns, axis=-1) / np.exp(model.log_loss)[:, None]  # (point, run, name)
    target = 1 - rest / np.exp(model.log_loss)
    # A hundredth of a run's weight on the prior draw, in its own units, settles what runs leave open.
    drawn = np.stack([values[n] for n in names], axis=-1)
    ridge = 0.01 / np.maximum(drawn**2, 1e-12)
    normal = terms.mT @ terms + ridge[:, None] * np.eye(len(names))
    pull = (terms.mT @ target[..., None])[..., 0] + ridge * drawn
    solved = np.linalg.solve(normal, pull[..., None])[..., 0]
    positive = [model.centred.priors[n].positive for n in names]
    solved = np.where(np.array(positive) & (solved <= 0), _LEAST_SHARE * drawn, solved)
    return dict(zip(names, solved.T, strict=True))


def far_apart(points: np.ndarray, count: int, spread: np.ndarray) -> np.ndarray:
    """Choose the first point and then, one by one, the point farthest from those chosen."""
    chosen, nearest = [0], np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = ((points - points[chosen[-1]]) ** 2 / spread).sum(axis=1)
        nearest = np.minimum(nearest, distance)
        chosen.append(int(nearest.argmax()))
    return points[chosen]


def _expected_covariance(model: Model, points: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return rough inverse curvatures of a model without discrepancy, (point, size, size).

    From how the law's losses change with its coordinates, and from its prior, whose variances are `spread`.
    """
    law = model.layout["law_coordinates"]
    steps = _STEP * np.concatenate([np.zeros((1, law.stop)), np.eye(law.stop)])
    with np.errstate(all="ignore"):
        values = model.coordinates.to_sampled(points[:, None, law] + steps, np).values
        log_loss = np.log(model.law_loss(values, model.ratios))
    gradient = (log_loss[:, 1:] - log_loss[:, :1]) / _STEP  # (point, coordinate, run)
    precision = 1 / (model.noise_variance(points) + (model.log_loss - log_loss[:, 0]) ** 2)
    curvature = np.tile(np.diag(1 / np.maximum(spread, 1e-6)), (len(points), 1, 1))
    curvature[:, law, law] += np.nan_to_num((gradient * precision[:, None]) @ gradient.mT)
    noise = model.layout["noise_sd"].start
    curvature[:, noise, noise] += len(model.log_loss)
    return np.linalg.inv(curvature)
