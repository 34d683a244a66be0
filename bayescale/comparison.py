"""Comparing laws on one table: evidence, Bayes factors, LOO, and what the verdict hangs on.

>>> import bayescale as bs
>>> compared = bs.compare(bs.load("chinchilla"), ["chinchilla", "kaplan"])  # doctest: +SKIP
>>> compared.summary()  # doctest: +SKIP
>>> compared.verdict()  # doctest: +SKIP
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayescale.errors import FitError
from bayescale.inference.evidence import Evidence
from bayescale.laws import BUILTIN, Law, find_law
from bayescale.laws.formula import names_in
from bayescale.model.model import SCALE_PRIORS
from bayescale.runs import RunTable
from bayescale.sensitivity import Setting, evidence_of, refit, settings_beside

if TYPE_CHECKING:
    from bayescale.averaging import AveragedForecast
    from bayescale.fitting import Fit
    from bayescale.nesting import Separation

LAWS = ("chinchilla", "chinchilla-shared", "kaplan-floor", "kaplan")
WEIGHTS = ("evidence", "stacking")

# Log Bayes factors, nats, from which a table says anything, favours a law, and decides (Kass & Raftery 1995,
# doi:10.1080/01621459.1995.10476572, who count twice the logarithm).
LEANS, FAVOURS, DECIDES = 1.0, 3.0, 5.0
# Evidence whose Monte Carlo error is above this is marked.
MAX_ERROR = 0.05
# Differences of LOO beyond this many standard errors are told.
LOO_ERRORS = 2.0

_NO_EVIDENCE = Evidence(math.nan, math.nan, "none")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Laws fitted to one table, and how well each explains it.

    Attributes
    ----------
    fits : mapping
        Label to fit, the one with the highest evidence first.
    evidences : mapping
        Label to evidence.
    sensitivity : mapping
        Setting to label to (evidence, reasons not to rely on it): the same laws refitted in other settings.
        Empty where it was not asked for.
    heldout : pandas.DataFrame or None
        Backtest scores, a row per label, where asked for.
    """

    fits: Mapping[str, "Fit"]
    evidences: Mapping[str, Evidence]
    sensitivity: Mapping[Setting, Mapping[str, tuple[Evidence, list[str]]]]
    heldout: pd.DataFrame | None = None

    def __repr__(self) -> str:
        laws = [f"{name} {share:.3g}" for name, share in self.probabilities.items()]
        line = f"<Comparison on {self.table.name}, {len(self.table)} runs, probabilities {', '.join(laws)}"
        return line + (f"; do not rely on {', '.join(self.unreliable)}>" if self.unreliable else ">")

    @property
    def labels(self) -> list[str]:
        """The laws, the one with the highest evidence first."""
        return list(self.fits)

    @property
    def unreliable(self) -> list[str]:
        """The laws whose fit or evidence is not to be relied on."""
        return list(self.reasons)

    @cached_property
    def reasons(self) -> dict[str, list[str]]:
        """Why not to rely on the fit or evidence of a law, of those laws where there is a reason."""
        found = {name: _reasons(self.fits[name], self.evidences[name]) for name in self.labels}
        return {name: reasons for name, reasons in found.items() if reasons}

    @property
    def table(self) -> RunTable:
        """The table that all laws were fitted to."""
        return self.fits[self.labels[0]].table

    @property
    def probabilities(self) -> dict[str, float]:
        """Posterior probability of each law, all being equally probable before."""
        logs = np.array([self.evidences[name].log for name in self.labels])
        weights = np.exp(logs - logs.max())
        return dict(zip(self.labels, (weights / weights.sum()).tolist(), strict=True))

    @cached_property
    def loo(self) -> dict[str, Any]:
        """ArviZ's PSIS-LOO of each law, pointwise; nats of log loss."""
        from bayescale.inference.crossvalidation import loo

        return {name: loo(fit) for name, fit in self.fits.items()}

    @cached_property
    def loo_table(self) -> pd.DataFrame:
        """ArviZ's comparison by PSIS-LOO, with stacking weights (Yao et al. 2018, arXiv:1704.02030)."""
        from arviz_stats import compare as arviz_compare

        return arviz_compare(self.loo, method="stacking", round_to="none")

    def summary(self) -> pd.DataFrame:
        """Return one row per law: evidence (nats), Bayes factor against the best, LOO, weights."""
        best = self.evidences[self.labels[0]]
        rows: dict[str, dict[str, Any]] = {}
        for name, fit in self.fits.items():
            evidence, loo = self.evidences[name], self.loo[name]
            by_loo = _numbers(self.loo_table, name)
            rows[name] = {
                "parameters": len(fit.law.parameters),
                "log_evidence": evidence.log,
                "error": evidence.error,
                "log_bayes_factor": evidence.log - best.log,
                "probability": self.probabilities[name],
                "elpd_loo": by_loo["elpd"],
                "elpd_se": by_loo["se"],
                "elpd_difference": by_loo["elpd_diff"],
                "difference_se": by_loo["dse"],
                "high_pareto_k": int((loo.pareto_k > loo.good_k).sum()),
                "stacking_weight": by_loo["weight"],
                "reliable": name not in self.reasons,
            }
            if self.heldout is not None:
                rows[name] |= _numbers(self.heldout, name)
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("law")

    def sensitivity_table(self) -> pd.DataFrame:
        """Return log Bayes factors against the best law, nats: a row per setting, a column per law."""
        best = self.labels[0]
        rows = {"as fitted": {n: self.evidences[n].log - self.evidences[best].log for n in self.labels}}
        for setting, found in self.sensitivity.items():
            rows[setting.name] = {n: found[n][0].log - found[best][0].log for n in self.labels}
        return pd.DataFrame.from_dict(rows, orient="index")[self.labels].rename_axis("setting")

    def discrepancy_gain(self) -> float | None:
        """Return what a discrepancy adds to the log evidence of the best law with it over the best without.

        None where only one of the two was fitted.
        """
        for setting, found in self.sensitivity.items():
            if "discrepancy" in setting.options:
                there = float(np.nanmax([evidence.log for evidence, _ in found.values()]))
                here = self.evidences[self.labels[0]].log
                return there - here if setting.options["discrepancy"] else here - there
        return None

    def verdict(self) -> list[str]:
        """Say in words what the table can tell of the laws, and what that hangs on."""
        best, *others = self.labels
        sentences = [self._between(best, other) for other in others]
        gain = self.discrepancy_gain()
        if gain is not None and gain > DECIDES:
            sentences.append(
                f"every law compared is smoothly wrong on this table: a discrepancy adds {gain:.0f} nats to "
                "the evidence of the best; Bayes factors without one take misfit for noise and overstate"
            )
        leader = str(self.loo_table.index[0])
        row = _numbers(self.loo_table, best)
        if leader != best and -row["elpd_diff"] > LOO_ERRORS * row["dse"]:
            sentences.append(
                f"PSIS-LOO disagrees: {leader} predicts left-out runs better than {best} by "
                f"{-row['elpd_diff']:.1f} +- {row['dse']:.1f} nats"
            )
        return sentences

    @property
    def warnings(self) -> list[str]:
        """Which numbers are not to be relied on, and why."""
        found = [f"do not rely on {n}: {r}" for n, reasons in self.reasons.items() for r in reasons]
        for setting, there in self.sensitivity.items():
            found += [
                f"do not rely on {n} with {setting.name}: {r}"
                for n, (_, reasons) in there.items()
                for r in reasons
            ]
        if self.heldout is not None:
            failed = self.heldout["heldout_failed"]
            found += [
                f"do not rely on the scores of {n} on hidden runs: diagnostics failed in {k} of its fits"
                for n, k in failed[failed > 0].items()
            ]
        for name, loo in self.loo.items():
            if high := int((loo.pareto_k > loo.good_k).sum()):
                share = f"{high} of {len(self.table)} runs"
                found.append(f"LOO of {name} is unreliable for {share} (Pareto k above {loo.good_k:.2f})")
        options = [
            {k: f.options[k] for k in ("noise", "discrepancy", "group_effect")} for f in self.fits.values()
        ]
        if any(o != options[0] for o in options):
            found.append("the fits differ in more than their law: Bayes factors speak of law, noise and rest")
        return found

    def nested(self) -> "list[Separation]":
        """Return the posterior of what separates each law from its special cases that are compared here."""
        from bayescale.nesting import separate

        special = {fit.law.name: fit.law for fit in self.fits.values()}
        found = [
            separate(fit, special[name])
            for fit in self.fits.values()
            for name in fit.law.nests
            if name in special
        ]
        return [s for s in found if s is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        found: dict[str, Any] = {
            "table": self.table.name,
            "runs": len(self.table),
            "unit": "nats of log loss",
        }
        found |= {"laws": self.summary().to_dict("index"), "verdict": self.verdict()}
        rows = self.sensitivity_table().astype(object)
        rows = rows.where(rows.notna(), None)  # JSON has no NaN
        found |= {"sensitivity": rows.to_dict("index")} if self.sensitivity else {}
        return found | {"nested": [vars(s) for s in self.nested()], "warnings": self.warnings}

    def forecast(self, *, weights: str = "evidence", seed: int = 0, **inputs: Any) -> "AveragedForecast":
        """Forecast with all laws, mixed by weight; see `bayescale.averaging.average`."""
        from bayescale.averaging import average

        if weights not in WEIGHTS:
            raise FitError(f"weights {weights!r} are unknown; expected {' or '.join(WEIGHTS)}")
        by = (
            self.probabilities
            if weights == "evidence"
            else {n: _numbers(self.loo_table, n)["weight"] for n in self.labels}
        )
        averaged = average(self.fits, by, seed=seed, **inputs)
        if weights == "evidence":
            averaged.mixture.warnings.extend(self._doubts_about_weights())
        return averaged

    def _doubts_about_weights(self) -> list[str]:
        """Say whose evidence weighs laws wrongly; forecasts themselves tell of fits that failed."""
        found = {n: _reasons_of_evidence(self.evidences[n]) for n in self.labels}
        return [
            f"do not rely on the weights of laws: {n}: {r}" for n, reasons in found.items() for r in reasons
        ]

    def _between(self, best: str, other: str) -> str:
        one, two = self.evidences[best], self.evidences[other]
        factor, error = one.log - two.log, math.hypot(one.error, two.error)
        sentence = f"{_says(best, other, factor, error)} (log Bayes factor {factor:.1f} +- {error:.2f} nats)"
        changes: dict[str, list[str]] = {}
        for setting, found in self.sensitivity.items():
            there = found[best][0].log - found[other][0].log
            undecided = factor >= DECIDES > there
            if math.isnan(there):
                continue
            if undecided or _side(there) != _side(factor):
                changes.setdefault(setting.concerns, []).append(f"{there:+.1f} with {setting.name}")
        if changes:
            told = "; ".join(f"{concerns}: {', '.join(values)}" for concerns, values in changes.items())
            sentence += f". This hangs on {told}"
        return sentence


def compare(
    of: "RunTable | Sequence[Fit]",
    laws: Sequence[str | Law] | None = None,
    *,
    sensitivity: bool = True,
    heldout: bool = False,
    method: Any = "auto",
    progress: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Comparison:
    """Compare laws on one table.

    Parameters
    ----------
    of : RunTable, or sequence of Fit
        The runs, or fits already made of the same runs.
    laws : sequence of str or Law, optional
        At least two; names, formulas or laws. Only with a table; by default chinchilla, chinchilla-shared,
        kaplan-floor and kaplan.
    sensitivity : bool
        Whether to refit every law with priors half and twice as wide, under the other noise model, and with
        or without discrepancy: four more fits of each, by the fast path unless `method` is ``nuts``.
    heldout : bool
        Whether to score forecasts of hidden expensive runs too (`bayescale.backtest`), three more fits each.
    method : str
        ``auto``, ``fast`` or ``nuts``, as in `bayescale.fit`.
    progress : callable, optional
        Told what is being done.
    **options
        Of `bayescale.fit`, the same for every law: noise, discrepancy, group_effect, draws, seed, ...

    Returns
    -------
    Comparison
        `summary`, `sensitivity_table`, `verdict`, `warnings`, `nested` and `forecast` read it.

    Raises
    ------
    FitError
        If there are fewer than two laws, one comes twice, or fits are of different tables.
    """
    if isinstance(of, RunTable):
        asked = [laws] if isinstance(laws, str | Law) else LAWS if laws is None else laws
        fits = _fit_all(of, asked, method, progress, options)
    else:
        if laws is not None or options:
            given = ["laws"] * (laws is not None) + sorted(options)
            raise FitError(f"compare: fits were given, so {', '.join(given)} cannot be; give a table instead")
        fits = list(of)
    labelled = _labelled(fits)
    _require_one_table(labelled)
    evidences = {name: evidence_of(fit) for name, fit in labelled.items()}
    order = sorted(labelled, key=lambda name: -evidences[name].log)
    labelled = {name: labelled[name] for name in order}
    settings = _refits(labelled, method, progress) if sensitivity else {}
    scores = _heldout(labelled, progress) if heldout else None
    return Comparison(labelled, {name: evidences[name] for name in order}, settings, scores)


def _fit_all(
    table: RunTable,
    laws: Sequence[str | Law],
    method: Any,
    progress: Callable[[str], None],
    options: Mapping[str, Any],
) -> "list[Fit]":
    from bayescale.fitting import fit

    for law in laws:  # the last one's mistake is told before the first one's fit
        find_law(law, **table.names_for_laws())
    if len(laws) < 2:
        raise FitError(f"a comparison needs at least two laws, found {len(laws)}")
    priors, fits = _shared_out(options.get("priors") or {}, laws), []
    for law, own in zip(laws, priors, strict=True):
        progress(f"{table.name}: {law.name if isinstance(law, Law) else law}")
        how = {"discrepancy": False} | dict(options) | {"priors": own}
        fits.append(fit(table, law, method=method, progress=progress, **how))
    return fits


def _shared_out(priors: Mapping[str, Any], laws: Sequence[str | Law]) -> list[dict[str, Any]]:
    """Return, of priors given for all laws, those of each law's parameters, of noise and of discrepancy."""
    formulas = [law if isinstance(law, str) else find_law(law).formula for law in laws]
    known = [SCALE_PRIORS.keys() | names_in(BUILTIN[f].formula if f in BUILTIN else f) for f in formulas]
    if strangers := sorted(priors.keys() - set[str]().union(*known)):
        raise FitError(f"prior given for {strangers[0]!r}, which is no parameter of any of the laws compared")
    return [{name: prior for name, prior in priors.items() if name in names} for names in known]


def _labelled(fits: "Sequence[Fit]") -> "dict[str, Fit]":
    from bayescale.fitting import require_fit

    for fit in fits:
        require_fit(fit, "a table or fits")
    if len(fits) < 2:
        raise FitError(f"a comparison needs at least two laws, found {len(fits)}")
    # A built-in law some parameters of which are held is named by its formula.
    built_in = [fit.law.formula == getattr(BUILTIN.get(fit.law.name), "formula", "") for fit in fits]
    names = [fit.law.name if known else fit.law.formula for fit, known in zip(fits, built_in, strict=True)]
    labels = []
    for name, fit in zip(names, fits, strict=True):
        if names.count(name) > 1:
            options = fit.options
            rest = "with discrepancy" if options["discrepancy"] else "law alone"
            name = f"{name} ({options['noise']}, {rest})"
        labels.append(name)
    labels = [
        f"{label}, {own}" if labels.count(label) > 1 and (own := _own_priors(fits, number)) else label
        for number, label in enumerate(labels)
    ]
    if len(set(labels)) < len(labels):
        twice = next(name for name in labels if labels.count(name) > 1)
        raise FitError(f"law {twice!r} is compared with itself; give each law once")
    return dict(zip(labels, fits, strict=True))


def _own_priors(fits: "Sequence[Fit]", number: int) -> str:
    """Return a fit's priors that differ among fits of the same formula, as text."""
    formula = fits[number].law.formula
    alike = [{p.name: str(p.prior) for p in fit.law.parameters} for fit in fits if fit.law.formula == formula]
    own = {p.name: str(p.prior) for p in fits[number].law.parameters}
    return ", ".join(
        f"{name} ~ {prior}" for name, prior in own.items() if any(o[name] != prior for o in alike)
    )


def _require_one_table(fits: "Mapping[str, Fit]") -> None:
    (first, one), *rest = fits.items()
    for name, fit in rest:
        a, b = one.table, fit.table
        same = len(a) == len(b) and np.array_equal(a.column("loss"), b.column("loss"))
        if same and np.array_equal(a.known_noise(), b.known_noise()):
            shared = (set(one.law.columns) | set(fit.law.columns)) & set(a.frame) & set(b.frame)
            same = all(np.array_equal(a.column(c), b.column(c)) for c in shared)
        else:
            same = False
        if not same:
            raise FitError(
                f"{first!r} was fitted to {a.name!r} ({len(a)} runs) and {name!r} to {b.name!r} ({len(b)} "
                "runs), and the runs are not the same. Evidence and LOO are densities of the very losses "
                "fitted; of different losses they cannot be compared. Fit both laws to one table"
            )


def _refits(
    fits: "Mapping[str, Fit]", method: Any, progress: Callable[[str], None]
) -> dict[Setting, dict[str, tuple[Evidence, list[str]]]]:
    options = fits[next(iter(fits))].options
    found: dict[Setting, dict[str, tuple[Evidence, list[str]]]] = {}
    for setting in settings_beside(options["noise"], options["discrepancy"]):
        progress(f"the same with {setting.name}")
        found[setting] = {}
        for name, fit in fits.items():
            try:
                again = refit(fit, setting, method=method)
                evidence = evidence_of(again)
                found[setting][name] = evidence, _reasons(again, evidence)
            except FitError as error:  # one setting that cannot be fitted leaves the others worth having
                found[setting][name] = _NO_EVIDENCE, [str(error)]
    return found


def _heldout(fits: "Mapping[str, Fit]", progress: Callable[[str], None]) -> pd.DataFrame:
    from bayescale.backtesting import backtest

    rows = {}
    for name, fit in fits.items():
        how = "discrepancy" if fit.options["discrepancy"] else "law-only"
        result = backtest(
            fit.table, fit.law, priors=fit.priors, noise=fit.options["noise"],
            group_effect=fit.options["group_effect"], methods=[how], seed=fit.options["seed"],
            progress=progress,
        )  # fmt: skip
        scores = result.summary().loc[how]
        rows[name] = {"heldout_crps_%": scores["crps_%"], "heldout_coverage_90%": scores["coverage_90%"]}
        rows[name]["heldout_failed"] = len(result.failures)
    return pd.DataFrame.from_dict(rows, orient="index")


def _reasons(fit: "Fit", evidence: Evidence) -> list[str]:
    return [*fit.diagnostics.failures, *_reasons_of_evidence(evidence)]


def _reasons_of_evidence(evidence: Evidence) -> list[str]:
    if evidence.error <= MAX_ERROR:
        return []
    return [f"Monte Carlo error of its log evidence is {evidence.error:.2f} nats, above {MAX_ERROR}"]


def _numbers(frame: pd.DataFrame, row: str) -> dict[str, float]:
    values = frame.select_dtypes("number")
    return dict(zip(map(str, values.columns), values.loc[row].to_numpy(float).tolist(), strict=True))


def _side(factor: float) -> int:
    """Return whom a log Bayes factor speaks for: 1 the first, -1 the second, 0 neither."""
    return 0 if abs(factor) < LEANS else int(math.copysign(1, factor))


def _says(best: str, other: str, factor: float, error: float) -> str:
    if factor < max(LEANS, 2 * error):
        return f"the table cannot tell {best} from {other}"
    if factor < FAVOURS:
        return f"the table leans to {best} over {other}"
    if factor < DECIDES:
        return f"the table favours {best} over {other}"
    return f"the table decides for {best} over {other}"
