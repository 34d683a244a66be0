"""Do fits of our own ladders find the entropy rate of their sources, which is known exactly?

    python -m tests.benchmarks.floors [TABLE ...]

For every table, law and model: the 90% interval of E (its ends as means over five seeds), whether it holds
the exact rate, its half-width as a share of that, and how many of the five fits passed their gates.
"""

import sys

import numpy as np

import bayescale as bs

TABLES = ("zipf-facts", "zipf-facts-hard", "zipf-facts-steep")
LAWS = ("chinchilla", "outer-exponent")
SEEDS = 5


def row(name: str, law: str, discrepancy: bool) -> str:
    """Return a line of the table."""
    table = bs.load(name)
    exact = table.meta.entropy_rate
    assert exact is not None
    fits = [bs.fit(table, law, discrepancy=discrepancy, method="fast", seed=s) for s in range(SEEDS)]
    low, high = np.mean([np.quantile(f.parameters["E"], [0.05, 0.95]) for f in fits], axis=0)
    cells = (
        f"{name}, {len(table)}",
        law,
        "with discrepancy" if discrepancy else "law alone",
        f"{low:.4f} - {high:.4f}",
        f"{exact:.4f}, {'inside' if low <= exact <= high else 'outside'}",
        f"{50 * (high - low) / exact:.1f}%",
        f"{sum(f.diagnostics.passed for f in fits)} of {SEEDS}",
    )
    return "| " + " | ".join(cells) + " |"


def main(names: list[str]) -> None:
    print("| table, runs | law | model | 90% interval of E | exact | half-width | passed |")
    print("|---" * 7 + "|")
    for name in names:
        for law in LAWS:
            for discrepancy in (True, False):
                print(row(name, law, discrepancy), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(TABLES))
