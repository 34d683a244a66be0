"""How often the bands hold on held-out expensive runs of the published tables, against two peers.

    .venv/bin/python -m tests.benchmarks.coverage ../shared/published [SEEDS]

Tables: chinchilla (240 runs) and the four IsoFLOP tables, compilers' outliers left out; splits train on runs
with C <= C_max/3, /10, /30. Forecasts are draws, so that scores depend on the seed: the default is scored
with several. Scores are kept in the cache, so that an interrupted benchmark goes on.
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
METHODS = ("discrepancy", "law-only", "huber-bootstrap")


def pull_tables(folder: str) -> None:
    """Pull those tables that are not bundled."""
    for name in TABLES:
        if name != "chinchilla":
            bs.pull(name, folder)


def main(folder: str, seeds: int) -> None:
    pull_tables(folder)
    parts = []
    for name in TABLES:
        for seed in range(seeds):
            methods = METHODS if seed == 0 else METHODS[:1]
            kept = cache_folder() / "backtests"
            result = bs.backtest(bs.load(name), methods=methods, seed=seed, folder=kept)
            parts.append(result.scores.assign(seed=seed))
            print(f"{name}: seed {seed} scored", flush=True)
    everything = Backtest(pd.concat(parts, ignore_index=True))
    first = Backtest(everything.scores[everything.scores["seed"] == 0])
    splits = first.summary(("table", "factor", "method"))
    print(splits.round(3).to_string())
    for score in ("interval_score_%", "crps_%"):
        wide = splits[score].unstack("method")
        peers = wide.drop(columns="discrepancy").min(axis=1)
        print(
            f"better than both peers by {score}: {(wide['discrepancy'] < peers).sum()} of {len(wide)} splits"
        )
    print(everything.summary(("method", "seed")).round(3).to_string())
    failed = everything.scores.groupby(["table", "factor", "method", "seed"])["passed"].all()
    print(f"splits whose fit failed its diagnostics: {[k for k, ok in failed.items() if not ok]}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3)
