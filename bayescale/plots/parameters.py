"""Parameters: prior against posterior, and the ridges along which data cannot tell parameters apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayescale.errors import FitError
from bayescale.laws import Prior
from bayescale.laws.priors import marginal
from bayescale.plots.style import BLUE, ENOUGH_DRAWS, GREEN, GREY, mark_failed, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayescale.fitting import Fit

# Importance sampling repeats draws, which ArviZ's default bandwidth takes for structure.
_BANDWIDTH = "silverman"


@styled
def plot_prior_posterior(fit: "Fit", axes: "np.ndarray | None" = None) -> np.ndarray:
    """Draw prior and posterior of every sampled parameter, a panel each.

    Densities of positive parameters are per unit of log, on a log axis: priors here span decades, and
    posteriors a few per cent.

    Parameters
    ----------
    fit : Fit
        The fit.
    axes : array of matplotlib axes, optional
        Where to draw, at least as many as parameters.

    Returns
    -------
    array of matplotlib axes
    """
    import matplotlib.pyplot as plt

    priors = sampled_priors(fit)
    rows = int(np.ceil(len(priors) / 3))
    if axes is None:
        axes = plt.subplots(rows, 3, figsize=(5.8, 1.5 * rows))[1]
    panels = np.asarray(axes).ravel()
    if len(panels) < len(priors):
        raise FitError(f"{len(panels)} axes given; law {fit.law.name!r} needs {len(priors)}")
    units = fit.summary()["unit"]
    for ax, (name, prior) in zip(panels, priors.items(), strict=False):
        _draw_marginal(ax, prior, fit.parameters[name])
        unit = units.get(name, "")
        ax.set_title(f"{name} ({unit})" if unit else name, fontsize="small")
    for ax in panels[len(priors) :]:
        ax.set_axis_off()
    panels[0].legend(loc="upper left", fontsize="x-small")
    mark_failed(panels, fit)
    return panels


@styled
def plot_pairs(fit: "Fit", parameters: Sequence[str] | None = None) -> np.ndarray:
    """Draw every pair of the law's parameters as papers print them, by ArviZ's pair plot.

    A thin ridge says that the table does not tell two parameters apart: alpha and A move together along
    it at hardly any cost in fit, and so do beta and B, and both with E. Amplitudes are drawn as log10.

    Parameters
    ----------
    fit : Fit
        The fit.
    parameters : sequence of str, optional
        Names from ``fit.draws``; the law's own unless told.

    Returns
    -------
    array of matplotlib axes, shape (parameter, parameter)
        None above the diagonal.
    """
    import arviz_base
    import arviz_plots
    import xarray as xr

    names = list(parameters or (p.name for p in fit.law.parameters))
    if unknown := [n for n in names if n not in fit.draws]:
        raise FitError(f"parameter {unknown[0]!r} is unknown; the fit has {', '.join(map(str, fit.draws))}")
    draws = fit.thinned(ENOUGH_DRAWS).draws
    # A parameter that was not sampled is an amplitude as papers print it; it spans decades.
    derived = [n for n in names if n not in sampled_priors(fit)]
    shown = {
        f"log10 {n}" if n in derived else n: np.log10(draws[n]) if n in derived else draws[n] for n in names
    }
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(shown)})
    side = 1.0 + 0.96 * len(names)
    with arviz_base.rc_context({"plot.max_subplots": len(names) ** 2}):
        matrix = arviz_plots.plot_pair(
            tree,
            backend="matplotlib",
            visuals={
                "scatter": {"color": BLUE, "size": 3, "alpha": 0.25, "edgecolor": "none"},
                "dist": {"color": BLUE},
            },
            stats={"dist": {"bw": _BANDWIDTH}},
            figure_kwargs={"figsize": (side, side), "layout": "constrained"},
        )
    axes = np.asarray(matrix.viz["plot"].values)
    for ax in (a for a in axes.ravel() if a is not None):
        ax.tick_params(labelsize="x-small")
        ax.locator_params(nbins=3)
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_label_text() == fit.law.floor:
                axis.set_label_text(f"{fit.law.floor} (nats/token)")
    mark_failed(axes, fit)
    return axes


def sampled_priors(fit: "Fit") -> dict[str, Prior]:
    """Return the prior of every parameter that was sampled: the law's at the centre, and the scales."""
    of_law = fit.model.centred.priors
    return {name: marginal(of_law, name) for name in of_law} | fit.model.scale_priors


def _draw_marginal(ax: "Axes", prior: Prior, draws: np.ndarray) -> None:
    from arviz_stats.base import array_stats

    # The prior's own draws tell the range worth showing; its density is drawn exactly.
    range_of = prior.sample(np.random.default_rng(0), 4000)
    low, high = np.quantile(range_of, [0.005, 0.995])
    low, high = min(low, draws.min()), max(high, draws.max())
    x = np.geomspace(low, high, 200) if prior.positive else np.linspace(low, high, 200)
    log: Any = np.log(x) if prior.positive else np.zeros_like(x)
    density = np.exp(prior.logpdf(x, log, np) + log)
    grid, posterior, _ = array_stats.kde(np.log(draws) if prior.positive else draws, bw=_BANDWIDTH)
    grid = np.exp(grid) if prior.positive else grid
    # Each scaled to its own height: where the posterior is narrow a common scale would flatten the prior.
    ax.fill_between(x, density / density.max(), color=GREY, alpha=0.25, lw=0, label="prior")
    ax.plot(grid, posterior / posterior.max(), color=BLUE, label="posterior")
    ax.axvline(np.median(draws), color=GREEN, lw=0.8, label="median")
    ax.set(xscale="log" if prior.positive else "linear", xlim=(low, high), ylim=(0, 1.08), yticks=[])
    if prior.positive:
        _few_log_ticks(ax, low, high)
    ax.spines["left"].set_visible(False)
    ax.tick_params(labelsize="x-small")


def _few_log_ticks(ax: "Axes", low: float, high: float) -> None:
    from matplotlib import ticker

    steps = (1.0,) if high / low > 100 else (1.0, 2.0, 5.0) if high / low > 6 else (1.0, 2.0, 3.0, 5.0, 7.0)
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=steps, numticks=6))
    ax.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    ax.xaxis.set_minor_formatter(ticker.NullFormatter())
