"""Evidence by the fast path, bridge sampling and nested sampling: do they agree, and what does each cost?

    .venv/bin/python -m tests.benchmarks.evidence

The 240 Chinchilla runs, laws alone. Costs are seconds for an error of .01 nat, as errors fall with the root
of work; the compilation that NUTS needs is not counted.
"""

import math
import time

import bayescale as bs
from bayescale.inference.bridge import log_evidence
from bayescale.inference.fast import sample_fast
from bayescale.laws import BUILTIN
from bayescale.model.model import make_model
from tests.test_evidence import nested_sampling

LAWS = ("chinchilla", "kaplan")


def main() -> None:
    table = bs.load("chinchilla")
    for law in LAWS:
        model = make_model(table, BUILTIN[law], discrepancy=False)
        sample_fast(model, draws=10, seed=1)  # the law's functions are compiled once
        found = {}
        started = time.perf_counter()
        evidence = sample_fast(model, draws=10, seed=0).evidence
        found["fast path"] = evidence.log, evidence.error, time.perf_counter() - started
        nuts = bs.fit(table, law, discrepancy=False, method="nuts")
        started = time.perf_counter()
        evidence = log_evidence(nuts.model, nuts.z)
        seconds = time.perf_counter() - started + nuts.diagnostics.seconds["sample"]
        found["NUTS and bridge"] = evidence.log, evidence.error, seconds
        started = time.perf_counter()
        log, error = nested_sampling(model)
        found["nautilus, 1000 live points"] = log, error, time.perf_counter() - started
        for name, (log, error, seconds) in found.items():
            cost = seconds * (error / 0.01) ** 2
            print(f"{law}: {name}: {log:.3f} +- {error:.3f} nats, {seconds:.2f} s, {cost:.2f} s at .01 nat")
        values = list(found.values())
        apart = max(abs(a[0] - b[0]) / math.hypot(a[1], b[1]) for a in values for b in values if a is not b)
        print(f"{law}: farthest apart: {apart:.1f} Monte Carlo errors", flush=True)


if __name__ == "__main__":
    main()
