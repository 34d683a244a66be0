"""Does the evidence find the law that made a table?

    .venv/bin/python -m tests.benchmarks.recovery            # tables that a law made, misfit-free
    .venv/bin/python -m tests.benchmarks.recovery 0.02       # smooth misfit, 2% of the reducible loss
    .venv/bin/python -m tests.benchmarks.recovery 0.02 discrepancy   # the same, models with a discrepancy

From each of six laws, tables at the runs of a published one: parameters drawn from its posterior under that
law, Student-t noise of 0.4%. All six laws are compared on each. "Decisive" is a log Bayes
factor above 5; "confidently wrong", a wrong law with a log Bayes factor above 5 against the true one.
"""

import sys
import warnings
from functools import partial

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

import bayescale as bs
from bayescale.comparison import DECIDES
from bayescale.model.discrepancy import axes_of
from bayescale.runs import RunTable, make_table

LAWS = (
    "chinchilla",
    "chinchilla-shared",
    "kaplan-floor",
    "kaplan",
    "power-params-floor",
    "power-compute-floor",
)
TABLES_PER_LAW = 30
ROWS = (20, 40, 80, 160)
NOISE_SD, NOISE_DF = 0.004, 5.0
MISFIT_LENGTH = 3.0  # decades


def main(misfit: float, discrepancy: bool) -> None:
    source = bs.load("chinchilla")
    truths = {law: bs.fit(source, law, discrepancy=False, method="fast") for law in LAWS}
    jobs = [(law, i) for law in LAWS for i in range(TABLES_PER_LAW)]
    make = partial(_one, misfit=misfit, discrepancy=discrepancy)
    rows = Parallel(n_jobs=2, verbose=5)(delayed(make)(truths[law], seed=i) for law, i in jobs)
    frame = pd.DataFrame(rows)
    report(frame)


def report(frame: pd.DataFrame) -> None:
    logs = frame[list(LAWS)].to_numpy()
    at_truth = np.take_along_axis(logs, frame["truth"].map(LAWS.index).to_numpy()[:, None], 1)[:, 0]
    others = np.where(logs == at_truth[:, None], -np.inf, logs).max(axis=1)
    frame["decisive"] = np.abs(at_truth - others) > DECIDES
    frame["found"] = at_truth > others
    frame["confidently_wrong"] = others - at_truth > DECIDES
    for keys in (["truth"], ["rows"]):
        groups = frame.groupby(keys, sort=False)
        table = groups[["found", "decisive", "confidently_wrong", "marked"]].mean()
        table["found_where_decisive"] = frame[frame["decisive"]].groupby(keys, sort=False)["found"].mean()
        print(table.round(3).to_string())
    decisive = frame.loc[frame["decisive"], "found"]
    wrong = frame["confidently_wrong"]
    print(f"found where decisive: {decisive.sum()} of {len(decisive)} ({decisive.mean():.3f})")
    print(f"confidently wrong: {wrong.sum()} of {len(wrong)} ({wrong.mean():.3f})")


def _one(truth: bs.Fit, *, seed: int, misfit: float, discrepancy: bool) -> dict[str, object]:
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="sympy")
    table = simulate(truth, rows=ROWS[seed % len(ROWS)], seed=seed, misfit=misfit)
    found: dict[str, object] = {"truth": truth.law.name, "rows": len(table), "marked": 0}
    for law in LAWS:
        fitted = bs.fit(table, law, discrepancy=discrepancy, method="fast", draws=100)
        assert fitted.evidence is not None
        found[law] = fitted.evidence.log
        found["marked"] = found["marked"] or not fitted.diagnostics.passed
    return found


def simulate(truth: bs.Fit, *, rows: int, seed: int, misfit: float) -> RunTable:
    """Draw losses of the truth's law at some of its runs, with noise and smooth misfit."""
    rng = np.random.default_rng([seed, *truth.law.name.encode()])
    runs = rng.choice(len(truth.table), rows, replace=False)
    ratios = truth.model.ratios[:, runs]
    one = rng.integers(truth.z[..., 0].size)
    values = {n: truth.parameters[n][[one]] for n in truth.model.centred.names}
    loss = truth.model.law_loss(values, ratios)
    if misfit:
        axes = axes_of(truth.law.inputs, ratios)
        distance = ((axes[:, :, None] - axes[:, None]) ** 2).sum(axis=0)
        covariance = np.exp(-distance / (2 * MISFIT_LENGTH**2)) + 1e-8 * np.eye(rows)
        smooth = misfit * np.linalg.cholesky(covariance) @ rng.standard_normal(rows)
        loss = truth.model.with_misfit(loss, values, smooth[None])
    loss = loss[0] * np.exp(NOISE_SD * rng.standard_t(NOISE_DF, rows))
    frame = truth.table.frame.loc[runs, ["params", "tokens"]].assign(loss=loss).reset_index(drop=True)
    return make_table(frame, bs.TableMeta(name=f"{truth.law.name}-{seed}", loss_step=0.0))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0, "discrepancy" in sys.argv)
