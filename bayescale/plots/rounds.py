"""Rounds of tightening: a band per round, beside what the round before had predicted."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from bayescale.errors import FitError
from bayescale.plots.style import BLUE, GREEN, GREY, ORANGE, axes_or_new, styled, write_mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayescale.rounds import Tightening


@styled
def plot_rounds(
    tightening: "Tightening", quantity: Literal["target", "floor"] = "target", ax: "Axes | None" = None
) -> "Axes":
    """Draw the 90% band of the target, or of the floor, after each round, against the FLOP spent.

    Parameters
    ----------
    tightening : Tightening
        From `bayescale.tighten` or `bayescale.read_tightening`.
    quantity : {"target", "floor"}
        The target, with the widths predicted and the target run's loss where it was trained; or the
        irreducible loss, with the source's exact entropy rate where it is known.
    ax : matplotlib axes, optional
        Where to draw.

    Raises
    ------
    FitError
        If the law has no floor to draw.
    """
    rounds = tightening.rounds
    bands = [r["band" if quantity == "target" else "floor_band"] for r in rounds]
    if None in bands:
        raise FitError("the law of these rounds has no floor; draw the target")
    ax = axes_or_new(ax)
    low, high = np.transpose(bands)
    spent = np.array([r["spent"] for r in rounds])
    _bars(ax, spent, low, high)
    if quantity == "target":
        unit, title = rounds[0]["unit"], f"{rounds[0]['target']} by round"
        _predicted(ax, spent, (low + high) / 2, [r["predicted_width"] for r in rounds])
        if tightening.check and tightening.check["loss"] is not None:
            ax.axhline(tightening.check["loss"], color=ORANGE, lw=1.2, label="the target run, trained")
    else:
        unit, title = "nats/token", "irreducible loss by round"
        if rounds[0]["entropy_rate"]:
            ax.axhline(rounds[0]["entropy_rate"], color=GREEN, lw=1.2, label="exact entropy rate")
    ax.set(xlabel="compute of planned runs so far (FLOP)", ylabel=f"90% band ({unit})")
    ax.set_title(title)
    if any(r["failures"] for r in rounds):
        write_mark(ax, "diagnostics failed in some rounds: do not rely on those")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return ax


def _bars(ax: "Axes", x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    middle = (low + high) / 2
    ax.errorbar(x, middle, yerr=(high - low) / 2, fmt="none", ecolor=BLUE, lw=4, label="90% band")
    for number, (at, top) in enumerate(zip(x, high, strict=True)):
        ax.annotate(
            f"{number}", (at, top), xytext=(0, 3), textcoords="offset points", ha="center", fontsize="small"
        )


def _predicted(ax: "Axes", x: np.ndarray, middle: np.ndarray, widths: list[float | None]) -> None:
    made = [i for i, width in enumerate(widths) if width]
    if made:
        half = np.array([widths[i] for i in made], float) / 2
        ax.errorbar(
            x[made], middle[made], yerr=half, fmt="none", ecolor=GREY, lw=1, capsize=6,
            label="its width as predicted a round before",
        )  # fmt: skip
