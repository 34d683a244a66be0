"""Reaching a loss: the run that does at least compute, per draw of the posterior.

In closed form by bisection over compute; otherwise on a grid of compute and tokens per parameter, with one
discrepancy drawn jointly over it, about where the law's median optimum reaches the loss; with tokens to serve
by `bayescale.lifetime`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayescale.forecasts import expected_loss
from bayescale.lifetime import lifetime_optimum
from bayescale.minima import lowest
from bayescale.optimum import (
    NOTHING,
    Held,
    closed_optimum,
    described,
    differences,
    has_closed_form,
    law_losses,
    law_ratios,
    optimum_on_grid,
    params_along,
    positive_numbers,
    ratio_grid,
)

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Compute searched by bisection, FLOP; along the path, over the table's least, and points on the way.
_BISECTED = (1e3, 1e60)
_REACH = (1e-6, 1e12)
_PATH = 97
# Compute on the grid about where the path reaches a loss: e-folds below and above, and points. A draw's own
# tokens per parameter take less than the path's.
_BELOW, _ABOVE = 4.0, 1.0
_COMPUTES = 17
# What is larger, the more a loss takes.
_SIZES = "params", "tokens", "compute", "lifetime_compute"


@dataclass(frozen=True)
class Reached:
    """The runs that reach losses at least compute, and why a draw has none.

    Attributes
    ----------
    runs : dict of array, shape (draw, loss)
        As `bayescale.optimum.optimal_runs`, and with tokens to serve ``lifetime_compute``, FLOP. Where no run
        searched reaches the loss, params, tokens and compute are infinite, and 0 where a smaller one would
        do, so that quantiles of all draws hold; all else of these is NaN, as are draws at an edge.
    already, never, at_edge : array of bool, shape (draw, loss)
        Of the draws without a run: those below the loss where the search begins, those above it where the
        search ends, and those whose cheapest run lies beyond the params and tokens searched.
    begins, ends : float
        Compute at which the search begins and ends, FLOP.
    """

    runs: dict[str, np.ndarray]
    already: np.ndarray
    never: np.ndarray
    at_edge: np.ndarray
    begins: float
    ends: float


def cheapest_runs(
    fit: "Fit", losses: Any, served_tokens: float = 0.0, seed: int = 0, held: Held = NOTHING
) -> Reached:
    """Return the run that reaches each loss at least compute, per draw.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens, and others.
    losses : float or sequence of float
        To reach, nats/token.
    served_tokens : float
        Tokens to serve once trained, whose compute counts too.
    seed : int
        Of the discrepancy away from the table.
    held : mapping of str to float
        Symbol to value of the law's other inputs.

    Raises
    ------
    FitError
        If a loss is not positive.
    """
    asked = positive_numbers(losses, "loss")
    if has_closed_form(fit):
        begins, ends = _BISECTED
        columns = [_by_bisection(fit, loss, held) for loss in asked]
    else:
        begins, ends = (times * fit.table.column("compute").min() for times in _REACH)
        columns = [_searched(fit, loss, seed, held) for loss in asked]
    already = np.stack([below for _, below in columns], axis=1)
    runs = _joined([runs for runs, _ in columns])
    never = np.isnan(runs["loss"]) & ~already
    if served_tokens:
        runs = _joined(
            [
                _served(fit, loss, cheapest, served_tokens, seed, held)
                for loss, (cheapest, _) in zip(asked, columns, strict=True)
            ]
        )
    lost = np.isnan(runs["loss"])
    already, never, at_edge = already & lost, never & lost, lost & ~already & ~never
    return Reached(_beyond_search(runs, already, never), already, never, at_edge, begins, ends)


def _beyond_search(
    runs: dict[str, np.ndarray], already: np.ndarray, never: np.ndarray
) -> dict[str, np.ndarray]:
    """Return runs whose sizes are 0 and infinite where one smaller, or none, reaches the loss."""
    sizes = {name: runs[name] for name in _SIZES if name in runs}
    return runs | {name: np.select([already, never], [0.0, np.inf], of) for name, of in sizes.items()}


def _joined(columns: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([c[name] for c in columns], axis=1) for name in columns[0]}


def _by_bisection(fit: "Fit", loss: float, held: Held = NOTHING) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the least compute at which each draw's closed optimum reaches `loss`; whether less would do."""
    size = fit.z[..., 0].size
    low, high = (np.full(size, np.log(c)) for c in _BISECTED)
    already = closed_optimum(fit, low, held)["loss"] <= loss
    reached = closed_optimum(fit, high, held)["loss"] <= loss
    for _ in range(60):
        middle = (low + high) / 2
        enough = closed_optimum(fit, middle, held)["loss"] <= loss
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return _where(reached & ~already, closed_optimum(fit, high, held)), already


def _searched(
    fit: "Fit", loss: float, seed: int, held: Held = NOTHING
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the least compute at which each draw's own optimum reaches `loss`, as above.

    The optimum of a draw may lie decades from the law's, and take half of its compute.
    """
    about, already = _along_path(fit, loss, seed, held)
    reached = about[np.isfinite(about)]
    if not reached.size:
        return described(fit, about, about, about), already
    low, high = np.quantile(reached, [0.005, 0.995])
    grid = np.linspace(low - _BELOW, high + _ABOVE, _COMPUTES)
    ratios = np.concatenate([ratio_grid(fit, log_compute, held) for log_compute in grid], axis=1)
    losses = expected_loss(fit, ratios, np.random.default_rng(seed))
    size = len(losses)
    best, lowest_losses = optimum_on_grid(fit, losses.reshape(size * _COMPUTES, -1))
    curves = np.minimum.accumulate(lowest_losses.reshape(size, -1), axis=1)
    log_compute = np.array([np.interp(-loss, -curve, grid) for curve in curves])
    place = (log_compute - grid[0]) / (grid[1] - grid[0])
    left, draw = np.clip(place.astype(int), 0, _COMPUTES - 2), np.arange(size)
    before, after = (best.reshape(size, -1)[draw, left + i] for i in (0, 1))
    difference = before + (place - left) * (after - before)
    found = described(fit, log_compute, params_along(fit, log_compute, difference), np.full(size, loss))
    inside = (curves[:, 0] > loss) & (curves[:, -1] <= loss) & np.isfinite(about)
    return _where(inside, found), already


def _along_path(fit: "Fit", loss: float, seed: int, held: Held = NOTHING) -> tuple[np.ndarray, np.ndarray]:
    """Return the log of the compute at which each draw reaches `loss` along the law's median optimum.

    NaN where it does not; and whether less than was searched would do.
    """
    difference = differences(fit)
    grid = np.log(fit.table.column("compute").min()) + np.linspace(
        np.log(_REACH[0]), np.log(_REACH[1]), _PATH
    )
    path = np.empty((2, _PATH))
    for i, log_compute in enumerate(grid):
        x_n = params_along(fit, log_compute, difference)
        middle = np.median(lowest(law_losses(fit, x_n, x_n + difference, held), difference)[0])
        best = params_along(fit, log_compute, middle)
        path[:, i] = best, best + middle
    ratios = law_ratios(fit, path[0], path[1], held)
    losses = np.minimum.accumulate(expected_loss(fit, ratios, np.random.default_rng(seed)), axis=1)
    already = losses[:, 0] < loss
    reached = np.array([np.interp(-loss, -row, grid) for row in losses])
    return np.where(~already & (losses[:, -1] <= loss), reached, np.nan), already


def _where(known: np.ndarray, runs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.where(known, values, np.nan) for name, values in runs.items()}


def _served(
    fit: "Fit", loss: float, trained: dict[str, np.ndarray], served: float, seed: int, held: Held = NOTHING
) -> dict[str, np.ndarray]:
    """Return the runs cheapest to train and serve, given those cheapest to train."""
    reached = np.isfinite(trained["loss"])
    if not reached.any():
        return trained | {"lifetime_compute": trained["compute"]}
    params, tokens = (trained[name][reached] for name in ("params", "tokens"))
    return lifetime_optimum(fit, loss, served, params, tokens, seed, held)
