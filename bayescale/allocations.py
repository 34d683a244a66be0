"""Allocation: the params and tokens that a compute budget should buy, with their posterior.

Under C = k N D the loss is a function of N alone. For ``E + A N^-alpha + B D^-beta`` without discrepancy its
minimum is known in closed form (arXiv:2203.15556, equation 4); otherwise it is found on a grid of tokens
per parameter and refined by a parabola.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bayescale.errors import FitError
from bayescale.forecasts import expected_loss, outside_range
from bayescale.minima import lowest

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Tokens per parameter searched, and draws used where the search is numeric.
_RATIO_RANGE = (1e-2, 1e6)
_GRID = 65
_MAX_DRAWS = 1000
# Compute searched for a loss to reach, over the table's least, and points on the way.
_REACH = (1e-6, 1e12)
_PATH = 97


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
    asked = np.atleast_1d(np.asarray(loss if compute is None else compute, float))
    if asked.ndim > 1 or not asked.size or not np.all((asked > 0) & np.isfinite(asked)):
        raise FitError(f"found {asked.tolist()}; expected positive numbers")
    if not 0 <= served_tokens < np.inf:
        raise FitError(f"served_tokens is {served_tokens:g}; expected a number of tokens, 0 or more")
    if served_tokens and loss is None:
        raise FitError("served_tokens need a loss to reach: at a given compute they change nothing")
    spent = fit.table.column("compute")
    if compute is not None:
        outside_range("compute", spent, asked)
    from bayescale.deadweight import deadweight

    closed = _has_closed_form(fit)
    thinned = fit.thinned(fit.z[..., 0].size if closed else _MAX_DRAWS)
    warnings = list(fit.warnings)
    if compute is not None:
        solve = _closed if closed else _searched
        columns = [solve(thinned, np.log(c), seed) for c in asked]
        for c, column in zip(asked, columns, strict=True):
            column["deadweight"] = deadweight(thinned, c, float(np.median(column["params"])), seed=seed)
    else:
        reach = _reach_closed if closed else _reach_along_path
        columns = [reach(thinned, value, seed) for value in asked]
        if served_tokens:
            columns = [
                _served(thinned, value, column, served_tokens, seed)
                for value, column in zip(asked, columns, strict=True)
            ]
            closed = False
        for value, column in zip(asked, columns, strict=True):
            share = float(np.mean(np.isnan(column["loss"])))
            if share == 1 and value > fit.table.column("loss").max():
                warnings.append(
                    f"a loss of {value:g} takes less compute than was searched, which begins at "
                    f"{_REACH[0]:g} of the table's least"
                )
            elif share > 0:
                warnings.append(
                    f"{share:.0%} of the posterior does not reach a loss of {value:g}; intervals "
                    "describe the rest"
                )
    draws = xr.Dataset(
        {k: (("sample", "budget"), np.stack([c[k] for c in columns], axis=1)) for k in columns[0]}
    )
    edges = np.log10(_RATIO_RANGE)
    ratio = np.log10(draws["tokens_per_param"].values)
    at_edge = float(np.mean((ratio < edges[0] + 0.2) | (ratio > edges[1] - 0.2)))
    if at_edge > 0.01 and not closed:
        warnings.append(f"{at_edge:.0%} of the posterior has its optimum at the edge of the search")
    middles = [_quantile(of_budget, 0.5) for of_budget in draws["compute"].values.T]
    if (far := np.log10(max(filter(np.isfinite, middles), default=spent.max()) / spent.max())) > 0:
        warnings.append(f"compute lies {far:.1f} decades above the table")
    return Allocation(draws, closed, warnings)


def _closed(fit: "Fit", log_compute: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the optimum of E + a exp(-alpha x_N) + b exp(-beta x_D) at given compute, per draw."""
    terms = fit.model.centred.single_input_terms
    assert terms is not None
    (a, alpha), (b, beta) = ((fit.parameters[n] for n in terms[i]) for i in "ND")
    total = _log_total(fit, log_compute)
    # At the optimum a alpha exp(-alpha x_N) = b beta exp(-beta (total - x_N)).
    x_n = (np.log(a * alpha / (b * beta)) + beta * total) / (alpha + beta)
    loss = _law_losses(fit, x_n[:, None], (total - x_n)[:, None])[:, 0]
    return _described(fit, log_compute, x_n, loss)


def _searched(fit: "Fit", log_compute: float, seed: int) -> dict[str, np.ndarray]:
    """Return the optimum on a grid of tokens per parameter, discrepancy included, per draw."""
    # The same seed at every budget: budgets differ by compute, not by luck.
    rng = np.random.default_rng(seed)
    total = _log_total(fit, log_compute)
    found, loss = optimum_on_grid(fit, expected_loss(fit, ratio_grid(fit, log_compute), rng))
    return _described(fit, log_compute, (total - found) / 2, loss)


def ratio_grid(fit: "Fit", log_compute: float) -> np.ndarray:
    """Return log-ratios of params and tokens along a compute, over the tokens per parameter searched."""
    total, difference = _log_total(fit, log_compute), _differences(fit)
    return np.stack([(total - difference) / 2, (total + difference) / 2])


def optimum_on_grid(fit: "Fit", losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where losses, shape (draw, grid) on `ratio_grid`, are lowest, and how low, per draw.

    Where is the log of tokens per parameter over the centre's.
    """
    where, how_low, _ = lowest(losses, _differences(fit))
    return where, how_low


def optimal_params(fit: "Fit", log_compute: float, losses: np.ndarray) -> np.ndarray:
    """Return the params at which losses, shape (draw, grid) on `ratio_grid`, are lowest, per draw."""
    found, _ = optimum_on_grid(fit, losses)
    return fit.model.centre["N"] * np.exp((_log_total(fit, log_compute) - found) / 2)


def _reach_closed(fit: "Fit", loss: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the least compute at which each draw's optimum reaches `loss`, by bisection."""
    size = fit.z.shape[1]
    low, high = np.full(size, np.log(1e3)), np.full(size, np.log(1e60))
    reached = _closed(fit, high)["loss"] <= loss
    for _ in range(60):
        middle = (low + high) / 2
        enough = _closed(fit, middle)["loss"] <= loss
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    found = _closed(fit, high)
    return {name: np.where(reached, values, np.nan) for name, values in found.items()}


def _reach_along_path(fit: "Fit", loss: float, seed: int) -> dict[str, np.ndarray]:
    """Return the compute at which each draw reaches `loss` along the law's median optimum.

    All draws share the path, so that one discrepancy is drawn jointly along it; loss is flat about the
    optimum, so little is lost.
    """
    difference = _differences(fit)
    grid = np.log(fit.table.column("compute").min()) + np.linspace(
        np.log(_REACH[0]), np.log(_REACH[1]), _PATH
    )
    path = np.empty((2, _PATH))
    for i, total in enumerate(_log_total(fit, grid)):
        losses = _law_losses(fit, (total - difference) / 2, (total + difference) / 2)
        middle = np.median(lowest(losses, difference)[0])
        path[:, i] = (total - middle) / 2, (total + middle) / 2
    losses = np.minimum.accumulate(expected_loss(fit, path, np.random.default_rng(seed)), axis=1)
    reached = (losses[:, 0] >= loss) & (losses[:, -1] <= loss)
    log_compute = np.array([np.interp(-loss, -row, grid) for row in losses])
    found = _described(fit, log_compute, np.interp(log_compute, grid, path[0]), np.full(len(losses), loss))
    return {name: np.where(reached, values, np.nan) for name, values in found.items()}


def _served(
    fit: "Fit", loss: float, trained: dict[str, np.ndarray], served: float, seed: int
) -> dict[str, np.ndarray]:
    """Return the runs cheapest to train and serve, given those cheapest to train."""
    from bayescale.lifetime import lifetime_optimum

    params, tokens = (_quantile(trained[name], 0.5) for name in ("params", "tokens"))
    if np.isnan(params):
        return trained | {"lifetime_compute": trained["compute"]}
    return lifetime_optimum(fit, loss, served, params, tokens, seed)


def _differences(fit: "Fit") -> np.ndarray:
    """x_D - x_N on the grid of tokens per parameter."""
    centre = fit.model.centre
    low, high = np.log(_RATIO_RANGE)
    return np.linspace(low, high, _GRID) - np.log(centre["D"] / centre["N"])


def _log_total(fit: "Fit", log_compute: Any) -> Any:
    """x_N + x_D at a compute."""
    centre, k = fit.model.centre, fit.table.meta.flops_per_param_token
    return log_compute - np.log(k * centre["N"] * centre["D"])


def _described(fit: "Fit", log_compute: Any, x_n: np.ndarray, loss: np.ndarray) -> dict[str, np.ndarray]:
    compute = np.broadcast_to(np.exp(log_compute), x_n.shape)
    params = fit.model.centre["N"] * np.exp(x_n)
    tokens = compute / (fit.table.meta.flops_per_param_token * params)
    return {
        "compute": compute,
        "params": params,
        "tokens": tokens,
        "tokens_per_param": tokens / params,
        "loss": loss,
    }


def _law_losses(fit: "Fit", x_n: np.ndarray, x_d: np.ndarray) -> np.ndarray:
    values = {n: fit.parameters[n] for n in fit.model.centred.names}
    return fit.model.law_loss(values, np.stack([x_n, x_d]))


def _has_closed_form(fit: "Fit") -> bool:
    return fit.model.discrepancy is None and fit.model.centred.single_input_terms is not None


def _quantile(values: np.ndarray, q: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q)) if finite.size else float("nan")
