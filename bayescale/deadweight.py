"""Deadweight: compute wasted by acting on a posterior's allocation instead of the true optimum.

A draw of the posterior is a world. In it, the run that the posterior's median allocation buys ends above the
draw's own optimum; the deadweight is the compute that the optimum would not have needed to end there.
"""

from typing import TYPE_CHECKING

import numpy as np

from bayescale.forecasts import expected_loss, group_factor
from bayescale.optimum import NOTHING, Held, law_ratios, optimum_on_grid, ratio_grid

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# What less compute costs is read off between a budget and this fraction of it.
_LESS = 2 / 3


def deadweight(
    fit: "Fit", compute: float, params: float, *, held: Held = NOTHING, seed: int = 0
) -> np.ndarray:
    """Return the compute wasted by training `params` parameters at a compute, FLOP, shape (draw,).

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens, and others.
    compute : float
        Budget, FLOP.
    params : float
        What is done with it.
    held : mapping of str to float
        Symbol to value of the law's other inputs.
    seed : int
        Of the discrepancy away from the table.
    """
    log_compute, centre = np.log(compute), fit.model.centre
    grid = ratio_grid(fit, log_compute, held)
    less = ratio_grid(fit, log_compute + np.log(_LESS), held)
    tokens = fit.table.counting.tokens(compute, params)
    chosen = law_ratios(fit, np.log([params / centre["N"]]), np.log([tokens / centre["D"]]), held)
    losses = expected_loss(fit, np.concatenate([grid, less, chosen], axis=1), np.random.default_rng(seed))
    best, best_with_less, found = (
        optimum_on_grid(fit, losses[:, : grid.shape[1]])[1],
        optimum_on_grid(fit, losses[:, grid.shape[1] : -1])[1],
        losses[:, -1],
    )
    # About a budget the optimum's reducible loss is a power of compute.
    floor = np.broadcast_to(fit.model.floor(fit.parameters) * group_factor(fit), (len(losses), 1))[:, 0]
    best, best_with_less, found = (np.log(x - floor) for x in (best, best_with_less, found))
    power = np.maximum((best_with_less - best) / -np.log(_LESS), 1e-9)
    return compute * -np.expm1(-np.maximum(found - best, 0) / power)
