"""The fast path beside NUTS: how long each takes, and whether they see the same posterior.

    .venv/bin/python -m tests.benchmarks.fast_path ../shared/published [TABLE ...]

For every table, for the law alone and with discrepancy: median seconds of a fast fit (5 seeds, after one to
warm up, single thread), k-hat, effective draws, and the largest differences from 4 x 1000 draws of NUTS among
parameters (positive ones as logs): of means in NUTS sd, of sds as ratios.
"""

import sys
import time

import numpy as np

import bayescale as bs

TABLES = (
    "chinchilla",
    "isoflop-chinchilla-mlscalefit",
    "isoflop-llama3-exp",
    "isoflop-llama3-raw",
    "isoflop-marin-comma",
    "olmo-ladder-c4",
    "olmo-ladder-pile",
    "gadre-c4",
)


def main(folder: str, names: list[str]) -> None:
    for name in names:
        if name != "chinchilla":
            bs.pull(name, folder)
        table = bs.load(name)
        for discrepancy in (False, True):
            started = time.perf_counter()
            nuts = bs.fit(table, discrepancy=discrepancy, method="nuts", draws=1000, seed=1)
            nuts_seconds = time.perf_counter() - started
            seconds, fits = [], []
            for seed in range(6):
                started = time.perf_counter()
                fits.append(bs.fit(table, discrepancy=discrepancy, method="fast", seed=seed))
                seconds.append(time.perf_counter() - started)
            stands = [f for f in fits[1:] if f.diagnostics.passed]
            shifts = [compare(f, nuts) for f in stands] or [(np.nan, "", np.nan, "")]
            worst = max(shifts, key=lambda s: s[0])
            ratio = max(shifts, key=lambda s: abs(np.log(s[2])))
            k_hat, ess = (np.median([getattr(f.diagnostics, n) for f in fits]) for n in ("k_hat", "min_ess"))
            checks = nuts.diagnostics
            for line in (
                f"{name}, {len(table)} runs, {'with discrepancy' if discrepancy else 'law alone'}:",
                f"  fast {np.median(seconds[1:]):.3f} s, k-hat {k_hat:.2f}, {ess:.0f} effective draws, "
                f"{len(stands)} of 5 stand",
                f"  NUTS {nuts_seconds:.0f} s, passed: {checks.passed}, smallest ESS {checks.min_ess:.0f}, "
                f"{checks.divergences} divergences",
                f"  means within {worst[0]:.2f} sd ({worst[1]}), sds within x{ratio[2]:.2f} ({ratio[3]})",
            ):
                print(line, flush=True)


def compare(fast: bs.Fit, nuts: bs.Fit) -> tuple[float, str, float, str]:
    shifts, ratios = {}, {}
    for name, reference in nuts.parameters.items():
        if reference.ndim == 1 and name not in ("A", "B"):
            mine, theirs = (np.log(f.parameters[name]) for f in (fast, nuts))
            shifts[name] = abs(mine.mean() - theirs.mean()) / theirs.std()
            ratios[name] = mine.std() / theirs.std()
    shift = max(shifts, key=lambda n: shifts[n])
    ratio = max(ratios, key=lambda n: abs(np.log(ratios[n])))
    return shifts[shift], shift, ratios[ratio], ratio


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(TABLES))
