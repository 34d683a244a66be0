"""Effective samples per second of the default sampler against a textbook PyMC model, in one run.

    .venv/bin/python -m tests.benchmarks.sampling

Both draw the plain law with Student-t noise from the 240 Chinchilla runs. The textbook samples E, log A,
log B, alpha, beta as papers print them, with PyMC's own NUTS. Also splits the time from `bayescale fit` to
draws into import, compile and sampling, and times NUTS for the law with discrepancy.
"""

import json
import subprocess
import sys
import time

import numpy as np
import pymc as pm
from arviz_stats.base import array_stats

import bayescale as bs

SCALARS = ("E", "alpha", "beta")


def main() -> None:
    table = bs.load("chinchilla")
    ours = bs.fit(table, discrepancy=False, method="nuts", seed=1)
    seconds = ours.diagnostics.seconds
    rate = min_ess(ours.draws) / seconds["sample"]
    print(f"ours:     {rate:9.1f} effective samples/s (min over {', '.join(SCALARS)}), "
          f"sampling {seconds['sample']:.2f} s, compile {seconds['compile']:.2f} s")  # fmt: skip
    started = time.perf_counter()
    trace = textbook(table)
    wall = time.perf_counter() - started
    sampling = float(trace["posterior"].attrs.get("sampling_time", wall))
    peer = min_ess(trace["posterior"].to_dataset()) / sampling
    print(f"textbook: {peer:9.1f} effective samples/s, sampling {sampling:.2f} s")
    print(f"ratio:    {rate / peer:9.1f}")
    first_draws()
    fitted = bs.fit(table, method="nuts", draws=1000, chains=4, seed=1)
    found, seconds = fitted.diagnostics, fitted.diagnostics.seconds
    print(f"with discrepancy, 4 x 1000 draws of NUTS: compile {seconds['compile']:.1f} s, sampling "
          f"{seconds['sample']:.1f} s; smallest ESS {found.min_ess:.0f} ({found.worst_ess}), "
          f"{found.divergences} divergences")  # fmt: skip


def min_ess(draws) -> float:
    return min(
        float(array_stats.ess(draws[n].values[..., None], chain_axis=0, draw_axis=1)[0]) for n in SCALARS
    )


def textbook(table: bs.RunTable):
    n, d, log_loss = table.column("params"), table.column("tokens"), np.log(table.column("loss"))
    with pm.Model():
        floor = pm.LogNormal("E", np.log(1.5), 0.5)
        log_a, log_b = pm.Normal("log_A", 6, 3), pm.Normal("log_B", 7, 3)
        alpha = pm.LogNormal("alpha", np.log(0.4), 0.35)
        beta = pm.LogNormal("beta", np.log(0.4), 0.35)
        loss = floor + pm.math.exp(log_a) * n**-alpha + pm.math.exp(log_b) * d**-beta
        sd, df = pm.LogNormal("noise_sd", np.log(0.01), 1), pm.Gamma("noise_df", 2, 0.1)
        pm.StudentT("log_loss", nu=df, mu=pm.math.log(loss), sigma=sd, observed=log_loss)
        return pm.sample(nuts_sampler="pymc", random_seed=1, progressbar=False, cores=2)


def first_draws() -> None:
    """Time a fresh `bayescale fit` process, whose caches this run has warmed."""
    started = time.perf_counter()
    imports = (
        "import time; t = time.perf_counter(); import bayescale.fitting, nutpie, pymc; "
        "print(time.perf_counter() - t)"
    )
    imported = float(
        subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True).stdout
    )
    how = ["fit", "chinchilla", "--no-discrepancy", "--method", "nuts", "--json"]
    command = [sys.executable, "-m", "bayescale", *how]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    total = time.perf_counter() - started
    seconds = json.loads(done.stdout)["diagnostics"]["seconds"]
    rest = total - imported - sum(seconds.values())
    print(f"bayescale fit: {total:.1f} s = import {imported:.1f} + compile {seconds['compile']:.1f} "
          f"+ sampling {seconds['sample']:.1f} + rest {rest:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
