"""The optimum: the params and tokens at which a compute buys the least loss, per draw of the posterior.

At a compute, and the law's other inputs held, the loss is a function of N alone. For
``E + A N^-alpha + B D^-beta`` without discrepancy, and a table of one k in C = k N D, its minimum is known in
closed form (arXiv:2203.15556, equation 4); otherwise it is found on a grid of tokens per parameter and
refined by a parabola.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayescale.errors import FitError
from bayescale.forecasts import expected_loss, group_factor, outside_range
from bayescale.laws import AT_MOST
from bayescale.minima import lowest

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Tokens per parameter searched.
RATIO_RANGE = (1e-2, 1e6)
_GRID = 65
# Inputs of a law that an allocation holds, by symbol: those beside params, tokens and compute.
Held = Mapping[str, float]
NOTHING: Held = MappingProxyType({})


def optimal_runs(fit: "Fit", compute: Any, seed: int = 0, held: Held = NOTHING) -> dict[str, np.ndarray]:
    """Return the run of least expected loss at each compute, per draw.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens, and others.
    compute : float or sequence of float
        Budgets, FLOP.
    seed : int
        Of the discrepancy away from the table.
    held : mapping of str to float
        Symbol to value of the law's other inputs.

    Returns
    -------
    dict of array, shape (draw, budget)
        ``compute`` (FLOP), ``params``, ``tokens``, ``tokens_per_param`` and ``loss`` (nats/token).

    Raises
    ------
    FitError
        If a budget is not positive, or lies absurdly far outside the table.
    """
    budgets = positive_numbers(compute, "compute")
    outside_range("compute", fit.table.column("compute"), budgets)
    if has_closed_form(fit):
        columns = [closed_optimum(fit, np.log(c), held) for c in budgets]
    else:
        columns = [_searched(fit, np.log(c), seed, held) for c in budgets]
    return {name: np.stack([c[name] for c in columns], axis=1) for name in columns[0]}


def has_closed_form(fit: "Fit") -> bool:
    """Whether the optimum of the fit's law is known in closed form."""
    terms = (fit.model.centred.single_input_terms or {}).keys()
    plain = fit.model.discrepancy is None and not fit.table.counting.slope
    # Compute is given; other inputs are held, but for those that params or tokens are the most of.
    return plain and {"N", "D"} <= terms and not terms & AT_MOST.keys()


def closed_optimum(fit: "Fit", log_compute: Any, held: Held = NOTHING) -> dict[str, np.ndarray]:
    """Return the optimum of E + a exp(-alpha x_N) + b exp(-beta x_D) at a compute, or one per draw."""
    terms = fit.model.centred.single_input_terms
    assert terms is not None
    (a, alpha), (b, beta) = ((fit.parameters[n] for n in terms[i]) for i in "ND")
    centre = fit.model.centre
    total = log_compute - np.log(fit.table.counting.k * centre["N"] * centre["D"])
    # At the optimum a alpha exp(-alpha x_N) = b beta exp(-beta (total - x_N)).
    x_n = (np.log(a * alpha / (b * beta)) + beta * total) / (alpha + beta)
    loss = law_losses(fit, x_n[:, None], (total - x_n)[:, None], held)[:, 0]
    return described(fit, log_compute, x_n, loss)


def _searched(fit: "Fit", log_compute: float, seed: int, held: Held) -> dict[str, np.ndarray]:
    """Return the optimum on a grid of tokens per parameter, discrepancy included, per draw."""
    # The same seed at every budget: budgets differ by compute, not by luck.
    rng = np.random.default_rng(seed)
    found, loss = optimum_on_grid(fit, expected_loss(fit, ratio_grid(fit, log_compute, held), rng))
    return described(fit, log_compute, params_along(fit, log_compute, found), loss)


def ratio_grid(fit: "Fit", log_compute: float, held: Held = NOTHING) -> np.ndarray:
    """Return the law's log-ratios along a compute, over the tokens per parameter searched."""
    difference = differences(fit)
    x_n = params_along(fit, log_compute, difference)
    return law_ratios(fit, x_n, x_n + difference, held)


def law_ratios(fit: "Fit", x_n: np.ndarray, x_d: np.ndarray, held: Held = NOTHING) -> np.ndarray:
    """Return the law's log-ratios, shape (input, ...), at those of params and tokens, other inputs held."""
    if fit.law.inputs == ("N", "D"):
        return np.stack([x_n, x_d])
    centre = fit.model.centre
    n, d = centre["N"] * np.exp(x_n), centre["D"] * np.exp(x_d)
    return fit.model.ratios_at({"N": n, "D": d, "C": fit.table.counting.compute(n, d), **held})


def optimum_on_grid(fit: "Fit", losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where losses, shape (draw, grid) on `ratio_grid`, are lowest, and how low, per draw.

    Where is the log of tokens per parameter over the centre's.
    """
    where, how_low, _ = lowest(losses, differences(fit))
    return where, how_low


def optimal_params(fit: "Fit", log_compute: float, losses: np.ndarray) -> np.ndarray:
    """Return the params at which losses, shape (draw, grid) on `ratio_grid`, are lowest, per draw."""
    found, _ = optimum_on_grid(fit, losses)
    return fit.model.centre["N"] * np.exp(params_along(fit, log_compute, found))


def differences(fit: "Fit") -> np.ndarray:
    """Return x_D - x_N on the grid of tokens per parameter."""
    centre = fit.model.centre
    low, high = np.log(RATIO_RANGE)
    return np.linspace(low, high, _GRID) - np.log(centre["D"] / centre["N"])


def params_along(fit: "Fit", log_compute: Any, difference: Any) -> Any:
    """Return x_N of the runs that a compute buys at given x_D - x_N."""
    centre = fit.model.centre
    ratio = np.exp(difference) * centre["D"] / centre["N"]
    return np.log(fit.table.counting.params(np.exp(log_compute), tokens_per_param=ratio) / centre["N"])


def law_losses(fit: "Fit", x_n: np.ndarray, x_d: np.ndarray, held: Held = NOTHING) -> np.ndarray:
    """Return each draw's loss by its law alone at log-ratios of params and tokens to the centre."""
    return fit.model.law_loss(fit.parameters, law_ratios(fit, x_n, x_d, held)) * group_factor(fit)


def described(fit: "Fit", log_compute: Any, x_n: np.ndarray, loss: np.ndarray) -> dict[str, np.ndarray]:
    """Return all quantities of the runs of a compute and params, by name."""
    compute = np.broadcast_to(np.exp(log_compute), x_n.shape)
    params = fit.model.centre["N"] * np.exp(x_n)
    tokens = fit.table.counting.tokens(compute, params)
    return {
        "compute": compute,
        "params": params,
        "tokens": tokens,
        "tokens_per_param": tokens / params,
        "loss": loss,
    }


def positive_numbers(asked: Any, name: str) -> np.ndarray:
    """Return what was asked for under a name as an array, shape (asked,).

    Raises
    ------
    FitError
        If it is not one or more positive numbers.
    """
    try:
        values = np.atleast_1d(np.asarray(asked, float))
    except (TypeError, ValueError) as error:
        raise FitError(f"{name}: found {asked!r}; expected positive numbers") from error
    if values.ndim > 1 or not values.size or not np.all((values > 0) & np.isfinite(values)):
        raise FitError(f"{name}: found {values.tolist()}; expected positive numbers")
    return values
