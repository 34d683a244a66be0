"""Pictures of fits. Every function takes and returns matplotlib axes, with units on every axis."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bayescale.errors import FitError
from bayescale.files import written_aside
from bayescale.forecasts import Forecast, forecast

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayescale.fitting import Fit

# Okabe & Ito's colours, told apart by all common forms of colour vision.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"


def plot_forecast(fit: "Fit", target: Forecast, ax: "Axes | None" = None) -> "Axes":
    """Draw the runs, the band along the first target's tokens per parameter, and the targets.

    Parameters
    ----------
    fit : Fit
        Of a law in params and tokens.
    target : Forecast
        Made from `fit`.
    ax : matplotlib axes, optional
        Where to draw.
    """
    import matplotlib.pyplot as plt

    if not {"params", "tokens", "compute"} <= set(target.draws.coords):
        raise FitError(f"law {fit.law.name!r} has no params and tokens to draw loss against compute")
    ax = ax or plt.subplots(figsize=(7.2, 4.4), layout="constrained")[1]
    rows = target.summary()
    ratio = float(rows["tokens"].iloc[0] / rows["params"].iloc[0])
    runs = {c: fit.table.column(c) for c in ("params", "tokens", "compute", "loss")}
    low, high = runs["compute"].min(), max(runs["compute"].max(), rows["compute"].max())
    k = fit.table.meta.flops_per_param_token
    compute = np.geomspace(low, high, 60)
    params = np.sqrt(compute / (k * ratio))
    band = forecast(fit, params=params, tokens=ratio * params).summary()
    for width, shade in (("90%", 0.18), ("50%", 0.35)):
        edges = band[f"expected_loss_{width}_low"], band[f"expected_loss_{width}_high"]
        label = f"{width} band at {ratio:.3g} tokens per parameter"
        ax.fill_between(compute, *edges, color=BLUE, alpha=shade, lw=0, label=label)
    ax.plot(compute, band["expected_loss"], color=BLUE, lw=1.2)
    colours = np.log10(runs["tokens"] / runs["params"])
    points = ax.scatter(runs["compute"], runs["loss"], c=colours, s=12, cmap="cividis", zorder=3)
    ends = rows["loss_90%_low"], rows["loss_90%_high"]
    errors = np.abs(np.stack(ends) - rows["loss"].to_numpy())
    ax.errorbar(
        rows["compute"], rows["loss"], errors, fmt="D", ms=5, color=ORANGE, capsize=3, zorder=4,
        label="forecast of a new run, 90%",
    )  # fmt: skip
    ax.axvspan(runs["compute"].max(), high * 1.3, color=GREY, alpha=0.08, lw=0, label="extrapolation")
    ax.set(
        xscale="log",
        xlim=(low / 1.3, high * 1.3),
        xlabel="training compute (FLOP)",
        ylabel="loss (nats/token)",
        title=f"{fit.table.name}: {fit.law.title or fit.law.name}",
    )
    plt.colorbar(points, ax=ax, label="log10 tokens per parameter of each run")
    ax.legend(frameon=False, fontsize="small")
    if not fit.diagnostics.passed:
        ax.text(
            0.02,
            0.02,
            "diagnostics failed: do not rely on this",
            transform=ax.transAxes,
            color=ORANGE,
        )
    return ax


def save_figure(ax: "Axes", path: str | Path) -> None:
    """Write the figure of `ax`, in the format of the path's suffix, aside and then renamed.

    Raises
    ------
    BayescaleError
        If the file cannot be written or matplotlib has no such format.
    """
    path, figure = Path(path), ax.get_figure(root=True)
    assert figure is not None
    suffix = path.suffix.lstrip(".")
    if suffix not in (formats := figure.canvas.get_supported_filetypes()):
        raise FitError(f"{path}: no picture format {path.suffix!r}; expected one of {sorted(formats)}")
    with written_aside(path) as aside:
        figure.savefig(aside, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
