"""Simulation-based calibration of the full model on the fast path (Talts et al. 2018, arXiv:1804.06788).

    .venv/bin/python -m tests.benchmarks.sbc 1000
    .venv/bin/python -m tests.benchmarks.sbc 300 chains

Draws tables of 40 runs from the prior, discrepancy included, and fits each. Prints for every parameter how
often the central 50% and 90% intervals hold the truth, and the p-value of uniform ranks (chi-squared in
20 bins).
Fits that fail the fast path's gates, which in use go to NUTS, are counted and left in.
"""

import sys
from dataclasses import replace

import numpy as np
from joblib import Parallel, delayed
from scipy import stats

from bayescale.fitting import _parameters as parameters_at
from bayescale.inference import fast
from bayescale.inference.diagnostics import Diagnostics
from bayescale.laws import BUILTIN, sample_priors
from bayescale.model.making import make_model
from tests.conftest import simulated_table


def prior_table(model, rng):
    """Return a point drawn from the prior, as parameters, and log losses simulated from it."""
    law = sample_priors(model.centred.priors, rng, 1)
    scales = {n: prior.sample(rng, 1) for n, prior in model.scale_priors.items()}
    loss = model.law_loss(law, model.ratios)
    basis = model.discrepancy.basis(model.axes, model.lengths(scales), np)
    misfit = scales["discrepancy_sd"] * (basis[0] @ rng.standard_normal(model.discrepancy.size))
    log_loss = np.log(model.with_misfit(loss, law, misfit))[0]
    noise = scales["noise_sd"] * rng.standard_t(scales["noise_df"], len(log_loss))
    return law | scales, log_loss + noise


def one(number, by_chains):
    if by_chains:
        fast._ROUGH = -1.0
    rng = np.random.default_rng([7, number])
    model = make_model(simulated_table(rows=40), BUILTIN["chinchilla"])
    truth, log_loss = prior_table(model, rng)
    try:
        sampled = fast.sample_fast(replace(model, log_loss=log_loss), draws=999, seed=number)
    except Exception as error:
        return None, str(error)
    draws = parameters_at(model.with_plain_weights(), sampled.z)
    ranks = {name: int((draws[name] < value[0]).sum()) for name, value in truth.items()}
    diagnostics = Diagnostics("fast", sampled.ess, k_hat=sampled.k_hat, memory=sampled.memory)
    return ranks, diagnostics.passed


def main(tables: int, by_chains: bool) -> None:
    results = Parallel(n_jobs=2, verbose=1)(delayed(one)(i, by_chains) for i in range(tables))
    kept = [(ranks, passed) for ranks, passed in results if ranks is not None]
    passed = np.mean([p for _, p in kept])
    print(f"{tables} tables; no mode found on {tables - len(kept)}; gates passed {passed:.1%}")
    for which, chosen in (("all", kept), ("gates passed", [k for k in kept if k[1]])):
        print(which)
        for name in chosen[0][0]:
            ranks = np.array([r[name] for r, _ in chosen])
            share = (ranks + 0.5) / 1000
            counts = np.histogram(share, 20, (0, 1))[0]
            covered = [np.mean(np.abs(share - 0.5) < level / 2) for level in (0.5, 0.9)]
            print(f"  {name:20} 50% {covered[0]:.3f}  90% {covered[1]:.3f}  mean rank {share.mean():.3f}  "
                  f"p {stats.chisquare(counts).pvalue:.3f}")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]), "chains" in sys.argv)
