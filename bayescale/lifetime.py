"""Lifetime: the run that reaches a loss at least compute, tokens served afterwards included.

Training costs k N D FLOP and serving a third of that per token, for a forward pass costs a third of one with
its backward pass: 6 N D + 2 N D_served, Sardana et al. 2024, arXiv:2401.00448. The fewest params that reach a
loss fall with tokens, steeply and then hardly at all: they are read as a function of tokens off a grid with
the discrepancy drawn jointly over it, and the cheapest point of that curve is refined by a parabola.
"""

from typing import TYPE_CHECKING

import numpy as np

from bayescale.forecasts import expected_loss
from bayescale.minima import lowest
from bayescale.optimum import NOTHING, Held, law_ratios

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Searched around the runs that are cheapest to train: e-folds of params and tokens, below and above.
_PARAMS_RANGE = (-6.0, 2.0)
_TOKENS_RANGE = (-3.0, 3.0)
# E-folds between points of the grid, unless that takes more points than this. Where tokens are few the curve
# bends: a law alone, whose losses cost little, takes smaller steps than one whose discrepancy is drawn.
_STEP, _TOKENS_STEP_ALONE = 0.25, 0.05
_MOST = 120


def lifetime_optimum(
    fit: "Fit",
    loss: float,
    served_tokens: float,
    params: np.ndarray,
    tokens: np.ndarray,
    seed: int,
    held: Held = NOTHING,
) -> dict[str, np.ndarray]:
    """Return the run that reaches `loss` at least compute for training and serving, per draw.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens, and others.
    loss : float
        To reach, nats/token.
    served_tokens : float
        Tokens read or written by the model in its lifetime.
    params, tokens : array, shape (run,)
        Runs that about reach the loss: where to search.
    seed : int
        Of the discrepancy.
    held : mapping of str to float
        Symbol to value of the law's other inputs.

    Returns
    -------
    dict of array, shape (draw,)
        ``compute`` (of training, FLOP), ``lifetime_compute`` (serving included, FLOP), ``params``,
        ``tokens``, ``tokens_per_param`` and ``loss``; NaN where the search holds no cheapest run.
    """
    centre, counting = fit.model.centre, fit.table.counting
    serving = served_tokens / 3  # as tokens of training
    step = _TOKENS_STEP_ALONE if fit.model.discrepancy is None else _STEP
    log_n = _grid_about(params, *_PARAMS_RANGE, step=_STEP)
    log_d = _grid_about(tokens, *_TOKENS_RANGE, step=step, upto=serving)
    x = np.stack(np.meshgrid(log_d - np.log(centre["D"]), log_n - np.log(centre["N"]), indexing="ij"))[::-1]
    ratios = law_ratios(fit, x[0].ravel(), x[1].ravel(), held)
    losses = expected_loss(fit, ratios, np.random.default_rng(seed))
    fewest = _first_crossing(losses.reshape(-1, len(log_d), len(log_n)), loss, log_n)
    log_cost = np.log(counting.compute(np.exp(fewest), 1.0)) + np.logaddexp(log_d, np.log(serving))
    best, _, at_edge = lowest(np.where(np.isnan(log_cost), np.inf, log_cost), log_d)
    n = np.where(at_edge, np.nan, np.exp(_read_off(fewest, log_d, best)))
    d = np.where(at_edge, np.nan, np.exp(best))
    return {
        "compute": counting.compute(n, d),
        "lifetime_compute": counting.compute(n, d + serving),
        "params": n,
        "tokens": d,
        "tokens_per_param": d / n,
        "loss": np.where(at_edge, np.nan, loss),
    }


def _grid_about(
    values: np.ndarray, below: float, above: float, *, step: float, upto: float = 0.0
) -> np.ndarray:
    """Return logs over all but the outermost values, and beyond; `upto` and an e-fold more included."""
    low, high = np.log(np.quantile(values, [0.005, 0.995]))
    low, high = low + below, max(high + above, np.log(upto) + 1 if upto else -np.inf)
    return np.linspace(low, high, min(1 + int(np.ceil((high - low) / step)), _MOST))


def _first_crossing(losses: np.ndarray, level: float, grid: np.ndarray) -> np.ndarray:
    """Return where losses, shape (draw, tokens, grid), first fall to a level along the grid; NaN if never."""
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
    near = np.clip(np.rint((at - grid[0]) / step).astype(int), 1, len(grid) - 2)
    left, middle, right = (values[np.arange(len(values)), near + i] for i in (-1, 0, 1))
    share = (at - grid[near]) / step
    # Where the loss is out of reach at the next point, the curve is known on one side only.
    left, right = (
        np.where(np.isnan(one), 2 * middle - other, one) for one, other in ((left, right), (right, left))
    )
    return middle + share * (right - left) / 2 + share**2 * (right - 2 * middle + left) / 2
