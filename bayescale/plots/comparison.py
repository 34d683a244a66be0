"""Pictures of a comparison of laws: their curves over the runs, their evidence, and LOO run by run."""

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from bayescale.comparison import DECIDES, Comparison
from bayescale.errors import FitError
from bayescale.plots.style import BLUE, CYCLE, GREY, LABELS, ORANGE, axes_or_new, plain, styled, write_mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayescale.fitting import Fit

# On a scale that is linear where nothing is decided, and logarithmic beyond.
_TICKS = (-10_000, -1000, -300, -100, -30, -10, -DECIDES, 0, DECIDES, 10, 30, 100, 300, 1000)


@styled
def plot_comparison(compared: Comparison) -> "Axes":
    """Draw curves, evidence and pointwise LOO side by side; returns the first axes."""
    import matplotlib.pyplot as plt

    axes = plt.subplots(1, 3, figsize=(14, 4.4))[1]
    plot_laws(compared, axes[0])
    plot_evidence(compared, axes[1])
    plot_loo_difference(compared, axes[2])
    return axes[0]


@styled
def plot_laws(compared: Comparison, ax: "Axes | None" = None) -> "Axes":
    """Draw each run's loss against compute, and each law's posterior median at three fixed D/N.

    Raises
    ------
    FitError
        If a law needs more than params, tokens or compute.
    """
    ax = axes_or_new(ax)
    table = compared.table
    compute, loss = table.column("compute"), table.column("loss")
    ratios = table.column("tokens") / table.column("params")
    ax.scatter(compute, loss, s=8, color=GREY, alpha=0.6, lw=0, label="runs")
    at = np.geomspace(compute.min(), compute.max(), 60)
    levels = np.quantile(ratios, [0.1, 0.5, 0.9])
    for colour, (name, fit) in zip(cycle(CYCLE), compared.fits.items()):
        for ratio, style in zip(levels, (":", "-", "--"), strict=True):
            params = table.counting.params(at, tokens_per_param=ratio)
            curve = _median_curve(fit, {"N": params, "D": ratio * params, "C": at})
            ax.plot(at, curve, style, color=colour, lw=1, label=name if style == "-" else None)
    shown = ", ".join(f"{style} {ratio:.3g}" for style, ratio in zip("·–╌", levels, strict=True))
    ax.set(xscale="log", xlabel=LABELS["compute"], ylabel=LABELS["loss"])
    ax.set_title(f"{plain(table.name)}: laws at D/N {shown}", fontsize="small")
    ax.legend()
    _mark(ax, compared)
    return ax


def _mark(ax: "Axes", compared: Comparison) -> None:
    """Write which laws are not to be relied on."""
    if compared.unreliable:
        write_mark(ax, f"do not rely on {', '.join(compared.unreliable)}")


def _median_curve(fit: "Fit", inputs: dict[str, np.ndarray]) -> np.ndarray:
    if missing := set(fit.law.inputs) - inputs.keys():
        raise FitError(f"law {fit.law.name!r} needs {sorted(missing)[0]!r}: it has no curve along compute")
    fit = fit.thinned(400)
    return np.median(fit.model.law_loss(fit.parameters, fit.model.ratios_at(inputs)), axis=0)


@styled
def plot_evidence(compared: Comparison, ax: "Axes | None" = None) -> "Axes":
    """Draw log Bayes factors against the best law, as fitted (with errors) and in other settings."""
    ax = axes_or_new(ax)
    table = compared.sensitivity_table()
    places = np.arange(len(compared.labels))
    for row, (setting, factors) in enumerate(table.iterrows()):
        shift = (row - (len(table) - 1) / 2) * 0.12
        errors = [compared.evidences[n].error for n in compared.labels] if row == 0 else None
        ax.errorbar(
            factors, places + shift, xerr=errors, fmt="D" if row == 0 else "o", ms=5, capsize=3,
            color=CYCLE[row % len(CYCLE)], label=str(setting),
        )  # fmt: skip
    ax.axvspan(-DECIDES, DECIDES, color=GREY, alpha=0.1, lw=0)
    ax.set_xscale("symlog", linthresh=DECIDES)
    low, high = ax.get_xlim()
    ticks = [t for t in _TICKS if low <= t <= high]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.invert_yaxis()
    ax.set(yticks=places, yticklabels=compared.labels, xlabel="log Bayes factor against the best (nats)")
    ax.set_title("evidence (shaded: not decisive)", fontsize="small")
    ax.legend()
    _mark(ax, compared)
    return ax


@styled
def plot_loo_difference(compared: Comparison, ax: "Axes | None" = None) -> "Axes":
    """Draw, run by run along compute, how much better the best law predicts it left out than the second.

    Raises
    ------
    FitError
        If the table has no compute.
    """
    if "compute" not in compared.table.frame:
        raise FitError(f"table {compared.table.name!r} has no compute to draw LOO along")
    ax = axes_or_new(ax)
    first, second = compared.labels[:2]
    gain = np.asarray(compared.loo[first].elpd_i) - np.asarray(compared.loo[second].elpd_i)
    compute = compared.table.column("compute")
    ax.axhline(0, color=GREY, lw=0.8)
    ax.scatter(compute, gain, s=12, color=np.where(gain > 0, BLUE, ORANGE))
    ax.set(xscale="log", xlabel=LABELS["compute"], ylabel="difference of log density (nats)")
    ax.set_title(f"PSIS-LOO by run: {first}\nover {second} where above 0", fontsize="small")
    _mark(ax, compared)
    return ax
