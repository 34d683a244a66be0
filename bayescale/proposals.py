"""Proposals: runs chosen among candidates, what they cost and what each adds."""

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd

from bayescale.errors import FitError
from bayescale.greedy import Knowledge, choose_runs

if TYPE_CHECKING:
    from bayescale.fitting import Fit
    from bayescale.runs import RunTable

# Seeds of one candidate: noise is partly common to a size, and more seeds do not average that part away.
MOST_SEEDS = 4
_ADDED = ("compute", "correlation", "gain", "gain_per_flop", "chosen")


@dataclass(frozen=True, eq=False, kw_only=True)
class Proposal:
    """Runs proposed to be trained next.

    Attributes
    ----------
    runs : pandas.DataFrame
        A row per run in the order chosen, its index the candidate's: inputs, ``compute`` (FLOP), ``seed``,
        ``gain`` (what it adds after the runs before it), ``gain_per_flop``.
    candidates : pandas.DataFrame
        All runs considered: inputs, ``compute``, ``gain`` and ``gain_per_flop`` as a first run, and
        ``chosen`` (times).
    warnings : list of str
        What to know before acting on it.
    failed : list of str
        The laws whose fits failed their diagnostics, or whose evidence is too noisy to tell how probable
        they are: it is not to be relied on.
    gain_meaning : str
        Unit and meaning of gains.
    """

    runs: pd.DataFrame
    candidates: pd.DataFrame
    warnings: list[str]
    failed: list[str]
    gain_meaning: ClassVar[str]

    def __repr__(self) -> str:
        line = f"<{type(self).__name__} of {len(self.runs)} runs for {self.cost:.3g} FLOP; {self.headline}"
        return line + (f"; do not rely on it, or on {', '.join(self.failed)}>" if self.failed else ">")

    @property
    def cost(self) -> float:
        """Of all runs, FLOP."""
        return float(self.runs["compute"].sum())

    @property
    def headline(self) -> str:
        """What the runs are expected to do, in a line."""
        raise NotImplementedError

    @property
    def aim(self) -> dict[str, float | np.ndarray]:
        """Inputs of the run or runs whose loss is the target, if it is a loss."""
        return {}

    def grouped(self) -> pd.DataFrame:
        """Return a row per candidate chosen, most gain per FLOP first, with the number of its seeds."""
        inputs = [c for c in self.candidates if c not in _ADDED]
        kept = {c: (c, "first") for c in ("correlation",) if c in self.runs}
        rows = self.runs.groupby([*inputs, "compute"], sort=False, dropna=False)
        table = rows.agg(runs=("seed", "size"), **kept, gain=("gain", "sum")).reset_index()
        table["gain_per_flop"] = table["gain"] / (table["compute"] * table["runs"])
        return table.sort_values("gain_per_flop", ascending=False, ignore_index=True)


def positive_budget(budget: float) -> float:
    """Return a budget, FLOP.

    Raises
    ------
    FitError
        If it is not a positive number.
    """
    if not (isinstance(budget, Real) and np.isfinite(budget) and budget > 0):
        raise FitError(f"budget is {budget!r} FLOP; expected a positive number")
    return budget


def propose(
    start: Knowledge,
    pool: pd.DataFrame,
    table: "RunTable",
    budget: float,
    *,
    times: int,
    least_gain: float,
    unit: float = 1.0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose runs for a budget; return ``runs`` and ``candidates`` of a proposal.

    Parameters
    ----------
    start : Knowledge
        Before any run.
    pool : DataFrame
        Candidates, with ``compute``.
    table : RunTable
        Whose seeds no run may have.
    budget : float
        FLOP.
    times, least_gain
        As in `bayescale.greedy.choose_runs`.
    unit : float
        What gains are given as a multiple of.
    """
    cost = pool["compute"].to_numpy(float)
    steps = choose_runs(start, cost, budget, times=times, least_gain=least_gain)
    alone = start.values_with(np.arange(len(pool))) - start.value
    chosen = [s.candidate for s in steps]
    candidates = pool.assign(gain=alone / unit, gain_per_flop=alone / unit / cost)
    candidates["chosen"] = np.bincount(chosen, minlength=len(pool))
    gains = np.array([s.gain for s in steps]) / unit
    first = table.first_new_seed()  # rounding may make two sizes one, but never two runs one
    runs = pool.iloc[chosen].assign(seed=np.arange(first, first + len(steps)), gain=gains)
    runs["gain_per_flop"] = runs["gain"] / runs["compute"]
    return runs, candidates


def warnings_of(
    fits: "dict[str, Fit]",
    reasons: dict[str, list[str]],
    runs: pd.DataFrame,
    about: str,
    without_discrepancy: str,
) -> list[str]:
    """Return what to know before acting on runs proposed from fits, by label, to learn about something."""
    label = {name: "" if len({*fits, *reasons}) == 1 else f"{name}: " for name in (*fits, *reasons)}
    found = [f"do not rely on this plan: {label[n]}{r}" for n, those in reasons.items() for r in those]
    found += [f"{label[name]}{caution}" for name, fit in fits.items() for caution in fit.cautions]
    if any(fit.model.discrepancy is None for fit in fits.values()):
        found.append(f"no discrepancy: {without_discrepancy}")
    if runs.empty:
        found.append(f"no affordable run tells anything about {about} that can be told from chance")
    return found
