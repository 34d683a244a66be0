"""A plan to tell laws apart: the runs worth training next to know which of several laws is right."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayescale.candidates import Settle, candidate_grid, candidate_pool, noise_variance
from bayescale.comparison import Comparison
from bayescale.discrimination import Prediction, divergence, pairs_of
from bayescale.errors import FitError
from bayescale.forecasts import expected_loss
from bayescale.proposals import MOST_SEEDS, Proposal, positive_budget, propose, warnings_of
from bayescale.targets import MAX_DRAWS, ratios_of

if TYPE_CHECKING:
    from bayescale.fitting import Fit
    from bayescale.runs import RunTable

# A law less probable than this is out of the running.
_MIN_PROBABILITY = 1e-3


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LawPlan(Proposal):
    """Runs proposed to be trained next, to tell laws apart.

    Attributes
    ----------
    odds : pandas.DataFrame
        A row per law: its ``probability`` now; its strongest ``rival`` after the plan, were the law right;
        the ``log_odds`` over that rival now; and those ``expected`` after the plan, were the law right, nats.
    """

    gain_meaning = "nats about the law"
    odds: pd.DataFrame

    @property
    def uncertainty(self) -> float:
        """Of which law is right, now: the entropy of their probabilities, nats."""
        p = self.odds["probability"].to_numpy()
        return float(-(p * np.log(p)).sum())

    @property
    def information(self) -> float:
        """How much of it the runs are expected to remove at least, nats."""
        return float(self.runs["gain"].sum())

    @property
    def headline(self) -> str:
        """What the plan is expected to do, in a line."""
        return f"which law: {self.information:.2g} of {self.uncertainty:.2g} nats of doubt removed"


def plan_between(
    compared: "Comparison",
    budget: float,
    *,
    candidates: "RunTable | pd.DataFrame | None" = None,
    settle: Settle | None = None,
    group: str | None = None,
    seed: int = 0,
) -> LawPlan:
    """Choose the runs that are expected to tell most, per FLOP, about which law is right.

    Parameters
    ----------
    compared : Comparison
        The laws, each as probable as its evidence makes it.
    budget : float
        FLOP to spend.
    candidates : RunTable or DataFrame, optional
        As in `bayescale.plan`. Without it, a grid of params and tokens, ten times beyond the table's.
    settle, group : optional
        As in `bayescale.plan`.
    seed : int
        Of the discrepancy away from the table.

    Raises
    ------
    FitError
        If all laws but one are out of the running already, or no candidate is affordable.
    """
    if not isinstance(compared, Comparison):
        found = type(compared).__name__
        raise FitError(f"found a {found}; expected a comparison, as bayescale.compare returns")
    budget = positive_budget(budget)
    probability = {n: p for n, p in compared.probabilities.items() if p > _MIN_PROBABILITY}
    if len(probability) < 2:
        best = compared.labels[0]
        raise FitError(
            f"the {len(compared.table)} runs of {compared.table.name!r} have told these laws apart already: "
            f"{best} has probability {compared.probabilities[best]:.4f}"
        )
    fits = {name: compared.fits[name].for_group(group) for name in probability}
    pool, notes = _pool(fits, compared.table, budget, candidates, settle)
    total = sum(probability.values())
    laws = [_prediction(fit, probability[name] / total, pool, seed) for name, fit in fits.items()]
    times = MOST_SEEDS if candidates is None else 1
    # Means and covariances from n draws are off by 1 / sqrt(n): gains below 1 / n may be nothing but that.
    least = 1 / min(fit.z[..., 0].size for fit in fits.values())
    runs, pool = propose(pairs_of(laws), pool, compared.table, budget, times=times, least_gain=least)
    warnings = warnings_of(
        fits, compared.reasons, runs, "which law is right",
        "the laws are taken at their word, and part sooner than they should",
    )  # fmt: skip
    if out := [n for n in compared.labels if n not in fits]:
        warnings.append(f"out of the running already, and not planned for: {', '.join(out)}")
    odds = _odds(list(fits), laws, pool.index.get_indexer(runs.index).tolist())
    return LawPlan(
        runs=runs, candidates=pool, warnings=warnings + notes, failed=list(compared.reasons), odds=odds
    )


def _pool(
    fits: "dict[str, Fit]",
    table: "RunTable",
    budget: float,
    candidates: "RunTable | pd.DataFrame | None",
    settle: Settle | None,
) -> tuple[pd.DataFrame, list[str]]:
    laws = [fit.law for fit in fits.values()]
    if candidates is not None:
        return candidate_pool(candidates, laws, budget)
    # Laws part where runs are unlike the table's: candidates go beyond it.
    pool = candidate_grid(table, laws, budget, settle=settle)
    return pool, table.counting.warnings if settle is None else []


def _prediction(fit: "Fit", probability: float, pool: pd.DataFrame, seed: int) -> Prediction:
    fit = fit.thinned(MAX_DRAWS)
    inputs = {c: pool[c].to_numpy(float) for c in fit.law.columns}
    losses = np.log(expected_loss(fit, ratios_of(fit, inputs), np.random.default_rng(seed)))
    covariance = np.cov(losses, rowvar=False).reshape(2 * losses.shape[1:])
    return Prediction(probability, losses.mean(axis=0), covariance, float(noise_variance(fit).mean()))


def _odds(names: list[str], laws: list[Prediction], chosen: list[int]) -> pd.DataFrame:
    rows = []
    for i, law in enumerate(laws):
        now = {j: math.log(law.probability / rival.probability) for j, rival in enumerate(laws) if j != i}
        after = {j: now[j] + divergence(law, laws[j], chosen) for j in now}
        rival = min(after, key=lambda j: after[j])
        row = {"law": names[i], "probability": law.probability, "rival": names[rival]}
        rows.append(row | {"log_odds": now[rival], "expected": after[rival]})
    return pd.DataFrame(rows).set_index("law")
