"""Laws that are no sums of powers, alone, by the fast path and by NUTS: do they agree?

    .venv/bin/python -m tests.benchmarks.other_laws

Eight fast fits beside 4 x 4000 draws of NUTS and bridge sampling: how many stand, median k-hat and seconds,
mean log evidence and its scatter, and the largest differences among parameters (the floor in nats/token,
positive others as logs), of means in NUTS sd and of sds as ratios, of the eight taken together. The last row
is of runs in pairs that share an offset of 2%, at noise of .3%.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import bayescale as bs
from bayescale.inference.bridge import log_evidence
from tests.benchmarks.fast_path import differences
from tests.conftest import simulated_table

CASES = (
    ("parscale-pile", "parscale"),
    ("parscale-stack", "parscale"),
    ("chinchilla", "kaplan-floor"),
    ("chinchilla", "outer-exponent"),
    ("chinchilla", "generalised-sum"),
    ("chinchilla", "kaplan"),
    ("zipf-facts", "outer-exponent"),
    ("zipf-facts", "muennighoff"),
    ("opt", "kaplan"),
    ("opt", "kaplan-floor"),
    ("cerebras-gpt", "outer-exponent"),
)
SEEDS = 8


def main() -> None:
    print("| table | law | stand | k-hat | s | log evidence | NUTS | mean off, sd | sd | smallest ESS |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for table, law, options in cases():
        started = time.perf_counter()
        fits = [bs.fit(table, law, discrepancy=False, method="fast", seed=s, **options) for s in range(SEEDS)]
        seconds = (time.perf_counter() - started) / SEEDS
        nuts = bs.fit(table, law, discrepancy=False, method="nuts", draws=4000, seed=1, **options)
        bridged = log_evidence(nuts.model, nuts.z)
        logs = [f.evidence.log for f in fits if f.evidence]
        # Scales as papers print them are extrapolated: their logarithms may have no variance.
        sampled = {*nuts.model.centred.names, *nuts.model.scale_priors}
        shift, ratio = differences(fits, {n: v for n, v in nuts.parameters.items() if n in sampled})
        ess = f"{nuts.diagnostics.min_ess:.0f}"
        row = (
            table.name,
            law,
            f"{sum(f.diagnostics.passed for f in fits)} of {SEEDS}",
            f"{np.median([k for f in fits if (k := f.diagnostics.k_hat) is not None] or [np.nan]):.2f}",
            f"{seconds:.3f}",
            f"{np.mean(logs):.2f} +- {np.std(logs):.2f}",
            f"{bridged.log:.2f} +- {bridged.error:.2f}",
            f"{shift:.2f}",
            f"{ratio - 1:+.0%}",
            ess if nuts.diagnostics.passed else f"({ess})",
        )
        print(f"| {' | '.join(row)} |", flush=True)


def cases() -> Iterator[tuple[bs.RunTable, str, dict[str, Any]]]:
    for name, law in CASES:
        yield bs.load(name), law, {}
    pairs = simulated_table(rows=60, name="pairs, simulated")
    pairs.frame["trunk"] = np.arange(60) // 2
    pairs.frame["loss"] *= np.exp(0.02 * np.random.default_rng(0).standard_normal(30))[pairs.frame["trunk"]]
    yield pairs, "chinchilla", {"group_effect": "trunk"}


if __name__ == "__main__":
    main()
