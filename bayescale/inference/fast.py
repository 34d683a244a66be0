"""The fast path: posterior and evidence by adaptive importance sampling, in tens of milliseconds.

Student-t proposals about the modes are moved to the weighted draws round by round, each draw weighted by
the mixture of all proposals (Cornuet et al. 2012, arXiv:0907.1254). Then comes the round that counts: its
proposal knows nothing of its draws, so that the evidence is unbiased (with all rounds counted it came out
.1 nat low). Discrepancy weights and group offsets are integrated out at every draw
(`bayescale.inference.latent`). Where their posterior is not quite Gaussian, chains that start at the draws
have to stay there; where it is far from that, or weights fail, chains move the draws on
(`bayescale.inference.chains`). k-hat and the effective sample size, or what chains remember and whether they
drift, decide whether the draws stand. Nothing here imports PyMC.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from bayescale.errors import FitError
from bayescale.inference.chains import CHAINS, Moved, move_on, stay
from bayescale.inference.climbing import MIN_SHARE, LogDensity, Mode, shares
from bayescale.inference.diagnostics import MAX_K_HAT
from bayescale.inference.evidence import Evidence
from bayescale.inference.latent import Integrals, LatentNormals
from bayescale.inference.modes import find_all_modes
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
# Where the weights that integrate the latents out vary more than this, chains move the draws on. From the
# other on importance may have missed half of the mass, by luck with good weights: chains that start at its
# draws tell, since they do not stay there.
_ROUGH, _SUSPECT = 0.3, 0.08
# Of their draws this share comes from the proposal spread wider: it halves the fits whose k-hat fails.
_WIDE_SHARE, _WIDE_FACTOR = 0.2, 3.0
# Of the proposal of the round that counts, with latents: that posterior is skewed, one Student-t is not.
_COMPONENTS = 3


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
    latent_variance : float
        Relative variance of the importance weights that integrate the latents out, on average over draws by
        importance whose noise is smaller than average.
    seconds : dict
        Wall-clock seconds by stage.
    k_hat : float or None
        Shape of the weights' tail; of draws that chains did not move on.
    memory, drift : float or None
        Of draws that they did, `bayescale.inference.chains.Moved`.
    """

    z: np.ndarray
    evidence: Evidence
    ess: float
    latent_variance: float
    seconds: dict[str, float]
    k_hat: float | None = None
    memory: float | None = None
    drift: float | None = None


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
    _keep_freed_memory()
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


@cache
def _keep_freed_memory() -> None:
    """Have glibc keep arrays that are freed: to take their pages anew costs chains a tenth of their time.

    It keeps what is no larger than the largest that was freed before, up to 32 MiB. Others do not mind.
    """
    np.empty(31 * 2**20, np.uint8)  # freed at once


def _sample(
    model: Model,
    draws: int,
    seed: int,
    on_blocks: Callable[..., Iterable],
    progress: Callable[[str], None],
) -> FastDraws:
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    latent, modes = find_all_modes(model, rng, seed=seed, on_blocks=on_blocks)
    found = time.perf_counter()
    counted = _importance_sample(latent, model, modes, rng)
    drawn, moved = _believed(latent, counted, draws, rng, progress)
    variance = drawn.latent_variance
    seconds = {"modes": found - started, "sample": time.perf_counter() - found}
    if moved is None:
        z = drawn.resampled(latent, draws, rng)
        return FastDraws(z, drawn.evidence, drawn.ess, variance, seconds, k_hat=drawn.k_hat)
    evidence = moved.evidence or replace(drawn.evidence, error=math.inf)
    return FastDraws(moved.z, evidence, moved.ess, variance, seconds, memory=moved.memory, drift=moved.drift)


@dataclass(frozen=True, eq=False)
class _Counted:
    """Points that count, their integrals over the latents, and their log weights by the proposal."""

    points: np.ndarray
    integrals: Integrals
    log_weights: np.ndarray
    log_noise: np.ndarray

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
        """Relative variance of the weights that integrate the latents out, where noise is small."""
        weights = self._weighed[1]
        weights = weights * (self.log_noise <= weights @ self.log_noise)
        return float(weights @ self.integrals.relative_variance / weights.sum())

    @property
    def stands(self) -> bool:
        """Whether the weights may be believed, if the latents' posterior is near enough to Gaussian."""
        return self.k_hat < MAX_K_HAT and self.ess > _ENOUGH

    def and_also(self, other: "_Counted") -> "_Counted":
        """Return the points of both rounds: each is weighted by its own proposal, without bias."""
        both = zip(self.integrals, other.integrals, strict=True)
        return _Counted(
            np.concatenate([self.points, other.points]),
            Integrals(*(np.concatenate(pair) for pair in both)),
            np.concatenate([self.log_weights, other.log_weights]),
            np.concatenate([self.log_noise, other.log_noise]),
        )

    def resampled(self, latent: LatentNormals | None, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return equally weighted draws, points of `Model.with_plain_weights`."""
        distinct, where = np.unique(_resample(self._weighed[1], draws, rng), return_inverse=True)
        points, hidden = self.points[distinct], self.integrals.latents[distinct]
        return (points if latent is None else latent.unconstrained(points, hidden))[where]

    def starts(self, latent: LatentNormals, rng: np.random.Generator) -> np.ndarray:
        """Return where chains start, points of `Model.with_plain_weights`."""
        chosen = _resample(_tempered(self._smoothed[0]), CHAINS, rng)
        return latent.unconstrained(self.points[chosen], self.integrals.latents[chosen])


def _believed(
    latent: LatentNormals | None,
    counted: Iterable[_Counted],
    draws: int,
    rng: np.random.Generator,
    progress: Callable[[str], None],
) -> tuple[_Counted, Moved | None]:
    """Return draws by importance and, if those are to be believed instead, of chains that start there.

    More and more points count until their weights stand and, if need be, chains that start there stay. Where
    latents are rough, chains take over at once, unless they are stuck and weights stand later.
    """
    stuck = missed = False
    for drawn in counted:
        variance = drawn.latent_variance
        if latent is not None and variance > _ROUGH and not stuck:
            starts = drawn.starts(latent, rng)
            moved = move_on(latent, starts, draws, rng, progress, patient=False, missed=missed)
            if moved is not None:
                return drawn, moved
            stuck = True
        if drawn.stands:
            if latent is None or stuck or variance < _SUSPECT or stay(latent, drawn.starts(latent, rng), rng):
                return drawn, None
            missed = True
    if latent is None:
        return drawn, None
    return drawn, move_on(latent, drawn.starts(latent, rng), draws, rng, progress, missed=missed)


def _importance_sample(
    latent: LatentNormals | None, model: Model, modes: list[Mode], rng: np.random.Generator
) -> Iterator[_Counted]:
    """Return the points that count, after each of the rounds that do.

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
) -> Iterator[_Counted]:
    """Return the points of rounds of some sizes, after each."""
    kept: _Counted | None = None
    for size in sizes:
        weighted = rounds.weighted()
        if latent is None:
            proposal = proposal.refitted(*weighted)
        else:
            proposal = proposal.split(*weighted, _COMPONENTS, rounds.rng)
        counted = _counted_round(rounds, proposal, size, density, latent)
        kept = kept.and_also(counted) if kept is not None and kept.k_hat < MAX_K_HAT else counted
        yield kept


def _counted_round(
    rounds: "_Rounds", proposal: Mixture, size: int, density: LogDensity, latent: LatentNormals | None
) -> _Counted:
    safe = proposal.widened(_WIDE_SHARE, _WIDE_FACTOR)
    points = rounds.draw(safe, size)
    if latent is None:
        found, log_noise = Integrals(density(points), np.empty((size, 0)), np.zeros(size)), np.zeros(size)
    else:
        found = latent.integrate(points, rounds.rng)
        log_noise = points[:, latent.model.layout["noise_sd"].start]
    rounds.add(found.log_estimate)
    return _Counted(points, found, found.log_estimate - safe.logpdf(points), log_noise)


def _about(modes: list[Mode]) -> Mixture:
    mass = shares(modes)
    components = [StudentT(mode.point, 1.3 * mode.covariance) for mode in modes]
    kept = [i for i, c in enumerate(components) if mass[i] > MIN_SHARE / 10 and c.is_proper]
    if not kept:
        raise _too_narrow()
    shared = np.maximum(mass[kept], 0.02)
    return Mixture(shared / shared.sum(), [components[i] for i in kept])


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
        if not np.isfinite(smooth.max()):
            raise _too_narrow()
        return theta, _tempered(smooth)


def _too_narrow() -> FitError:
    return FitError(
        "the posterior is too narrow to draw from; instead of a prior that fixes a parameter, write its "
        "value into the law's formula, and instead of one that has it at zero, leave it out"
    )


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
