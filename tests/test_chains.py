"""Chains that move draws on leave the posterior as it is, find it from elsewhere, and know when not."""

import numpy as np
import pytest

import bayescale as bs
from bayescale.errors import FitError
from bayescale.inference import chains, fast
from bayescale.inference.basis import Basis
from bayescale.inference.chains import CHAINS, worth
from bayescale.inference.conditional import _Blocks
from bayescale.inference.evidence import Evidence
from bayescale.inference.latent import LatentNormals
from bayescale.inference.modes import find_modes
from bayescale.laws import BUILTIN, Either
from bayescale.model.making import make_model
from bayescale.model.model import SCALE_PRIORS
from bayescale.runs import make_table
from tests.conftest import simulated_table


def grouped_table():
    table = simulated_table(rows=40)
    table.frame["family"] = np.arange(40) % 5
    return table


def moved(monkeypatch, fit):
    """What a call of `fit` returns if chains move all draws on."""
    with monkeypatch.context() as patched:
        patched.setattr(fast, "_ROUGH", -1.0)
        return fit()


OPTIONS = [
    {},
    {"group_effect": "family"},
    {"noise": "normal"},
    {"noise": "normal", "group_effect": "family", "discrepancy": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_chains_agree_with_importance_sampling(monkeypatch, options):
    """Where both may be believed: means, spread, latents, and evidence by a bridge."""

    def fit():
        return bs.fit(grouped_table(), method="fast", seed=3, **options)

    plain, by_chains = fit(), moved(monkeypatch, fit)
    assert plain.diagnostics.memory is None
    assert plain.diagnostics.drift is None
    assert by_chains.diagnostics.k_hat is None
    assert plain.diagnostics.passed
    assert by_chains.diagnostics.passed
    assert (plain.evidence.method, by_chains.evidence.method) == ("importance", "bridge")
    error = np.hypot(plain.evidence.error, by_chains.evidence.error)
    assert error < 0.1
    assert abs(plain.evidence.log - by_chains.evidence.log) < 4 * error
    ess = [f.diagnostics.min_ess for f in (plain, by_chains)]
    error = np.sqrt(sum(1 / n for n in ess))
    for name, draws in plain.parameters.items():
        mine, theirs = by_chains.parameters[name], draws
        if draws.ndim == 1 and name != "E":
            mine, theirs = np.log(mine), np.log(theirs)
        sd = theirs.std(axis=0)
        assert np.all(abs(mine.mean(axis=0) - theirs.mean(axis=0)) < 4.5 * error * sd), name
        assert np.all(abs(np.log(mine.std(axis=0) / sd)) < 4.5 * error), name


def test_chains_find_the_posterior_from_elsewhere(monkeypatch):
    """From noise e times too large, with the latents that it leaves."""
    honest = fast.move_on

    def from_elsewhere(latent, z, draws, rng, progress, **options):
        theta = z[:, : latent.size].copy()
        theta[:, latent.model.layout["noise_sd"]] += 1.0
        u = latent.standardised(theta)
        away = latent.unconstrained(u, latent.integrate(u, rng).latents)
        return honest(latent, away, draws, rng, progress, **options)

    def fit():
        return bs.fit(simulated_table(rows=40), method="fast", seed=3)

    plain = fit()
    monkeypatch.setattr(fast, "move_on", from_elsewhere)
    found = moved(monkeypatch, fit)
    assert found.diagnostics.passed
    mine, theirs = (np.log(f.parameters["noise_sd"]) for f in (found, plain))
    error = np.sqrt(1 / found.diagnostics.min_ess + 1 / plain.diagnostics.min_ess)
    assert abs(mine.mean() - theirs.mean()) < 4.5 * error * theirs.std()


def latent_and_draws(draws):
    """What integrates latents out, and draws by importance, of a table on which these stand."""
    model = make_model(simulated_table(rows=40), BUILTIN["chinchilla"])
    drawn = fast.sample_fast(model, draws=draws, seed=0)
    assert drawn.memory is None
    mode = find_modes(model.law_only())[0].point[model.layout["law_coordinates"]]
    return model, LatentNormals(model, mode), drawn


def test_every_chain_leaves_the_posterior_as_it_is():
    """Chains that only ever met one component of the proposal were half as far again from the centre."""
    _, latent, drawn = latent_and_draws(20_000)
    theta = drawn.z[:, : latent.size]
    mean, precision = theta.mean(axis=0), np.linalg.inv(np.cov(theta.T))
    rng = np.random.default_rng(1)
    moving = chains._Chains(latent, drawn.z[rng.choice(len(theta), CHAINS)], rng)
    distances = []
    for _ in range(25):
        moving.learn_and_sweep(2)
        moving.move_far()
        away = moving.theta - mean
        distances.append(np.einsum("ci,ij,cj->c", away, precision, away))
    distance = np.mean(distances[5:], axis=0)
    error = distance.std() / np.sqrt(CHAINS)
    fifths = distance.reshape(5, -1).mean(axis=1)
    assert np.all(abs(fifths - distance.mean()) < 4.5 * np.sqrt(5) * error), fifths
    # The draws themselves are worth some 600 independent ones, their squared distance has a wide spread.
    spread = np.einsum("ci,ij,cj->c", theta - mean, precision, theta - mean).std()
    assert abs(distance.mean() - latent.size) < 4.5 * np.hypot(error, spread / np.sqrt(drawn.ess))


def test_chains_stay_at_draws_of_the_posterior_and_leave_others():
    model, latent, drawn = latent_and_draws(CHAINS)
    assert chains.stay(latent, drawn.z, np.random.default_rng(0))
    away = drawn.z.copy()
    away[:, model.layout["noise_sd"]] += 0.5
    assert not chains.stay(latent, away, np.random.default_rng(0))


def test_half_of_the_mass_that_good_weights_miss_is_found():
    """Small noise, with an outlier or two more: by importance alone, one of eight fits ended without it, its
    noise .7 sd too large and its evidence half a nat too small, and passed."""
    fits = [bs.fit(bs.load("zipf-facts-gpu"), method="fast", seed=seed) for seed in (19, 24)]
    for fitted in fits:
        assert fitted.diagnostics.passed
        noise = np.log(fitted.parameters["noise_sd"])
        assert abs(noise.mean() + 7.93) < 4.5 * 0.59 / np.sqrt(fitted.diagnostics.min_ess)
        assert abs(fitted.evidence.log - 137.37) < 4 * fitted.evidence.error


def test_draws_are_moved_on_where_latents_are_far_from_gaussian():
    """Where a run may be an outlier or not, a Gaussian about one explanation misses the other."""
    rough, smooth = (bs.fit(bs.load(n), method="fast").diagnostics for n in ("zipf-facts-hard", "zipf-facts"))
    assert rough.latent_variance > 5 * smooth.latent_variance
    assert rough.passed
    assert rough.memory < 0.3
    assert rough.drift < 0.1
    assert rough.k_hat is None
    assert smooth.passed
    assert smooth.memory is None


def test_noise_that_is_small_and_heavy_tailed_is_that_of_long_chains_of_nuts(published):
    """4 x 24,000 draws of NUTS, an ESS of 3129, for a law that is wrong by some per cent.

    By importance the noise came out .6 sd too large, and annealed .33 sd, with a spread 24% too small.
    """
    bs.pull("gadre-redpajama", published)
    prior = SCALE_PRIORS["discrepancy_sd"]
    assert isinstance(prior, Either)
    fits = [
        bs.fit(bs.load("gadre-redpajama"), priors={"discrepancy_sd": prior.first}, method="fast", seed=seed)
        for seed in range(2)
    ]
    assert all(f.diagnostics.passed for f in fits)
    noise = np.log(np.concatenate([f.parameters["noise_sd"] for f in fits]))
    ess = sum(f.diagnostics.min_ess for f in fits)
    mean, sd = -5.318, 0.491
    assert abs(noise.mean() - mean) < 4.5 * sd / np.sqrt(ess)
    assert abs(np.log(noise.std() / sd)) < 4.5 / np.sqrt(ess)
    for fit in fits:
        assert abs(fit.evidence.log - 63.31) < 4 * np.hypot(fit.evidence.error, 0.15)


def test_chains_that_stand_still_do_not_pass(monkeypatch):
    """Law and scales that no move changes: then the fit fails, and says why."""
    monkeypatch.setattr(chains, "_MOST_LOOKS", 10)
    monkeypatch.setattr(chains._Chains, "_move", lambda *_, **__: None)
    fitted = moved(monkeypatch, lambda: bs.fit(simulated_table(rows=20), method="fast", draws=100))
    assert fitted.diagnostics.memory == pytest.approx(1.0)
    assert any("have not forgotten" in warning for warning in fitted.warnings)


def test_where_chains_are_stuck_importance_has_the_say(monkeypatch):
    """Only it knows how much mass modes have that chains do not cross between."""
    monkeypatch.setattr(chains, "_PATIENCE", 8)
    monkeypatch.setattr(chains._Chains, "_move", lambda *_, **__: None)
    fitted = moved(monkeypatch, lambda: bs.fit(simulated_table(rows=20), method="fast", draws=100))
    assert fitted.diagnostics.passed
    assert fitted.diagnostics.memory is None


@pytest.mark.parametrize("draws", [10, 300, CHAINS * 30])
def test_as_many_draws_come_back_as_were_asked_for(monkeypatch, draws):
    def fit():
        return bs.fit(simulated_table(rows=12), method="fast", draws=draws, chains=1)

    assert moved(monkeypatch, fit).parameters["E"].shape == (draws,)


def test_chains_whose_means_scatter_as_their_draws_are_worth_one_each():
    rng = np.random.default_rng(0)
    independent = rng.standard_normal((400, 10))
    assert worth(independent) == pytest.approx(4000, rel=0.3)
    still = np.repeat(rng.standard_normal((400, 1)), 10, axis=1)
    assert worth(still) == pytest.approx(400, rel=0.02)
    assert worth(np.zeros((400, 10))) == 0


def test_means_and_spreads_that_move_are_seen():
    rng = np.random.default_rng(0)
    still = [rng.standard_normal((400, 3)) for _ in range(16)]
    now = rng.standard_normal((400, 3))
    assert chains._drift(still, now) < 0.02
    assert chains._drift([*still[:8], *(m + np.array([0, 0.3, 0]) for m in still[8:])], now) > 0.15
    assert chains._drift(still[:1], now) == np.inf


def test_standard_undoes_what_draws_are_made_by():
    rng = np.random.default_rng(0)
    root, diagonal = rng.standard_normal((6, 4, 4)), rng.uniform(0.5, 2, (6, 3))
    blocks = _Blocks(root @ root.mT + np.eye(4), rng.standard_normal((6, 4, 3)), diagonal)
    normal = rng.standard_normal((6, 7))
    np.testing.assert_allclose(blocks.standard(blocks.solve(blocks.pull(normal))), normal, atol=1e-10)
    both = np.stack([normal, 2 * normal])
    np.testing.assert_allclose(blocks.solve(both)[1], 2 * blocks.solve(normal), atol=1e-10)


@pytest.mark.parametrize("weights", [8, 20])
def test_bases_of_groups_are_exchanged_and_weights_found_in_them(weights):
    rng = np.random.default_rng(0)
    slope = rng.uniform(0.1, 1.0, 12)
    bases = [rng.standard_normal((5, 12, weights)) for _ in range(2)]
    mixed, other = (Basis(b, slope) for b in bases)
    squares = mixed.squares.copy()
    chosen = np.array([True, False, False, True, False])
    mixed.take(chosen, other)
    plain = np.where(chosen[:, None, None], bases[1], bases[0])
    drawn = rng.standard_normal((5, weights))
    np.testing.assert_allclose(mixed.times(mixed.seen(drawn)), (plain @ drawn[..., None])[..., 0])
    kept = rng.standard_normal((5, mixed.size))
    np.testing.assert_allclose(mixed.seen(mixed.all_weights(kept, rng)), kept)
    np.testing.assert_allclose(mixed.squares[~chosen], squares[~chosen])
    np.testing.assert_allclose(mixed.squares[chosen], other.squares[chosen])
    precision = rng.uniform(1, 2, (5, 12))
    expected = (plain * precision[..., None]).mT @ plain
    values = np.linalg.eigvalsh(expected)[:, -mixed.size :]
    np.testing.assert_allclose(np.linalg.eigvalsh(mixed.gram(precision)), values)


def test_what_takes_long_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(chains, "_LONG", 0.0)
    moved(monkeypatch, lambda: bs.fit(simulated_table(rows=12), method="fast", progress=said.append))
    assert len(said) == 1
    assert "moving draws on by chains, some " in said[0]


def pairs(offset):
    """Two runs of each trunk, whose offset of log loss has this sd."""
    table = simulated_table(rows=40)
    trunk = np.arange(40) // 2
    drawn = offset * np.random.default_rng(1).standard_normal(20)[trunk]
    frame = table.frame.assign(trunk=trunk.astype(str), loss=table.frame["loss"] * np.exp(drawn))
    return make_table(frame, table.meta)


def test_evidence_of_offsets_far_larger_than_noise_is_bridged():
    """A Gaussian about the latents' mode is no end for a bridge there."""
    fitted = bs.fit(pairs(0.5), discrepancy=False, group_effect="trunk", method="fast")
    assert fitted.diagnostics.passed
    assert fitted.diagnostics.memory is not None
    assert fitted.evidence.method == "bridge"
    assert fitted.evidence.error < 0.2


def test_where_no_bridge_holds_evidence_is_of_no_use_and_says_so(monkeypatch):
    def never(*_):
        raise FitError("did not settle")

    monkeypatch.setattr(chains, "bridge", never)
    fitted = moved(monkeypatch, lambda: bs.fit(simulated_table(rows=20), method="fast"))
    assert fitted.evidence.error == np.inf
    compared = bs.compare([fitted, bs.fit(fitted.table, discrepancy=False)], sensitivity=False)
    assert compared.unreliable == ["chinchilla"] or "chinchilla" in compared.unreliable[0]
    assert fitted.diagnostics.passed


def test_evidence_of_chains_is_marked_with_its_error(monkeypatch):
    fitted = moved(monkeypatch, lambda: bs.fit(simulated_table(rows=30), method="fast"))
    assert isinstance(fitted.evidence, Evidence)
    assert 0 < fitted.evidence.error < 0.1
