"""Plan: the runs worth training next for a target, their cost, and what they are expected to tell."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayescale.candidates import Settle, candidate_grid, candidate_pool, noise_variance
from bayescale.comparison import Comparison
from bayescale.deadweight import deadweight
from bayescale.design import Draws, belief_from
from bayescale.errors import FitError
from bayescale.fitting import Fit, require_fit
from bayescale.forecasts import complete_inputs, decades_outside, outside_range, told_far
from bayescale.model.model import SHAPE_SCALES
from bayescale.optimum import optimal_runs
from bayescale.proposals import MOST_SEEDS, Proposal, positive_budget, propose, warnings_of
from bayescale.runs import RunTable
from bayescale.targets import MAX_DRAWS, Target, band, joint_draws, parse_target, table_target

# Laws with less probability than this change no plan.
_MIN_PROBABILITY = 0.01
# Draws of an allocation that tell how large candidates may be, and the share of them that they cover.
_FEW_DRAWS, _NEARLY_ALL = 400, 0.95


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Plan(Proposal):
    """Runs proposed to be trained next, to make a target certain.

    Attributes
    ----------
    runs : pandas.DataFrame
        Besides a proposal's columns ``correlation`` (of its expected loss with the target; with several, the
        strongest) and ``width`` (of the target's 90% band after it).
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
    """

    gain_meaning = "share of the band's width removed"
    target: Target
    description: str
    unit: str
    band: tuple[float, float]
    saved: float | None

    @property
    def headline(self) -> str:
        """What the plan is expected to do, in a line."""
        widths = f"{self.width:.3g} to {self.predicted_width:.3g} {self.unit}"
        return f"{self.description}: width of the 90% band {widths}"

    @property
    def aim(self) -> dict[str, float | np.ndarray]:
        """Inputs of the run or runs whose loss is the target, if it is a loss."""
        return self.target.inputs

    @property
    def width(self) -> float:
        """Of the target's present 90% band."""
        return self.band[1] - self.band[0]

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
    settle: Settle | None = None,
    group: str | None = None,
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
        Runs that could be trained: the law's inputs and ``compute``, each row at most once; those far cheaper
        than the budget allows are left out. Without it, a grid of params and tokens cheaper than the target,
        where a run may be repeated with another seed.
    settle : callable, optional
        Takes such runs as a frame of params and tokens, and returns those that a trainer would make of them,
        with ``compute``.
    group : str, optional
        Of fits with a group effect: the group, a value of its column, that the target and all runs are of.
        Without it each run is of a new group, whose offset is part of its noise.
    seed : int
        Of the discrepancy away from the table, and of the outcomes simulated.

    Raises
    ------
    FitError
        If the target does not suit the law, the group is none of the fit's, or no candidate is affordable.
    """
    fits = _weighted(posterior)
    fits = {name: (fit.for_group(group), share) for name, (fit, share) in fits.items()}
    best = next(iter(fits.values()))[0]
    target, budget = _target(best, target), positive_budget(budget)
    if len({target.is_allocation(fit.law) for fit, _ in fits.values()}) > 1:
        raise FitError(
            f"target {target} is an allocation for laws in params N and tokens D, and a loss for others; "
            f"there are both among {', '.join(fits)}: plan from laws of one kind"
        )
    far = _far(best, target)
    pool, notes = _candidates(fits, target, budget, candidates, settle)
    laws = _draws(fits, target, pool, seed)
    times = MOST_SEEDS if candidates is None else 1
    belief = belief_from(laws, seed=seed)
    targets = np.concatenate([law.targets for law in laws])
    pool["correlation"] = _correlation(np.concatenate([law.log_losses for law in laws]), targets)
    # Covariances from n draws are off by 1 / sqrt(n): variance shares below 1 / n may be nothing but that.
    least = belief.sd / (2 * len(targets))
    runs, pool = propose(belief, pool, best.table, budget, times=times, least_gain=least, unit=belief.sd)
    now = band(targets)
    runs["width"] = (now[1] - now[0]) * (1 - runs["gain"].cumsum())
    saved = None
    if target.is_allocation(best.law) and len(runs):
        saved = _saved(fits, target, targets, float(1 - runs["gain"].sum()) ** 2, seed)
    made_from = {name: fit for name, (fit, _) in fits.items()}
    reasons = _reasons(posterior)
    warnings = warnings_of(
        made_from, reasons, runs, "the target",
        "the fit is too sure of its law, and the plan with it",
    )  # fmt: skip
    words, unit = target.describe(best)
    return Plan(runs=runs, candidates=pool, warnings=warnings + far + notes, failed=list(reasons),
                target=target, description=words, unit=unit, band=now, saved=saved)  # fmt: skip


def _weighted(posterior: "Fit | Comparison") -> "dict[str, tuple[Fit, float]]":
    """Return fits by label, the most probable first, with probabilities that sum to one."""
    if not isinstance(posterior, Comparison):
        require_fit(posterior, "a fit or a comparison")
        return {posterior.law.name: (posterior, 1.0)}
    kept = {n: p for n, p in posterior.probabilities.items() if p > _MIN_PROBABILITY}
    return {n: (posterior.fits[n], p / sum(kept.values())) for n, p in kept.items()}


def _reasons(posterior: "Fit | Comparison") -> dict[str, list[str]]:
    """Return, by law, why not to rely on what is made from its fit, of those where there is a reason."""
    if isinstance(posterior, Comparison):
        return posterior.reasons
    return {posterior.law.name: posterior.diagnostics.failures} if posterior.diagnostics.failures else {}


def _far(fit: Fit, target: Target) -> list[str]:
    """Say how far the target lies outside the table; raise where that is absurd."""
    if target.parameter:
        return []
    if target.is_allocation(fit.law):
        compute = np.atleast_1d(target.inputs["compute"])
        return told_far({"compute": outside_range("compute", fit.table.column("compute"), compute)})
    return told_far(decades_outside(fit, complete_inputs(fit.law, fit.table.counting, target.inputs)))


def _draws(
    fits: "dict[str, tuple[Fit, float]]", target: Target, pool: pd.DataFrame, seed: int
) -> list[Draws]:
    """Draw target and candidates' losses of all laws, of each law as many as it is probable."""
    rng = np.random.default_rng(seed)
    drawn = [_draws_of(fit, target, pool, seed) for fit, _ in fits.values()]
    size = min(len(law.targets) for law in drawn)
    picks = [
        rng.permutation(len(law.targets))[: round(share * size)]
        for law, (_, share) in zip(drawn, fits.values(), strict=True)
    ]
    return [law.pick(part) for law, part in zip(drawn, picks, strict=True)]


def _draws_of(fit: "Fit", target: Target, pool: pd.DataFrame, seed: int) -> Draws:
    fit = fit.thinned(MAX_DRAWS)
    inputs = {c: pool[c].to_numpy(float) for c in fit.law.columns}
    noise = noise_variance(fit)
    misfit = [fit.parameters[n] for n in ("discrepancy_sd", *SHAPE_SCALES) if n in fit.parameters]
    kind = np.log(np.stack([noise, *misfit], axis=1))
    # A draw's discrepancy is unknown away from the table: drawn afresh, one posterior draw makes several.
    repeats = MAX_DRAWS // len(noise) if misfit else 1
    seeds = np.random.default_rng(seed).integers(2**32, size=repeats)
    parts = [joint_draws(fit, target, inputs, s) for s in seeds.tolist()]
    targets, losses = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Draws(targets, np.log(losses), np.tile(noise, repeats), np.tile(kind, (repeats, 1)))


def _correlation(log_losses: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return each candidate's correlation with the target, of several the strongest, shape (candidate,)."""
    scaled = [(x - x.mean(axis=0)) / x.std(axis=0) for x in (log_losses, targets.reshape(len(targets), -1))]
    every = scaled[0].T @ scaled[1] / len(targets)
    return every[np.arange(len(every)), np.abs(every).argmax(axis=1)]


def _candidates(
    fits: "dict[str, tuple[Fit, float]]",
    target: Target,
    budget: float,
    candidates: "RunTable | pd.DataFrame | None",
    settle: Settle | None,
) -> tuple[pd.DataFrame, list[str]]:
    laws = [fit.law for fit, _ in fits.values()]
    if candidates is not None:
        return candidate_pool(candidates, laws, budget)
    table = next(iter(fits.values()))[0].table
    sizes = _sizes([fit for fit, _ in fits.values()], target)
    dearest = 0.999 * sizes.pop("compute", np.inf)
    pool = candidate_grid(table, laws, budget, most=sizes or None, dearest=dearest, settle=settle)
    return pool, table.counting.warnings if settle is None else []


def _sizes(fits: "list[Fit]", target: Target) -> dict[str, float]:
    """Return the largest params, tokens and compute of the runs that the target is about.

    Of an allocation, those of nearly all of the posterior's optimal runs; of a parameter none.
    """
    if target.is_allocation(fits[0].law):
        compute = float(target.inputs["compute"])
        runs = [optimal_runs(fit.thinned(_FEW_DRAWS), compute, seed=0) for fit in fits]
        most = {n: max(float(np.quantile(r[n], _NEARLY_ALL)) for r in runs) for n in ("params", "tokens")}
        return most | {"compute": compute}
    return {name: float(np.max(v)) for name, v in target.sizes(fits[0].table.counting).items()}


def _target(fit: "Fit", target: "str | Target | RunTable | pd.DataFrame") -> Target:
    if isinstance(target, str):
        return parse_target(target)
    if isinstance(target, Target):
        return target
    if not isinstance(target, RunTable | pd.DataFrame):
        raise FitError(
            f"target: found a {type(target).__name__}; expected text such as 'params=1e9,tokens=2e10', a "
            "Target, or a table of runs"
        )
    frame = target if isinstance(target, pd.DataFrame) else target.frame
    return table_target(fit.law, frame, fit.table.counting)


def _saved(
    fits: "dict[str, tuple[Fit, float]]", target: Target, draws: np.ndarray, left: float, seed: int
) -> float:
    """Return the FLOP saved if the optimum's variance falls to the share `left`; the waste goes with it."""
    compute, params = target.inputs["compute"], float(10 ** np.median(draws))
    wasted = [
        share * float(deadweight(fit.thinned(MAX_DRAWS), compute, params, seed=seed).mean())
        for fit, share in fits.values()
    ]
    return sum(wasted) * (1 - left)
