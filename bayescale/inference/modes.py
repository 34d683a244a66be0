"""Where climbs to the modes of a posterior start.

For a law alone: prior draws, with the best of what is linear. With a discrepancy: the law's modes at several
discrepancies, and the best of drawn ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from bayescale.errors import FitError
from bayescale.inference.climbing import MIN_SHARE, Mode, climb, shares
from bayescale.inference.latent import LatentNormals
from bayescale.inference.matrices import solve
from bayescale.laws import sample_priors
from bayescale.model.model import SHAPE_SCALES, Model

# Prior draws, how many of the best are kept, and how many of those, far from each other, climbs start from.
_SEARCH = (250, 50, 5)
# Laws of more parameters than Chinchilla's have modes that five climbs miss, once in a few dozen tables.
_LARGE, _LARGE_SEARCH = 6, (1000, 100, 12)
# Of the finite differences that give the gradient of a law's losses.
_STEP = 1e-5
# A positive parameter that least squares would have negative starts at this share of its prior draw.
_LEAST_SHARE = 0.02

# Tables often have several explanations: a good law with noise, a poor one with a large discrepancy, a
# discrepancy that changes fast. Climbs start from the middles of priors, and so many times these; then, all
# else as at the best mode so far, from so many of the best of so many draws of the discrepancy's scales.
_FAST_CHANGING = {"discrepancy_length": 0.2, "discrepancy_stretch": 3.0}
_STARTS, _BEST, _DRAWN = 2, 12, 60
# Where the law alone has so many nats less mass than the law with a discrepancy, no climb is made at
# discrepancies too small to matter.
_RIVAL = 8.0


def find_modes(model: Model, *, seed: int = 0) -> list[Mode]:
    """Find distinct modes of the posterior of a model without discrepancy, the one with most mass first.

    Climbs from the best of many draws of what the loss is not linear in, chosen to lie far from each other.

    Raises
    ------
    FitError
        If there is none.
    """
    draws, best_of, starts = _LARGE_SEARCH if len(model.centred.names) >= _LARGE else _SEARCH
    with np.errstate(all="ignore"):
        pool = _profiled(model, prior_draws(model, draws, np.random.default_rng(seed)))
    pool = pool[np.isfinite(pool).all(axis=1)]  # of wide priors some draws have an infinite loss
    if not len(pool):
        raise _no_mode(model)
    spread = pool.var(axis=0)
    best = pool[np.argsort(-model.log_density(pool))[:best_of]]
    chosen = _far_apart(best, starts, spread)
    found = climb(model.log_density, chosen, _expected_covariance(model, chosen, spread))
    if not found:
        raise _no_mode(model)
    return found


def find_all_modes(
    model: Model, rng: np.random.Generator, *, seed: int, on_blocks: Callable[..., Iterable] = map
) -> tuple[LatentNormals | None, list[Mode]]:
    """Find distinct modes of the posterior of a model of any kind, latents integrated out.

    Returns what integrates them out, if there are any, and the modes in its points u.

    Raises
    ------
    FitError
        If there is none.
    """
    bare = find_modes(model.law_only(), seed=seed)
    if model.discrepancy is None and model.group is None:
        return None, bare
    latent = LatentNormals(model, bare[0].point[model.layout["law_coordinates"]], on_blocks)
    return latent, _modes_with_latents(latent, bare, rng)


def _modes_with_latents(latent: LatentNormals, bare: list[Mode], rng: np.random.Generator) -> list[Mode]:
    """Climb on from the bare law's modes, with latents integrated out by Laplace's approximation."""
    model = latent.model
    density = partial(latent.log_marginal, smooth=True)
    kept = [m.point for m, share in zip(bare, shares(bare), strict=True) if share > MIN_SHARE]
    spread = np.full(latent.size, 0.1)
    spread[model.layout["law_coordinates"]] = 1.0
    middles = {name: sorted(prior.middles()) for name, prior in model.scale_priors.items()}
    middle = {name: of_prior[-1] for name, of_prior in middles.items()}
    scales = [middle]
    if model.discrepancy is not None:
        scales.append({name: middle[name] * _FAST_CHANGING.get(name, 1.0) for name in middle})
    starts = np.concatenate([_with_scales(latent, kept, at) for at in scales])
    found = climb(density, starts, np.diag(spread), step=1e-2)
    if found and model.discrepancy is not None:
        latent.learn_outliers(found[0].point)
        further = [_best_drawn(latent, found[0].point, rng)]
        if bare[0].log_mass > found[0].log_mass - _RIVAL:
            smaller = [middle | {"discrepancy_sd": sd} for sd in middles["discrepancy_sd"][:-1]]
            further += [_with_scales(latent, kept, at) for at in smaller]
        found = climb(density, np.concatenate(further), np.diag(spread), step=1e-2, known=found)
    if not found:
        raise _no_mode(model)
    latent.learn_outliers(found[0].point)
    return found


def _with_scales(latent: LatentNormals, bare: list[np.ndarray], scales: Mapping[str, float]) -> np.ndarray:
    """Return points u, (point, size), of points of the bare law with scales that it does not have."""
    layout = latent.model.law_only().layout
    theta = np.empty((len(bare), latent.size))
    for name, block in latent.model.layout.items():
        if name in layout:
            theta[:, block] = [point[layout[name]] for point in bare]
        elif block.stop <= latent.size:
            theta[:, block] = np.log(scales[name])
    return latent.standardised(theta)


def _best_drawn(latent: LatentNormals, mode: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the best, far from each other, of points u at a mode but for what shapes the discrepancy."""
    model = latent.model
    drawn = np.tile(mode, (_DRAWN, 1))
    drawn[:, model.layout["law_coordinates"]] = 0.0  # where the law is best, given scales
    for name in ("discrepancy_sd", *SHAPE_SCALES):
        if name in model.layout:
            drawn[:, model.layout[name].start] = np.log(model.scale_priors[name].sample(rng, _DRAWN))
    best = drawn[np.argsort(-latent.log_marginal(drawn, smooth=True))[:_BEST]]
    return _far_apart(best, _STARTS, np.maximum(drawn.var(axis=0), np.finfo(float).tiny))


def _no_mode(model: Model) -> FitError:
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
    solved = solve(normal, pull[..., None])[..., 0]
    positive = [model.centred.priors[n].positive for n in names]
    solved = np.where(np.array(positive) & (solved <= 0), _LEAST_SHARE * drawn, solved)
    return dict(zip(names, solved.T, strict=True))


def _far_apart(points: np.ndarray, count: int, spread: np.ndarray) -> np.ndarray:
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
