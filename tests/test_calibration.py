"""Simulation-based calibration: over tables drawn from the prior, ranks of the truth are uniform."""

import numpy as np

from bayescale.inference.nuts import compile_nuts, sample_nuts
from bayescale.laws import BUILTIN, sample_priors
from bayescale.model.making import make_model
from tests.conftest import simulated_table

TABLES = 100
THIN = 8  # draws this far apart are nearly independent, as ranks need


def test_intervals_cover_as_often_as_they_say():
    model = make_model(simulated_table(rows=40), BUILTIN["chinchilla"], discrepancy=False)
    compiled = compile_nuts(model)
    rng = np.random.default_rng(20)
    truths, shares = [], []
    for number in range(TABLES):
        z = prior_point(model, rng)
        log_loss = simulate(model, z, rng)
        draws = sample_nuts(
            model, draws=400, tune=400, chains=2, seed=number,
            compiled=compiled.with_data(log_loss_data=log_loss),
        ).z.reshape(-1, model.size)[::THIN]  # fmt: skip
        truths.append(z)
        shares.append((parameters(model, draws) < parameters(model, z[None])).mean(axis=0))
    shares = np.array(shares)
    for nominal in (0.5, 0.9):
        covered = (np.abs(shares - 0.5) < nominal / 2).mean(axis=0)
        sd = np.sqrt(nominal * (1 - nominal) / TABLES)
        # Seven parameters, two levels: 3.3 sd keeps a false alarm under 1 in 70.
        assert np.all(np.abs(covered - nominal) < 3.3 * sd), covered
    # One-sided bias shows in the mean share, which is uniform under calibration.
    assert np.all(np.abs(shares.mean(axis=0) - 0.5) < 3.3 / np.sqrt(12 * TABLES))


def parameters(model, z):
    values = model.point_at(z).values
    scales = [model.scale(z, n) for n in model.scale_priors]
    return np.stack([*(values[n] for n in model.centred.names), *scales], axis=1)


def prior_point(model, rng):
    law = sample_priors(model.centred.priors, rng, 1)
    scales = [np.log(prior.sample(rng, 1)) for prior in model.scale_priors.values()]
    return np.concatenate([model.coordinates.from_sampled(law)[0], *scales])


def simulate(model, z, rng):
    df, sd = model.scale(z[None], "noise_df")[0], model.scale(z[None], "noise_sd")[0]
    return np.log(model.point_at(z[None]).loss[0]) + sd * rng.standard_t(df, len(model.log_loss))
