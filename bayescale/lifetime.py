"""Lifetime: the run that reaches a loss at least compute, tokens served afterwards included.

Training costs k N D FLOP and serving a third of that per token, for a forward pass costs a third of one with
its backward pass: 6 N D + 2 N D_served, Sardana et al. 2024, arXiv:2401.00448. Params and tokens that reach a
loss lie on a curve, found on a grid with the discrepancy drawn jointly over it; the cheapest point of the
curve is refined by a parabola.
"""

from typing import TYPE_CHECKING

import numpy as np

from bayescale.forecasts import expected_loss
from bayescale.minima import lowest

if TYPE_CHECKING:
    from bayescale.fitting import Fit

_GRID = 49
# Searched around the run that is cheapest to train: e-folds of params and tokens, below and above.
_PARAMS_RANGE = (-6.0, 2.0)
_TOKENS_RANGE = (-3.0, 7.0)


def lifetime_optimum(
    fit: "Fit", loss: float, served_tokens: float, params: float, tokens: float, seed: int
) -> dict[str, np.ndarray]:
    """Return the run that reaches `loss` at least compute for training and serving, per draw.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens.
    loss : float
        To reach, nats/token.
    served_tokens : float
        Tokens read or written by the model in its lifetime.
    params, tokens : float
        A run that about reaches the loss: where to search.
    seed : int
        Of the discrepancy.

    Returns
    -------
    dict of array, shape (sample,)
        ``compute`` (of training, FLOP), ``lifetime_compute`` (serving included, FLOP), ``params``,
        ``tokens``, ``tokens_per_param`` and ``loss``; NaN where no run searched reaches the loss.
    """
    centre, k = fit.model.centre, fit.table.meta.flops_per_param_token
    log_n = np.log(params) + np.linspace(*_PARAMS_RANGE, _GRID)
    log_d = np.log(tokens) + np.linspace(*_TOKENS_RANGE, _GRID)
    x = np.stack(np.meshgrid(log_n - np.log(centre["N"]), log_d - np.log(centre["D"]), indexing="ij"))
    losses = expected_loss(fit, x.reshape(2, -1), np.random.default_rng(seed)).reshape(-1, _GRID, _GRID)
    needed = _first_crossing(losses, loss, log_d)
    serving = served_tokens / 3  # as tokens of training
    with np.errstate(invalid="ignore"):
        log_cost = log_n + np.logaddexp(needed, np.log(serving))
    best, _, at_edge = lowest(np.where(np.isnan(log_cost), np.inf, log_cost), log_n)
    best = np.where(at_edge, np.nan, best)
    n, d = np.exp(best), np.exp(_read_off(needed, log_n, best))
    return {
        "compute": k * n * d,
        "lifetime_compute": k * n * (d + serving),
        "params": n,
        "tokens": d,
        "tokens_per_param": d / n,
        "loss": np.where(np.isnan(d), np.nan, loss),
    }


def _first_crossing(losses: np.ndarray, level: float, grid: np.ndarray) -> np.ndarray:
    """Return where losses, shape (draw, params, grid), first fall to a level along the grid; NaN if never."""
    below = losses <= level
    after = np.clip(below.argmax(axis=-1), 1, len(grid) - 2)[..., None]
    high, low, next_ = (np.take_along_axis(losses, after + i, axis=-1)[..., 0] for i in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (high - level) / (high - low)
        # Losses fall along a curve that lies below its chord.
        share -= 0.5 * (high - 2 * low + next_) * share * (1 - share) / (high - low)
    found = grid[after[..., 0] - 1] + np.clip(share, 0, 1) * (grid[1] - grid[0])
    return np.where(below[..., 1:-1].any(axis=-1) & ~below[..., 0], found, np.nan)


def _read_off(values: np.ndarray, grid: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return each row of values, shape (draw, grid), at a place of its own, by the parabola nearest to it."""
    step = grid[1] - grid[0]
    near = np.clip(np.rint((np.nan_to_num(at, nan=grid[1]) - grid[0]) / step).astype(int), 1, len(grid) - 2)
    left, middle, right = (values[np.arange(len(values)), near + i] for i in (-1, 0, 1))
    share = (at - grid[near]) / step
    # Where the loss is out of reach of the next smaller model, the curve is known on one side only.
    left = np.where(np.isnan(left), 2 * middle - right, left)
    return middle + share * (right - left) / 2 + share**2 * (right - 2 * middle + left) / 2
