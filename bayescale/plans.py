"""Plan: the runs worth training next for a target, their cost, and what they are expected to tell."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayescale.candidates import (
    MOST_SEEDS,
    by_candidate,
    candidate_grid,
    candidate_pool,
    cost,
    noise_variance,
    seeds_from,
)
from bayescale.comparison import Comparison
from bayescale.design import choose_runs, gains, joint_covariance
from bayescale.errors import FitError
from bayescale.targets import MAX_DRAWS, Target, band, joint_draws, parse_target, table_target

if TYPE_CHECKING:
    from bayescale.fitting import Fit
    from bayescale.runs import RunTable

# Laws with less probability than this change no plan.
_MIN_PROBABILITY = 0.01


@dataclass(frozen=True, eq=False)
class Plan:
    """Runs proposed to be trained next.

    Attributes
    ----------
    runs : pandas.DataFrame
        A row per run in the order chosen, its index the candidate's: inputs, ``compute`` (FLOP), ``seed``,
        ``correlation`` (of its expected loss with the target, given the runs before it), ``gain`` (share of
        the target's present variance that it removes), ``gain_per_flop``, ``width`` (of the target's 90%
        band after it).
    candidates : pandas.DataFrame
        All runs considered: inputs, ``compute``, ``gain`` and ``gain_per_flop`` as a first run, and
        ``chosen`` (times).
    target : Target
        What is to be made certain.
    description, unit : str
        The target in words, and the unit of its band.
    band : (float, float)
        Ends of the target's present 90% band; where the target is several runs, this band and all widths are
        means over them.
    saved : float or None
        For the optimal params at a compute: FLOP of that budget which the plan is expected to save, by
        making the allocation better.
    warnings : list of str
        What to know before acting on it.
    """

    runs: pd.DataFrame
    candidates: pd.DataFrame
    target: Target
    description: str
    unit: str
    band: tuple[float, float]
    saved: float | None
    warnings: list[str]

    @property
    def cost(self) -> float:
        """Of all runs, FLOP."""
        return float(self.runs["compute"].sum())

    gain_meaning = "variance share removed"

    @property
    def headline(self) -> str:
        """What the plan is expected to do, in a line."""
        return f"{self.description}: 90% band {self.width:.3g} to {self.predicted_width:.3g} {self.unit}"

    @property
    def width(self) -> float:
        """Of the target's present 90% band."""
        return self.band[1] - self.band[0]

    def grouped(self) -> pd.DataFrame:
        """Return a row per candidate chosen, most gain per FLOP first, with the number of its seeds."""
        return by_candidate(self.runs, self.candidates, correlation=("correlation", "first"))

    @property
    def predicted_width(self) -> float:
        """Of the target's 90% band once the runs are trained."""
        return float(self.runs["width"].iloc[-1]) if len(self.runs) else self.width


def plan(
    posterior: "Fit | Comparison",
    target: "str | Target | RunTable | pd.DataFrame",
    budget: float,
    *,
    candidates: "RunTable | pd.DataFrame | None" = None,
    seed: int = 0,
) -> Plan:
    """Choose the runs that tell most about a target per FLOP.

    Parameters
    ----------
    posterior : Fit or Comparison
        Of one law; or of several, each as probable as its evidence makes it.
    target : str, Target, RunTable or DataFrame
        ``params=1e9,tokens=2e10`` (the loss there), ``compute=1e21`` (the optimal params there), a parameter
        such as ``E``, or a table: the losses at all its rows, whose variances are added up.
    budget : float
        FLOP to spend.
    candidates : RunTable or DataFrame, optional
        Runs that could be trained: the law's inputs and ``compute``, each row at most once. Without it, a
        grid of params and tokens cheaper than the target, where a run may be repeated with another seed.
    seed : int
        Of the discrepancy away from the table.

    Raises
    ------
    FitError
        If the target does not suit the law, or no candidate is affordable.
    """
    fits = _weighted(posterior)
    best = next(iter(fits.values()))[0]
    target = _target(best, target)
    if not (np.isfinite(budget) and budget > 0):
        raise FitError(f"budget is {budget:g} FLOP; expected a positive number")
    pool = _candidates(fits, target, budget, candidates)
    draws, losses = _joint_draws(fits, target, pool, seed)
    covariance = joint_covariance([np.log(losses), draws])
    noise = np.full(len(pool), sum(share * noise_variance(fit) for fit, share in fits.values()))
    costs, present = pool["compute"].to_numpy(float), np.diag(covariance)[len(pool) :]
    # A covariance from n draws is off by 1 / sqrt(n): gains below 1 / n may be nothing but that.
    least = present.sum() / len(draws)
    times = MOST_SEEDS if candidates is None else 1
    steps = choose_runs(covariance, noise, costs, budget, times=times, least_gain=least)
    chosen = [s.candidate for s in steps]
    runs = pool.iloc[chosen].copy()
    runs["seed"] = seeds_from(best.table, len(runs))
    runs["correlation"] = [s.correlation for s in steps]
    runs["gain"] = [s.gain / present.sum() for s in steps]
    runs["gain_per_flop"] = runs["gain"].to_numpy() / runs["compute"].to_numpy()
    widths = np.subtract(*np.quantile(draws, [0.95, 0.05], axis=0))
    runs["width"] = [float(np.mean(widths * np.sqrt(np.maximum(s.variance, 0) / present))) for s in steps]
    pool["gain"] = gains(covariance, noise) / present.sum()
    pool["gain_per_flop"] = pool["gain"] / costs
    pool["chosen"] = np.bincount(chosen, minlength=len(pool))
    saved = None
    if target.is_allocation(best) and len(runs):
        saved = _saved(fits, target, draws, float(steps[-1].variance[0] / present[0]), seed)
    warnings = _warnings(fits)
    if not len(runs):
        warnings.append("no affordable run tells anything about the target that can be told from chance")
    return Plan(runs, pool, target, *target.describe(best), band(draws), saved, warnings)


def _weighted(posterior: "Fit | Comparison") -> "dict[str, tuple[Fit, float]]":
    """Return fits by label, the most probable first, with probabilities that sum to one."""
    if not isinstance(posterior, Comparison):
        return {posterior.law.name: (posterior, 1.0)}
    kept = {n: p for n, p in posterior.probabilities.items() if p > _MIN_PROBABILITY}
    return {n: (posterior.fits[n], p / sum(kept.values())) for n, p in kept.items()}


def _joint_draws(
    fits: "dict[str, tuple[Fit, float]]", target: Target, pool: pd.DataFrame, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw target and candidates' losses of all laws together, each law by its probability."""
    rng = np.random.default_rng(seed)
    parts = []
    for fit, _ in fits.values():
        inputs = {c: pool[c].to_numpy(float) for c in fit.law.columns}
        parts.append(joint_draws(fit.thinned(MAX_DRAWS), target, inputs, seed))
    size = min(len(draws) for draws, _ in parts)
    picks = [
        rng.permutation(len(part[0]))[: round(share * size)]
        for part, (_, share) in zip(parts, fits.values(), strict=True)
    ]
    draws, losses = (
        np.concatenate([part[i][pick] for part, pick in zip(parts, picks, strict=True)]) for i in (0, 1)
    )
    return draws, losses


def _candidates(
    fits: "dict[str, tuple[Fit, float]]",
    target: Target,
    budget: float,
    candidates: "RunTable | pd.DataFrame | None",
) -> pd.DataFrame:
    laws = [fit.law for fit, _ in fits.values()]
    if candidates is not None:
        return candidate_pool(candidates, laws)
    table = next(iter(fits.values()))[0].table
    dearest = target.inputs.get("compute", np.inf)
    if target.inputs.keys() >= {"params", "tokens"}:
        dearest = 0.999 * float(np.max(cost(table, target.inputs["params"], target.inputs["tokens"])))
    most = {n: float(np.max(v)) for n, v in target.inputs.items() if n in ("params", "tokens")}
    return candidate_grid(table, laws, budget, most=most, dearest=dearest)


def _warnings(fits: "dict[str, tuple[Fit, float]]") -> list[str]:
    found = [
        f"do not rely on this plan: {'' if len(fits) == 1 else f'{name}: '}{reason}"
        for name, (fit, _) in fits.items()
        for reason in fit.diagnostics.failures
    ]
    if any(fit.model.discrepancy is None for fit, _ in fits.values()):
        found.append("no discrepancy: the fit is too sure of its law, and the plan with it")
    return found


def _target(fit: "Fit", target: "str | Target | RunTable | pd.DataFrame") -> Target:
    if isinstance(target, str):
        return parse_target(target)
    if isinstance(target, Target):
        return target
    return table_target(fit.law, target if isinstance(target, pd.DataFrame) else target.frame)


def _saved(
    fits: "dict[str, tuple[Fit, float]]", target: Target, draws: np.ndarray, left: float, seed: int
) -> float:
    """Return the FLOP saved if the optimum's variance falls to the share `left`; the waste goes with it."""
    from bayescale.deadweight import deadweight

    compute, params = target.inputs["compute"], float(10 ** np.median(draws))
    wasted = [
        share * float(deadweight(fit.thinned(MAX_DRAWS), compute, params, seed=seed).mean())
        for fit, share in fits.values()
    ]
    return sum(wasted) * (1 - left)
