"""The compute-optimal run: IsoFLOP curves with their minima, and N and D of the optimum over compute."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayescale.counting import Counting
from bayescale.errors import FitError
from bayescale.forecasts import forecast
from bayescale.optimum import optimal_runs
from bayescale.plots.style import (
    CYCLE,
    ENOUGH_DRAWS,
    axes_or_new,
    draw_band,
    label,
    mark_failed,
    plain,
    require_params_and_tokens,
    shade_extrapolation,
    styled,
)
from bayescale.publishedfits import PublishedFit, published_fits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayescale.fitting import Fit

# A run is drawn on the curve of a budget that its compute is within this factor of.
_NEAR = 1.3


@styled
def plot_isoflop(fit: "Fit", budgets: Sequence[float] | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw loss over params at fixed compute, a curve per budget, with the posterior of each optimum.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens.
    budgets : sequence of float, optional
        FLOP; four over the table's range unless told.
    ax : matplotlib axes, optional
        Where to draw.

    Raises
    ------
    FitError
        If the law has other inputs.
    """
    require_params_and_tokens(fit, "IsoFLOP curves")
    ax = axes_or_new(ax)
    table, few = fit.table, fit.thinned(ENOUGH_DRAWS)
    compute, params, loss = (table.column(c) for c in ("compute", "params", "loss"))
    if budgets is None:
        low, high = np.quantile(compute, [0.1, 0.97])
        budgets = np.geomspace(low, high, 4).tolist()
    best = optimal_runs(few, budgets)
    for number, budget in enumerate(budgets):
        colour = CYCLE[number % len(CYCLE)]
        middle = float(np.nanmedian(best["params"][:, number]))
        near = np.abs(np.log(compute / budget)) < np.log(_NEAR)
        low, high = middle / 10, middle * 10
        if near.any():
            low, high = min(low, params[near].min()), max(high, params[near].max())
        x = np.geomspace(low, high, 50)
        tokens = table.counting.tokens(budget, x)
        draws = forecast(few, params=x, tokens=tokens).draws["expected_loss"].values.reshape(-1, x.size)
        draw_band(ax, x, draws, colour=colour, name=f", {budget:.2g} FLOP", widths=(0.9,))
        ax.scatter(params[near], loss[near], s=14, color=colour, zorder=3)
        ends = np.nanquantile(best["params"][:, number], [0.05, 0.95])
        height = float(np.nanmedian(best["loss"][:, number]))
        ax.errorbar(
            middle, height, xerr=np.abs(ends - middle)[:, None], fmt="D", ms=5, color=colour, capsize=3,
            mec="black", ecolor="black", zorder=4, label="optimum, 90%" if number == 0 else None,
        )  # fmt: skip
    ax.set(xscale="log", xlabel=label("params"), ylabel=label("loss"))
    ax.set_title(f"{plain(table.name)}: loss at fixed compute")
    ax.legend(loc="upper right")
    mark_failed(ax, fit)
    return ax


@styled
def plot_allocation(
    fit: "Fit",
    quantity: str = "params",
    *,
    published: Sequence[str] | None = None,
    upto: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw params, tokens or tokens per parameter of the compute-optimal run against compute.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens.
    quantity : str
        ``params``, ``tokens`` or ``tokens_per_param``.
    published : sequence of str, optional
        Names of published fits to draw beside it; those of the fit's own table unless told.
    upto : float, optional
        Compute to draw to, FLOP; a hundred times the table's largest unless told.
    ax : matplotlib axes, optional
        Where to draw.

    Raises
    ------
    FitError
        If the law has other inputs, or a name is unknown.
    """
    require_params_and_tokens(fit, "an allocation")
    if quantity not in ("params", "tokens", "tokens_per_param"):
        raise FitError(f"quantity {quantity!r} is unknown; expected params, tokens or tokens_per_param")
    ax = axes_or_new(ax)
    compute = fit.table.column("compute")
    x = np.geomspace(compute.min(), max(upto or 0.0, 100 * compute.max()), 24)
    draw_band(ax, x, optimal_runs(fit.thinned(400), x)[quantity], name=", this fit")
    for colour, other in zip((*CYCLE[1:], "black"), _published(fit, published), strict=False):
        best = _optimum(other, x, fit.table.counting)
        ax.plot(x, best[quantity], "--", color=colour, label=f"{other.name} (published)")
    ax.set(xscale="log", yscale="log", xlabel=label("compute"), ylabel=f"optimal {label(quantity)}")
    ax.set_xlim(x[0], x[-1])
    shade_extrapolation(ax, compute.max())
    ax.set_title(f"{plain(fit.table.name)}: compute-optimal run")
    ax.legend()
    mark_failed(ax, fit)
    return ax


def _published(fit: "Fit", names: Sequence[str] | None) -> list[PublishedFit]:
    known = published_fits()
    if names is None:
        return [
            p for p in known.values()
            if p.table == fit.table.name and set(p.columns.values()) == {"params", "tokens"}
        ]  # fmt: skip
    if unknown := [n for n in names if n not in known]:
        raise FitError(f"published fit {unknown[0]!r} is unknown; expected some of {', '.join(known)}")
    return [known[n] for n in names]


def _optimum(fit: PublishedFit, compute: np.ndarray, counting: Counting) -> dict[str, np.ndarray]:
    """Return params, tokens and their ratio that minimise a published law at each compute, by a fine grid."""
    ratio = np.geomspace(1e-2, 1e6, 4001)
    params = counting.params(compute[:, None], tokens_per_param=ratio)
    best = ratio[fit.loss(params=params, tokens=ratio * params).argmin(axis=1)]
    n = counting.params(compute, tokens_per_param=best)
    return {"params": n, "tokens": best * n, "tokens_per_param": best}
