"""The figures of a report, each with a caption that says what to see in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bayescale import plots
from bayescale.allocations import Allocation
from bayescale.backtesting import Backtest
from bayescale.comparison import Comparison
from bayescale.forecasts import Forecast
from bayescale.reports.format import picture
from bayescale.rounds import Tightening

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Figure to what it shows (for those who cannot see it) and its caption.
_TEXTS = {
    "bands": (
        "Loss of the runs with bands",
        "Points are runs; the bands hold the expected loss of the recipe with 50% and 90% probability. A "
        "diamond is the forecast of one new run with its 90% interval, noise included. Grey is beyond the "
        "table: bands should widen there; where they do not, they trust the law too much.",
    ),
    "priors": (
        "Prior and posterior of every sampled parameter",
        "Grey is what was believed before the runs were seen, blue after; each is scaled to its own height. "
        "A posterior as wide as its prior was not learned from this table: it is the prior that speaks.",
    ),
    "pairs": (
        "Posterior draws of every pair of parameters",
        "Posterior draws of the law's parameters as papers print them. Thin ridges are combinations that the "
        "runs cannot tell apart; two fits at different points of one ridge do not contradict each other.",
    ),
    "isoflop": (
        "Loss against parameters at fixed compute",
        "Each colour is one compute budget: points are runs within 30% of it, the band holds the expected "
        "loss with 90% probability. Diamonds mark the best size with its 90% interval: a flat valley leaves "
        "it uncertain, and makes missing it cheap.",
    ),
    "allocation_params": (
        "Compute-optimal parameters against compute",
        "The compute-optimal number of parameters, with 50% and 90% bands. Dashed lines are published fits "
        "to the same runs, where there are any.",
    ),
    "allocation_tokens": (
        "Compute-optimal training tokens against compute",
        "The same for training tokens. Where published lines part inside the band, these runs cannot decide "
        "between them.",
    ),
    "surface": (
        "Expected loss over parameters and tokens",
        "Lines join equal expected loss in nats/token; the darker the shade, the wider the 90% band. "
        "Forecasts far from the orange runs rest on the law and the priors.",
    ),
    "residuals": (
        "Residual of each run over compute and tokens per parameter",
        "How far each run's loss lies above (red) or below (blue) its expectation. It should look like "
        "noise; patches of one colour would be misfit that the model does not take up.",
    ),
    "discrepancy": (
        "Discrepancy over compute and tokens per parameter",
        "Where the law itself is smoothly too low (red) or too high (blue), in per cent of the reducible "
        "loss; dots mark where the 90% interval holds zero. Its uncertainty is part of every band here.",
    ),
    "coverage": (
        "How often bands of each claimed probability held",
        "How often bands fitted to cheap runs held the hidden, more expensive ones. Below the dotted line, "
        "bands are narrower than they claim. Runs of one split miss together, so expect scatter.",
    ),
    "pit": (
        "Histogram of where hidden runs fell in their forecasts",
        "Where the hidden runs fell in their forecasts. Flat is honest; a heap on the left means that losses "
        "came out lower than forecast.",
    ),
    "evidence": (
        "Log Bayes factors of the laws against the best",
        "Diamonds are the laws as fitted, circles the same laws with other prior widths, noise or a "
        "discrepancy. Inside the shade nothing is decided; a law whose marks scatter over its edge is judged "
        "by those choices, not by the runs.",
    ),
    "loo_difference": (
        "How much better the best law predicts each left-out run than the second",
        "Each point is a run predicted from all others: above zero the best law does better, below it the "
        "second. A few points far out, or one end of the axis, carrying the difference is a warning.",
    ),
    "rounds": (
        "Band of the target after each round of planned runs",
        "The target's 90% band after each round (its number above), and in grey the width that the round "
        "before predicted. Bands should shrink about as predicted, and keep to where they were.",
    ),
    "rounds_floor": (
        "Band of the irreducible loss after each round of planned runs",
        "The 90% band of the irreducible loss after each round. Where the text's entropy rate is known "
        "exactly (green), the bands should hold it.",
    ),
}


@dataclass(frozen=True)
class Figure:
    """A figure inside the page: the picture, and a caption that says what to see in it."""

    image: Markup
    caption: str


def figures(
    fit: "Fit",
    forecast: Forecast | None = None,
    allocation: Allocation | None = None,
    backtest: Backtest | None = None,
    comparison: Comparison | None = None,
    tightening: Tightening | None = None,
) -> dict[str, Figure]:
    """Draw every figure that the fit's law and what was asked allow, by name."""
    draw: dict[str, Callable[[], Any]] = {
        "priors": lambda: plots.plot_prior_posterior(fit),
        "pairs": lambda: plots.plot_pairs(fit),
    }
    if len(fit.law.inputs) == 1:
        draw["bands"] = lambda: plots.plot_bands(fit, fit.law.columns[0])
    elif fit.law.inputs == ("N", "D"):
        draw |= _of_params_and_tokens(fit, forecast, allocation)
    if backtest is not None:
        draw["coverage"] = lambda: plots.plot_coverage(backtest)
        draw["pit"] = lambda: plots.plot_pit(backtest, str(backtest.scores["method"].iloc[0]))
    if comparison is not None:
        draw["evidence"] = lambda: plots.plot_evidence(comparison)
        if "compute" in fit.table.frame:
            draw["loo_difference"] = lambda: plots.plot_loo_difference(comparison)
    if tightening is not None:
        draw["rounds"] = lambda: plots.plot_rounds(tightening)
        if tightening.rounds[0]["floor_band"]:
            draw["rounds_floor"] = lambda: plots.plot_rounds(tightening, "floor")
    return {name: _drawn(name, make) for name, make in draw.items()}


def _of_params_and_tokens(
    fit: "Fit", forecast: Forecast | None, allocation: Allocation | None
) -> dict[str, Callable[[], Any]]:
    upto = None if allocation is None else float(allocation.draws["compute"].median())
    draw: dict[str, Callable[[], Any]] = {
        "bands": lambda: plots.plot_bands(fit) if forecast is None else plots.plot_forecast(fit, forecast),
        "isoflop": lambda: plots.plot_isoflop(fit),
        "allocation_params": lambda: plots.plot_allocation(fit, "params", upto=upto),
        "allocation_tokens": lambda: plots.plot_allocation(fit, "tokens", upto=upto),
        "surface": lambda: plots.plot_surface(fit),
        "residuals": lambda: plots.plot_residuals(fit),
    }
    if fit.model.discrepancy is not None:
        draw["discrepancy"] = lambda: plots.plot_discrepancy(fit)
    return draw


def _drawn(name: str, make: Callable[[], Any]) -> Figure:
    alt, caption = _TEXTS[name]
    # The thousands of points of a pair plot are smaller as pixels.
    return Figure(picture(make(), alt, suffix="png" if name == "pairs" else "svg"), caption)
