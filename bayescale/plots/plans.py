"""A plan: candidates coloured by gain per FLOP, the chosen ones marked."""

from typing import TYPE_CHECKING

import numpy as np

from bayescale.errors import FitError
from bayescale.plots.style import FAILED, GREY, ORANGE, axes_or_new, figure_of, label, styled, write_mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayescale.fitting import Fit
    from bayescale.proposals import Proposal


@styled
def plot_plan(fit: "Fit", plan: "Proposal", ax: "Axes | None" = None) -> "Axes":
    """Draw the table's runs, the candidates by gain per FLOP, and the chosen runs, in params and tokens.

    Parameters
    ----------
    fit : Fit
        What the plan was made from; of several laws, the best.
    plan : Proposal
        The plan.
    ax : matplotlib axes, optional
        Where to draw.

    Raises
    ------
    FitError
        If candidates or table have no params and tokens.
    """
    if not {"params", "tokens"} <= set(plan.candidates) & set(fit.table.frame):
        raise FitError("candidates or table have no params and tokens to draw a plan over")
    ax = axes_or_new(ax)
    ax.scatter(
        fit.table.column("params"), fit.table.column("tokens"), marker="x", s=18, color=GREY, zorder=3,
        label="runs of the table",
    )  # fmt: skip
    pool = plan.candidates
    gain = np.log10(np.maximum(pool["gain_per_flop"], pool["gain_per_flop"].max() * 1e-4))
    points = ax.scatter(pool["params"], pool["tokens"], c=gain, s=40, cmap="cividis", label="candidates")
    chosen = pool[pool["chosen"] > 0]
    ax.scatter(
        chosen["params"], chosen["tokens"], s=60 + 40 * chosen["chosen"], facecolors="none",
        edgecolors=ORANGE, lw=1.5, label="chosen (larger: more seeds)",
    )  # fmt: skip
    if {"params", "tokens"} <= plan.aim.keys():
        ax.scatter(plan.aim["params"], plan.aim["tokens"], marker="D", color=ORANGE, label="target")
    ax.set(xscale="log", yscale="log", xlabel=label("params"), ylabel=label("tokens"))
    ax.set_title(plan.headline.replace(": ", ":\n", 1))
    bar = f"log10 of {plan.gain_meaning}\nper FLOP, as a first run"
    figure_of(ax).colorbar(points, ax=ax, label=bar)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)  # candidates fill the axes
    if plan.failed:
        write_mark(ax, FAILED)
    return ax
