"""Evidence by the fast path, bridge sampling and nested sampling: do they agree, and what does each cost?

    .venv/bin/python -m tests.benchmarks.evidence

The 240 Chinchilla runs, laws alone, Student-t noise. Costs are CPU seconds of all threads, and the same for
an error of .01 nat, as errors fall with the root of work; compiling is not counted. The fast path runs with
many seeds: its error is the scatter between them, printed beside the one it claims.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import bayescale as bs
from bayescale.fitting import prepare
from bayescale.inference.bridge import log_evidence
from bayescale.inference.fast import sample_fast
from bayescale.inference.nuts import compile_nuts, sample_nuts
from bayescale.laws import BUILTIN
from bayescale.model.making import make_model
from bayescale.model.model import Model
from tests.test_evidence import nested_sampling

LAWS = ("chinchilla", "kaplan")
SEEDS = 40
LIVE = 500
TARGET = 0.01


class Estimate(NamedTuple):
    """A log evidence, its Monte Carlo error, nats, and what it took."""

    log: float
    error: float
    seconds: float

    @property
    def cost(self) -> float:
        """CPU seconds for the target error."""
        return self.seconds * (self.error / TARGET) ** 2


def main() -> None:
    table = bs.load("chinchilla")
    print(f"| law | estimator | log evidence | CPU s | CPU s for {TARGET} nat | over the fast path |")
    print("|---|---|---|---|---|---|")
    for law in LAWS:
        model = make_model(table, BUILTIN[law], discrepancy=False)
        fast, errors = fast_path(model)
        found = {f"fast path, mean of {SEEDS} seeds": fast, "NUTS and bridge": bridge(model)}
        found[f"nautilus, {LIVE} live points"] = timed(lambda m=model: nested_sampling(m, live=LIVE))
        for name, one in found.items():
            shown = f"{one.log:.3f} +- {one.error:.3f} | {one.seconds:.2f} | {one.cost:.2f}"
            print(f"| {law} | {name} | {shown} | {one.cost / fast.cost:.1f} |", flush=True)
        apart = max(
            abs(a.log - b.log) / math.hypot(a.error, b.error)
            for a in found.values()
            for b in found.values()
            if a is not b
        )
        print(f"\n{law}: farthest apart {apart:.1f} Monte Carlo errors of a single run each;")
        print(
            f"the fast path claims +- {np.mean(errors):.3f}, its seeds scatter by {fast.error:.3f}\n",
            flush=True,
        )


def fast_path(model: Model) -> tuple[Estimate, list[float]]:
    """Return the mean over seeds with the scatter of one, and the errors that each seed claims."""
    sample_fast(model, draws=10, seed=SEEDS)  # the law's functions are compiled once
    started = time.process_time()
    found = [sample_fast(model, draws=10, seed=seed).evidence for seed in range(SEEDS)]
    seconds = (time.process_time() - started) / SEEDS
    logs = [evidence.log for evidence in found]
    return Estimate(float(np.mean(logs)), float(np.std(logs, ddof=1)), seconds), [e.error for e in found]


def bridge(model: Model) -> Estimate:
    """Return bridge sampling from NUTS draws, sampling counted and compiling not."""
    placed = prepare(model, seed=0)
    compiled = compile_nuts(placed)

    def run() -> tuple[float, float]:
        draws = sample_nuts(placed, draws=1000, tune=1000, chains=4, seed=0, compiled=compiled)
        evidence = log_evidence(placed, draws.z)
        return evidence.log, evidence.error

    return timed(run)


def timed(run: Callable[[], tuple[float, float]]) -> Estimate:
    started = time.process_time()
    return Estimate(*run(), time.process_time() - started)


if __name__ == "__main__":
    main()
