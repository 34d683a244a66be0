"""bayescale: Bayesian scaling laws whose forecast bands hold as often as they claim.

>>> import bayescale as bs
>>> fit = bs.fit(bs.load("chinchilla"), law="chinchilla")  # doctest: +SKIP
>>> fit.forecast(params=70e9, tokens=1.4e12).summary()  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayescale.allocations import Allocation, allocate
    from bayescale.backtesting import Backtest, backtest
    from bayescale.catalogue import load, pull, tables
    from bayescale.checks import Finding, check
    from bayescale.comparison import Comparison, compare
    from bayescale.errorrates import counted_examples, sampling_error
    from bayescale.errors import BayescaleError
    from bayescale.fitfile import load_fit
    from bayescale.fitting import Fit, fit, fit_many, prior_predictive
    from bayescale.forecasts import Forecast, forecast
    from bayescale.lawplans import LawPlan, plan_between
    from bayescale.laws import Gamma, Law, LogNormal, Normal, Parameter
    from bayescale.plans import Plan, plan
    from bayescale.pointfit import PointFit, point_fit
    from bayescale.priorconflicts import PriorConflict, prior_conflicts
    from bayescale.publishedfits import PublishedFit, PublishedRule, published_fits, published_rules
    from bayescale.replicates import LackOfFit, lack_of_fit
    from bayescale.reports import report
    from bayescale.rounds import read_tightening
    from bayescale.runs import RunTable, TableMeta, make_table
    from bayescale.schedules import schedule_areas, with_schedule_areas
    from bayescale.scoreboards import scoreboard
    from bayescale.tablefiles import read_runs, write_runs
    from bayescale.tightening import tighten

# Public name to module; imported when first used, so that `bayescale --help` loads no PyMC.
_PUBLIC = {
    "Allocation": "allocations",
    "Backtest": "backtesting",
    "BayescaleError": "errors",
    "Comparison": "comparison",
    "Either": "laws",
    "Finding": "checks",
    "Fit": "fitting",
    "Forecast": "forecasts",
    "Gamma": "laws",
    "LackOfFit": "replicates",
    "Law": "laws",
    "LogNormal": "laws",
    "Normal": "laws",
    "Parameter": "laws",
    "LawPlan": "lawplans",
    "Plan": "plans",
    "PointFit": "pointfit",
    "PriorConflict": "priorconflicts",
    "PublishedFit": "publishedfits",
    "PublishedRule": "publishedfits",
    "RunTable": "runs",
    "TableMeta": "runs",
    "allocate": "allocations",
    "backtest": "backtesting",
    "check": "checks",
    "compare": "comparison",
    "counted_examples": "errorrates",
    "fit": "fitting",
    "fit_many": "fitting",
    "forecast": "forecasts",
    "lack_of_fit": "replicates",
    "load": "catalogue",
    "load_fit": "fitfile",
    "make_table": "runs",
    "plan": "plans",
    "plan_between": "lawplans",
    "point_fit": "pointfit",
    "prior_conflicts": "priorconflicts",
    "prior_predictive": "fitting",
    "published_fits": "publishedfits",
    "published_rules": "publishedfits",
    "pull": "catalogue",
    "read_runs": "tablefiles",
    "read_tightening": "rounds",
    "report": "reports",
    "sampling_error": "errorrates",
    "schedule_areas": "schedules",
    "scoreboard": "scoreboards",
    "tables": "catalogue",
    "tighten": "tightening",
    "with_schedule_areas": "schedules",
    "write_runs": "tablefiles",
}

__all__ = [
    "Allocation",
    "Backtest",
    "BayescaleError",
    "Comparison",
    "Either",
    "Finding",
    "Fit",
    "Forecast",
    "Gamma",
    "LackOfFit",
    "Law",
    "LawPlan",
    "LogNormal",
    "Normal",
    "Parameter",
    "Plan",
    "PointFit",
    "PriorConflict",
    "PublishedFit",
    "PublishedRule",
    "RunTable",
    "TableMeta",
    "allocate",
    "backtest",
    "check",
    "compare",
    "counted_examples",
    "fit",
    "fit_many",
    "forecast",
    "lack_of_fit",
    "load",
    "load_fit",
    "make_table",
    "plan",
    "plan_between",
    "point_fit",
    "prior_conflicts",
    "prior_predictive",
    "published_fits",
    "published_rules",
    "pull",
    "read_runs",
    "read_tightening",
    "report",
    "sampling_error",
    "schedule_areas",
    "scoreboard",
    "tables",
    "tighten",
    "with_schedule_areas",
    "write_runs",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'bayescale' has no attribute {name!r}")
    return getattr(import_module(f"bayescale.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
