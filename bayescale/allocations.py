"""Allocation: the params and tokens that a compute or a loss should be bought with, with their posterior.

They are found in `bayescale.optimum` and `bayescale.reaching`; here they are asked for, summarised, and given
what to know before acting on them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bayescale.deadweight import deadweight
from bayescale.errors import FitError
from bayescale.optimum import RATIO_RANGE, has_closed_form, optimal_runs, positive_numbers
from bayescale.reaching import REACH, cheapest_runs

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Draws used where the optimum is searched for.
_MAX_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Allocation:
    """Posterior of the compute-optimal run at given budgets.

    Attributes
    ----------
    draws : xarray.Dataset
        ``params``, ``tokens``, ``tokens_per_param``, ``compute`` (FLOP) and ``loss`` (nats/token, expected)
        with dimensions (sample, budget). NaN where no compute reaches a loss asked for. At a given
        compute also ``deadweight``, FLOP: what acting on the median allocation wastes
        (`bayescale.deadweight`). With tokens to serve also ``lifetime_compute``, FLOP, theirs included.
    closed_form : bool
        Whether the optimum came from the formula.
    warnings : list of str
        What to know before acting on it.
    """

    draws: xr.Dataset
    closed_form: bool
    warnings: list[str]

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
        units |= {"lifetime_compute": "FLOP", "deadweight": "FLOP"}
        for b in range(self.draws.sizes["budget"]):
            for name in units | {"tokens_per_param": ""}:
                if name not in self.draws:
                    continue
                values = self.draws[name].values[:, b]
                row: dict[str, Any] = {"budget": b, "quantity": name, "unit": units.get(name, "")}
                row["median"] = _quantile(values, 0.5)
                for width in (0.5, 0.8, 0.9):
                    row[f"{width:.0%}_low"] = _quantile(values, (1 - width) / 2)
                    row[f"{width:.0%}_high"] = _quantile(values, (1 + width) / 2)
                rows.append(row)
        return pd.DataFrame(rows)


def allocate(
    fit: "Fit", *, compute: Any = None, loss: Any = None, served_tokens: float = 0.0, seed: int = 0
) -> Allocation:
    """Find the params and tokens that minimise loss at a compute, or reach a loss at least compute.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens.
    compute : float or sequence of float, optional
        Budgets, FLOP.
    loss : float or sequence of float, optional
        Instead: losses to reach, nats/token.
    served_tokens : float
        With a loss to reach: tokens that the model will read or write once trained. Their compute counts too
        (arXiv:2401.00448; `bayescale.lifetime`).
    seed : int
        Of the discrepancy away from the table.

    Raises
    ------
    FitError
        If the law is not one of params and tokens, not exactly one of compute and loss is given, or tokens
        are to be served by what a compute buys.
    """
    if fit.law.inputs != ("N", "D"):
        raise FitError(
            f"law {fit.law.name!r} has inputs {', '.join(fit.law.inputs)}; an allocation needs a law in "
            "params N and tokens D"
        )
    if (compute is None) == (loss is None):
        raise FitError("give compute (FLOP) or loss (nats/token), one of them")
    if not 0 <= served_tokens < np.inf:
        raise FitError(f"served_tokens is {served_tokens:g}; expected a number of tokens, 0 or more")
    if served_tokens and loss is None:
        raise FitError("served_tokens need a loss to reach: at a given compute they change nothing")
    closed = has_closed_form(fit) and not served_tokens
    few = fit if has_closed_form(fit) else fit.thinned(_MAX_DRAWS)
    warnings = list(fit.warnings)
    if loss is None:
        runs = optimal_runs(few, compute, seed)
        middles = zip(positive_numbers(compute), np.median(runs["params"], axis=0), strict=True)
        runs["deadweight"] = np.stack([deadweight(few, c, n, seed=seed) for c, n in middles], axis=1)
    else:
        runs = cheapest_runs(few, loss, served_tokens, seed)
        warnings += _unreached(fit, positive_numbers(loss), runs["loss"])
    draws = xr.Dataset({name: (("sample", "budget"), values) for name, values in runs.items()})
    warnings += [] if closed else _at_edge(draws)
    return Allocation(draws, closed, warnings + _outside(fit, draws))


def _unreached(fit: "Fit", losses: np.ndarray, reached: np.ndarray) -> list[str]:
    """Say which losses some of the posterior does not reach, given those reached, shape (draw, loss)."""
    found = []
    for loss, column in zip(losses, reached.T, strict=True):
        share = float(np.mean(np.isnan(column)))
        if share == 1 and loss > fit.table.column("loss").max():
            found.append(
                f"a loss of {loss:g} takes less compute than was searched, which begins at "
                f"{REACH[0]:g} of the table's least"
            )
        elif share > 0:
            found.append(
                f"{share:.0%} of the posterior does not reach a loss of {loss:g}; intervals describe the rest"
            )
    return found


def _at_edge(draws: xr.Dataset) -> list[str]:
    """Say how much of the posterior has its optimum about where the search ends."""
    edges, ratio = np.log10(RATIO_RANGE), np.log10(draws["tokens_per_param"].values)
    share = float(np.mean((ratio < edges[0] + 0.2) | (ratio > edges[1] - 0.2)))
    return [f"{share:.0%} of the posterior has its optimum at the edge of the search"] if share > 0.01 else []


def _outside(fit: "Fit", draws: xr.Dataset) -> list[str]:
    """Say how far median compute lies above the table."""
    most = fit.table.column("compute").max()
    middles = [_quantile(of_budget, 0.5) for of_budget in draws["compute"].values.T]
    far = np.log10(max(filter(np.isfinite, middles), default=most) / most)
    return [f"compute lies {far:.1f} decades above the table"] if far > 0 else []


def _quantile(values: np.ndarray, q: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q)) if finite.size else float("nan")
