"""Allocation: the params and tokens that a compute or a loss should be bought with, with their posterior.

They are found in `bayescale.optimum` and `bayescale.reaching`; here they are asked for, summarised, and given
what to know before acting on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bayescale.deadweight import deadweight
from bayescale.errors import FitError
from bayescale.fitting import require_fit
from bayescale.forecasts import FAR, INTERVALS, decades_beyond, outside_range
from bayescale.optimum import RATIO_RANGE, Held, has_closed_form, optimal_runs, positive_numbers
from bayescale.reaching import Reached, cheapest_runs

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Draws used where the optimum is searched for.
_MAX_DRAWS = 1000
# A share of draws beyond the table that moves the end of a 90% interval.
_MOVES_INTERVALS = 0.05


@dataclass(frozen=True, eq=False)
class Allocation:
    """Posterior of the compute-optimal run at given budgets.

    Attributes
    ----------
    draws : xarray.Dataset
        ``params``, ``tokens``, ``tokens_per_param``, ``compute`` (FLOP) and ``loss`` (nats/token, expected)
        with dimensions (sample, budget). Where no compute searched reaches a loss asked for, params,
        tokens and compute are infinite, 0 where less than was searched does, and all else is NaN. At a given
        compute also ``deadweight``, FLOP: what acting on the median allocation wastes
        (`bayescale.deadweight`). With tokens to serve also ``lifetime_compute``, FLOP, theirs included. Of
        laws in unique tokens also ``epochs``: how often a run sees them.
    closed_form : bool
        Whether the optimum came from the formula.
    warnings : list of str
        What to know before acting on it.
    held : mapping of str to float
        Column to value of the law's other inputs.
    """

    draws: xr.Dataset
    closed_form: bool
    warnings: list[str]
    held: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = [name for name in ("compute", "params", "tokens", "loss") if name in self.draws]
        medians = ", ".join(f"{name} {_quantile(self.draws[name].values[:, 0], 0.5):.4g}" for name in sizes)
        budgets = self.draws.sizes["budget"]
        line = (
            f"<Allocation, medians{' of the first' if budgets > 1 else ''} of {budgets} budget(s): {medians}"
        )
        return line + (f"; {len(self.warnings)} warning(s)>" if self.warnings else ">")

    def expected_deadweight(self) -> np.ndarray:
        """Return the compute expected to be wasted by acting on each budget's median allocation, FLOP.

        Raises
        ------
        FitError
            If losses to reach were asked for, which leave no budget to act on.
        """
        if "deadweight" not in self.draws:
            raise FitError("deadweight needs an allocation made for compute, not for loss")
        return self.draws["deadweight"].mean("sample").values

    def summary(self) -> pd.DataFrame:
        """Return median and 50/80/90% intervals, a row per budget and quantity."""
        rows = []
        units = {"params": "params", "tokens": "tokens", "compute": "FLOP", "loss": "nats/token"}
        units |= {"lifetime_compute": "FLOP", "deadweight": "FLOP", "epochs": "epochs"}
        for b in range(self.draws.sizes["budget"]):
            for name in units | {"tokens_per_param": ""}:
                if name not in self.draws:
                    continue
                values = self.draws[name].values[:, b]
                row: dict[str, Any] = {"budget": b, "quantity": name, "unit": units.get(name, "")}
                row["median"] = _quantile(values, 0.5)
                for width in INTERVALS:
                    row[f"{width:.0%}_low"] = _quantile(values, (1 - width) / 2)
                    row[f"{width:.0%}_high"] = _quantile(values, (1 + width) / 2)
                rows.append(row)
        return pd.DataFrame(rows)


def allocate(
    fit: "Fit",
    *,
    compute: Any = None,
    loss: Any = None,
    served_tokens: float = 0.0,
    group: Any = None,
    held: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Allocation:
    """Find the params and tokens that minimise loss at a compute, or reach a loss at least compute.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens, and perhaps others.
    compute : float or sequence of float, optional
        Budgets, FLOP.
    loss : float or sequence of float, optional
        Instead: losses to reach, nats/token.
    served_tokens : float
        With a loss to reach: tokens that the model will read or write once trained. Their compute counts too
        (arXiv:2401.00448; `bayescale.lifetime`).
    group : str, optional
        Of a fit with a group effect: the group whose losses these are, as in `bayescale.forecast`.
    held : mapping of str to float, optional
        Column to value of the law's other inputs, such as ``{"unique_tokens": 1e11}``. Unique tokens are
        those that there are: a run of fewer tokens sees no more than it trains on.
    seed : int
        Of the discrepancy away from the table.

    Raises
    ------
    FitError
        If the law is not one of params and tokens, another of its inputs is not given, not exactly one of
        compute and loss is, or tokens are to be served by what a compute buys.
    """
    require_fit(fit)
    at = _held(fit, held or {})
    symbols = dict(zip(fit.law.columns, fit.law.inputs, strict=True))
    held = {name: at[symbols[name]] for name in held or {}}
    fit = fit.for_group(group)
    if (compute is None) == (loss is None):
        raise FitError("give compute (FLOP) or loss (nats/token), one of them")
    if not (isinstance(served_tokens, Real) and 0 <= served_tokens < np.inf):
        raise FitError(f"served_tokens is {served_tokens!r}; expected a number of tokens, 0 or more")
    if served_tokens and loss is None:
        raise FitError("served_tokens need a loss to reach: at a given compute they change nothing")
    closed = has_closed_form(fit) and not served_tokens
    few = fit if closed else fit.thinned(_MAX_DRAWS)
    warnings = list(fit.warnings)
    if loss is None:
        runs = optimal_runs(few, compute, seed, at)
        middles = zip(positive_numbers(compute, "compute"), np.median(runs["params"], axis=0), strict=True)
        runs["deadweight"] = np.stack([deadweight(few, c, n, held=at, seed=seed) for c, n in middles], axis=1)
    else:
        reached = cheapest_runs(few, loss, served_tokens, seed, at)
        runs = reached.runs
        warnings += _unreached(positive_numbers(loss, "loss"), reached)
    if "U" in at:
        runs["epochs"] = np.maximum(runs["tokens"] / at["U"], 1.0)
    draws = xr.Dataset({name: (("sample", "budget"), values) for name, values in runs.items()})
    warnings += [] if closed or served_tokens else _at_edge(draws)
    warnings += _beyond_ratios(fit, draws) + _outside(fit, draws, held) + fit.table.counting.warnings
    return Allocation(draws, closed, warnings, held)


def _held(fit: "Fit", given: Mapping[str, Any]) -> Held:
    """Return the values of a law's inputs beside params, tokens and compute, by symbol; all are needed."""
    law = fit.law
    symbols = {c: s for s, c in zip(law.inputs, law.columns, strict=True) if s not in {"N", "D", "C"}}
    if not {"N", "D"} <= set(law.inputs):
        raise FitError(
            f"law {law.name!r} has inputs {', '.join(law.inputs)}; an allocation needs a law in params N and "
            "tokens D, and perhaps others, which are held"
        )
    if wrong := sorted(given.keys() - symbols):
        raise FitError(
            f"input {wrong[0]!r} cannot be held in an allocation by law {law.name!r}; expected "
            + (", ".join(symbols) if symbols else "none: params and tokens, which it finds, are all it has")
        )
    if missing := [column for column in symbols if column not in given]:
        seen = fit.table.column(missing[0])
        raise FitError(
            f"law {law.name!r} needs {', '.join(symbols)} beside params and tokens; {missing[0]!r} is not "
            f"given: say at what value it is held, --at {missing[0]}=VALUE (held= in Python); the table's "
            f"runs have {seen.min():.3g} to {seen.max():.3g}"
        )
    found = {}
    for column, symbol in symbols.items():
        values = positive_numbers(given[column], column)
        if len(values) > 1:
            raise FitError(f"input {column!r}: found {values.tolist()}; expected one value to hold it at")
        outside_range(column, fit.table.column(column), values)
        found[symbol] = float(values[0])
    return found


def _unreached(losses: np.ndarray, reached: Reached) -> list[str]:
    """Say which losses some of the posterior has no run for, why, and how intervals have it."""
    found = []
    masks = zip(reached.already.T, reached.never.T, reached.at_edge.T, strict=True)
    for loss, (already, never, at_edge) in zip(losses, masks, strict=True):
        reasons = {
            f"reaches a loss of {loss:g} with less compute than was searched, which begins at "
            f"{reached.begins:.2g} FLOP; it counts as 0, and not in tokens per parameter": already,
            f"does not reach a loss of {loss:g} with up to {reached.ends:.2g} FLOP, where the search ends; "
            "it counts as infinite, and not in tokens per parameter": never,
            f"has its optimum for a loss of {loss:g} at the edge of the search; intervals leave it "
            "out": at_edge,
        }
        found += [f"{_share(m)} of the posterior {why}" for why, m in reasons.items() if m.any()]
    return found


def _at_edge(draws: xr.Dataset) -> list[str]:
    """Say how much of the posterior has its optimum about where the search ends."""
    edges, ratio = np.log10(RATIO_RANGE), np.log10(draws["tokens_per_param"].values)
    there = (ratio < edges[0] + 0.2) | (ratio > edges[1] - 0.2)
    if there.mean() <= 0.01:
        return []
    return [f"{_share(there)} of the posterior has its optimum at the edge of the search"]


def _beyond_ratios(fit: "Fit", draws: xr.Dataset) -> list[str]:
    """Say how much of the posterior has its optimum where no run could contradict it."""
    seen = fit.table.column("tokens") / fit.table.column("params")
    ratio = draws["tokens_per_param"].values
    share = np.max(((ratio < seen.min()) | (ratio > seen.max())).mean(axis=0))
    if share < _MOVES_INTERVALS:
        return []
    return [
        f"{100 * share:.3g}% of the posterior has its optimum beyond the tokens per parameter of the table's "
        f"runs ({seen.min():.3g} to {seen.max():.3g})"
    ]


def _outside(fit: "Fit", draws: xr.Dataset, held: Mapping[str, float]) -> list[str]:
    """Say how far the medians, and what is held, lie outside the table; of several budgets, the farthest."""
    params, tokens = fit.table.column("params"), fit.table.column("tokens")
    seen = {"compute": fit.table.column("compute"), "params": params, "tokens": tokens}
    seen["tokens_per_param"] = tokens / params
    if "epochs" in draws:
        seen["epochs"] = np.maximum(tokens / fit.table.column("unique_tokens"), 1.0)
    far = []
    for name, values in seen.items():
        middles = np.array([_quantile(of_budget, 0.5) for of_budget in draws[name].values.T])
        decades = decades_beyond(values, middles[np.isfinite(middles) & (middles > 0)]).max(initial=0.0)
        if decades >= FAR:
            far.append(f"{name.replace('_per_param', ' per parameter')} {decades:.1f}")
    # Unused unique tokens are as good as none: epochs say how far those lie from the table's.
    for name in (n for n in held if n != "unique_tokens"):
        if (decades := decades_beyond(fit.table.column(name), np.array(held[name])).item()) >= FAR:
            far.append(f"{name} {decades:.1f}")
    return [f"decades outside the table's range: {', '.join(far)}"] if far else []


def _share(draws: np.ndarray) -> str:
    return f"{100 * draws.mean():.3g}%"


def _quantile(values: np.ndarray, q: float) -> float:
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan")
    # Between a number and infinity there is none.
    return float(np.quantile(known, q, method="linear" if np.isfinite(known).all() else "nearest"))
