"""Does another law, or an average over laws, forecast better than the default law?

    .venv/bin/python -m tests.benchmarks.averaging ../shared/published

Every law is fitted with its discrepancy to the cheap runs of the splits of `tests.benchmarks.coverage`; the
averages mix their forecasts equally, by evidence, and by stacking of PSIS-LOO. Then the same laws forecast
the 7B and 13B models of the OLMo ladder from its 30 smaller runs.
"""

import sys

import numpy as np
import pandas as pd

import bayescale as bs
from bayescale.averaging import average
from bayescale.backtesting import Backtest, scored, splits_of
from tests.benchmarks.coverage import TABLES, pull_tables

LAWS = ("chinchilla", "chinchilla-shared", "generalised-sum", "outer-exponent", "kaplan-floor")
FAST = {"method": "fast", "discrepancy": True}

OLMO_TARGETS = {"params": np.array([6887575552, 13202396160]), "tokens": np.array([3.945e12, 5e12])}
OLMO_LOSSES = {"olmo-ladder-c4": (2.4829, 2.4376), "olmo-ladder-pile": (1.8489, 1.8049)}


def compared_laws(table: bs.RunTable) -> bs.Comparison:
    """Compare the laws whose fits pass their diagnostics; the default law stays in any case."""
    fits = [bs.fit(table, law, **FAST) for law in LAWS]
    return bs.compare([f for f in fits if f.diagnostics.passed or f.law.name == LAWS[0]], sensitivity=False)


def mixtures(compared: bs.Comparison) -> dict[str, dict[str, float]]:
    """Return weights by kind of average."""
    names = compared.labels
    stacking = compared.loo_table["weight"]
    alone = {f"{law} alone": {n: float(n == law) for n in names} for law in LAWS if law in names}
    return alone | {
        "additive and shared, equally": {n: float(n in LAWS[:2]) for n in names},
        "all, equally": dict.fromkeys(names, 1.0),
        "all, by evidence": compared.probabilities,
        "all, by stacking": {n: float(stacking[n]) for n in names},
    }


def score_splits() -> Backtest:
    """Score every kind of average on every split."""
    parts = []
    for name in TABLES:
        for factor, train, test in splits_of(bs.load(name)):
            compared = compared_laws(train)
            inputs = {c: test.column(c) for c in ("params", "tokens")}
            for kind, weights in mixtures(compared).items():
                draws = average(compared.fits, weights, **inputs).mixture.loss
                rows = scored(draws.reshape(-1, len(test)), test.column("loss"), True)
                parts.append(rows.assign(table=name, factor=factor, method=kind))
            left = [law for law in LAWS if law not in compared.labels]
            print(f"{name} /{factor:g}: scored; diagnostics failed: {left}", flush=True)
    return Backtest(pd.concat(parts, ignore_index=True))


def olmo(table: str) -> pd.DataFrame:
    """Return forecasts of both targets by kind of average, with half-widths in per cent."""
    compared = compared_laws(bs.load(table))
    rows = []
    for kind, weights in mixtures(compared).items():
        draws = average(compared.fits, weights, **OLMO_TARGETS).mixture.loss.reshape(-1, 2)
        low, median, high = np.quantile(draws, [0.05, 0.5, 0.95], axis=0)
        inside = [bool(a <= x <= b) for a, x, b in zip(low, OLMO_LOSSES[table], high, strict=True)]
        rows.append({"forecast": kind, "half_width_%": np.round(50 * (high - low) / median, 2),
                     "low": low.round(3), "high": high.round(3), "inside": inside})  # fmt: skip
    print({name: round(e.log, 1) for name, e in compared.evidences.items()})
    return pd.DataFrame(rows)


def main(folder: str) -> None:
    """Print both tables."""
    pull_tables(folder)
    print(score_splits().summary().round(3).to_string())
    for table in OLMO_LOSSES:
        bs.pull(table, folder)
        print(table, "measured", OLMO_LOSSES[table])
        print(olmo(table).to_string(index=False))


if __name__ == "__main__":
    main(sys.argv[1])
