"""Which priors forecast best on tables that had no say in choosing them?

    .venv/bin/python -m tests.benchmarks.forecast_priors ../shared/published

For several priors on whether the law is right at all, for every pair of the discrepancy's other priors, for
several on how much further it reaches along compute than along tokens per parameter, and for several on how
near the exponents lie to each other, the splits of `tests.benchmarks.coverage` are forecast, by two seeds of
the fast path alone, since this takes hundreds of fits. A table's own scores are then those of the priors with
the best interval score on all other tables: leave one table out.
"""

import sys
from collections.abc import Sequence
from itertools import product

import pandas as pd

import bayescale as bs
from bayescale.backtesting import Backtest, backtest
from tests.benchmarks.coverage import TABLES, pull_tables

UNCHOSEN = (
    *(f"gadre-{corpus}" for corpus in ("c4", "redpajama", "refinedweb")),
    *(f"olmo-ladder-{corpus}" for corpus in ("c4", "pile")),
    *(f"porian-{step}" for step in ("1-kaplan", "2-head", "3-warmup", "4-decay", "5-tuned")),
)

SEEDS = 2
SD = ("LogNormal(0.05, 0.7)", "LogNormal(0.07, 0.7)", "LogNormal(0.1, 0.7)", "LogNormal(0.15, 0.7)")
LENGTH = (
    "LogNormal(2, 0.3)",
    "LogNormal(3, 0.3)",
    "LogNormal(3, 0.5)",
    "LogNormal(4, 0.6)",
    "LogNormal(5, 0.3)",
)
# The last is that of alpha: exponents that know nothing of each other.
BETA = ("LogNormal(alpha, 0.1)", "LogNormal(alpha, 0.2)", "LogNormal(alpha, 0.3)", "LogNormal(0.4, 0.35)")
# The first is next to no stretch: one length for both axes.
STRETCH = (
    "LogNormal(1, 0.02)",
    "LogNormal(1, 0.6)",
    "LogNormal(1.5, 0.3)",
    "LogNormal(1.5, 0.6)",
    "LogNormal(2, 0.6)",
    "LogNormal(2, 1)",
)
# Laws that are wrong, or wrong or right.
EITHER = (
    "LogNormal(0.07, 0.7)",
    "LogNormal(0.04, 0.7) or LogNormal(0.003, 1)",
    "LogNormal(0.07, 0.7) or LogNormal(0.003, 1)",
    "LogNormal(0.07, 0.7) or LogNormal(0.001, 0.5)",
    "LogNormal(0.07, 0.7) or LogNormal(0.01, 1)",
    "LogNormal(0.05, 0.7) or LogNormal(0.003, 1)",
    "LogNormal(0.1, 0.7) or LogNormal(0.003, 1)",
    "LogNormal(0.07, 1.5)",
    "LogNormal(0.05, 1)",
    "Gamma(0.5, 6)",
)
FAMILIES = {
    "either": [{"discrepancy_sd": sd} for sd in EITHER],
    "stretches": [{"discrepancy_stretch": stretch} for stretch in STRETCH],
    "ties": [{"beta": beta} for beta in BETA],
    "pairs": [{"discrepancy_sd": sd, "discrepancy_length": length} for sd, length in product(SD, LENGTH)],
}


def main(folder: str, families: list[str]) -> None:
    pull_tables(folder)
    fit = bs.fit
    # `backtest` fits with method "auto"; here the fast path must do alone.
    import bayescale.fitting as fitting

    fitting.fit = lambda *a, **k: fit(*a, **(k | {"method": "fast", "draws": 500}))
    for family in families:
        leave_one_out(pd.concat([forecast(TABLES, priors) for priors in FAMILIES[family]], ignore_index=True))
    for name in UNCHOSEN:
        bs.pull(name, folder)
    for family in [f for f in families if f != "pairs"]:
        print("on the ten other tables:")
        for priors in FAMILIES[family]:
            forecast(UNCHOSEN, priors)


def forecast(names: Sequence[str], priors: dict[str, str]) -> pd.DataFrame:
    """Return the scores of all splits of tables with some priors, and print their summary."""
    label = ", ".join(f"{name} {prior}" for name, prior in priors.items())
    found = [
        backtest(bs.load(name), priors=priors, methods=("discrepancy",), seed=seed).scores.assign(seed=seed)
        for name, seed in product(names, range(SEEDS))
    ]
    scores = pd.concat(found).assign(priors=label)
    failed = scores[~scores["passed"]].groupby(["table", "factor", "seed"]).ngroups
    print(f"{label}; {failed} fits failed the fast path's gates")
    print(Backtest(scores).summary().round(3).to_string(index=False), flush=True)
    return scores


def leave_one_out(scores: pd.DataFrame) -> None:
    """Print each table's scores with the priors that the other tables choose."""
    chosen = []
    for name in TABLES:
        others = Backtest(scores[scores["table"] != name]).summary(["priors"])
        best = others["interval_score_%"].idxmin()
        chosen.append(scores[(scores["table"] == name) & (scores["priors"] == best)])
        print(f"{name}: the other tables choose {best}")
    print("each table forecast with what the others choose:")
    print(Backtest(pd.concat(chosen)).summary().round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(FAMILIES))
