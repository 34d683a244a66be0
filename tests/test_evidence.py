"""Evidence: bridge sampling, the fast path, nested sampling and quadrature agree; LOO is ArviZ's own."""

import math
from functools import partial

import arviz_stats
import numpy as np
import pytest
from scipy import integrate, stats
from threadpoolctl import threadpool_limits

import bayescale as bs
from bayescale.errors import FitError
from bayescale.inference.bridge import log_evidence
from bayescale.inference.crossvalidation import loo, pointwise_log_likelihood
from bayescale.inference.modes import prior_draws
from bayescale.laws import BUILTIN, law_from_formula
from bayescale.model.making import make_model
from tests.conftest import simulated_table
from tests.test_fast import require_same_draws


class Banana:
    """A density whose integral is known: a skewed, curved normal in four dimensions."""

    log = 3.7

    def log_density(self, z):
        bent = z.copy()
        bent[:, 1] -= 0.3 * z[:, 0] ** 2
        bent[:, 2] = np.sinh(z[:, 2])
        jacobian = np.log(np.cosh(z[:, 2]))
        return self.log - 0.5 * (bent**2).sum(axis=1) - 2 * math.log(2 * math.pi) + jacobian

    def draws(self, rng, *shape):
        z = rng.standard_normal((*shape, 4))
        z[..., 1] += 0.3 * z[..., 0] ** 2
        z[..., 2] = np.arcsinh(z[..., 2])
        return z


def test_bridge_finds_a_known_integral_and_its_error():
    rng = np.random.default_rng(0)
    found = [log_evidence(Banana(), Banana().draws(rng, 4, 500), seed=s) for s in range(40)]
    off = np.array([e.log - Banana.log for e in found])
    claimed = np.array([e.error for e in found])
    assert claimed.max() < 0.05
    assert abs(off.mean()) < 4 * off.std() / math.sqrt(len(off))
    assert 0.6 < off.std() / claimed.mean() < 1.6


def test_bridge_counts_autocorrelation():
    rng = np.random.default_rng(1)
    sticky = np.repeat(Banana().draws(rng, 4, 100), 20, axis=1)
    free = Banana().draws(rng, 4, 2000)
    assert log_evidence(Banana(), sticky).error > 2 * log_evidence(Banana(), free).error


def test_bridge_refuses_too_few_draws():
    with pytest.raises(FitError, match="at least 80 draws"):
        log_evidence(Banana(), Banana().draws(np.random.default_rng(0), 2, 20))


def two_parameter_model():
    """Only level and slope are free in effect: the noise parameters' priors are the model's own."""
    law = law_from_formula("A*N**-a")
    return make_model(simulated_table(rows=15, noise_sd=0.05), law, noise="normal", discrepancy=False)


def test_quadrature_agrees():
    """Three coordinates (amplitude, exponent, noise), integrated on a grid wide enough for the integrand."""
    model = two_parameter_model()
    fitted = bs.fit(
        simulated_table(rows=15, noise_sd=0.05), "A*N**-a", noise="normal", discrepancy=False, method="fast"
    )
    z = fitted.z.reshape(-1, 3)
    axes = [np.linspace(m - 9 * s, m + 12 * s, 90) for m, s in zip(z.mean(0), z.std(0), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    density = model.log_density(points.reshape(-1, 3)).reshape(points.shape[:3])
    total = np.exp(density - density.max())
    for axis in reversed(axes):
        total = integrate.simpson(total, x=axis)
    exact = density.max() + math.log(total)
    assert fitted.evidence is not None
    assert abs(fitted.evidence.log - exact) < 3 * fitted.evidence.error + 0.01
    bridged = log_evidence(model, z.reshape(4, -1, 3))
    assert abs(bridged.log - exact) < 0.03


def test_bridge_agrees_with_the_fast_path(law_only_fit):
    """The 240 Chinchilla runs, Student-t noise: 860.159 nats with these priors (400,000 importance draws)."""
    nuts = bs.fit(bs.load("chinchilla"), discrepancy=False, method="nuts", draws=1000, seed=3)
    bridged = log_evidence(nuts.model, nuts.z)
    assert bridged.error < 0.01
    assert abs(bridged.log - 860.159) < 0.01
    assert abs(bridged.log - law_only_fit.evidence.log) < 3 * math.hypot(
        bridged.error, law_only_fit.evidence.error
    )


def test_a_floor_and_an_amplitude_that_data_cannot_tell_apart_are_seen_whole():
    """ParScale's law on the Pile: by NUTS (4 x 8000) and bridge sampling 98.694 +- .011 nats, E's sd .0584.

    In logarithms of its parameters, where floor and amplitude make a bent ridge, the fast path stood as well,
    with a tenth of a nat and a fifth of that sd missing.
    """
    table = bs.load("parscale-pile")
    fits = [bs.fit(table, "parscale", discrepancy=False, method="fast", seed=seed) for seed in range(6)]
    error = math.hypot(*(f.evidence.error for f in fits)) / len(fits)
    assert abs(np.mean([f.evidence.log for f in fits]) - 98.694) < 3 * error + 0.011
    # About 500 effective draws each, of a tail longer than a Gaussian's.
    floors = np.concatenate([f.parameters["E"] for f in fits])
    assert floors.std() == pytest.approx(0.0584, rel=0.1)


def test_terms_that_data_cannot_tell_apart_are_seen_whole():
    """Along Cerebras-GPT's runs tokens are 20 times params: which of Kaplan's terms they see is open.

    In logarithms of the amplitudes three of eight fits failed, and their log evidence scattered by .23.
    """
    table = bs.load("cerebras-gpt")
    fits = [bs.fit(table, "kaplan", method="fast", seed=seed) for seed in range(6)]
    assert all(f.diagnostics.passed for f in fits)
    assert np.std([f.evidence.log for f in fits]) < 0.12


@pytest.mark.slow
def test_nuts_agrees_with_discrepancy_and_groups_by_draws_and_by_evidence():
    table = simulated_table(rows=25)
    table.frame["family"] = np.arange(25) % 5
    # A law that is wrong: NUTS seldom crosses from there to a misfit hidden by noise.
    wrong = {"discrepancy_sd": "LogNormal(0.05, 0.7)"}
    options = {"group_effect": "family", "seed": 1, "priors": wrong}
    fast = bs.fit(table, method="fast", **options)
    nuts = bs.fit(table, method="nuts", draws=1000, **options)
    assert fast.diagnostics.passed, fast.diagnostics.failures
    require_same_draws(fast, nuts)
    bridged = log_evidence(nuts.model, nuts.z)
    assert bridged.error < 0.05
    assert abs(bridged.log - fast.evidence.log) < 3 * math.hypot(bridged.error, fast.evidence.error)


def nested_sampling(model, seed=0, live=100):
    """Return log evidence and its error by nautilus, with the model's own prior as its prior."""
    from nautilus import Prior, Sampler

    wide = prior_draws(model, 4000, np.random.default_rng(seed))
    prior, names = Prior(), [f"z{i}" for i in range(model.size)]
    centre, spread = wide.mean(axis=0), wide.std(axis=0)
    for name, mean, sd in zip(names, centre, spread, strict=True):
        prior.add_parameter(name, dist=stats.t(3, mean, 2 * sd))

    def log_ratio(z):
        reference = sum(stats.t.logpdf(z[:, i], 3, centre[i], 2 * spread[i]) for i in range(model.size))
        return np.maximum(model.log_density(z) - reference, -1e10)

    # One network for each bound, not four: the points they save cost less here than training them.
    how = {"n_live": live, "n_networks": 1, "seed": seed, "vectorized": True, "pass_dict": False}
    sampler = Sampler(prior, log_ratio, **how)
    with threadpool_limits(1):  # its networks are small: threads would wait for each other
        sampler.run(verbose=False, n_eff=2500, discard_exploration=True)
    return float(sampler.log_z), 1 / math.sqrt(sampler.n_eff)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["chinchilla", "kaplan"])
def test_nested_sampling_agrees(law):
    table = bs.load("chinchilla")
    model = make_model(table, BUILTIN[law], discrepancy=False)
    log, error = nested_sampling(model)
    fitted = bs.fit(table, law, discrepancy=False, method="fast")
    assert abs(log - fitted.evidence.log) < 3 * math.hypot(error, fitted.evidence.error)


def test_pointwise_log_likelihood_is_the_models_own(law_only_fit):
    z = law_only_fit.z[:, :5]
    pointwise = pointwise_log_likelihood(law_only_fit.model, z)
    flat = z.reshape(-1, z.shape[-1])
    point = law_only_fit.model.point_at(flat)
    prior = law_only_fit.model.theta_log_prior(
        flat,
        law_only_fit.model.coordinates.to_sampled(flat[:, law_only_fit.model.layout["law_coordinates"]], np),
    )
    total = pointwise.sum(axis=-1).ravel() + prior
    np.testing.assert_allclose(total, law_only_fit.model.log_density(flat))
    assert pointwise.shape == (*z.shape[:2], point.loss.shape[1])


def test_a_groups_offset_is_in_the_likelihood_of_its_runs():
    table = simulated_table(rows=24)
    table.frame["family"] = np.arange(24) % 3
    fit = bs.fit(table, discrepancy=False, group_effect="family", method="fast", seed=1)
    z = fit.z[:, :50]
    pointwise = pointwise_log_likelihood(fit.model, z).reshape(-1, 24)
    p = {
        name: draws.reshape(fit.z.shape[0], -1, *draws.shape[1:])[:, :50]
        for name, draws in fit.parameters.items()
    }
    p = {name: draws.reshape(-1, *draws.shape[2:]) for name, draws in p.items()}
    n, d = table.column("params"), table.column("tokens")
    col = {
        name: p[name][:, None]
        for name in ("E", "A", "B", "alpha", "beta", "noise_sd", "noise_df", "group_sd")
    }
    law = col["E"] + col["A"] * n ** -col["alpha"] + col["B"] * d ** -col["beta"]
    mean = np.log(law) + col["group_sd"] * p["group_offsets"][:, fit.model.group]
    expected = stats.t.logpdf(np.log(table.column("loss")), col["noise_df"], mean, col["noise_sd"])
    np.testing.assert_allclose(pointwise, expected, rtol=1e-6)


def test_loo_predicts_a_run_left_out():
    """PSIS-LOO of a run equals the density of its loss under a fit made without it."""
    table = simulated_table(rows=25)
    fitted = bs.fit(table, discrepancy=False, method="fast", draws=4000)
    by_psis = np.asarray(loo(fitted).elpd_i)
    run = int(np.argmin(by_psis))  # the most surprising run is the hardest
    rest = bs.fit(table.where(np.arange(25) != run), discrepancy=False, method="fast", draws=4000)
    draws = rest.parameters
    alone = table.where(np.arange(25) == run)
    values = {n: draws[n] for n in rest.model.centred.names}
    ratios = rest.model.ratios_at({"N": alone.column("params"), "D": alone.column("tokens")})
    mean = np.log(rest.model.law_loss(values, ratios))[:, 0]
    scale = np.hypot(draws["noise_sd"], alone.known_noise()[0])
    density = partial(stats.t.logpdf, np.log(alone.column("loss")[0]))(draws["noise_df"], mean, scale)
    exact = np.logaddexp.reduce(density) - math.log(len(density))
    assert by_psis[run] == pytest.approx(exact, abs=0.25)


def test_loo_is_arvizs_own_of_the_posterior_and_knows_what_draws_are_worth(law_only_fit):
    """Of n draws worth m, the tail that k is fitted to holds 3 n / sqrt(m) (arXiv:1507.02646, appendix H)."""
    found = loo(law_only_fit)
    own = arviz_stats.loo(law_only_fit.posterior, pointwise=True)
    assert found.elpd == own.elpd
    np.testing.assert_array_equal(found.pareto_k, own.pareto_k)
    worth = law_only_fit.diagnostics.min_ess / law_only_fit.z[..., 0].size
    assert worth < 0.25
    told, all_independent = (
        arviz_stats.loo(law_only_fit.posterior, pointwise=True, reff=r).pareto_k for r in (worth, 1.0)
    )
    assert abs(own.pareto_k - told).max() < 0.5 * abs(own.pareto_k - all_independent).max()
