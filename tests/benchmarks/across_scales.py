"""Forecasts from two cores' runs, scored on an H100's: the same source at up to 3,100 times the compute.

    .venv/bin/python -m tests.benchmarks.across_scales [SEEDS]

Fits see `zipf-facts` (35 runs, up to 270k parameters and 4M tokens, trained in minutes on a CPU) and are
scored on every run of `zipf-facts-gpu` that cost more than the dearest of them (up to 11.7M parameters
and 128M tokens). The source is known: every loss ends at 1.0543 nats per token, so scores are also given
in per cent of what a run can still lose, its exact KL.
"""

import sys

import numpy as np
import pandas as pd

import bayescale as bs
from bayescale.backtesting import Backtest, _score
from bayescale.laws import find_law

LAWS = ("chinchilla", "outer-exponent", "kaplan-floor")
METHODS = ("discrepancy", "law-only", "huber-bootstrap")


def main(seeds: int) -> None:
    train, everything = bs.load("zipf-facts"), bs.load("zipf-facts-gpu")
    cost, dearest = everything.column("compute"), train.column("compute").max()
    test = everything.where(cost > dearest)
    most = cost.max() / dearest
    print(f"{len(train)} runs up to {dearest:.3g} FLOP; {len(test)} to score, up to {most:.0f} times as much")
    parts = []
    for law in LAWS:
        for method in METHODS:
            for seed in range(seeds if method != "huber-bootstrap" else 1):
                how = {"priors": {}, "noise": "student-t", "group_effect": None}
                scores = _score(method, train, test, find_law(law), how, seed)
                parts.append(scores.assign(table=law, factor=float(seed), method=method))
    scores = pd.concat(parts, ignore_index=True)
    summary = Backtest(scores).summary(("table", "method"))
    kl = scores["loss"] - train.meta.entropy_rate
    for name in ("crps", "interval_score_90"):
        summary[f"{name}_%_of_kl"] = (100 * scores[name] / kl).groupby(
            [scores["table"], scores["method"]]
        ).mean()  # fmt: skip
    summary["passed"] = scores.groupby(["table", "method"])["passed"].mean()
    with pd.option_context("display.width", 250, "display.max_columns", 30):
        print(summary.round(3))
    dear = np.argsort(test.column("compute"))[-3:]
    for law in LAWS:
        for place in dear:
            found = scores[scores["table"].eq(law) & scores["method"].eq("discrepancy")]
            row = found.iloc[place]
            n, d = test.column("params")[place], test.column("tokens")[place]
            print(
                f"{law}: N {n:.3g}, D {d:.3g}: {row['low_90']:.4f} - {row['high_90']:.4f}, "
                f"trained to {row['loss']:.4f}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
