"""Calibration: whether a backtest's bands held as often as they claim."""

from typing import TYPE_CHECKING

import numpy as np

from bayescale.errors import FitError
from bayescale.plots.style import BLUE, GREY, axes_or_new, styled, write_mark

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from bayescale.backtesting import Backtest


@styled
def plot_coverage(backtest: "Backtest", ax: "Axes | None" = None) -> "Axes":
    """Draw how often central bands held against how often they claim to, a curve per method.

    Every split counts alike. On the diagonal, bands are honest; below it they are too narrow.

    Parameters
    ----------
    backtest : Backtest
        The scores.
    ax : matplotlib axes, optional
        Where to draw.
    """
    ax = axes_or_new(ax)
    levels = np.linspace(0, 1, 101)
    ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":", label="honest")
    for method, rows in backtest.scores.groupby("method", sort=False):
        central = np.abs(rows["pit"].to_numpy() - 0.5) * 2
        held = _split_weights(rows) @ (central[:, None] <= levels)
        at_90 = float(held[90])
        ax.plot(levels, held, label=f"{method}: 90% band holds {at_90:.0%}")
    ax.axvline(0.9, color=GREY, lw=0.6)
    ax.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="what the band claims (probability)",
        ylabel="how often it held (share of hidden runs)", title="Coverage of hidden, more expensive runs",
    )  # fmt: skip
    ax.legend(loc="upper left")
    _mark(ax, backtest)
    return ax


@styled
def plot_pit(backtest: "Backtest", method: str = "discrepancy", ax: "Axes | None" = None) -> "Axes":
    """Draw where hidden runs fell in their forecasts: the histogram of the probability transform.

    Flat is honest. A heap at 0 (or 1) says that losses came out below (above) their forecasts, heaps at
    both ends that bands are too narrow.

    Parameters
    ----------
    backtest : Backtest
        The scores.
    method : str
        A method of the backtest.
    ax : matplotlib axes, optional
        Where to draw.

    Raises
    ------
    FitError
        If the backtest has no such method.
    """
    rows = backtest.scores[backtest.scores["method"] == method]
    if rows.empty:
        have = ", ".join(map(str, backtest.scores["method"].unique()))
        raise FitError(f"the backtest has no method {method!r}; it has {have}")
    ax = axes_or_new(ax)
    ax.hist(rows["pit"], bins=10, range=(0, 1), weights=10 * _split_weights(rows), color=BLUE, alpha=0.6)
    ax.axhline(1, color=GREY, ls=":", label="honest")
    ax.set(
        xlim=(0, 1), xlabel="share of the forecast below the measured loss", ylabel="density (1 is honest)",
        title=f"{method}: where {len(rows)} hidden runs fell in their forecasts",
    )  # fmt: skip
    ax.legend()
    _mark(ax, backtest)
    return ax


def _mark(ax: "Axes", backtest: "Backtest") -> None:
    if failed := len(backtest.failures):
        write_mark(ax, f"do not rely on this: diagnostics failed in {failed} fit(s)")


def _split_weights(rows: "pd.DataFrame") -> np.ndarray:
    """Return weights that sum to 1 and give each split the same share, whatever its number of runs."""
    keys = ["table", "factor"]
    size = rows.groupby(keys)["pit"].transform("size").to_numpy(float)
    return 1 / (size * rows.groupby(keys).ngroups)
