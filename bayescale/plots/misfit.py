"""Misfit: what the law leaves unexplained, run by run, and the smooth part that the discrepancy takes up."""

from typing import TYPE_CHECKING

import numpy as np

from bayescale.errors import FitError
from bayescale.forecasts import forecast
from bayescale.plots.style import (
    ENOUGH_DRAWS,
    axes_or_new,
    label,
    mark_failed,
    plain,
    require_params_and_tokens,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayescale.fitting import Fit


@styled
def plot_residuals(fit: "Fit", ax: "Axes | None" = None) -> "Axes":
    """Draw each run's residual as colour over compute and tokens per parameter.

    Residuals are log loss minus the median of the expected one, discrepancy and groups' offsets included, in
    per cent; of runs that share inputs, their mean. They should look like noise; neighbours that share a
    colour are misfit that nothing in the model takes up.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens.
    ax : matplotlib axes, optional
        Where to draw.

    Raises
    ------
    FitError
        If the law has other inputs.
    """
    require_params_and_tokens(fit, "a map of residuals")
    ax = axes_or_new(ax)
    params, tokens = fit.table.column("params"), fit.table.column("tokens")
    few = fit.thinned(ENOUGH_DRAWS)
    expected = few.model.log_mean_at(few.z.reshape(-1, few.model.size))
    percent = 100 * (few.model.log_loss - np.median(expected, axis=0))
    # Of runs that share a place only the last would be seen.
    (compute, ratio), where = np.unique(
        [fit.table.column("compute"), tokens / params], axis=1, return_inverse=True
    )
    percent = np.bincount(where.ravel(), percent) / np.bincount(where.ravel())
    # A few outliers must not wash the colours out.
    most = np.quantile(np.abs(percent), 0.97)
    points = ax.scatter(
        compute, ratio, c=percent, cmap="RdBu_r", vmin=-most, vmax=most, s=26,
        edgecolors="grey", linewidths=0.3,
    )  # fmt: skip
    ax.figure.colorbar(points, ax=ax, label="measured above expected loss (%)", extend="both")
    return _finish(ax, fit, "residuals")


@styled
def plot_discrepancy(fit: "Fit", ax: "Axes | None" = None) -> "Axes":
    """Draw the posterior median of the discrepancy over compute and tokens per parameter.

    It multiplies the reducible loss; +2% says that the truth lies 2% of the reducible loss above the law.
    Hatching marks where its 90% interval holds zero.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens, with a discrepancy.
    ax : matplotlib axes, optional
        Where to draw.

    Raises
    ------
    FitError
        If the law has other inputs, or the fit has no discrepancy.
    """
    from matplotlib.ticker import MaxNLocator

    require_params_and_tokens(fit, "a map of the discrepancy")
    if fit.model.discrepancy is None:
        raise FitError("this fit was made without a discrepancy (--no-discrepancy)")
    ax = axes_or_new(ax)
    params, tokens = fit.table.column("params"), fit.table.column("tokens")
    c = np.geomspace(fit.table.column("compute").min(), 10 * fit.table.column("compute").max(), 24)
    r = np.geomspace((tokens / params).min(), (tokens / params).max(), 20)
    compute, ratio = np.meshgrid(c, r)
    n = fit.table.counting.params(compute, tokens_per_param=ratio).ravel()
    few = fit.thinned(400)
    d = ratio.ravel() * n
    expected = forecast(few, params=n, tokens=d).draws["expected_loss"].values.reshape(-1, n.size)
    floor = few.model.floor(few.parameters)
    delta = 100 * np.log((expected - floor) / (_law_loss(few, n, d) - floor))
    low, middle, high = np.nanquantile(delta, [0.05, 0.5, 0.95], axis=0).reshape(3, *ratio.shape)
    most = np.abs(middle).max()
    levels = MaxNLocator(12, symmetric=True).tick_values(-most, most)
    shades = ax.contourf(c, r, middle, levels=levels, cmap="RdBu_r")
    ax.contourf(c, r, (low < 0) & (high > 0), levels=[0.5, 1.5], colors="none", hatches=["...."])
    ax.figure.colorbar(shades, ax=ax, label="discrepancy (% of the reducible loss)")
    ax.scatter(fit.table.column("compute"), tokens / params, s=8, color="black", label="runs")
    ax.legend(loc="lower right", frameon=True)
    return _finish(ax, fit, "discrepancy (dotted: 90% interval holds zero)")


def _law_loss(fit: "Fit", params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return draws of the law's loss without the discrepancy, shape (draw, point)."""
    return fit.model.law_loss(fit.parameters, fit.model.ratios_at({"N": params, "D": tokens}))


def _finish(ax: "Axes", fit: "Fit", what: str) -> "Axes":
    ax.set(xscale="log", yscale="log", xlabel=label("compute"), ylabel=label("tokens_per_param"))
    ax.set_title(f"{plain(fit.table.name)}: {what}")
    mark_failed(ax, fit)
    return ax
