"""Do fits of our own ladders find the entropy rate of their sources, which is known exactly?

    python -m tests.benchmarks.floors [TABLE ...]

For every table, law and model: the 90% interval of E (its ends as means over five seeds of the fast path, and
by NUTS), whether it holds the exact rate, and its half-width as a share of that.
"""

import sys
from collections.abc import Iterator

import numpy as np

import bayescale as bs

TABLES = ("zipf-facts", "zipf-facts-hard", "zipf-facts-steep")
LAWS = ("chinchilla", "outer-exponent")
SEEDS = 5


def intervals(table: bs.RunTable, law: str, discrepancy: bool) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Yield engine, ends of the 90% interval of E and whether all its fits passed their gates."""
    for engine, seeds in (("fast", SEEDS), ("nuts", 1)):
        fits = [
            bs.fit(table, law, discrepancy=discrepancy, method="nuts" if engine == "nuts" else "fast", seed=s)
            for s in range(seeds)
        ]
        ends = np.mean([np.quantile(f.parameters["E"], [0.05, 0.95]) for f in fits], axis=0)
        yield engine, ends, all(f.diagnostics.passed for f in fits)


def main(names: list[str]) -> None:
    print("| table, runs | law | model | engine | 90% interval of E | exact | half-width | passed |")
    print("|---" * 8 + "|")
    for name in names:
        table = bs.load(name)
        exact = table.meta.entropy_rate
        assert exact is not None
        for law in LAWS:
            for discrepancy in (True, False):
                for engine, (low, high), passed in intervals(table, law, discrepancy):
                    side = "inside" if low <= exact <= high else "outside"
                    cells = (
                        f"{name}, {len(table)}",
                        law,
                        "with discrepancy" if discrepancy else "law alone",
                        engine,
                        f"{low:.4f} - {high:.4f}",
                        f"{exact:.4f}, {side}",
                        f"{50 * (high - low) / exact:.1f}%",
                        "yes" if passed else "no",
                    )
                    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(TABLES))
