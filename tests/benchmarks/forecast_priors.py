"""Which priors forecast best on tables that had no say in choosing them?

    .venv/bin/python -m tests.benchmarks.forecast_priors ../shared/published

For every pair of the discrepancy's priors, and for several on how near the exponents lie to each other, the
splits of `tests.benchmarks.coverage` are forecast (fast path only, since this takes hundreds of fits). A
table's own scores are then those of the priors with the best interval score on all other tables: leave one
table out.
"""

import sys
from itertools import product

import pandas as pd

import bayescale as bs
from bayescale.backtesting import Backtest, backtest
from tests.benchmarks.coverage import TABLES, pull_tables

SD = ("LogNormal(0.05, 0.7)", "LogNormal(0.07, 0.7)", "LogNormal(0.1, 0.7)", "LogNormal(0.15, 0.7)")
LENGTH = (
    "LogNormal(2, 0.3)",
    "LogNormal(3, 0.3)",
    "LogNormal(3, 0.6)",
    "LogNormal(4, 0.6)",
    "LogNormal(5, 0.3)",
)
# The last is that of alpha: exponents that know nothing of each other.
BETA = ("LogNormal(alpha, 0.1)", "LogNormal(alpha, 0.2)", "LogNormal(alpha, 0.3)", "LogNormal(0.4, 0.35)")
SETTINGS = [{"beta": beta} for beta in BETA]
SETTINGS += [{"discrepancy_sd": sd, "discrepancy_length": length} for sd, length in product(SD, LENGTH)]


def main(folder: str) -> None:
    pull_tables(folder)
    fit = bs.fit
    # `backtest` fits with method "auto"; here the fast path must do alone.
    import bayescale.fitting as fitting

    fitting.fit = lambda *a, **k: fit(*a, **(k | {"method": "fast", "draws": 500}))
    scores = []
    for priors in SETTINGS:
        label = ", ".join(f"{name} {prior}" for name, prior in priors.items())
        for name in TABLES:
            found = backtest(bs.load(name), priors=priors, methods=("discrepancy",)).scores
            scores.append(found.assign(priors=label))
        print(Backtest(pd.concat(scores[-len(TABLES) :])).summary().round(3).assign(priors=label)
              .to_string(header=len(scores) == len(TABLES), index=False), flush=True)  # fmt: skip
    everything = pd.concat(scores, ignore_index=True)
    chosen = []
    for name in TABLES:
        best = (
            Backtest(everything[everything["table"] != name]).summary(["priors"])["interval_score_%"].idxmin()
        )
        chosen.append(everything[(everything["table"] == name) & (everything["priors"] == best)])
        print(f"{name}: the other tables choose {best}")
    print("each table forecast with what the others choose:")
    print(Backtest(pd.concat(chosen)).summary().round(3).to_string())
    failed = everything[~everything["passed"]].groupby(["priors", "table", "factor"])
    print("failed the fast path's gates:", len(failed))


if __name__ == "__main__":
    main(sys.argv[1])
