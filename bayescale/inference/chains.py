"""Draws moved on by many short chains, where the latents have more modes than a Gaussian sees.

Where noise is small and heavy-tailed, each choice of which runs are outliers has a mode of its own. But
Student-t noise is Normal noise whose precision differs from run to run, and given these the latents are all
but Gaussian, whatever the choice. So a sweep draws the scales of the noise given residuals, then each run's
precision, then all else at once: law and other scales move by the difference of two draws (ter Braak 2006,
doi:10.1007/s11222-006-8769-1) or, every second time, to wherever a mixture fitted to all chains proposes,
latents come fresh from their Gaussian, and Metropolis decides. Each of these leaves the posterior as it is.

Chains start at draws by importance, and go on until they have forgotten where. Two halves of them then give
the evidence: each bridges its draws to a proposal that the other made.
"""

import math
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from bayescale.errors import FitError
from bayescale.inference.basis import Basis, basis_of
from bayescale.inference.bridge import bridge
from bayescale.inference.conditional import Conditional
from bayescale.inference.diagnostics import MAX_MEMORY
from bayescale.inference.evidence import Evidence
from bayescale.inference.latent import LatentNormals
from bayescale.inference.proposal import Mixture, StudentT
from bayescale.model.model import Model
from bayescale.model.noise import total_log_density

# Chains, and how many of them are swept together: two blocks for two threads; smaller ones wait for Python.
CHAINS, _BLOCK = 360, 180
# Sweeps between looks at what is remembered, and the most of them until it is little enough to pass. As many
# sweeps again then leave its square, as good as nothing.
_BETWEEN, _MOST_SWEEPS = 10, 300
# Looks that it takes, with all that follows, and seconds that are worth a word.
_TYPICAL, _LONG = 8, 20.0
# Steps of the noise's scales given residuals, which cost next to nothing, and their sizes in logs.
_NOISE_STEPS, _NOISE_SIZES = 8, {"noise_sd": 0.3, "noise_df": 0.8}
# Steps, of the noise and by differences of two draws, are this long: of the latter as shares of the length
# that is best for a Gaussian.
_LENGTHS = np.array([0.3, 1.0])
# Of proposals, as in `bayescale.inference.fast`; and what their scales have at least, should points coincide.
_COMPONENTS, _JITTER = 3, 1e-8
# Draws of every chain that enter the bridge, about, and proposals at its other end.
_BRIDGED, _PROPOSALS = 8, 3000
# Where the evidence's error is larger, nats, another bridge is tried.
_UNCERTAIN = 0.2


class Moved(NamedTuple):
    """Draws of chains, and whether they may be believed.

    `z` has shape (draw, size), as `Model.with_plain_weights` has it; those of a chain follow each other.
    `memory` is the largest rank correlation of a parameter with where its chain started, `ess` the smallest
    number of independent draws that they are worth for a parameter's mean. Where no bridge holds, there is no
    evidence.
    """

    z: np.ndarray
    evidence: Evidence | None
    memory: float
    ess: float


def move_on(
    latent: LatentNormals,
    u: np.ndarray,
    latents: np.ndarray,
    draws: int,
    rng: np.random.Generator,
    progress: Callable[[str], None],
) -> Moved:
    """Move draws on until they have forgotten where they were.

    Parameters
    ----------
    latent : LatentNormals
        Of the model.
    u, latents : array, shape (CHAINS, size) and (CHAINS, latent)
        Where chains start: points, and the latents there.
    draws : int
        To return, of all chains together.
    rng : Generator
        Of all that is drawn.
    progress : callable
        Told where it takes long.
    """
    starts = range(0, len(u), _BLOCK)
    blocks = [
        _Chains(latent, u[i : i + _BLOCK], latents[i : i + _BLOCK], own)
        for i, own in zip(starts, rng.spawn(len(starts)), strict=True)
    ]
    first = np.concatenate([b.theta for b in blocks])

    def sweep(count: int) -> None:
        list(latent.on_blocks(lambda b: b.sweeps(count), blocks))

    started = time.perf_counter()
    for done in range(_BETWEEN, _MOST_SWEEPS + 1, _BETWEEN):
        elsewhere = _mixture(u, rng)
        for block in blocks:
            block.learn(u, elsewhere)
        sweep(_BETWEEN)
        taken = _TYPICAL * (time.perf_counter() - started)
        if done == _BETWEEN and taken > _LONG:
            progress(f"the misfit is far from Gaussian: moving draws on by chains, some {taken:.0f} s ...")
        if _memory(first, blocks) < MAX_MEMORY:
            sweep(done)
            if _memory(first, blocks) < MAX_MEMORY:  # not by luck before
                break
        u = np.concatenate([b.standardised()[0] for b in blocks])
    count = max(-(-draws // len(u)), _BRIDGED)
    parts, precisions = zip(*latent.on_blocks(lambda b: b.draw(count), blocks), strict=True)
    kept = np.concatenate(parts)
    evidence = _evidence(latent, kept, np.mean(precisions, axis=0), rng)
    ess = min(worth(kept[..., i]) for i in range(latent.size))
    shown = np.linspace(0, kept[..., 0].size - 1, draws).round().astype(int)
    return Moved(kept.reshape(-1, kept.shape[-1])[shown], evidence, _memory(first, blocks), ess)


def worth(values: np.ndarray) -> float:
    """Return the number of independent draws that values of chains, (chain, draw), are worth for their mean.

    Chains are independent of each other, so that the scatter of their means tells.
    """
    of_means = values.mean(axis=1).var(ddof=1) / len(values)
    return float(values.var() / of_means) if of_means > 0 else 0.0


def _memory(start: np.ndarray, blocks: Sequence["_Chains"]) -> float:
    """Return the largest rank correlation of a coordinate with its start; a few far off do not make it."""
    now = np.concatenate([b.theta for b in blocks])
    ranks = [points.argsort(axis=0, kind="stable").argsort(axis=0) for points in (start, now)]
    return max(float(np.corrcoef(a, b)[0, 1]) for a, b in zip(*(r.T for r in ranks), strict=True))


def _mixture(points: np.ndarray, rng: np.random.Generator) -> Mixture:
    """Return a mixture fitted to equally weighted points."""
    size = points.shape[1]
    whole = StudentT(points.mean(axis=0), np.cov(points.T).reshape(size, size) + _JITTER * np.eye(size))
    even = np.full(len(points), 1 / len(points))
    return Mixture(np.ones(1), [whole]).split(points, even, _COMPONENTS, rng)


class _Chains:
    """Chains of one block, swept together; each point has a basis of its own."""

    def __init__(
        self, latent: LatentNormals, u: np.ndarray, latents: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.model, self.standard, self.rng = latent.model, latent.standard, rng
        self.alone = np.arange(len(u))[:, None]
        self.basis = self._basis(u)
        self.theta, _ = self.standard.to_theta(u, self.basis)
        weights, offsets = np.split(latents, [latents.shape[1] - len(self.model.group_names)], axis=1)
        self.latents = np.concatenate([self.basis.seen(weights), offsets], axis=1)
        layout = self.model.layout
        self.noise_axes = [layout[n].start for n in _NOISE_SIZES if n in layout]
        self.other_axes = np.delete(np.arange(u.shape[1]), self.noise_axes)
        self.bold = cycle((True, False))

    def standardised(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where chains are, u of shape (chain, size), and log |d theta / d u|."""
        return self.standard.from_theta(self.theta, self.basis)

    def learn(self, archive: np.ndarray, elsewhere: Mixture) -> None:
        """Take draws u whose differences are steps, and a proposal of points wherever a chain is.

        While these stay as they are, every sweep leaves the posterior as it is.
        """
        self.elsewhere = elsewhere.of(self.other_axes)
        self.archive = archive.copy()
        still = [*self.model.shape_axes, *self.noise_axes[1:]]
        self.archive[:, still] = 0.0
        self.step = 2.38 / math.sqrt(2 * (archive.shape[1] - len(still)))

    def _basis(self, u: np.ndarray) -> Basis:
        return basis_of(self.model, u, self.alone, self.standard.slope, every=False)

    def sweeps(self, count: int) -> None:
        """Sweep so many times; every second one is a bold one."""
        with np.errstate(all="ignore"):
            for bold in islice(self.bold, count):
                self.precision = self._draw_noise()
                self._move(self.precision, bold=bold)

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return so many draws of each chain, (chain, draw, size), and the mean precision of each run."""
        kept, precision = [], np.zeros_like(self.model.log_loss)
        for _ in range(count):
            self.sweeps(1)
            precision += np.mean(self.precision, axis=0) / count
            seen, offsets = np.split(self.latents, [self.basis.size], axis=1)
            kept.append(np.concatenate([self.theta, self.basis.all_weights(seen, self.rng), offsets], axis=1))
        return np.stack(kept, axis=1), precision

    def _draw_noise(self) -> np.ndarray:
        """Draw scales of the noise given residuals, then each run's precision relative to that scale's.

        The precisions have no say in the first: they are integrated out.
        """
        model, rng = self.model, self.rng
        here = Conditional(model, self.theta, self.basis, None)
        residual = here.residual(self.latents)
        log_p = self._log_of_noise(self.theta, residual)
        sizes = [s for n, s in _NOISE_SIZES.items() if n in model.layout]
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
        return likelihood + model.scales_log_prior(theta)

    def _move(self, precision: np.ndarray, *, bold: bool) -> None:
        """Draw the latents afresh, then law and scales with them, given the precision of each run.

        A bold move goes elsewhere, whatever the noise's scales; others keep the discrepancy's lengths, and so
        the basis, which costs as much as all else, and the noise's degrees of freedom.
        """
        rng = self.rng
        u, log_jacobian = self.standardised()
        here = _Given(self.model, self.theta, self.basis, precision, log_jacobian)
        log_p = here.log_density(self.latents)
        fresh, log_q = here.drawn(rng)
        taken = np.log(rng.random(len(u))) < log_q - log_p
        self.latents[taken], log_p = fresh[taken], np.where(taken, log_q, log_p)
        away, log_ratio = self._elsewhere(u) if bold else (u + self._step(len(u)), 0.0)
        basis = self._basis(away) if bold else self.basis
        theta, log_jacobian = self.standard.to_theta(away, basis)
        fresh, log_q = _Given(self.model, theta, basis, precision, log_jacobian).drawn(rng)
        taken = np.log(rng.random(len(u))) < log_q - log_p + log_ratio
        self.theta[taken] = theta[taken]
        if bold:
            before, self.basis = self.basis, self.basis.with_groups(taken, basis)
            self.latents = before.resized(self.latents, self.basis.size, rng)
            fresh = basis.resized(fresh, self.basis.size, rng)
        self.latents[taken] = fresh[taken]

    def _elsewhere(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return points that share the noise's scales with u, all else new, and log density ratios."""
        away = u.copy()
        away[:, self.other_axes] = self.elsewhere.sample(len(u), self.rng, [])
        log_q = [self.elsewhere.logpdf(points[:, self.other_axes]) for points in (u, away)]
        return away, log_q[0] - log_q[1]

    def _step(self, count: int) -> np.ndarray:
        first, second = self.rng.integers(len(self.archive), size=(2, count))
        length = self.step * self.rng.choice(_LENGTHS, (count, 1))
        return length * (self.archive[first] - self.archive[second])


class _Given:
    """Points given the precision of each run, and the Gaussian that their latents all but have."""

    def __init__(
        self,
        model: Model,
        theta: np.ndarray,
        basis: Basis,
        precision: np.ndarray,
        log_jacobian: np.ndarray,
    ) -> None:
        self.conditional = Conditional(model, theta, basis, None).given(precision)
        self.gaussian, self.log_jacobian = self.conditional.gaussian(), log_jacobian

    def log_density(self, latents: np.ndarray) -> np.ndarray:
        """Return the log density of points and latents over that of the Gaussian."""
        return self._over(latents, self.gaussian.log_density(latents))

    def drawn(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return latents drawn from the Gaussian, and `log_density` there, minus infinity for NaN."""
        latents, log_q = self.gaussian.draw(rng)
        log_density = self._over(latents, log_q)
        return latents, np.where(np.isfinite(log_density), log_density, -np.inf)

    def _over(self, latents: np.ndarray, log_q: np.ndarray) -> np.ndarray:
        return self.conditional.log_joint(latents) + self.log_jacobian - log_q


def _evidence(
    latent: LatentNormals, kept: np.ndarray, precision: np.ndarray, rng: np.random.Generator
) -> Evidence | None:
    """Bridge the draws of half of the chains, (chain, draw, size), to a proposal that the other half made.

    Both ways about: the two estimates share no draw on either side of a bridge. The latents' Gaussian is that
    about their mode or, where that leaves the evidence uncertain, that of runs as precise as they mostly are.
    """
    spaced = kept[:, :: -(-kept.shape[1] // _BRIDGED)]
    halves = [spaced[::2], spaced[1::2]]
    best = _bridged(latent, halves, None, rng)
    if best is None or not best.error < _UNCERTAIN:
        other = _bridged(latent, halves, precision, rng)
        best = min((e for e in (best, other) if e is not None), key=lambda e: e.error, default=None)
    return best


def _bridged(
    latent: LatentNormals, halves: list[np.ndarray], precision: np.ndarray | None, rng: np.random.Generator
) -> Evidence | None:
    """Return the mean of both bridges, by halves of shape (chain, draw, size); None if one does not hold."""
    flat = [half.reshape(-1, half.shape[-1]) for half in halves]
    u = [latent.standardised(half[:, : latent.size]) for half in flat]
    found = []
    for made, bridged in ((0, 1), (1, 0)):
        proposal = _mixture(u[made], rng)
        drawn = proposal.sample(_PROPOSALS, rng, latent.shared_axes)
        at_proposals = latent.log_ratio(drawn, None, precision, rng) - proposal.logpdf(drawn)
        at_draws = latent.log_ratio(u[bridged], flat[bridged][:, latent.size :], precision, rng)
        at_draws = (at_draws - proposal.logpdf(u[bridged])).reshape(halves[bridged].shape[:2])
        try:
            found.append(bridge(at_draws, at_proposals, worth))
        except FitError:
            return None
    error = 0.5 * math.hypot(*(e.error for e in found))
    return Evidence(0.5 * sum(e.log for e in found), error, "bridge")
