"""Draws moved on by many short chains, where the latents have more modes than a Gaussian sees.

Where noise is small and heavy-tailed, each choice of which runs are outliers has a mode of its own. But
Student-t noise is Normal noise whose precision differs from run to run, and given these the latents are all
but Gaussian, whatever the choice. So a sweep draws the scales of the noise given residuals, then each run's
precision, then all else at once: a mixture fitted to the other half of chains proposes law and scales,
latents come fresh from their Gaussian, and Metropolis decides. Now and then law, scales and latents move
with the precisions integrated out, as importance has them. Each of these leaves the posterior as it is.

Chains start at draws by importance. Where importance missed some of the mass they leave, which alone tells
that it did (`stay`). To take its place they go on until they have forgotten where they started, and drift no
more (`move_on`). Two halves of them then give the evidence: each bridges its draws to a proposal that the
other made.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from bayescale.errors import FitError
from bayescale.inference.basis import Basis
from bayescale.inference.bridge import bridge
from bayescale.inference.conditional import Conditional
from bayescale.inference.diagnostics import MAX_MEMORY
from bayescale.inference.evidence import Evidence
from bayescale.inference.latent import LatentNormals
from bayescale.inference.proposal import Mixture, StudentT
from bayescale.model.noise import total_log_density

# Chains, all swept together.
CHAINS = 360
# Sweeps between looks at what is remembered, and the fewest and most looks. Once it is little enough to pass,
# as many sweeps again leave its square, as good as nothing; nor may means or spreads drift, by more sds than
# this, which takes some looks to see.
_BETWEEN, _FEWEST_LOOKS, _MOST_LOOKS, _STILL = 4, 8, 200, 0.02
# Looks that it takes to fill mass that good weights had missed, since no chain starts in it.
_LOOKS_TO_FILL = 24
# Looks after which chains that still remember, where others have forgotten, will not cross between modes.
_PATIENCE = 16
# Looks after which chains have left draws that missed half of the mass, and by how many sds at least. (After
# four or five some such draws are not found out.)
_LOOKS_TO_LEAVE, _LEFT = 6, 0.04
# From so many looks on, chains that moved by less than so many standard errors in any moment will not leave:
# of 75 tries from draws that missed half of the mass all had moved by 3.2 and more, most by 6.7.
_LOOKS_TO_SETTLE, _CALM = 4, 2.5
# Looks that it takes, with all that follows, and seconds that are worth a word.
_TYPICAL, _LONG = 16, 20.0
# Steps of the noise's scales given residuals, which cost little, and their sizes in logs, times these.
_NOISE_STEPS, _NOISE_SIZES = 8, {"noise_sd": 0.3, "noise_df": 0.8}
_LENGTHS = np.array([0.3, 1.0])
# Of chains: one half proposes for the other.
_HALVES = slice(0, None, 2), slice(1, None, 2)
# Of proposals, as in `bayescale.inference.fast`; what their scales have at least, should points coincide; and
# sweeps that they are fitted to: 180 points of one would leave them noisy, and chains slower to forget.
_COMPONENTS, _JITTER, _LATELY = 3, 1e-8, 4
# Of moves, this share is proposed by a mixture so much wider: else tails take long to fill.
_WIDE = 0.2, 3.0
# Draws to return for every one that chains keep: neighbours are much alike, so that some may repeat.
_REPEATS = 2.1
# Draws of every chain that enter the bridge, about, and proposals at its other end.
_BRIDGED, _PROPOSALS = 8, 1500
# Where the evidence's error is larger, nats, another bridge is tried.
_UNCERTAIN = 0.1


class Moved(NamedTuple):
    """Draws of chains, and whether they may be believed.

    `z` has shape (draw, size), as `Model.with_plain_weights` has it; those of a chain follow each other.
    `memory` is the largest rank correlation of a parameter with where its chain started, `drift` by how many
    sds a mean or spread moved, beyond three standard errors, from the second quarter of looks to the later
    half, `ess` the smallest number of independent draws that they are worth for a parameter's mean. Where no
    bridge holds, there is no evidence.
    """

    z: np.ndarray
    evidence: Evidence | None
    memory: float
    drift: float
    ess: float


def move_on(
    latent: LatentNormals,
    z: np.ndarray,
    draws: int,
    rng: np.random.Generator,
    progress: Callable[[str], None],
    *,
    patient: bool = True,
    missed: bool = False,
) -> Moved | None:
    """Move draws on until they have forgotten where they were.

    Chains do not cross between modes far apart: how likely each of them is only where chains start says.
    Unless `patient`, None where they neither forget that nor leave.

    Parameters
    ----------
    latent : LatentNormals
        Of the model.
    z : array, shape (CHAINS, size)
        Where chains start, points of `Model.with_plain_weights`.
    draws : int
        To return, of all chains together.
    rng : Generator
        Of all that is drawn.
    progress : callable
        Told where it takes long.
    patient : bool
        Whether to go on where chains seem not to forget.
    missed : bool
        Whether the draws are known to lack some of the mass: chains would leave them (`stay`).
    """
    chains, first = _Chains(latent, z, rng), z[:, : latent.size]
    memories, moments = list[float](), list[np.ndarray]()
    fewest = _LOOKS_TO_FILL if missed else _FEWEST_LOOKS
    started = time.perf_counter()
    for look in range(1, _MOST_LOOKS + 1):
        moments.append(chains.learn_and_sweep(_BETWEEN))
        chains.move_far()
        memories.append(_memory(first, chains.theta))
        taken = _TYPICAL * (time.perf_counter() - started)
        if look == 1 and taken > _LONG:
            progress(f"the misfit is far from Gaussian: moving draws on by chains, some {taken:.0f} s ...")
        drift = _drift(moments, chains.moments())
        forgotten = max(memories[look // 2 - 1], memories[-1]) < MAX_MEMORY
        if look >= fewest and forgotten and drift < _STILL:
            break
        if not patient and look >= _PATIENCE and memories[-1] >= MAX_MEMORY and drift < _STILL:
            return None
    kept, precision = chains.draw(max(math.ceil(draws / (_REPEATS * len(z))), _BRIDGED))
    evidence = _evidence(latent, kept, precision, rng)
    ess = min(worth(kept[..., i]) for i in range(latent.size))
    shown = np.linspace(0, kept[..., 0].size - 1, draws).round().astype(int)
    return Moved(kept.reshape(-1, kept.shape[-1])[shown], evidence, memories[-1], drift, ess)


def stay(latent: LatentNormals, z: np.ndarray, rng: np.random.Generator) -> bool:
    """Tell whether chains that start at draws of the posterior, (CHAINS, size), stay where these are.

    Where importance has missed some of the mass, by luck with good weights, they are soon on their way there.
    """
    chains = _Chains(latent, z, rng)
    before = chains.moments()
    for look in range(1, _LOOKS_TO_LEAVE + 1):
        after = chains.learn_and_sweep(_BETWEEN)
        chains.move_far()
        if look >= _LOOKS_TO_SETTLE:
            moved, error = _mean_move(before, after)
            if np.all(np.abs(moved) < _CALM * error):
                return True
    return _moved(before, after, chains.moments()) < _LEFT


def worth(values: np.ndarray) -> float:
    """Return the number of independent draws that values of chains, (chain, draw), are worth for their mean.

    Chains are independent of each other, so that the scatter of their means tells.
    """
    of_means = values.mean(axis=1).var(ddof=1) / len(values)
    return float(values.var() / of_means) if of_means > 0 else 0.0


def _memory(start: np.ndarray, now: np.ndarray) -> float:
    """Return the largest rank correlation of a coordinate with its start; a few far off do not make it."""
    ranks = [points.argsort(axis=0, kind="stable").argsort(axis=0) for points in (start, now)]
    return max(float(np.corrcoef(a, b)[0, 1]) for a, b in zip(*(r.T for r in ranks), strict=True))


def _drift(moments: list[np.ndarray], now: np.ndarray) -> float:
    """Return by how many sds, now, a mean or spread moved from the second quarter of looks to the later half.

    Where chains find a mode that they did not start in, they remember little, and still move there.
    """
    count = len(moments)
    before, after = moments[count // 4 : count // 2], moments[count // 2 :]
    if not before:
        return math.inf
    return _moved(np.mean(before, axis=0), np.mean(after, axis=0), now)


def _moved(before: np.ndarray, after: np.ndarray, now: np.ndarray) -> float:
    """Return by how many sds a mean of moments moved, at most, beyond three standard errors.

    All have shape (chain, moment); sds are those of moments now.
    """
    moved, error = _mean_move(before, after)
    beyond = np.abs(moved) - 3 * error
    return max(0.0, float(np.max(beyond / np.maximum(now.std(axis=0), np.finfo(float).tiny))))


def _mean_move(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much moments, (chain, moment), moved on average over chains, and the standard errors."""
    moved = after - before
    return moved.mean(axis=0), moved.std(axis=0) / math.sqrt(len(moved))


def _mixture(points: np.ndarray, rng: np.random.Generator) -> Mixture:
    """Return a mixture fitted to equally weighted points."""
    size = points.shape[1]
    whole = StudentT(points.mean(axis=0), np.cov(points.T).reshape(size, size) + _JITTER * np.eye(size))
    even = np.full(len(points), 1 / len(points))
    return Mixture(np.ones(1), [whole]).split(points, even, _COMPONENTS, rng)


class _State(NamedTuple):
    """Where chains are after a sweep, (chain, size), and the mean precision of each run in it."""

    z: np.ndarray
    precision: np.ndarray


class _Chains:
    """Chains that are swept together; each point has a basis of its own."""

    def __init__(self, latent: LatentNormals, z: np.ndarray, rng: np.random.Generator) -> None:
        self.latent, self.model, self.rng, self.rngs = latent, latent.model, rng, rng.spawn(2)
        self.theta, latents = z[:, : latent.size].copy(), z[:, latent.size :]
        self.basis_at = partial(latent.basis, groups=np.arange(len(z))[:, None])
        self.basis = self.basis_at(self.theta)
        self.latents = latent.in_basis(latents, self.basis)
        self.first_mean = self.theta.mean(axis=0)
        layout = self.model.layout
        self.noise_sizes = {name: size for name, size in _NOISE_SIZES.items() if name in layout}
        self.noise_axes = [layout[name].start for name in self.noise_sizes]
        # Precisions are drawn given the degrees of freedom, which moves given precisions therefore keep.
        self.all_axes = np.arange(latent.size)
        self.moving_axes = np.delete(self.all_axes, self.noise_axes[1:])
        self.latest: deque[_State] = deque(maxlen=_BRIDGED)

    def learn_and_sweep(self, count: int) -> np.ndarray:
        """Fit proposals to the chains, sweep so many times, and return mean moments of each.

        The proposal of either half is fitted to where the other lately was: one fitted to a chain's own
        points would take it from the tails too readily. Moments have shape (chain, 2 size): coordinates, then
        squares of how far these are from the first mean.
        """
        size = self.latent.size
        lately = np.array([state.z[:, :size] for state in self.latest][-_LATELY:] or [self.theta])
        others = (lately[:, half].reshape(-1, size) for half in reversed(_HALVES))
        self.proposals = [_mixture(points, self.rng).widened(*_WIDE) for points in others]
        moments = np.zeros((len(self.theta), 2 * self.theta.shape[1]))
        for _ in range(count):
            self.sweep()
            moments += self.moments() / count
        return moments

    def moments(self) -> np.ndarray:
        """Return those of where chains are."""
        return np.concatenate([self.theta, (self.theta - self.first_mean) ** 2], axis=1)

    def sweep(self) -> None:
        """Sweep once; until a proposal is fitted anew, this leaves the posterior as it is."""
        with np.errstate(all="ignore"):
            precision = self._draw_noise()
            self._move(precision)
        latents = self.latent.in_weights(self.latents, self.basis, self.rng)
        z = np.concatenate([self.theta, latents], axis=1)
        self.latest.append(_State(z, precision.mean(axis=0)))

    def move_far(self) -> None:
        """Move once more with precisions integrated out, which leaves the posterior as it is, too."""
        with np.errstate(all="ignore"):
            self._move(None)

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return so many draws of each chain, (chain, draw, size), and the mean precision of each run.

        The latest sweeps' will do: if chains have forgotten where they started, they had before these.
        """
        states = list(self.latest)
        while len(states) < count:
            self.sweep()
            states.append(self.latest[-1])
        z, precision = zip(*states, strict=True)
        return np.stack(z, axis=1), np.mean(precision, axis=0)

    def _draw_noise(self) -> np.ndarray:
        """Draw scales of the noise given residuals, then each run's precision relative to that scale's.

        The precisions have no say in the first: they are integrated out.
        """
        model, rng = self.model, self.rng
        residual = Conditional(model, self.theta, self.basis, None).residual(self.latents)
        log_p = self._log_of_noise(self.theta, residual)
        sizes = list(self.noise_sizes.values())
        for _ in range(_NOISE_STEPS):
            step = rng.standard_normal((len(residual), len(sizes))) * sizes
            moved = self.theta.copy()
            moved[:, self.noise_axes] += rng.choice(_LENGTHS, (len(residual), 1)) * step
            log_q = self._log_of_noise(moved, residual)
            taken = np.log(rng.random(len(residual))) < log_q - log_p
            self.theta[taken], log_p = moved[taken], np.where(taken, log_q, log_p)
        df = model.noise_df(self.theta)
        if df is None:
            return np.ones_like(residual)
        rate = 0.5 * (df + residual**2 / model.noise_variance(self.theta))
        return rng.standard_gamma(np.broadcast_to(0.5 * (df + 1), rate.shape)) / rate

    def _log_of_noise(self, theta: np.ndarray, residual: np.ndarray) -> np.ndarray:
        model = self.model
        likelihood = total_log_density(residual, model.noise_variance(theta), model.noise_df(theta))
        return likelihood + model.scales_log_prior(theta, self.noise_sizes)

    def _move(self, precision: np.ndarray | None) -> None:
        """Draw the latents afresh, then law and scales with them, given the precision of each run.

        Without precisions, integrated over them: that takes twice as long, and leads further.
        """
        theta, log_ratio = self._proposed(self.all_axes if precision is None else self.moving_axes)

        def given(theta: np.ndarray, basis: Basis | None, rng: np.random.Generator) -> _Given:
            with np.errstate(all="ignore"):  # a thread has its own
                basis = basis or self.basis_at(theta)
                conditional = Conditional(self.model, theta, basis, self.latent.known_squares)
                return _Given(conditional, precision, rng)

        here, there = self.latent.on_blocks(given, (self.theta, theta), (self.basis, None), self.rngs)
        log_p = here.log_density(self.latents)
        taken = np.log(self.rng.random(len(log_p))) < here.log_p - log_p
        self.latents[taken], log_p = here.drawn[taken], np.where(taken, here.log_p, log_p)
        taken = np.log(self.rng.random(len(log_p))) < there.log_p - log_p + log_ratio
        self.theta[taken], self.latents[taken] = theta[taken], there.drawn[taken]
        self.basis.take(taken, there.conditional.basis)

    def _proposed(self, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return points that are new on some axes, and log density ratios."""
        theta, log_ratio = self.theta.copy(), np.empty(len(self.theta))
        for half, proposal in zip(_HALVES, (p.of(axes) for p in self.proposals), strict=True):
            here = self.theta[half][:, axes]
            # Points come by component: unless they are shuffled, a chain would only meet its own.
            there = self.rng.permutation(proposal.sample(len(here), self.rng, []))
            log_ratio[half] = proposal.logpdf(here) - proposal.logpdf(there)
            theta[half, axes] = there
        return theta, log_ratio


class _Given:
    """Points, maybe given the precision of each run, and a Gaussian near that of their latents, with a draw.

    `log_p`, shape (point,), is the log density of points and the draw over that of the Gaussian, minus
    infinity for NaN.
    """

    def __init__(
        self, conditional: Conditional, precision: np.ndarray | None, rng: np.random.Generator
    ) -> None:
        self.conditional = conditional if precision is None else conditional.given(precision)
        about = conditional.about_mode if precision is None else self.conditional.gaussian
        self.gaussian = about(rng)
        self.drawn = self.gaussian.draw
        log_p = self._over(self.drawn, self.gaussian.log_q)
        self.log_p = np.where(np.isfinite(log_p), log_p, -np.inf)

    def log_density(self, latents: np.ndarray) -> np.ndarray:
        """Return the log density of points and other latents over that of the Gaussian."""
        return self._over(latents, self.gaussian.log_density(latents))

    def _over(self, latents: np.ndarray, log_q: np.ndarray) -> np.ndarray:
        return self.conditional.log_joint(latents) - log_q


def _evidence(
    latent: LatentNormals, kept: np.ndarray, precision: np.ndarray, rng: np.random.Generator
) -> Evidence | None:
    """Bridge the draws of half of the chains, (chain, draw, size), to a proposal that the other half made.

    Both ways about: the two estimates share no draw on either side of a bridge. The latents' Gaussian is that
    of runs as precise as they mostly are or, where that leaves the evidence uncertain, that about their mode,
    which takes three times as long.
    """
    spaced = kept[:, :: -(-kept.shape[1] // _BRIDGED)]
    halves = [spaced[::2], spaced[1::2]]
    best = _bridged(latent, halves, precision, rng)
    if best is None or not best.error < _UNCERTAIN:
        other = _bridged(latent, halves, None, rng)
        best = min((e for e in (best, other) if e is not None), key=lambda e: e.error, default=None)
    return best


def _bridged(
    latent: LatentNormals, halves: list[np.ndarray], precision: np.ndarray | None, rng: np.random.Generator
) -> Evidence | None:
    """Return the mean of both bridges, by halves of shape (chain, draw, size); None if one does not hold."""
    flat = [half.reshape(-1, half.shape[-1]) for half in halves]
    theta = [z[:, : latent.size] for z in flat]
    found = []
    for made, bridged in ((0, 1), (1, 0)):
        proposal = _mixture(theta[made], rng)
        drawn = proposal.sample(_PROPOSALS, rng, latent.shared_axes)
        at_proposals = latent.log_ratio(drawn, None, precision, rng) - proposal.logpdf(drawn)
        at_draws = latent.log_ratio(theta[bridged], flat[bridged][:, latent.size :], precision, rng)
        at_draws = (at_draws - proposal.logpdf(theta[bridged])).reshape(halves[bridged].shape[:2])
        try:
            found.append(bridge(at_draws, at_proposals, worth))
        except FitError:
            return None
    error = 0.5 * math.hypot(*(e.error for e in found))
    return Evidence(0.5 * sum(e.log for e in found), error, "bridge")
