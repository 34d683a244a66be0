"""The fast path: posterior and evidence by adaptive importance sampling, in tens of milliseconds.

Student-t proposals about the modes are moved to the weighted draws round by round, each draw weighted by
the mixture of all proposals (Cornuet et al. 2012, arXiv:0907.1254). Then comes the round that counts: its
proposal knows nothing of its draws, so that the evidence is unbiased (with all rounds counted it came out
.1 nat low). Discrepancy weights and group offsets are integrated out at every draw
(`bayescale.inference.latent`); where their posterior is far from Gaussian, or weights fail, chains move the
draws on (`bayescale.inference.chains`). k-hat and the effective sample size, or what chains remember and
whether they drift, decide whether the draws stand. Nothing here imports PyMC.
"""

import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from bayescale.inference.chains import CHAINS, Moved, move_on
from bayescale.inference.climbing import MIN_SHARE, LogDensity, Mode, climb, shares
from bayescale.inference.diagnostics import MAX_K_HAT
from bayescale.inference.evidence import Evidence
from bayescale.inference.latent import Integrals, LatentNormals
from bayescale.inference.modes import find_modes, no_mode
from bayescale.inference.pareto import smoothed_weights
from bayescale.inference.proposal import Mixture, StudentT
from bayescale.model.model import Model

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# Draws in the rounds that move the proposal, which end with this many effective ones; small at first, since
# the second proposal is far better than the first. Where few draws are effective it has far to go.
_MOVING_ROUNDS = (300, 300, 504, 504, 1008, 1008, 2004, 2004, *[4008] * 11)
_LEAST_ROUNDS = 3
_MOVED = 300.0
# What a proposal is moved to counts for so many draws at least, or for this share of them if that is less.
_LEAST_EFFECTIVE, _LEAST_SHARE = 200.0, 0.25
# Draws in the round that counts: the first of these that promises enough effective ones; where it breaks that
# promise the next comes on top or, if its k-hat failed, instead. The largest is tried twice, and more often
# where no latents make it dear.
_COUNTED_ROUNDS = (1008, 2004, 4008)
_LAST_ROUNDS, _LAST_ROUNDS_ALONE = 2 * (8004,), 6 * (8004,)
_ENOUGH = 350.0
# Of the share that the moved proposal promises this is left once latents are estimated.
_KEPT_PROMISE = 0.75
# Where the weights that integrate the latents out vary more than this, chains move the draws on: from .12 on
# some tables had their noise .4 sd off and evidence half a nat, below no more than chance makes.
_ROUGH = 0.1
# Of their draws this share comes from the proposal spread wider: it halves the fits whose k-hat fails.
_WIDE_SHARE, _WIDE_FACTOR = 0.2, 3.0
# Of the proposal of the round that counts, with latents: that posterior is skewed, one Student-t is not.
_COMPONENTS = 3

# Tables often have several explanations: a good law with noise, a poor one with a large discrepancy, a
# discrepancy that changes fast. Climbs start from the middles of priors, and from so many times these.
_ELSEWHERE: tuple[dict[str, float], ...] = (
    {"discrepancy_sd": 3.0, "discrepancy_length": 0.6},
    {"discrepancy_length": 0.2, "discrepancy_stretch": 3.0},
)
# Where the law alone has so many nats less mass than the law with a discrepancy, no climb is made at
# discrepancies too small to matter.
_RIVAL = 8.0


@dataclass(frozen=True)
class FastDraws:
    """Draws of a posterior by importance sampling.

    Attributes
    ----------
    z : array, shape (draw, size)
        Equally weighted points of `Model.with_plain_weights`.
    evidence : Evidence
        The log marginal likelihood.
    ess : float
        Effective number of draws.
    k_hat : float or None
        Shape of the weights' tail; of draws that chains did not move on.
    memory, drift : float or None
        Of draws that they did, `bayescale.inference.chains.Moved`.
    latent_variance : float
        Relative variance of the importance weights that integrate the latents out, on average over draws by
        importance.
    seconds : dict
        Wall-clock seconds by stage.
    """

    z: np.ndarray
    evidence: Evidence
    ess: float
    k_hat: float | None
    memory: float | None
    drift: float | None
    latent_variance: float
    seconds: dict[str, float]


def sample_fast(
    model: Model, *, draws: int, seed: int, progress: Callable[[str], None] = lambda text: None
) -> FastDraws:
    """Draw from the posterior of a model by adaptive importance sampling.

    Parameters
    ----------
    model : Model
        In any coordinates: the proposals take on whatever scales and correlations they meet.
    draws : int
        Number of equally weighted draws to return.
    seed : int
        Of the draws.
    progress : callable, optional
        Told where it takes long.

    Raises
    ------
    FitError
        If no mode is found.
    """
    pools = _thread_pools()
    threads = max((pool["num_threads"] for pool in pools.info()), default=1)
    # On matrices this small BLAS threads only wait for each other: each takes blocks of points instead.
    with pools.limit(limits=1), ThreadPoolExecutor(threads) as executor:
        return _sample(model, draws, seed, executor.map if threads > 1 else map, progress)


@cache
def _thread_pools() -> "ThreadpoolController":
    """Return the handle on NumPy's BLAS; to look for it takes a tenth of a law's fit, so once."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _sample(
    model: Model,
    draws: int,
    seed: int,
    on_blocks: Callable[..., Iterable],
    progress: Callable[[str], None],
) -> FastDraws:
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    modes = find_modes(model.law_only(), seed=seed)
    latent = None
    if model.discrepancy is not None or model.group is not None:
        at = modes[0].point[model.layout["law_coordinates"]]
        latent = LatentNormals(model, at, on_blocks)
        modes = _modes_with_latents(model, latent, modes)
    found = time.perf_counter()
    drawn = _importance_sample(latent, model, modes, rng)
    seconds = {"modes": found - started}
    if latent is None or (drawn.stands and drawn.smooth):
        z, evidence = drawn.resampled(latent, draws, rng), drawn.evidence
        seconds["sample"] = time.perf_counter() - found
        return FastDraws(z, evidence, drawn.ess, drawn.k_hat, None, None, drawn.latent_variance, seconds)
    z, bridged, memory, drift, ess = drawn.moved_on(latent, draws, rng, progress)
    evidence = bridged or replace(drawn.evidence, error=math.inf)
    seconds["sample"] = time.perf_counter() - found
    return FastDraws(z, evidence, ess, None, memory, drift, drawn.latent_variance, seconds)


def _modes_with_latents(model: Model, latent: LatentNormals, modes: list[Mode]) -> list[Mode]:
    """Climb on from the bare law's modes, with latents integrated out by Laplace's approximation."""
    bare = model.law_only()
    kept = [m for m, share in zip(modes, shares(modes), strict=True) if share > MIN_SHARE]
    spread = np.full(latent.size, 0.1)
    spread[model.layout["law_coordinates"]] = 1.0

    def climbed(scales: list[dict[str, float]]) -> list[Mode]:
        starts = np.empty((len(scales), len(kept), latent.size))
        for name, block in model.layout.items():
            if name in bare.layout:
                starts[..., block] = [m.point[bare.layout[name]] for m in kept]
            elif block.stop <= latent.size:
                starts[..., block] = np.log([at[name] for at in scales])[:, None, None]
        standardised = latent.standardised(starts.reshape(-1, latent.size))
        return climb(partial(latent.log_marginal, smooth=True), standardised, np.diag(spread), step=1e-2)

    misfits, hidden = _starting_scales(model)
    found = climbed(misfits)
    if hidden and (not found or modes[0].log_mass > found[0].log_mass - _RIVAL):
        found = sorted(found + climbed(hidden), key=lambda m: -m.log_mass)
    if not found:
        raise no_mode(model)
    latent.learn_outliers(found[0].point)
    return found


def _starting_scales(model: Model) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Return scales to start from, and smaller discrepancies, where there is a mode if the law is right."""
    middles = {name: sorted(prior.middles()) for name, prior in model.scale_priors.items()}
    middle = {name: of_prior[-1] for name, of_prior in middles.items()}
    if model.discrepancy is None:
        return [middle], []
    elsewhere = [{name: middle[name] * factors.get(name, 1.0) for name in middle} for factors in _ELSEWHERE]
    return [middle, *elsewhere], [middle | {"discrepancy_sd": sd} for sd in middles["discrepancy_sd"][:-1]]


@dataclass(frozen=True, eq=False)
class _Counted:
    """Points that count, their integrals over the latents, and their log weights by the proposal."""

    points: np.ndarray
    integrals: Integrals
    log_weights: np.ndarray

    @cached_property
    def _smoothed(self) -> tuple[np.ndarray, float]:
        return smoothed_weights(self.log_weights)

    @cached_property
    def _weighed(self) -> tuple[Evidence, np.ndarray]:
        return _evidence(self._smoothed[0])

    @property
    def k_hat(self) -> float:
        """Shape of the weights' tail."""
        return self._smoothed[1]

    @property
    def evidence(self) -> Evidence:
        """The log marginal likelihood."""
        return self._weighed[0]

    @property
    def ess(self) -> float:
        """Effective number of draws."""
        return _effective(self._weighed[1])

    @property
    def latent_variance(self) -> float:
        """Relative variance of the weights that integrate the latents out."""
        return float(self._weighed[1] @ self.integrals.relative_variance)

    @property
    def stands(self) -> bool:
        """Whether the weights may be believed."""
        return self.k_hat < MAX_K_HAT and self.ess > _ENOUGH

    @property
    def smooth(self) -> bool:
        """Whether the latents' posterior is near enough to Gaussian."""
        return not self.latent_variance > _ROUGH

    def and_also(self, other: "_Counted") -> "_Counted":
        """Return the points of both rounds: each is weighted by its own proposal, without bias."""
        both = zip(self.integrals, other.integrals, strict=True)
        return _Counted(
            np.concatenate([self.points, other.points]),
            Integrals(*(np.concatenate(pair) for pair in both)),
            np.concatenate([self.log_weights, other.log_weights]),
        )

    def resampled(self, latent: LatentNormals | None, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return equally weighted draws, points of `Model.with_plain_weights`."""
        distinct, where = np.unique(_resample(self._weighed[1], draws, rng), return_inverse=True)
        points, hidden = self.points[distinct], self.integrals.latents[distinct]
        return (points if latent is None else latent.unconstrained(points, hidden))[where]

    def moved_on(
        self,
        latent: LatentNormals,
        draws: int,
        rng: np.random.Generator,
        progress: Callable[[str], None],
    ) -> Moved:
        """Return draws of chains that start here."""
        chosen = _resample(_tempered(self._smoothed[0]), CHAINS, rng)
        starts = latent.unconstrained(self.points[chosen], self.integrals.latents[chosen])
        return move_on(latent, starts, draws, rng, progress)


def _importance_sample(
    latent: LatentNormals | None, model: Model, modes: list[Mode], rng: np.random.Generator
) -> _Counted:
    """Return the points that count.

    The rounds that move the proposal take Laplace's approximation of what the latents contribute: it costs
    less than an estimate, and its error moves no weight of the rounds that count.
    """
    density = model.log_density if latent is None else latent.log_marginal
    rounds = _Rounds(latent.shared_axes if latent is not None else [], rng)
    proposal = _about(modes)
    for number, size in enumerate(_MOVING_ROUNDS, start=1):
        rounds.add(density(rounds.draw(proposal, size)))
        points, weights = rounds.weighted()
        proposal = proposal.refitted(points, weights)
        if number >= _LEAST_ROUNDS and _effective(weights) > _MOVED:
            break
    share = _effective(weights) / len(weights) * (1.0 if latent is None else _KEPT_PROMISE)
    sizes = [n for n in _COUNTED_ROUNDS if n * share > _ENOUGH]
    sizes.extend(_LAST_ROUNDS_ALONE if latent is None else _LAST_ROUNDS)
    return _rounds_that_count(rounds, proposal, sizes, density, latent)


def _rounds_that_count(
    rounds: "_Rounds", proposal: Mixture, sizes: list[int], density: LogDensity, latent: LatentNormals | None
) -> _Counted:
    """Return the points of as many of the rounds of some sizes as it takes."""
    kept: _Counted | None = None
    for size in sizes:
        weighted = rounds.weighted()
        if latent is None:
            proposal = proposal.refitted(*weighted)
        else:
            proposal = proposal.split(*weighted, _COMPONENTS, rounds.rng)
        counted = _counted_round(rounds, proposal, size, density, latent)
        if kept is not None and kept.k_hat < MAX_K_HAT:
            counted = kept.and_also(counted)
        kept = counted
        # Where the latents are rough more of the same would not help.
        if kept.stands or not kept.smooth:
            break
    assert kept is not None
    return kept


def _counted_round(
    rounds: "_Rounds", proposal: Mixture, size: int, density: LogDensity, latent: LatentNormals | None
) -> _Counted:
    safe = proposal.widened(_WIDE_SHARE, _WIDE_FACTOR)
    points = rounds.draw(safe, size)
    if latent is None:
        found = Integrals(density(points), np.empty((size, 0)), np.zeros(size))
    else:
        found = latent.integrate(points, rounds.rng)
    rounds.add(found.log_estimate)
    return _Counted(points, found, found.log_estimate - safe.logpdf(points))


def _about(modes: list[Mode]) -> Mixture:
    mass = shares(modes)
    kept = [i for i in range(len(modes)) if mass[i] > MIN_SHARE / 10]
    components = [StudentT(modes[i].point, 1.3 * modes[i].covariance) for i in kept]
    return Mixture(np.maximum(mass[kept], 0.02) / np.maximum(mass[kept], 0.02).sum(), components)


class _Rounds:
    """All draws made so far, and the proposals that they came from."""

    def __init__(self, shared_axes: list[int], rng: np.random.Generator) -> None:
        self.shared_axes, self.rng = shared_axes, rng
        self.points: list[np.ndarray] = []
        self.log_densities: list[np.ndarray] = []
        self.proposals: list[Mixture] = []

    def draw(self, proposal: Mixture, count: int) -> np.ndarray:
        """Draw points from a proposal."""
        self.proposals.append(proposal)
        self.points.append(proposal.sample(count, self.rng, self.shared_axes))
        return self.points[-1]

    def add(self, log_density: np.ndarray) -> None:
        """Take the log densities of the points drawn last."""
        self.log_densities.append(log_density)

    def weighted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all points, and weights by the mixture of all proposals, tempered, that sum to one."""
        theta, log_p = np.concatenate(self.points), np.concatenate(self.log_densities)
        parts = zip(self.points, self.proposals, strict=True)
        logs = [math.log(len(points) / len(theta)) + q.logpdf(theta) for points, q in parts]
        smooth, _ = smoothed_weights(log_p - np.logaddexp.reduce(logs, axis=0))
        return theta, _tempered(smooth)


def _tempered(log_weights: np.ndarray) -> np.ndarray:
    """Return weights that sum to one, to the largest power up to one at which enough are effective.

    Where a few points hold all the weight, a proposal moved to them would see no others again.
    """
    least = min(_LEAST_EFFECTIVE, _LEAST_SHARE * len(log_weights))
    low, high = 0.0, 1.0
    weights = _evidence(log_weights)[1]
    if _effective(weights) < least:
        for _ in range(12):
            power = (low + high) / 2
            weights = _evidence(power * log_weights)[1]
            low, high = (power, high) if _effective(weights) > least else (low, power)
    return weights


def _effective(weights: np.ndarray) -> float:
    return 1 / float((weights**2).sum())


def _evidence(log_weights: np.ndarray) -> tuple[Evidence, np.ndarray]:
    """Return the evidence of log weights and the weights normalised to one."""
    top = log_weights.max()
    raw = np.exp(log_weights - top)
    mean = raw.mean()
    error = float(raw.std() / mean / math.sqrt(len(raw)))
    return Evidence(float(top + np.log(mean)), error, "importance"), raw / raw.sum()


def _resample(weights: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return indices of equally weighted draws (systematic resampling), points in a random order.

    Copies of a point follow each other: what reads draws as chains, as ArviZ does, takes them for
    correlation, and its effective sample size counts them as the one point they are.
    """
    at = (np.arange(draws) + rng.random()) / draws
    found = np.minimum(np.searchsorted(np.cumsum(weights), at), len(weights) - 1)
    place = rng.permutation(len(weights))
    return found[np.argsort(place[found], kind="stable")]
