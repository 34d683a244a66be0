"""How often the bands hold on held-out expensive runs of the published tables, against two peers.

    .venv/bin/python -m tests.benchmarks.coverage ../shared/published

Tables: chinchilla (240 runs) and the four IsoFLOP tables, compilers' outliers left out; splits train on runs
with C <= C_max/3, /10, /30. Scores are kept in the cache, so that an interrupted benchmark goes on.
"""

import sys

import pandas as pd

import bayescale as bs
from bayescale.backtesting import Backtest
from bayescale.files import cache_folder

TABLES = (
    "chinchilla",
    "isoflop-chinchilla-mlscalefit",
    "isoflop-llama3-exp",
    "isoflop-llama3-raw",
    "isoflop-marin-comma",
)


def pull_tables(folder: str) -> None:
    """Pull those tables that are not bundled."""
    for name in TABLES:
        if name != "chinchilla":
            bs.pull(name, folder)


def main(folder: str) -> None:
    pull_tables(folder)
    parts = []
    for name in TABLES:
        kept = cache_folder() / "backtests"
        result = bs.backtest(bs.load(name), folder=kept, progress=lambda t: print(t, flush=True))
        parts.append(result.scores)
        print(result.summary(("table", "factor", "method")).round(3).to_string(), flush=True)
    everything = Backtest(pd.concat(parts, ignore_index=True))
    print(everything.summary(("method",)).round(3).to_string())
    failed = everything.scores.groupby(["table", "factor", "method"])["passed"].all()
    print(f"splits whose fit failed its diagnostics: {[k for k, ok in failed.items() if not ok]}")


if __name__ == "__main__":
    main(sys.argv[1])
