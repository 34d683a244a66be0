"""The fast path: posterior and evidence by adaptive importance sampling, in tens of milliseconds.

Student-t proposals about the modes, moved to the weighted draws round by round; all rounds' draws count, each
weighted by the mixture of all proposals (Cornuet et al. 2012, arXiv:0907.1254). Discrepancy weights and group
offsets are integrated out at every draw (`bayescale.inference.latent`). k-hat and the effective sample size
decide whether the draws stand. Nothing here imports PyMC.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayescale.errors import FitError
from bayescale.inference.diagnostics import MAX_K_HAT
from bayescale.inference.evidence import Evidence
from bayescale.inference.latent import LatentNormals
from bayescale.inference.modes import MIN_SHARE, Mode, climb, find_modes, shares
from bayescale.inference.pareto import smoothed_weights
from bayescale.inference.proposal import Mixture, StudentT
from bayescale.model.model import Model

# Rounds go on until this many effective draws, then end at once.
_ENOUGH = 400.0
_ROUNDS_LAW = (500, 500, 1000, 2000, 4000)
_ROUNDS_LATENT = (500, 1000, 2000, 4000, 4000, 8000)
_LEAST_ROUNDS = 3

# Tables often have two explanations, a good law with noise and a poor one with a large discrepancy: a climb
# starts towards each.
_STARTS: tuple[dict[str, float], ...] = ({}, {"discrepancy_sd": 3.0, "discrepancy_length": 0.6})

# Log density estimates at theta, and the latents drawn there.
Target = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class FastDraws:
    """Draws of a posterior by importance sampling.

    Attributes
    ----------
    z : array, shape (draw, size)
        Equally weighted points, in the layout of `Model.layout`.
    evidence : Evidence
        The log marginal likelihood.
    k_hat, ess : float
        Shape of the weights' tail, and effective number of draws.
    seconds : dict
        Wall-clock seconds by stage.
    """

    z: np.ndarray
    evidence: Evidence
    k_hat: float
    ess: float
    seconds: dict[str, float]


def sample_fast(model: Model, *, draws: int, seed: int) -> FastDraws:
    """Draw from the posterior of a model by adaptive importance sampling.

    Parameters
    ----------
    model : Model
        In any coordinates: the proposals take on whatever scales and correlations they meet.
    draws : int
        Number of equally weighted draws to return.
    seed : int
        Of the draws.

    Raises
    ------
    FitError
        If no mode is found.
    """
    from threadpoolctl import threadpool_limits

    # On matrices this small BLAS threads only wait for each other.
    with threadpool_limits(1):
        return _sample(model, draws, seed)


def _sample(model: Model, draws: int, seed: int) -> FastDraws:
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    modes = find_modes(model.law_only(), seed=seed)
    latent = None
    if model.discrepancy is not None or model.group is not None:
        latent = LatentNormals(model)
        modes = _modes_with_latents(model, latent, modes)
    if not modes:
        raise FitError(
            f"law {model.law.name!r} has no posterior mode on this table; its priors may be far from the "
            "data: see `bayescale.prior_predictive`"
        )
    found = time.perf_counter()
    theta, hidden, log_weights = _adapt(_target(model, latent, rng), modes, latent, rng)
    smooth, k_hat = smoothed_weights(log_weights)
    evidence, weights = _evidence(smooth)
    chosen = _resample(weights, draws, rng)
    z = theta[chosen] if latent is None else latent.unconstrained(theta[chosen], hidden[chosen])
    done = time.perf_counter()
    seconds = {"modes": found - started, "sample": done - found}
    return FastDraws(z, evidence, k_hat, 1 / float((weights**2).sum()), seconds)


def _target(model: Model, latent: LatentNormals | None, rng: np.random.Generator) -> Target:
    if latent is not None:
        return lambda theta: latent.integrate(theta, rng)
    return lambda theta: (_in_chunks(model.log_density, theta), np.empty((len(theta), 0)))


def _in_chunks(function: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    # A chunk's temporaries fit the cache.
    return np.concatenate([function(points[i : i + 250]) for i in range(0, len(points), 250)])


def _modes_with_latents(model: Model, latent: LatentNormals, modes: list[Mode]) -> list[Mode]:
    """Climb on from the bare law's modes, with latents integrated out by Laplace's approximation."""
    if not modes:
        return []
    bare = model.law_only()
    kept = [m for m, share in zip(modes, shares(modes), strict=True) if share > MIN_SHARE]
    starts = np.empty((len(_STARTS), len(kept), latent.size))
    for name, block in model.layout.items():
        if name in bare.layout:
            starts[..., block] = [m.point[bare.layout[name]] for m in kept]
        elif block.stop <= latent.size:
            typical = np.median(model.scale_priors[name].sample(np.random.default_rng(0), 999))
            starts[..., block] = np.log([typical * s.get(name, 1.0) for s in _STARTS])[:, None, None]
    spread = np.full(latent.size, 0.1)
    law = model.layout["law_coordinates"]
    spread[law] = 25 * np.diag(kept[0].covariance)[bare.layout["law_coordinates"]]
    return climb(latent.log_marginal, starts.reshape(-1, latent.size), spread, step=1e-2)


def _adapt(
    target: Target, modes: list[Mode], latent: LatentNormals | None, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Return points, latents and log weights of all rounds."""
    mass = shares(modes)
    kept = [i for i in range(len(modes)) if mass[i] > MIN_SHARE / 10]
    components = [StudentT(modes[i].point, 1.3 * modes[i].covariance) for i in kept]
    proposal = Mixture(np.maximum(mass[kept], 0.02) / np.maximum(mass[kept], 0.02).sum(), components)
    axis = latent.shared_axis if latent is not None else None
    counts: list[int] = []
    proposals: list[Mixture] = []
    parts: list[Any] = []
    rounds = _ROUNDS_LAW if latent is None else _ROUNDS_LATENT
    for number, count in enumerate(rounds, start=1):
        points = proposal.sample(count, rng, axis)
        parts.append((points, *target(points)))
        counts.append(count)
        proposals.append(proposal)
        theta, log_p, hidden = (np.concatenate(p) for p in zip(*parts, strict=True))
        logs = [math.log(c / sum(counts)) + q.logpdf(theta) for c, q in zip(counts, proposals, strict=True)]
        log_weights = log_p - np.logaddexp.reduce(logs, axis=0)
        smooth, k_hat = smoothed_weights(log_weights)
        _, weights = _evidence(smooth)
        enough = k_hat < MAX_K_HAT and 1 / (weights**2).sum() > _ENOUGH
        if number >= _LEAST_ROUNDS and enough:
            break
        proposal = proposal.refitted(theta, weights)
    return theta, hidden, log_weights


def _evidence(log_weights: np.ndarray) -> tuple[Evidence, np.ndarray]:
    """Return the evidence of log weights and the weights normalised to one."""
    top = log_weights.max()
    raw = np.exp(log_weights - top)
    mean = raw.mean()
    error = float(raw.std() / mean / math.sqrt(len(raw)))
    return Evidence(float(top + np.log(mean)), error, "importance"), raw / raw.sum()


def _resample(weights: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return indices of equally weighted draws, shuffled (systematic resampling)."""
    at = (np.arange(draws) + rng.random()) / draws
    return rng.permutation(np.minimum(np.searchsorted(np.cumsum(weights), at), len(weights) - 1))
