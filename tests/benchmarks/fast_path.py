"""The fast path beside NUTS: how long each takes, and whether they see the same posterior.

    .venv/bin/python -m tests.benchmarks.fast_path ../shared/published [TABLE ...]

For every table, for the law alone and with discrepancy: median seconds of a fast fit (5 seeds, after one to
warm up), k-hat, effective draws, and the largest differences from 4 x 2000 draws of NUTS among parameters
(positive ones as logs), of means in NUTS sd and of sds as ratios: for the fits that stand taken together,
which shows bias, and for the worst of them, which has its own Monte Carlo error.
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
            nuts = bs.fit(table, discrepancy=discrepancy, method="nuts", draws=2000, seed=1)
            nuts_seconds = time.perf_counter() - started
            seconds, fits = [], []
            for seed in range(6):
                started = time.perf_counter()
                fits.append(bs.fit(table, discrepancy=discrepancy, method="fast", seed=seed))
                seconds.append(time.perf_counter() - started)
            stands = [f for f in fits[1:] if f.diagnostics.passed]
            k_hat, ess = (np.median([getattr(f.diagnostics, n) for f in fits]) for n in ("k_hat", "min_ess"))
            checks = nuts.diagnostics
            for line in (
                f"{name}, {len(table)} runs, {'with discrepancy' if discrepancy else 'law alone'}:",
                f"  fast {np.median(seconds[1:]):.3f} s, k-hat {k_hat:.2f}, {ess:.0f} effective draws, "
                f"{len(stands)} of 5 stand",
                f"  NUTS {nuts_seconds:.0f} s, passed: {checks.passed}, smallest ESS {checks.min_ess:.0f}, "
                f"{checks.divergences} divergences",
                f"  together: {_told(compare(stands, nuts))}" if stands else "  none stands",
                *(f"  the worst: {_told(worst)}" for worst in _worst(stands, nuts)),
            ):
                print(line, flush=True)


def compare(fits: list[bs.Fit], nuts: bs.Fit) -> tuple[float, str, float, str]:
    """Return the largest shift of means and ratio of sds of fits' pooled draws, and of which parameters."""
    shifts, ratios = {}, {}
    for name, reference in nuts.parameters.items():
        if reference.ndim == 1 and name not in ("A", "B"):
            mine, theirs = np.log(np.concatenate([f.parameters[name] for f in fits])), np.log(reference)
            shifts[name] = abs(mine.mean() - theirs.mean()) / theirs.std()
            ratios[name] = mine.std() / theirs.std()
    shift = max(shifts, key=lambda n: shifts[n])
    ratio = max(ratios, key=lambda n: abs(np.log(ratios[n])))
    return shifts[shift], shift, ratios[ratio], ratio


def _worst(fits: list[bs.Fit], nuts: bs.Fit) -> list[tuple[float, str, float, str]]:
    """Return the largest shift and the largest ratio of single fits, if there are any."""
    each = [compare([f], nuts) for f in fits]
    if not each:
        return []
    shift, ratio = max(each, key=lambda s: s[0]), max(each, key=lambda s: abs(np.log(s[2])))
    return [(*shift[:2], *ratio[2:])]


def _told(found: tuple[float, str, float, str]) -> str:
    return f"means within {found[0]:.2f} sd ({found[1]}), sds within x{found[2]:.2f} ({found[3]})"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(TABLES))
