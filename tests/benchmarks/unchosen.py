"""Do the bands hold on tables that had no say in how model and priors were chosen?

    bayescale scoreboard -o scores.json
    python -m tests.benchmarks.unchosen scores.json

The first backtests every table at hand; this prints its scores by groups of tables, with the number of splits
on which the default is the best of the three forecasts.
"""

import json
import sys
from pathlib import Path

import pandas as pd

from bayescale.backtesting import Backtest

# Tables by which model and priors were chosen, and those that state priors of their own.
CHOSE = ("chinchilla", "isoflop", "zipf-facts")
STUDIES = ("porian", "gadre", "olmo", "zipf-facts")


def main(path: Path) -> None:
    scores = pd.DataFrame(json.loads(path.read_text("utf-8"))["runs"])
    name = scores["table"].str
    groups = {"all": scores, "no say": scores[~name.startswith(CHOSE)]}
    groups |= {study: scores[name.startswith(study)] for study in STUDIES}
    for label, rows in groups.items():
        print(f"{label}: {rows['table'].nunique()} tables")
        print(Backtest(rows).summary().round(3).to_string())
        splits = Backtest(rows).summary(("table", "factor", "method"))
        for score in ("crps_%", "interval_score_%"):
            by_method = splits[score].unstack("method")
            best = int((by_method.idxmin(axis=1) == "discrepancy").sum())
            print(f"best by {score}: {best} of {len(by_method)}")
    failed = scores[~scores["passed"].astype(bool)].groupby(["method", "table", "factor"]).size()
    print("failed their diagnostics:", *failed.index, sep="\n  ")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
