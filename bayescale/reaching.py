"""Reaching a loss: the run that does at least compute, per draw of the posterior.

In closed form by bisection over compute; otherwise along the law's median optimum, with one discrepancy drawn
jointly along it; with tokens to serve by `bayescale.lifetime`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayescale.forecasts import expected_loss
from bayescale.lifetime import lifetime_optimum
from bayescale.minima import lowest
from bayescale.optimum import (
    closed_optimum,
    described,
    differences,
    has_closed_form,
    law_losses,
    log_total,
    positive_numbers,
)

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Compute searched by bisection, FLOP; along the path, over the table's least, and points on the way.
_BISECTED = (1e3, 1e60)
_REACH = (1e-6, 1e12)
_PATH = 97


@dataclass(frozen=True)
class Reached:
    """The runs that reach losses at least compute, and why a draw has none.

    Attributes
    ----------
    runs : dict of array, shape (draw, loss)
        As `bayescale.optimum.optimal_runs`, and with tokens to serve ``lifetime_compute``, FLOP. NaN where no
        run searched is the cheapest that reaches the loss.
    already, never, at_edge : array of bool, shape (draw, loss)
        Of the draws without a run: those below the loss where the search begins, those above it where the
        search ends, and those whose cheapest run lies beyond the params and tokens searched.
    begins : float
        Compute at which the search begins, FLOP.
    """

    runs: dict[str, np.ndarray]
    already: np.ndarray
    never: np.ndarray
    at_edge: np.ndarray
    begins: float


def cheapest_runs(fit: "Fit", losses: Any, served_tokens: float = 0.0, seed: int = 0) -> Reached:
    """Return the run that reaches each loss at least compute, per draw.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens.
    losses : float or sequence of float
        To reach, nats/token.
    served_tokens : float
        Tokens to serve once trained, whose compute counts too.
    seed : int
        Of the discrepancy away from the table.

    Raises
    ------
    FitError
        If a loss is not positive.
    """
    asked = positive_numbers(losses)
    if has_closed_form(fit):
        begins, columns = _BISECTED[0], [_by_bisection(fit, loss) for loss in asked]
    else:
        begins = _REACH[0] * fit.table.column("compute").min()
        columns = [_along_path(fit, loss, seed) for loss in asked]
    trained = _joined([runs for runs, _ in columns])
    already = np.stack([below for _, below in columns], axis=1)
    never = np.isnan(trained["loss"]) & ~already
    if not served_tokens:
        return Reached(trained, already, never, np.zeros_like(never), begins)
    runs = _joined(
        [
            _served(fit, loss, cheapest, served_tokens, seed)
            for loss, (cheapest, _) in zip(asked, columns, strict=True)
        ]
    )
    lost = np.isnan(runs["loss"])
    return Reached(runs, already & lost, never & lost, lost & ~already & ~never, begins)


def _joined(columns: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([c[name] for c in columns], axis=1) for name in columns[0]}


def _by_bisection(fit: "Fit", loss: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the least compute at which each draw's closed optimum reaches `loss`; whether less would do."""
    size = fit.z[..., 0].size
    low, high = (np.full(size, np.log(c)) for c in _BISECTED)
    already = closed_optimum(fit, low)["loss"] <= loss
    reached = closed_optimum(fit, high)["loss"] <= loss
    for _ in range(60):
        middle = (low + high) / 2
        enough = closed_optimum(fit, middle)["loss"] <= loss
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return _where(reached & ~already, closed_optimum(fit, high)), already


def _along_path(fit: "Fit", loss: float, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the compute at which each draw reaches `loss` along the law's median optimum, as above.

    All draws share the path, so that one discrepancy is drawn jointly along it; loss is flat about the
    optimum, so little is lost.
    """
    difference = differences(fit)
    grid = np.log(fit.table.column("compute").min()) + np.linspace(
        np.log(_REACH[0]), np.log(_REACH[1]), _PATH
    )
    path = np.empty((2, _PATH))
    for i, total in enumerate(log_total(fit, grid)):
        losses = law_losses(fit, (total - difference) / 2, (total + difference) / 2)
        middle = np.median(lowest(losses, difference)[0])
        path[:, i] = (total - middle) / 2, (total + middle) / 2
    losses = np.minimum.accumulate(expected_loss(fit, path, np.random.default_rng(seed)), axis=1)
    already = losses[:, 0] < loss
    log_compute = np.array([np.interp(-loss, -row, grid) for row in losses])
    found = described(fit, log_compute, np.interp(log_compute, grid, path[0]), np.full(len(losses), loss))
    return _where(~already & (losses[:, -1] <= loss), found), already


def _where(known: np.ndarray, runs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.where(known, values, np.nan) for name, values in runs.items()}


def _served(
    fit: "Fit", loss: float, trained: dict[str, np.ndarray], served: float, seed: int
) -> dict[str, np.ndarray]:
    """Return the runs cheapest to train and serve, given those cheapest to train."""
    reached = np.isfinite(trained["loss"])
    if not reached.any():
        return trained | {"lifetime_compute": trained["compute"]}
    params, tokens = (trained[name][reached] for name in ("params", "tokens"))
    return lifetime_optimum(fit, loss, served, params, tokens, seed)
