"""The fast path draws from the same posterior as NUTS, finds its evidence, and knows when it does not."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import bayescale as bs
from bayescale.inference.basis import Basis, SeenBasis, basis_at
from bayescale.inference.conditional import _Blocks
from bayescale.inference.fast import (
    _believed,
    _Counted,
    _effective,
    _Rounds,
    _rounds_that_count,
    _tempered,
    sample_fast,
)
from bayescale.inference.latent import Integrals, LatentNormals
from bayescale.inference.matrices import cholesky
from bayescale.inference.modes import find_modes
from bayescale.inference.pareto import smoothed_weights
from bayescale.inference.proposal import Mixture, StudentT
from bayescale.laws import BUILTIN
from bayescale.model.making import make_model
from bayescale.runs import make_table
from tests.benchmarks.curves import curve_table, read_curves, split
from tests.conftest import fit_of_two_modes, simulated_table


def grouped_table(rows=40):
    table = simulated_table(rows=rows)
    table.frame["family"] = np.arange(rows) % 5
    return table


def _weighted(draws, weights):
    """Weighted mean of each coordinate, and its Monte Carlo error."""
    weights = weights / weights.sum()
    mean = weights @ draws
    return mean, np.sqrt((weights**2) @ (draws - mean) ** 2)


def _slope(latent, u, coordinate, step=1e-5):
    """Derivative of theta, as `unconstrained` finds it, in one coordinate of u."""
    away = step * np.eye(u.shape[1])[coordinate]
    none = np.zeros((1, latent.model.size - latent.size))
    above, below = (latent.unconstrained(u + s * away, none)[0, : latent.size] for s in (1, -1))
    return (above - below) / (2 * step)


@pytest.mark.parametrize(
    "options",
    [
        {"discrepancy": True},
        {"discrepancy": False, "group_effect": "family"},
        {"discrepancy": True, "group_effect": "family", "noise": "normal"},
    ],
)
def test_latents_are_integrated_out_of_the_models_own_density(options):
    """Estimates of p(losses, theta) integrate the density that NUTS samples, over its own coordinates."""
    model = make_model(grouped_table(), BUILTIN["chinchilla"], **options)
    rng = np.random.default_rng(0)
    bare = model.law_only()
    mode = find_modes(bare)[0].point
    latent = LatentNormals(model, mode[bare.layout["law_coordinates"]])
    theta = np.zeros(latent.size)
    for name, block in bare.layout.items():
        theta[model.layout[name]] = mode[block] + 0.01
    for name, value in {
        "discrepancy_sd": 0.02,
        "discrepancy_length": 3.0,
        "discrepancy_stretch": 1.5,
        "group_sd": 0.01,
    }.items():
        if name in model.layout:
            theta[model.layout[name]] = np.log(value)
    u = latent.standardised(theta[None])
    log_jacobian = np.linalg.slogdet([_slope(latent, u, i) for i in range(u.shape[1])])[1]
    many = np.repeat(u, 4000, axis=0)
    log_estimates, drawn, _ = latent.integrate(many, rng)
    log_estimates -= log_jacobian
    # The same integral with the model's density as the target and a wide Gaussian over its own latents.
    z = latent.unconstrained(many, drawn)
    block = slice(latent.size, model.size)
    proposal = StudentT(z[:, block].mean(axis=0), np.cov(z[:, block].T) * 1.5)
    points = np.repeat(theta[None], 40_000, axis=0)
    points = np.concatenate([points, proposal.sample(40_000, rng)], axis=1)
    weights = model.with_plain_weights().log_density(points) - proposal.logpdf(points[:, block])
    top = weights.max()
    ratios = np.exp(weights - top), np.exp(log_estimates - top)
    error = np.hypot(*(r.std() / r.mean() / np.sqrt(len(r)) for r in ratios))
    assert error < 0.1
    assert abs(np.log(ratios[0].mean() / ratios[1].mean())) < 4 * error
    (wide, wide_error), (mean, mean_error) = (
        _weighted(p[:, block], r) for p, r in zip((points, z), ratios, strict=True)
    )
    assert np.all(np.abs(wide - mean) < 5 * np.hypot(wide_error, mean_error))


def test_a_singular_matrix_does_not_stop_the_others():
    """A vast discrepancy under next to no noise leaves one: its point is unlikely, and that is all."""
    schur = np.stack([2 * np.eye(2), np.full((2, 2), 1e20)])
    blocks = _Blocks(schur, np.zeros((2, 2, 0)), np.zeros((2, 0)))
    solved = blocks.solve(np.ones((2, 2)))
    np.testing.assert_allclose(solved[0], 0.5)
    assert np.isfinite(solved[1]).all()
    assert np.isfinite(blocks.log_det).all()


def test_nor_does_a_negative_one():
    """Information in which huge precisions cancelled."""
    many = np.stack([4 * np.eye(3), -np.eye(3), np.zeros((3, 3)), np.diag([1e30, -1e16, 1.0])])
    factors = cholesky(many)
    np.testing.assert_allclose(factors[0], 2 * np.eye(3))
    assert np.isfinite(factors).all()


def test_a_point_beyond_all_numbers_does_not_stop_the_others():
    model = make_model(simulated_table(rows=20), BUILTIN["chinchilla"])
    bare = model.law_only()
    latent = LatentNormals(model, find_modes(bare)[0].point[bare.layout["law_coordinates"]])
    u = np.zeros((6, latent.size))
    u[:, latent.size - 2] = [0.0, -400.0, 400.0, 0.0, 0.0, 0.0]
    u[3:5, 0] = [1e200, np.nan]
    for log_density in (latent.log_marginal(u), latent.integrate(u, np.random.default_rng(0))[0]):
        assert np.isfinite(log_density[[0, 5]]).all()
        assert log_density[0] == pytest.approx(log_density[5], abs=1.0)
        assert np.isneginf(log_density[[1, 3, 4]]).all()


def test_integrals_do_not_depend_on_the_number_of_threads():
    model = make_model(simulated_table(rows=200), BUILTIN["chinchilla"])
    with threadpool_limits(1):
        one = sample_fast(model, draws=50, seed=0)
    with threadpool_limits(2):
        two = sample_fast(model, draws=50, seed=0)
    np.testing.assert_array_equal(one.z, two.z)


@pytest.mark.parametrize("axes", [[1], [2, 0]])
def test_shared_draws_are_distributed_as_plain_ones(axes):
    rng = np.random.default_rng(1)
    student = StudentT(
        np.array([1.0, -2.0, 0.5]), np.array([[1.0, 0.6, 0.2], [0.6, 2.0, 0.1], [0.2, 0.1, 0.5]])
    )
    plain = student.sample(200_000, rng)
    shared = np.concatenate([student.sample_shared(40, axes, 10, rng) for _ in range(5000)])
    assert len(np.unique(shared[:40, axes], axis=0)) == 10
    for q in (0.05, 0.25, 0.5, 0.75, 0.95):
        np.testing.assert_allclose(np.quantile(shared, q, axis=0), np.quantile(plain, q, axis=0), atol=0.05)
    np.testing.assert_allclose(np.corrcoef(shared.T, rowvar=True), np.corrcoef(plain.T), atol=0.1)


def test_proposals_integrate_to_one():
    rng = np.random.default_rng(2)
    mixture = Mixture(
        np.array([0.3, 0.7]), [StudentT(np.zeros(2), np.eye(2)), StudentT(np.ones(2) * 3, np.eye(2) * 2)]
    )
    wide = StudentT(np.ones(2) * 2, np.eye(2) * 9)
    points = wide.sample(100_000, rng)
    ratio = np.exp(mixture.logpdf(points) - wide.logpdf(points))
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(len(ratio))


@pytest.mark.parametrize("seed", range(4))
def test_smoothed_weights_are_those_of_arviz(seed):
    from arviz_stats.base import array_stats

    log_weights = np.random.default_rng(seed).standard_t(4, 2000) * (1 + seed)
    smooth, k_hat = smoothed_weights(log_weights)
    theirs, their_k = array_stats.psislw(-log_weights)  # takes log-likelihoods left out
    assert k_hat == pytest.approx(float(their_k), abs=0.02)
    normalised = smooth - np.logaddexp.reduce(smooth)
    np.testing.assert_allclose(np.exp(normalised), np.exp(np.asarray(theirs)), atol=2e-3)


def test_weights_of_a_few_points_are_tempered():
    rng = np.random.default_rng(0)
    logs = 30 * rng.standard_normal(600)
    weights = _tempered(logs)
    assert _effective(weights) == pytest.approx(150, rel=0.02)
    assert (np.argsort(weights) == np.argsort(logs)).all()
    enough = rng.standard_normal(600)
    np.testing.assert_allclose(_tempered(enough), np.exp(enough) / np.exp(enough).sum())


def test_draws_of_all_rounds_are_weighted_by_the_mixture_that_they_came_from():
    """Of a density that is that mixture, all weigh the same."""
    rounds = _Rounds([], np.random.default_rng(0))
    near, far = (Mixture(np.ones(1), [StudentT(np.full(2, at), np.eye(2))]) for at in (0.0, 2.0))
    for proposal, count in ((near, 100), (far, 300)):
        points = rounds.draw(proposal, count)
        rounds.add(np.log(0.25 * np.exp(near.logpdf(points)) + 0.75 * np.exp(far.logpdf(points))))
    np.testing.assert_allclose(rounds.weighted()[1], 1 / 400, rtol=1e-6)


class Proposal:
    """One that stays what it is, and the rounds that moved it."""

    rng = np.random.default_rng(0)

    def weighted(self):
        return ()

    def refitted(self):
        return self

    def split(self, *_):
        return self


class Latent:
    """What turns points into where chains start."""

    def unconstrained(self, points, _):
        return points


def believed(monkeypatch, rounds, *, latent=None, stay=(), moved=()):
    """Which of some rounds count, and what chains find; all that is given is made use of.

    Rounds are given as log weights and the variance of the latents' integrals; then whether chains that start
    at what counts stay there, and the draws of those that move on.
    """
    left, stay, moved = iter(enumerate(rounds)), iter(stay), iter(moved)

    def next_round(*_):
        number, (log_weights, variance) = next(left)
        size = len(log_weights)
        integrals = Integrals(log_weights, np.empty((size, 0)), np.full(size, variance))
        return _Counted(np.full((size, 1), number), integrals, log_weights, np.zeros(size))

    for name, found in (
        ("_counted_round", next_round),
        ("stay", lambda *_: next(stay)),
        ("move_on", lambda *_, **__: next(moved)),
    ):
        monkeypatch.setattr(f"bayescale.inference.fast.{name}", found)
    proposal = Proposal()
    counted = _rounds_that_count(proposal, proposal, [1000] * len(rounds), None, latent)
    drawn, chains = _believed(latent, counted, 100, proposal.rng, print)
    assert [next(rest, None) for rest in (left, stay, moved)] == [None, None, None]
    return np.unique(drawn.points).tolist(), chains


def test_rounds_count_until_their_weights_stand_and_chains_stay(monkeypatch):
    rng = np.random.default_rng(0)
    good, few = 0.3 * rng.standard_normal(1000), 1.4 * rng.standard_normal(1000)
    heavy = 3 * rng.standard_exponential(1000)
    assert _effective(np.exp(few) / np.exp(few).sum()) < 350
    assert smoothed_weights(few)[1] < 0.7 < smoothed_weights(heavy)[1]
    # A round counts with the next or, by its k-hat, not at all.
    assert believed(monkeypatch, [(good, 0.0)]) == ([0], None)
    assert believed(monkeypatch, [(few, 0.0), (good, 0.0)]) == ([0, 1], None)
    assert believed(monkeypatch, [(heavy, 0.0), (good, 0.0)]) == ([1], None)
    on = partial(believed, monkeypatch, latent=Latent())
    assert on([(good, 0.0)]) == ([0], None)
    # Where latents are somewhat far from Gaussian, chains have to stay; where far, they take over at once,
    assert on([(good, 0.2)], stay=[True]) == ([0], None)
    assert on([(good, 0.2), (good, 0.2)], stay=[False, True]) == ([0, 1], None)
    assert on([(few, 1.0)], moved=["draws"]) == ([0], "draws")
    assert on([(heavy, 1.0)], moved=["draws"]) == ([0], "draws")
    # unless they are stuck: then more points count. Chains are the last resort, too.
    assert on([(heavy, 1.0), (good, 1.0)], moved=[None]) == ([1], None)
    assert on([(heavy, 1.0), (heavy, 1.0)], moved=[None, "draws"]) == ([1], "draws")
    assert on([(heavy, 0.0), (heavy, 0.0)], moved=["draws"]) == ([1], "draws")
    assert on([(good, 0.2)], stay=[False], moved=["draws"]) == ([0], "draws")


def test_fast_draws_of_the_law_alone_agree_with_nuts():
    """With discrepancy and groups: `tests.test_evidence`."""
    table = simulated_table(rows=50, noise_sd=0.004)
    fast, nuts = (bs.fit(table, discrepancy=False, method=m, draws=1500, seed=2) for m in ("fast", "nuts"))
    assert fast.diagnostics.passed, fast.diagnostics.failures
    assert fast.diagnostics.method == "fast"
    require_same_draws(fast, nuts)


def require_same_draws(fast, nuts):
    """Assert that the means of two fits' parameters are as near as their numbers of draws let them be."""
    error = np.sqrt(1 / fast.diagnostics.min_ess + 1 / nuts.diagnostics.min_ess)
    for name, reference in nuts.parameters.items():
        mine = fast.parameters[name]
        if reference.ndim != 1 or name in ("A", "B", "noise_df"):  # long tails: compared as logs
            mine, reference = (np.log(np.abs(draws) + 1e-300) for draws in (mine, reference))
        shift = np.abs(mine.mean(axis=0) - reference.mean(axis=0))
        assert np.all(shift < 4.5 * error * reference.std(axis=0)), name


def test_fast_evidence_agrees_with_itself_across_seeds():
    model = make_model(bs.load("chinchilla"), BUILTIN["chinchilla"], discrepancy=False)
    found = [sample_fast(model, draws=100, seed=s).evidence for s in range(3)]
    for evidence in found:
        assert evidence.error < 0.03
        assert abs(evidence.log - found[0].log) < 4 * np.hypot(evidence.error, found[0].error)


def test_no_explanation_of_the_cheaper_chinchilla_runs_is_missed():
    """A large discrepancy has half of the mass, and exponents four times as uncertain as a small one that
    changes fast: of climbs from middles of priors none ends there."""
    table = bs.load("chinchilla")
    compute = table.column("compute")
    cheap = table.where(compute <= compute.max() / 30)
    fits = [bs.fit(cheap, method="fast", seed=seed) for seed in range(1, 4)]
    for fitted in fits:
        assert fitted.diagnostics.passed
        assert fitted.evidence.log == pytest.approx(690.0, abs=4 * fitted.evidence.error)
        assert np.log(fitted.parameters["alpha"]).std() == pytest.approx(0.19, rel=0.2)


def test_two_modes_are_both_drawn():
    fitted = fit_of_two_modes()
    share = float((fitted.parameters["p"] < fitted.parameters["q"]).mean())
    assert 0.3 < share < 0.7


def test_auto_hands_over_to_nuts_when_weights_fail(monkeypatch):
    from bayescale.inference import fast

    honest = fast.sample_fast
    monkeypatch.setattr(fast, "sample_fast", lambda *a, **k: replace(honest(*a, **k), k_hat=0.9))
    table = simulated_table(rows=20)
    fitted = bs.fit(table, discrepancy=False, draws=200, seed=1)
    assert fitted.options["method"] == "nuts"
    marked = bs.fit(table, discrepancy=False, method="fast", draws=200, seed=1)
    assert any("k-hat" in reason for reason in marked.diagnostics.failures)
    assert any("k-hat" in warning for warning in marked.forecast(params=1e9, tokens=1e10).warnings)


def test_fit_many_is_fit_of_each():
    tables = [simulated_table(rows=20, seed=s, name=f"t{s}") for s in range(3)]

    def summary(fitted):
        return fitted.table.name, float(fitted.parameters["E"].mean())

    many = bs.fit_many(tables, discrepancy=False, summarise=summary, jobs=2, draws=100)
    alone = [summary(bs.fit(t, discrepancy=False, draws=100)) for t in tables]
    assert many == alone


def test_a_table_tells_whether_its_law_is_right():
    """Prior odds are even; a bend several times the noise leaves no doubt, and its absence some."""
    straight = simulated_table(rows=80, noise_sd=0.002)
    ratio = np.log10(straight.column("tokens") / straight.column("params"))
    bent = make_table(
        straight.frame.assign(loss=straight.frame["loss"] * np.exp(0.02 * np.sin(3 * ratio))), straight.meta
    )
    right, wrong = (bs.fit(t, method="fast", seed=1).parameters["discrepancy_sd"] for t in (straight, bent))
    assert (right < 0.015).mean() > 0.6
    assert (wrong < 0.015).mean() < 0.01


@pytest.mark.parametrize("along", ["ratio", "compute"])
def test_the_stretch_is_learned(along):
    """A misfit alike at every size reaches far along compute; one alike at every ratio does not."""
    table = simulated_table(rows=80, noise_sd=0.001)
    compute, ratio = (np.log10(table.column(c)) for c in ("compute", "tokens"))
    ratio = ratio - np.log10(table.column("params"))
    bend = 0.03 * np.sin(3 * (ratio if along == "ratio" else compute))
    bent = make_table(table.frame.assign(loss=table.frame["loss"] * np.exp(bend)), table.meta)
    fitted = bs.fit(bent, method="fast", seed=1)
    stretch = np.median(fitted.parameters["discrepancy_stretch"])
    assert stretch > 2 if along == "ratio" else stretch < 0.8


def test_climbs_find_a_discrepancy_that_changes_fast():
    """On these runs the mode at a length of .4 decades is twelve nats above that of some decades."""
    runs = bs.load("chinchilla")
    dear = [2, 20, 21, 102, 126, 144, 147, 184, 185, 202, 204]
    chosen = runs.column("compute") < 4e19
    chosen[dear] = True
    fitted = bs.fit(runs.where(chosen), method="fast", draws=100)
    assert fitted.diagnostics.passed
    assert fitted.evidence.log == pytest.approx(375.98, abs=4 * fitted.evidence.error)


def known_points(published, name, which):
    """Return the known points of a learning curve, by split."""
    return curve_table(split(dict(read_curves(published))[name], which)[0])


def test_climbs_find_the_main_mode_from_a_law_that_takes_many_runs_for_outliers(published):
    """Too few steps to the latents' mode ended climbs 70 nats below it, at tails as heavy as Cauchy's."""
    table = known_points(published, "IC / bird_25 / MiX/L/16", "outer")
    fitted = bs.fit(table, "curve-m2", method="fast", draws=100)
    assert fitted.diagnostics.passed
    assert np.median(fitted.parameters["noise_df"]) > 3


def test_proposals_are_moved_until_they_arrive(published):
    """With a single large round at the end of their way, one to thirteen draws were effective."""
    table = known_points(published, "IC / bird_25 / BiT/101/3", "inner")
    wrong = {"discrepancy_sd": "LogNormal(0.05, 0.7)"}
    fits = [bs.fit(table, "curve-m2", priors=wrong, method="fast", draws=100, seed=s) for s in range(2)]
    assert all(f.diagnostics.passed for f in fits)
    first, second = (f.evidence for f in fits)
    assert first.log == pytest.approx(second.log, abs=4 * (first.error + second.error))


def test_noise_of_next_to_nothing_gives_a_marked_fit_and_no_crash():
    fitted = bs.fit(simulated_table(noise_sd=1e-5), discrepancy=False, method="fast")
    assert not fitted.diagnostics.passed


@pytest.mark.parametrize(
    ("law", "priors"),
    [
        ("chinchilla", {"E": "LogNormal(0.01, 4)"}),
        ("E + A*N**-a", {"E": "Gamma(0.2, 0.2)", "a": "LogNormal(0.1, 0.7)", "A": "LogNormal(1, 0.7)"}),
    ],
)
def test_a_floor_anywhere_near_zero_gives_a_marked_fit(law, priors):
    """Weights of .15 nats too little evidence looked good: what lies near zero is hardly ever drawn."""
    table = simulated_table(rows=20)
    rng = np.random.default_rng(3)
    loss = 20 * table.column("params") ** -0.12 * np.exp(0.01 * rng.standard_normal(20))
    table = replace(table, frame=table.frame.assign(loss=loss))
    fit = bs.fit(table, law, priors=priors, discrepancy=False, method="fast")
    assert any("decades towards zero" in reason for reason in fit.diagnostics.failures)
    low, high = np.quantile(fit.parameters["E"], [0.05, 0.95])
    assert fit.diagnostics.floor_decades == pytest.approx(np.log10(high / low))
    known = bs.fit(table, law, priors=priors | {"E": "LogNormal(0.1, 0.5)"}, discrepancy=False, method="fast")
    assert known.diagnostics.passed


def test_components_that_points_leave_flat_stay_as_they_were():
    rng = np.random.default_rng(0)
    line = np.outer(rng.standard_normal(400), [1.0, 1.0])
    before = Mixture(np.ones(1), [StudentT(np.zeros(2), np.eye(2))])
    after = before.refitted(line, np.full(400, 1 / 400))
    np.testing.assert_array_equal(after.components[0].scale, np.eye(2))
    assert np.all(np.isfinite(after.logpdf(line)))


def test_small_losses_have_the_mode_of_large_ones():
    """Losses scaled together with the priors of what adds up to them are the same problem."""
    table = simulated_table(rows=40)
    scale = 1 / 400
    small = bs.RunTable(table.frame.assign(loss=scale * table.column("loss")), table.meta)
    own = {name: f"LogNormal({scale * median}, {sigma})" for name, median, sigma in
           (("E", 1.5, 0.5), ("A", 0.5, 0.7), ("B", 0.5, 0.7))}  # fmt: skip
    large = bs.fit(table, discrepancy=False, method="fast", seed=1)
    for priors in (own, None):  # the law's own priors lie 400 times too high
        found = bs.fit(small, discrepancy=False, method="fast", seed=1, priors=priors)
        assert found.diagnostics.passed
        assert np.median(found.parameters["noise_sd"]) == pytest.approx(
            np.median(large.parameters["noise_sd"]), rel=0.1 if priors else 1
        )
    scaled = bs.fit(small, discrepancy=False, method="fast", seed=1, priors=own)
    assert abs(scaled.evidence.log - large.evidence.log) < 4 * np.hypot(
        scaled.evidence.error, large.evidence.error
    )


@pytest.mark.parametrize("weights", [8, 40])
@pytest.mark.parametrize("kind", [Basis, SeenBasis])
def test_combinations_that_are_kept_say_all_that_runs_see(weights, kind):
    """With more weights than runs, no more combinations than runs are ever held."""
    rng = np.random.default_rng(0)
    basis, slope = rng.standard_normal((3, 12, weights)), rng.uniform(0.1, 1.0, 12)
    found = kind(basis, slope)
    assert found.size == min(weights, 12)
    np.testing.assert_allclose(found.basis @ found.basis.mT, basis @ basis.mT, atol=1e-10)
    weighted = basis * slope[:, None]
    information = np.linalg.eigvalsh(weighted.mT @ weighted)[:, -found.size :]
    np.testing.assert_allclose(np.linalg.eigvalsh(found.squares), information, rtol=1e-8, atol=1e-10)
    if kind is SeenBasis:
        np.testing.assert_allclose(found.information, information, rtol=1e-8, atol=1e-10)
    kept = rng.standard_normal((6, found.size))  # two points a group
    whole = found.all_weights(kept, rng)
    np.testing.assert_allclose(
        found.by_group(whole) @ basis.mT, found.by_group(found.times(kept)), atol=1e-10
    )


@pytest.mark.parametrize("options", [{}, {"group_effect": "family"}], ids=str)
def test_standardised_coordinates_are_the_same_in_either_basis(options):
    """`LawStandard` sums over combinations that are seen one by one, and solves for weights as they are."""
    rng = np.random.default_rng(0)
    table = simulated_table(rows=30)
    table.frame["family"] = np.arange(30) % 4
    model = make_model(table, BUILTIN["chinchilla"], **options)
    at = find_modes(model.law_only(), seed=0)[0].point
    latent = LatentNormals(model, at)
    u = rng.normal(0, 0.5, (8, latent.size))
    u[:, 5:] += np.log([0.01, 10.0, 0.05, 3.0, 1.0, *([0.01] if options else [])])
    u[4:, model.shape_axes] = u[:4, model.shape_axes]
    groups = model.sharing_lengths(u)
    u = u[groups.ravel()]
    at_points = basis_at(model, u, np.arange(8).reshape(groups.shape))
    found = [
        latent.standard.to_theta(u, kind(at_points, latent.standard.slope)) for kind in (Basis, SeenBasis)
    ]
    for plain, seen in zip(*found, strict=True):
        np.testing.assert_allclose(plain, seen, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("members", [2, 6])
@pytest.mark.parametrize("weights", [8, 32])
def test_gram_matrices_are_the_same_however_they_are_made(weights, members):
    rng = np.random.default_rng(0)
    found = Basis(rng.standard_normal((3, 40, weights)), np.ones(40))
    precision = rng.uniform(0.1, 1.0, (3 * members, 40))
    expected = np.einsum("grw,gmr,grv->gmwv", found.basis, found.by_group(precision), found.basis)
    np.testing.assert_allclose(found.by_group(found.gram(precision)), expected, atol=1e-10)


def test_a_law_of_four_inputs_with_more_knots_than_runs_is_fitted():
    """On 182 runs, with 1,400 knots, products of all pairs of them once took 20 GB."""
    rng = np.random.default_rng(0)
    frame = simulated_table(rows=30).frame
    for column in ("width", "depth"):
        frame[column] = 10 ** rng.uniform(0, 3, 30)
    law = "E + A*N**-a + B*D**-b + F*width**-p + G*depth**-q"
    fitted = bs.fit(make_table(frame, bs.TableMeta(name="four")), law, method="fast", draws=20)
    assert fitted.model.discrepancy.size > 30
    assert np.isfinite(fitted.evidence.log)


@pytest.mark.parametrize(("runs", "offset"), [(2, 0.02), (24, 0.3)])
def test_offsets_of_groups_far_larger_than_noise_are_integrated_out(runs, offset):
    """Pairs of runs from one trunk, and two corpora: before, no such fit stood, and all went to NUTS."""
    table = simulated_table(rows=48)
    group = np.arange(48) // runs
    offsets = offset * np.random.default_rng(0).standard_normal(48 // runs)
    table.frame["family"] = group
    table.frame["loss"] *= np.exp(offsets)[group]
    fits = [
        bs.fit(table, group_effect="family", discrepancy=discrepancy, method="fast", seed=seed)
        for seed, discrepancy in ((0, False), (1, False), (2, True))
    ]
    assert all(f.diagnostics.passed for f in fits)
    assert abs(fits[0].evidence.log - fits[1].evidence.log) < 0.2
    for fit in fits:
        assert np.median(fit.parameters["noise_sd"]) == pytest.approx(0.003, rel=0.35)
        apart = np.quantile(fit.parameters["group_sd"], [0.02, 0.98])
        assert apart[0] < np.std(offsets) * 1.2
        assert apart[1] > np.std(offsets) * 0.8
