"""Runs and bands: loss over compute, params and tokens, and the forecast of runs not yet trained."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayescale.errors import FitError
from bayescale.forecasts import Forecast, forecast
from bayescale.plots.style import (
    ENOUGH_DRAWS,
    ORANGE,
    axes_or_new,
    draw_band,
    label,
    mark_failed,
    plain,
    require_params_and_tokens,
    shade_extrapolation,
    styled,
    title_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

    from bayescale.fitting import Fit

_POINTS = 60
# Steps of shade for half-widths of bands, % of loss.
_WIDTHS = (0, 0.25, 0.5, 1, 2, 4, 8, 16)


@styled
def plot_forecast(fit: "Fit", target: Forecast, ax: "Axes | None" = None) -> "Axes":
    """Draw the runs, the targets, and the band at the first one's tokens per parameter and other inputs.

    Loss is drawn against compute or, where a law's only input leaves it unknown, against that.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens, or in one input.
    target : Forecast
        Made from `fit`.
    ax : matplotlib axes, optional
        Where to draw.

    Raises
    ------
    FitError
        If the targets of a law in several inputs have no params and tokens.
    """
    rows, sizes = target.summary(), ("params", "tokens", "compute")
    against, ratio, held = "compute", None, dict[str, float]()
    if set(sizes) <= set(target.draws.coords):
        ratio = float(rows["tokens"].iloc[0] / rows["params"].iloc[0])
        held = {c: float(rows[c].iloc[0]) for c in fit.law.columns if c not in sizes}
    elif len(fit.law.columns) == 1:
        (against,) = fit.law.columns
    else:
        raise FitError(f"law {fit.law.name!r} has no params and tokens to draw loss against compute")
    fit = fit.for_group(target.group)
    ax = plot_bands(fit, against, ratio=ratio, held=held, upto=float(rows[against].max()), ax=ax)
    ends = rows["loss_90%_low"], rows["loss_90%_high"]
    errors = np.abs(np.stack(ends) - rows["loss"].to_numpy())
    ax.errorbar(
        rows[against], rows["loss"], errors, fmt="D", ms=5, color=ORANGE, capsize=3, zorder=4,
        label="forecast of a new run, 90%",
    )  # fmt: skip
    ax.legend()
    return ax


@styled
def plot_bands(
    fit: "Fit",
    against: str = "compute",
    *,
    ratio: float | None = None,
    held: Mapping[str, float] | None = None,
    upto: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the runs and bands of the expected loss over one input, the law's other inputs held.

    Parameters
    ----------
    fit : Fit
        The fit.
    against : str
        ``compute``, ``params``, ``tokens`` or another input column of the law.
    ratio : float, optional
        Tokens per parameter held where loss is drawn against compute; the runs' median unless told.
    held : mapping, optional
        Where loss is drawn against anything else: input column to the value it is held at. Unless told,
        a band for each of the 20%, 50% and 80% quantiles of the runs' tokens (or params).
    upto : float, optional
        How far to draw; ten times the table's largest unless told.
    ax : matplotlib axes, optional
        Where to draw.

    Raises
    ------
    FitError
        If the law has no such input, or other inputs need values to be held at.
    """
    ax = axes_or_new(ax)
    seen = _column(fit, against)
    low, high = seen.min(), max(seen.max(), upto or 10 * seen.max())
    x = np.geomspace(low, high, _POINTS)
    slices = _slices(fit, against, ratio, dict(held or {}))
    few = fit.thinned(ENOUGH_DRAWS)
    runs = _draw_runs(fit, against, ax)
    for name, inputs in slices:
        made = forecast(few, **_inputs_along(fit, against, x, inputs))
        draws = made.draws["expected_loss"].values.reshape(-1, len(x))
        if len(slices) == 1:
            draw_band(ax, x, draws, name=name)
        else:  # each band in the colour of the runs that it is closest to
            assert runs is not None
            value = np.log10(next(iter(inputs.values())))
            draw_band(ax, x, draws, colour=runs.to_rgba(value), name=name, widths=(0.9,))
    ax.set(xscale="log", xlim=(low / 1.3, high * 1.3), xlabel=label(against), ylabel=label("loss"))
    shade_extrapolation(ax, seen.max())
    whose = [f"group {plain(fit.group)}"] if fit.group else []
    runs_of = f"{len(fit.table)} runs of {plain(fit.table.name)}"
    ax.set_title(title_of(fit.law.title or fit.law.name, runs_of, *whose))
    ax.legend()
    mark_failed(ax, fit)
    return ax


@styled
def plot_surface(fit: "Fit", ax: "Axes | None" = None) -> "Axes":
    """Draw the expected loss over params and tokens as contours, the width of its band as shade.

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
    from matplotlib.colors import BoundaryNorm

    require_params_and_tokens(fit, "a loss surface")
    ax = axes_or_new(ax)
    params, tokens = fit.table.column("params"), fit.table.column("tokens")
    n, d = (np.geomspace(v.min() / 2, v.max() * 10, 40) for v in (params, tokens))
    grid = np.stack(np.meshgrid(n, d), axis=0)
    made = forecast(fit.thinned(400), params=grid[0].ravel(), tokens=grid[1].ravel())
    draws = made.draws["expected_loss"].values.reshape(-1, n.size * d.size)
    low, loss, high = np.quantile(draws, [0.05, 0.5, 0.95], axis=0).reshape(3, *grid.shape[1:])
    half_width = 50 * (high - low) / loss
    norm = BoundaryNorm(_WIDTHS, 256, extend="max")
    shades = ax.contourf(n, d, half_width, levels=_WIDTHS, cmap="Blues", norm=norm, extend="max")
    # Labels cut gaps into lines as long as they are on the axes' present scale.
    ax.set(xscale="log", yscale="log", xlabel=label("params"), ylabel=label("tokens"))
    lines = ax.contour(n, d, loss, levels=10, colors="black", linewidths=0.7)
    ax.clabel(lines, fmt="%.2f", fontsize="small")
    ax.scatter(params, tokens, s=8, color=ORANGE, zorder=3, label="runs")
    ax.set_title(f"{plain(fit.table.name)}: expected loss (lines, nats/token)")
    ax.figure.colorbar(shades, ax=ax, label="half-width of the 90% band (% of loss)")
    ax.legend(loc="lower right", frameon=True)
    mark_failed(ax, fit)
    return ax


def _column(fit: "Fit", against: str) -> np.ndarray:
    possible = [*fit.law.columns]
    if {"params", "tokens"} <= set(possible) and "compute" not in possible:
        possible.append("compute")
    if against not in possible:
        raise FitError(
            f"law {fit.law.name!r} has no input {against!r}; expected one of {', '.join(possible)}"
        )
    return fit.table.column(against)


def _slices(
    fit: "Fit", against: str, ratio: float | None, held: dict[str, float]
) -> list[tuple[str, dict[str, float]]]:
    """Return what each band is called and what is held along it."""
    others = [c for c in fit.law.columns if c != against]
    if against == "compute" and {"params", "tokens"} <= set(others):
        ratio = ratio or float(np.median(fit.table.column("tokens") / fit.table.column("params")))
        others = [c for c in others if c not in ("params", "tokens")]
        slices = [(f" at {ratio:.3g} tokens per parameter", {"tokens per parameter": ratio})]
    elif (free := [c for c in others if c not in held])[:1] in (["params"], ["tokens"]):
        others.remove(free[0])
        values = np.quantile(fit.table.column(free[0]), [0.2, 0.5, 0.8])
        slices = [(f" at {v:.2g} {free[0]}", {free[0]: float(v)}) for v in np.unique(values)]
    else:
        slices = [("", {})]
    if missing := [c for c in others if c not in held]:
        raise FitError(f"law {fit.law.name!r} also has {missing[0]!r}; give the value it is held at (held=)")
    return [(name, inputs | {c: held[c] for c in others}) for name, inputs in slices]


def _inputs_along(fit: "Fit", against: str, x: np.ndarray, held: dict[str, float]) -> dict[str, Any]:
    inputs: dict[str, Any] = {k: v for k, v in held.items() if k != "tokens per parameter"}
    if ratio := held.get("tokens per parameter"):
        params = fit.table.counting.params(x, tokens_per_param=ratio)
        return inputs | {"params": params, "tokens": ratio * params}
    return inputs | {against: x}


def _draw_runs(fit: "Fit", against: str, ax: "Axes") -> "PathCollection | None":
    """Draw the runs, coloured by the quantity that the bands hold; return what maps it to colours."""
    table = fit.table
    if not {"params", "tokens"} <= set(table.frame):
        ax.scatter(table.column(against), table.column("loss"), s=12, color="black", zorder=3, label="runs")
        return None
    by = {"params": "tokens", "tokens": "params"}.get(against)
    values = table.column(by) if by else table.column("tokens") / table.column("params")
    points = ax.scatter(table.column(against), table.column("loss"), c=np.log10(values), s=12, zorder=3)
    ax.figure.colorbar(points, ax=ax, label=f"log10 {by or 'tokens per parameter'} of each run")
    return points
