"""NUTS draws of a model's posterior, by nutpie with a low-rank mass matrix: the reference engine."""

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayescale.model.model import Model

# Acceptance to aim for: then, if transitions diverged, once more with shorter steps.
TARGET_ACCEPT = (0.98, 0.995)


@dataclass(frozen=True)
class Draws:
    """Draws of a posterior in unconstrained coordinates.

    Attributes
    ----------
    z : array, shape (chain, draw, size)
        Points, in the layout of `Model.layout`.
    sample_stats : dict
        The sampler's own record, arrays of shape (chain, draw).
    seconds : dict
        Wall-clock seconds by stage: compile, sample.
    """

    z: np.ndarray
    sample_stats: dict[str, np.ndarray]
    seconds: dict[str, float]


def compile_nuts(model: Model) -> Any:
    """Compile the model for nutpie; ``compiled.with_data(log_loss_data=...)`` sets other losses."""
    import nutpie

    from bayescale.model.pymc_model import build_pymc_model

    return nutpie.compile_pymc_model(build_pymc_model(model))


def sample_nuts(
    model: Model,
    *,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    compiled: Any = None,
) -> Draws:
    """Draw from the posterior of a model.

    Parameters
    ----------
    model : Model
        The model.
    draws, tune, chains, seed : int
        Kept draws and warm-up draws per chain, number of chains, seed.
    compiled : optional
        What `compile_nuts` returned for a model of the same shape, to save compiling again.
    """
    import nutpie
    from threadpoolctl import threadpool_limits

    started = time.perf_counter()
    compiled = compile_nuts(model) if compiled is None else compiled
    ready = time.perf_counter()
    # Chains are threads; BLAS threads of its own on matrices this small make it 4 times slower.
    with threadpool_limits(1):
        for target in TARGET_ACCEPT:
            sampler = nutpie.sample(
                compiled,
                draws=draws,
                tune=tune,
                chains=chains,
                seed=seed,
                adaptation="low_rank",
                target_accept=target,
                progress_bar=sys.stderr.isatty(),
                save_warmup=False,
                blocking=False,
            )
            try:
                trace = sampler.wait()
            except BaseException:  # a blocking call takes Ctrl-C for the end, and returns what there is
                sampler.cancel()
                raise
            if not trace["sample_stats"]["diverging"].any():
                break
    done = time.perf_counter()
    posterior = trace["posterior"]
    z = np.empty((chains, draws, model.size))
    for name, block in model.layout.items():
        values = posterior[name].values.reshape(chains, draws, -1)
        z[..., block] = np.log(values) if name in model.scale_priors else values
    keep = ("diverging", "n_steps", "tree_depth", "depth", "step_size", "energy", "logp")
    record = trace["sample_stats"]
    stats = {name: record[name].values for name in keep if name in record}
    return Draws(z, stats, {"compile": ready - started, "sample": done - ready})
