"""The fast path beside NUTS: how long each takes, and whether they see the same posterior.

    .venv/bin/python -m tests.benchmarks.fast_path ../shared/published [DRAWS] [TABLE ...]

First, within a minute or two for all tables, for the law alone and with discrepancy: median seconds of a fast
fit (5 seeds, after one to warm up), how many stand, k-hat or, where chains moved draws on, what they
remember, effective draws and latent variance. Where vpnls is installed (arXiv:2603.22339, a point fit of the
law alone), its default fit, of least squares, and its Huber fit are timed in turn with ours.

Then, minutes a table, the largest differences from 4 x 4000 (or DRAWS) draws of NUTS among parameters (the
floor in nats/token, positive others as logs), of means in NUTS sd and of sds as ratios: for the fits that
stand taken together, which shows bias, and for the worst of them, which has its own Monte Carlo error. With
discrepancy, whose prior joins two, NUTS runs for each of them, and the draws are joined by their evidence
(bridge sampling): between a misfit of some per cent and one hidden by noise a chain seldom crosses.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import bayescale as bs
from bayescale.inference.bridge import log_evidence
from bayescale.laws import Either
from bayescale.model.model import SCALE_PRIORS
from tests.benchmarks import coverage

TABLES = (
    *coverage.TABLES,
    "olmo-ladder-c4",
    "olmo-ladder-pile",
    "gadre-c4",
    "gadre-redpajama",
    "gadre-refinedweb",
)
SEEDS = 5


def main(folder: str, names: list[str], draws: int) -> None:
    for name in names:
        if name != "chinchilla":
            bs.pull(name, folder)
    cases = [(bs.load(name), discrepancy) for name in names for discrepancy in (False, True)]
    fits, rows = {}, []
    for table, discrepancy in cases:
        fits[table.name, discrepancy], row = timed(table, discrepancy)
        rows.append({"table": table.name, "runs": len(table), "discrepancy": discrepancy} | row)
        _show(rows[-1])
    frame = pd.DataFrame(rows)
    print(frame.groupby("discrepancy")["fast s"].median().round(3).to_string(), flush=True)
    for table, discrepancy in cases:
        row = compared(table, discrepancy, fits[table.name, discrepancy], draws)
        _show({"table": table.name, "discrepancy": discrepancy} | row)


def timed(table: bs.RunTable, discrepancy: bool) -> tuple[list[bs.Fit], dict[str, Any]]:
    """Return fast fits of five seeds, and what they took."""
    fits, seconds, peers = [], [], []
    for seed in range(SEEDS + 1):
        fitted, taken = _timed(lambda s=seed: bs.fit(table, discrepancy=discrepancy, method="fast", seed=s))
        fits.append(fitted)
        seconds.append(taken)
        if not discrepancy and importlib.util.find_spec("vpnls"):
            peers.append([_timed(lambda r=robust: _vpnls(table, robust=r))[1] for robust in (False, True)])
    row: dict[str, Any] = {"fast s": float(np.median(seconds[1:]))}
    if peers:
        row["vpnls s"], row["vpnls, Huber, s"] = map(float, np.median(peers[1:], axis=0))
    row["stand"] = sum(f.diagnostics.passed for f in fits[1:])
    for name in ("k_hat", "memory", "drift", "min_ess", "latent_variance"):
        if known := [v for f in fits[1:] if (v := getattr(f.diagnostics, name)) is not None]:
            row[name] = float(np.median(known))
    return fits[1:], row


def compared(table: bs.RunTable, discrepancy: bool, fits: list[bs.Fit], draws: int) -> dict[str, Any]:
    """Return how far fast fits are from NUTS."""
    started = time.perf_counter()
    parts = by_nuts(table, discrepancy, draws)
    row: dict[str, Any] = {"NUTS s": time.perf_counter() - started}
    row["NUTS ESS"] = [round(part.diagnostics.min_ess) for part in parts]
    row["NUTS passed"] = all(part.diagnostics.passed for part in parts)
    reference = parts[0].parameters
    if discrepancy:
        found = [log_evidence(part.model, part.z) for part in parts]
        row["log evidence"] = [f"{e.log:.2f} +- {e.error:.2f}" for e in found]
        reference = joined([part.parameters for part in parts], np.array([e.log for e in found]))
    if stands := [f for f in fits if f.diagnostics.passed]:
        row["mean, sd off"], row["sd ratio"] = differences(stands, reference)
        each = [differences([f], reference) for f in stands]
        row["worst mean"] = max(shift for shift, _ in each)
        row["worst ratio"] = max((ratio for _, ratio in each), key=lambda r: abs(np.log(r)))
    return row


def by_nuts(table: bs.RunTable, discrepancy: bool, draws: int) -> list[bs.Fit]:
    """Return a fit by NUTS, or one for each of the priors that the discrepancy's joins."""
    how: dict[str, Any] = {"method": "nuts", "draws": draws, "seed": 1}
    if not discrepancy:
        return [bs.fit(table, discrepancy=False, **how)]
    prior = SCALE_PRIORS["discrepancy_sd"]
    assert isinstance(prior, Either)
    return [bs.fit(table, priors={"discrepancy_sd": part}, **how) for part in (prior.first, prior.second)]


def joined(parts: list[dict[str, np.ndarray]], log_evidence: np.ndarray) -> dict[str, np.ndarray]:
    """Return draws of both parts, evenly spaced, in the proportion of their evidence."""
    share = np.exp(log_evidence - log_evidence.max())
    kept = []
    for draws, most in zip(parts, share, strict=True):
        count = len(draws["noise_sd"])
        chosen = np.linspace(0, count - 1, round(most * count)).astype(int)
        kept.append({name: values[chosen] for name, values in draws.items()})
    return {name: np.concatenate([part[name] for part in kept]) for name in parts[0]}


def _show(row: dict[str, Any]) -> None:
    print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)


def differences(fits: list[bs.Fit], reference: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return the largest shift of means, in sd, and the most different ratio of sds of fits' pooled draws."""
    shifts, ratios = [], []
    for name, theirs in reference.items():
        if theirs.ndim == 1 and name not in ("A", "B"):
            mine = np.concatenate([f.parameters[name] for f in fits])
            if name != "E":
                mine, theirs = np.log(mine), np.log(theirs)
            shifts.append(float(abs(mine.mean() - theirs.mean()) / theirs.std()))
            ratios.append(float(mine.std() / theirs.std()))
    return max(shifts), max(ratios, key=lambda r: abs(np.log(r)))


def _vpnls(table: bs.RunTable, *, robust: bool) -> Any:
    """Fit by vpnls at its defaults or, if `robust`, with the Huber loss its README takes for real runs."""
    from vpnls.api import fit_vpnls, huber

    columns = [table.column(c).astype(float) for c in ("params", "tokens", "loss")]
    return fit_vpnls(*columns, loss=huber(1e-3)) if robust else fit_vpnls(*columns)


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return function(), time.perf_counter() - started


if __name__ == "__main__":
    numbers, tables = ([a for a in sys.argv[2:] if a.isdigit() is numeric] for numeric in (True, False))
    main(sys.argv[1], tables or list(TABLES), int(numbers[0]) if numbers else 4000)
