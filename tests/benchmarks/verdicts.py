"""Which law do the published (N, D) tables speak for, and what does that hang on? Writes the table in docs.

.venv/bin/python -m tests.benchmarks.verdicts ../shared/published
"""

import sys

import pandas as pd

import bayescale as bs
from bayescale.comparison import LAWS
from bayescale.errors import BayescaleError
from tests.benchmarks import coverage

# Bundled tables, and published ones to pull, with params and tokens that vary apart.
TABLES = (
    *coverage.TABLES,
    "gadre-c4",
    "gadre-redpajama",
    "gadre-refinedweb",
    "olmo-ladder-c4",
    "olmo-ladder-pile",
    "porian-1-kaplan",
    "porian-2-head",
    "porian-3-warmup",
    "porian-4-decay",
    "porian-5-tuned",
    "scalebench-farseer",
    "zipf-facts",
    "zipf-facts-hard",
    "zipf-facts-steep",
    "zipf-facts-gpu",
)


def main(folder: str, names: list[str]) -> None:
    print("| table | runs | " + " | ".join(LAWS) + " | gain of a discrepancy |")
    print("|---" * (len(LAWS) + 3) + "|")
    for name in names:
        try:
            print(row(name, folder), flush=True)
        except BayescaleError as error:
            print(f"| {name} | {error} |", flush=True)


def row(name: str, folder: str) -> str:
    bundled = {e.name for e in bs.tables() if e.bundled}
    if name not in bundled:
        bs.pull(name, folder)
    table = bs.load(name)
    if len(table) > 400:  # every k-th run by compute: the verdicts do not need them all
        order = table.frame["compute"].rank(method="first").to_numpy(int) - 1
        table = table.where(order % -(-len(table) // 400) == 0)
    compared = bs.compare(table, LAWS, method="fast", draws=250)
    factors = compared.sensitivity_table()
    marked = {
        s.name: {n for n, (_, why) in there.items() if why} for s, there in compared.sensitivity.items()
    }
    marked["as fitted"] = {n for n, ok in compared.summary()["reliable"].items() if not ok}
    cells = [
        " / ".join(f"{factors.loc[s, law]:+.1f}" + "?" * (law in marked[str(s)]) for s in factors.index)
        for law in LAWS
    ]
    gain = compared.discrepancy_gain()
    return f"| {name} | {len(table)} | " + " | ".join(cells) + f" | {pd.Series([gain]).round(1)[0]:+.1f} |"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(TABLES))
