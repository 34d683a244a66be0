"""Pictures of fits and backtests: functions that take and return matplotlib axes, one file per subject.

Every axis has its unit, what lies beyond the table is shaded, and a fit whose diagnostics failed says so
in the picture. Looks are in ``bayescale.mplstyle``.
"""

from bayescale.plots.calibration import plot_coverage, plot_pit
from bayescale.plots.comparison import (
    plot_comparison,
    plot_evidence,
    plot_laws,
    plot_loo_difference,
)
from bayescale.plots.forecasts import plot_bands, plot_forecast, plot_surface
from bayescale.plots.misfit import plot_discrepancy, plot_residuals
from bayescale.plots.optimum import plot_allocation, plot_isoflop
from bayescale.plots.parameters import plot_pairs, plot_prior_posterior
from bayescale.plots.plans import plot_plan
from bayescale.plots.rounds import plot_rounds
from bayescale.plots.style import require_picture, save_figure

__all__ = [
    "plot_allocation",
    "plot_bands",
    "plot_comparison",
    "plot_coverage",
    "plot_discrepancy",
    "plot_evidence",
    "plot_forecast",
    "plot_isoflop",
    "plot_laws",
    "plot_loo_difference",
    "plot_pairs",
    "plot_pit",
    "plot_plan",
    "plot_prior_posterior",
    "plot_residuals",
    "plot_rounds",
    "plot_surface",
    "require_picture",
    "save_figure",
]
