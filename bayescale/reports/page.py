"""Gather what a fit has to say, section by section, and set it into the page's template."""

import platform
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from bayescale.allocations import Allocation
from bayescale.backtesting import Backtest
from bayescale.checks import check
from bayescale.comparison import Comparison
from bayescale.fitting import Fit, require_fit
from bayescale.forecasts import Forecast
from bayescale.inference.diagnostics import MAX_DRIFT, MAX_FLOOR_DECADES, MAX_K_HAT, MAX_MEMORY, MAX_RHAT
from bayescale.priorconflicts import prior_conflicts
from bayescale.publishedfits import published_fits_of
from bayescale.replicates import lack_of_fit
from bayescale.reports.figures import figures
from bayescale.reports.format import interval, law_mathml, number, percent
from bayescale.rounds import Tightening
from bayescale.runs import COLUMNS

# Meanings of the scales beside a law's own parameters.
_SCALES = {
    "noise_sd": "scatter of a run about its expected loss, relative",
    "noise_df": "degrees of freedom of the Student-t noise; small means heavy tails",
    "discrepancy_sd": "size of the law's smooth misfit, relative to the reducible loss",
    "discrepancy_length": "decades of input over which the misfit changes",
    "discrepancy_stretch": "how many times as far along compute as along tokens per parameter",
    "group_sd": "scatter of the groups' offsets, relative",
}
# What a diagnostic is called and should be, where its name does not say it.
_DIAGNOSTICS = {
    "k_hat": f"k-hat of the importance weights (below {MAX_K_HAT} passes)",
    "memory": f"largest rank correlation of a parameter with its chain's start (below {MAX_MEMORY} passes)",
    "drift": f"sds by which chains' means or spreads still moved, beyond errors (below {MAX_DRIFT} passes)",
    "latent_variance": "relative variance of the weights that integrate the misfit out",
    "floor_decades": f"decades between the floor's 5% and 95% quantiles (below {MAX_FLOOR_DECADES:g} passes)",
    "max_rhat": f"largest R-hat (below {MAX_RHAT} passes)",
    "worst_rhat": "whose R-hat that is",
    "min_ess": "smallest effective sample size",
    "worst_ess": "whose size that is",
    "divergences": "divergent transitions (0 passes)",
    "unvisited_modes": "modes that no chain visited (0 passes)",
}


def report(
    fit: Fit,
    *,
    forecast: Forecast | None = None,
    allocation: Allocation | None = None,
    backtest: Backtest | None = None,
    comparison: Comparison | None = None,
    tightening: Tightening | None = None,
    command: str = "",
) -> str:
    """Return a report on a fit as one self-contained HTML page.

    Parameters
    ----------
    fit : Fit
        The fit.
    forecast : Forecast, optional
        Made from `fit`; what was asked, answered first.
    allocation : Allocation, optional
        Made from `fit`, likewise.
    backtest : Backtest, optional
        Of the same table and law.
    comparison : Comparison, optional
        Of laws on the same table.
    tightening : Tightening, optional
        Rounds that ended with this table, or lead up to it.
    command : str
        How the report was made, for the reproducibility section.

    Returns
    -------
    str
        HTML, to be written to a file; it needs no network and no JavaScript.
    """
    import jinja2

    require_fit(fit)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bayescale.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    environment.globals["interval"] = interval
    return environment.get_template("report.html.j2").render(
        fit=fit,
        failures=fit.diagnostics.failures,
        questions=_questions(fit, forecast, allocation, comparison),
        forecast=forecast,
        forecast_rows=[] if forecast is None else forecast.summary().to_dict("records"),
        allocation=allocation,
        allocation_rows=[] if allocation is None else _allocation_rows(allocation),
        backtest_rows=[] if backtest is None else backtest.summary().reset_index().to_dict("records"),
        backtest_warnings=[] if backtest is None else backtest.warnings,
        comparison=comparison,
        comparison_rows=[] if comparison is None else comparison.summary().reset_index().to_dict("records"),
        tightening=tightening,
        lack_of_fit=lack_of_fit(fit),
        conflicts=[str(conflict) for conflict in prior_conflicts(fit)],
        ranges=_ranges(fit),
        findings=check(fit.table),
        inputs=list(zip(fit.law.inputs, fit.law.columns, strict=True)),
        law_math=law_mathml(fit.law),
        parameters=_parameters(fit),
        medians=fit.summary()["50%"].to_dict(),
        published=published_fits_of(fit.table, fit.law.formula),
        diagnostics=_diagnostics(fit),
        reproduce=_reproduce(fit, command),
        pictures=figures(fit, forecast, allocation, backtest, comparison, tightening),
    )


@dataclass(frozen=True)
class _Parameter:
    name: str
    unit: str
    meaning: str
    prior: str
    median: float
    low: float
    high: float


def _parameters(fit: Fit) -> list[_Parameter]:
    about = {p.name: p for p in fit.law.parameters}
    priors = fit.model.centred.priors | fit.model.scale_priors
    rows = []
    for name, row in fit.summary().iterrows():
        key = str(name)
        own = about.get(key.removesuffix("_centre"))
        meaning = _SCALES.get(key, own.meaning if own else "")
        if key.endswith("_centre"):
            what = "loss its term adds" if row["unit"] == "nats/token" else "its value"
            meaning = f"{what} at the table's centre" + (f" ({meaning})" if meaning else "")
        prior = str(priors[key]) if key in priors else "derived"
        rows.append(_Parameter(key, row["unit"], meaning, prior, row["50%"], row["5%"], row["95%"]))
    return rows


def _questions(
    fit: Fit, forecast: Forecast | None, allocation: Allocation | None, comparison: Comparison | None
) -> list[str]:
    questions = []
    if forecast is not None:
        count = forecast.draws.sizes["target"]
        what = "the run below" if count == 1 else f"each of the {count} runs below"
        questions.append(f"What loss will {what} end at, and how sure is that?")
    if allocation is not None:
        questions.append("How should compute be split between parameters and tokens?")
    if comparison is not None:
        questions.append(f"Which law do the runs speak for: {', '.join(comparison.labels)}?")
    return questions or [f"What do these runs say about the law {fit.law.name!r}, and can it be believed?"]


def _allocation_rows(allocation: Allocation) -> list[dict[str, Any]]:
    """Return one row per budget: quantity to its summary, compute first."""
    summary = allocation.summary()
    return [
        {row["quantity"]: row for row in rows.to_dict("records")} for _, rows in summary.groupby("budget")
    ]


def _ranges(fit: Fit) -> list[dict[str, Any]]:
    """Return what each column of the table means and spans."""
    frame = fit.table.frame
    names = [c for c in (*COLUMNS, *fit.law.columns) if c in frame and c not in ("outlier", "seed", "group")]
    numeric = {c: fit.table.frame[c].dropna() for c in dict.fromkeys(names)}
    return [
        {"name": c, "meaning": COLUMNS.get(c, ""), "low": v.min(), "high": v.max()}
        for c, v in numeric.items()
        if len(v)
    ]


def _diagnostics(fit: Fit) -> list[tuple[str, Any]]:
    found = fit.diagnostics.to_dict()
    rows = [
        (_DIAGNOSTICS.get(k, k.replace("_", " ")), v)
        for k, v in found.items()
        if v not in (None, "") and not isinstance(v, dict | list)
    ]
    if fit.evidence is not None:
        about = f"{fit.evidence.log:.2f} ± {fit.evidence.error:.2g}"
        rows.append(("log evidence of the law (nats), with its Monte Carlo error", about))
    return rows


def _reproduce(fit: Fit, command: str) -> list[tuple[str, str]]:
    options = dict(fit.options)
    versions = options.pop("versions", {})
    rows = [
        ("table", f"{fit.table.name}, {len(fit.table)} runs"),
        ("sha256 of the runs", sha256(fit.table.frame.to_csv(index=False).encode()).hexdigest()),
        ("law", f"{fit.law.name}: L = {fit.law.formula}"),
        *((k.replace("_", " "), str(v)) for k, v in options.items() if v not in (None, {})),
        ("fitted with", ", ".join(f"{k} {v}" for k, v in versions.items())),
        ("reported with", f"bayescale {version('bayescale')}, Python {platform.python_version()}"),
    ]
    return [*rows, ("command", command)] if command else rows
