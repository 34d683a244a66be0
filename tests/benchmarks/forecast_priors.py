"""Which priors of the discrepancy forecast best on tables that had no say in choosing them?

    .venv/bin/python -m tests.benchmarks.discrepancy_priors ../shared/published

For every pair of priors the splits of `tests.benchmarks.coverage` are forecast (fast path only, since this
takes hundreds of fits). A table's own scores are then those of the pair with the best interval score on all
other tables: leave one table out.
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


def main(folder: str) -> None:
    pull_tables(folder)
    fit = bs.fit
    # `backtest` fits with method "auto"; here the fast path must do alone.
    import bayescale.fitting as fitting

    fitting.fit = lambda *a, **k: fit(*a, **(k | {"method": "fast", "draws": 500}))
    scores = []
    for sd, length in product(SD, LENGTH):
        priors = {"discrepancy_sd": sd, "discrepancy_length": length}
        for name in TABLES:
            found = backtest(bs.load(name), priors=priors, methods=("discrepancy",)).scores
            scores.append(found.assign(sd=sd, length=length))
        print(Backtest(pd.concat(scores[-len(TABLES) :])).summary().round(3).assign(sd=sd, length=length)
              .to_string(header=len(scores) == len(TABLES), index=False), flush=True)  # fmt: skip
    everything = pd.concat(scores, ignore_index=True)
    by = ["sd", "length"]
    chosen = []
    for name in TABLES:
        others = Backtest(everything[everything["table"] != name]).summary(by)
        best = others["interval_score_%"].idxmin()
        mine = everything[(everything["table"] == name) & (everything[by] == list(best)).all(axis=1)]
        chosen.append(mine)
        print(f"{name}: the other tables choose {' and '.join(best)}")
    print("each table forecast with what the others choose:")
    print(Backtest(pd.concat(chosen)).summary().round(3).to_string())
    print(
        "failed the fast path's gates:",
        len(everything[~everything["passed"]].groupby([*by, "table", "factor"])),
    )


if __name__ == "__main__":
    main(sys.argv[1])
