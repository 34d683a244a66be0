"""Candidates: the runs that a plan may choose from, and what each costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayescale.errors import BudgetError, FitError
from bayescale.model.noise import normal_variance
from bayescale.targets import positive

if TYPE_CHECKING:
    from bayescale.fitting import Fit
    from bayescale.laws import Law
    from bayescale.runs import RunTable

# What a trainer would make of runs with the params and tokens of a frame: those, and compute, of each run.
Settle = Callable[[pd.DataFrame], pd.DataFrame]

# No run of a plan is cheaper than the dearest run that the budget buys over this. Laws are least right on the
# smallest runs, and a swarm of them pulls a fit away from where it is to forecast.
_MOST_RUNS = 50
# Candidates go so far beyond a table's params and tokens, where nothing says how far they are to go.
_REACH = 10.0
# Sizes of a table offered again, and the factor between larger ones and between tokens.
_MOST_SIZES = 12
_FACTOR = 2**0.5


def candidate_grid(
    table: "RunTable",
    laws: "Sequence[Law]",
    budget: float,
    *,
    most: Mapping[str, float] | None = None,
    dearest: float = np.inf,
    settle: Settle | None = None,
) -> pd.DataFrame:
    """Return runs of a table's sizes and larger, at tokens from its least up, that a budget can buy.

    Parameters
    ----------
    table : RunTable
        With params and tokens.
    laws : sequence of Law
        Of params, tokens and compute only.
    budget : float
        FLOP.
    most : mapping of str to float, optional
        Params and tokens to go up to, where that is beyond the table; ten times as far as it, if not given.
    dearest : float
        FLOP that no run may cost more than.
    settle : callable, optional
        What a trainer would make of these runs, if its sizes come in steps.

    Returns
    -------
    pandas.DataFrame
        Columns params, tokens and compute (FLOP).

    Raises
    ------
    FitError
        If a law has other inputs, or the table no params and tokens.
    BudgetError
        If the budget buys no run cheaper than the target.
    """
    for law in laws:
        known = set(law.columns) <= {"params", "tokens", "compute"}
        if not (known and {"params", "tokens"} <= set(table.frame)):
            raise FitError(
                f"law {law.name!r} on table {table.name!r} has inputs {', '.join(law.columns)}; only for "
                "params and tokens can candidates be made up: give a file of candidates with compute"
            )
    params, tokens = table.column("params"), table.column("tokens")
    sizes = np.unique(params)
    if len(sizes) > _MOST_SIZES:
        sizes = np.geomspace(sizes[0], sizes[-1], _MOST_SIZES)
    seen = {"params": params.max(), "tokens": tokens.max()}
    most = {name: _REACH * value for name, value in seen.items()} if most is None else seen | dict(most)
    sizes = np.concatenate([sizes, _up_to(sizes[-1], most["params"])])
    lengths = np.concatenate([[tokens.min()], _up_to(tokens.min(), max(tokens.max(), most["tokens"]))])
    n, d = (g.ravel() for g in np.meshgrid(sizes, lengths, indexing="ij"))
    pool = pd.DataFrame({"params": n, "tokens": d})
    pool = (
        pool.assign(compute=table.counting.compute(n, d))
        if settle is None
        else settle(pool).drop_duplicates()
    )
    cheaper = pool[pool["compute"] <= dearest]
    compute = cheaper["compute"]
    affordable = cheaper[(compute >= min(budget, compute.max()) / _MOST_RUNS) & (compute <= budget)]
    if affordable.empty:
        told = f"the cheapest costs {compute.min():.3g} FLOP" if len(cheaper) else "there is none"
        raise BudgetError(
            f"no run cheaper than the target costs {budget:.3g} FLOP or less: {told}; change the budget, or "
            "give candidates of your own"
        )
    return affordable.reset_index(drop=True)


def candidate_pool(
    candidates: "RunTable | pd.DataFrame", laws: "Sequence[Law]", budget: float
) -> tuple[pd.DataFrame, list[str]]:
    """Return the user's own candidates: the laws' inputs and compute, checked; and what to know of them.

    Parameters
    ----------
    candidates : RunTable or DataFrame
        A row per run that could be trained.
    laws : sequence of Law
        Whose inputs are needed.
    budget : float
        FLOP; of the candidates that it buys, the dearest settles which are too cheap to be considered.

    Returns
    -------
    pool : pandas.DataFrame
        The candidates left, numbered as they were given.
    notes : list of str
        How many were left out, if any.

    Raises
    ------
    FitError
        If a column is missing, there is no row, or a value is no positive number.
    BudgetError
        If the budget buys none of them.
    """
    frame = candidates if isinstance(candidates, pd.DataFrame) else candidates.frame
    needed = list(dict.fromkeys([*(c for law in laws for c in law.columns), "compute"]))
    if missing := [c for c in needed if c not in frame]:
        raise FitError(f"candidates have no column {missing[0]!r}; expected {', '.join(needed)}")
    extra = [c for c in ("params", "tokens", "unique_tokens") if c in frame and c not in needed]
    if frame.empty:
        raise FitError("candidates have no row; expected a row per run that could be trained")
    pool = frame[[*needed, *extra]].reset_index(drop=True)
    for column in needed:
        pool[column] = positive(pool[column], f"candidates, column {column!r}")
    compute = pool["compute"]
    if compute.min() > budget:
        raise BudgetError(
            f"the cheapest of {len(pool)} candidates costs {compute.min():.3g} FLOP, and the budget is "
            f"{budget:.3g}; change the budget, or the unit of the column compute"
        )
    least = compute[compute <= budget].max() / _MOST_RUNS
    cheap = compute < least
    if not cheap.any():
        return pool, []
    note = (
        f"not considered: {cheap.sum()} of {len(pool)} candidates, cheaper than {least:.3g} FLOP, a "
        f"{_MOST_RUNS}th of the dearest that the budget buys"
    )
    return pool[~cheap], [note]


def noise_variance(fit: "Fit") -> np.ndarray:
    """Return, per draw, the variance of a Normal that tells as much about expected log loss as a run."""
    of = fit.parameters
    # A new run is of a new group, or of the one that the fit is for.
    group_sd = of.get("group_sd") if fit.group is None else None
    return normal_variance(of["noise_sd"] ** 2, of.get("noise_df"), group_sd)


def _up_to(start: float, end: float) -> np.ndarray:
    """Return start times powers of the grid's factor, not above end (rounding apart)."""
    count = int(np.floor(np.log(max(end / start, 1)) / np.log(_FACTOR) + 1e-6))
    return start * _FACTOR ** np.arange(1, count + 1)
