"""Reaching a loss: the run that does at least compute, per draw of the posterior.

In closed form by bisection over compute; otherwise along the law's median optimum, with one discrepancy drawn
jointly along it; with tokens to serve by `bayescale.lifetime`.
"""

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

# Compute searched, over the table's least, and points on the way.
REACH = (1e-6, 1e12)
_PATH = 97


def cheapest_runs(
    fit: "Fit", losses: Any, served_tokens: float = 0.0, seed: int = 0
) -> dict[str, np.ndarray]:
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

    Returns
    -------
    dict of array, shape (draw, loss)
        As `bayescale.optimum.optimal_runs`, and with tokens to serve ``lifetime_compute``, FLOP; NaN where no
        compute searched reaches the loss.

    Raises
    ------
    FitError
        If a loss is not positive.
    """
    asked = positive_numbers(losses)
    if has_closed_form(fit):
        columns = [_by_bisection(fit, loss) for loss in asked]
    else:
        columns = [_along_path(fit, loss, seed) for loss in asked]
    if served_tokens:
        columns = [
            _served(fit, loss, column, served_tokens, seed)
            for loss, column in zip(asked, columns, strict=True)
        ]
    return {name: np.stack([c[name] for c in columns], axis=1) for name in columns[0]}


def _by_bisection(fit: "Fit", loss: float) -> dict[str, np.ndarray]:
    """Return the least compute at which each draw's closed optimum reaches `loss`."""
    size = fit.z[..., 0].size
    low, high = np.full(size, np.log(1e3)), np.full(size, np.log(1e60))
    reached = closed_optimum(fit, high)["loss"] <= loss
    for _ in range(60):
        middle = (low + high) / 2
        enough = closed_optimum(fit, middle)["loss"] <= loss
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    found = closed_optimum(fit, high)
    return {name: np.where(reached, values, np.nan) for name, values in found.items()}


def _along_path(fit: "Fit", loss: float, seed: int) -> dict[str, np.ndarray]:
    """Return the compute at which each draw reaches `loss` along the law's median optimum.

    All draws share the path, so that one discrepancy is drawn jointly along it; loss is flat about the
    optimum, so little is lost.
    """
    difference = differences(fit)
    grid = np.log(fit.table.column("compute").min()) + np.linspace(np.log(REACH[0]), np.log(REACH[1]), _PATH)
    path = np.empty((2, _PATH))
    for i, total in enumerate(log_total(fit, grid)):
        losses = law_losses(fit, (total - difference) / 2, (total + difference) / 2)
        middle = np.median(lowest(losses, difference)[0])
        path[:, i] = (total - middle) / 2, (total + middle) / 2
    losses = np.minimum.accumulate(expected_loss(fit, path, np.random.default_rng(seed)), axis=1)
    reached = (losses[:, 0] >= loss) & (losses[:, -1] <= loss)
    log_compute = np.array([np.interp(-loss, -row, grid) for row in losses])
    found = described(fit, log_compute, np.interp(log_compute, grid, path[0]), np.full(len(losses), loss))
    return {name: np.where(reached, values, np.nan) for name, values in found.items()}


def _served(
    fit: "Fit", loss: float, trained: dict[str, np.ndarray], served: float, seed: int
) -> dict[str, np.ndarray]:
    """Return the runs cheapest to train and serve, given those cheapest to train."""
    reached = np.isfinite(trained["params"])
    if not reached.any():
        return trained | {"lifetime_compute": trained["compute"]}
    params, tokens = (float(np.quantile(trained[name][reached], 0.5)) for name in ("params", "tokens"))
    return lifetime_optimum(fit, loss, served, params, tokens, seed)
