"""The figures of a report, each with a caption that says what to see in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bayescale import plots
from bayescale.allocations import Allocation
from bayescale.backtesting import Backtest
from bayescale.forecasts import Forecast
from bayescale.reports.format import picture

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
}


@dataclass(frozen=True)
class Figure:
    """A figure inside the page: the picture, and a caption that says what to see in it."""

    image: Markup
    caption: str


def figures(
    fit: "Fit", forecast: Forecast | None, allocation: Allocation | None, backtest: Backtest | None
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
