"""Comparing laws: the verdict in words, what it hangs on, nested laws, averaged forecasts, refusals."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale import comparison
from bayescale.averaging import average
from bayescale.comparison import Comparison
from bayescale.errors import FitError
from bayescale.inference.evidence import Evidence
from bayescale.laws import BUILTIN, Either, Gamma, LogNormal, Normal
from bayescale.nesting import ROPE_EXPONENT, ROPE_LOSS, _scale_of, separate, separation
from bayescale.plots.comparison import plot_evidence, plot_laws
from bayescale.sensitivity import Setting, refit, settings_beside, widened
from tests.conftest import simulated_table
from tests.test_cli import run

LAWS = ["chinchilla", "chinchilla-shared", "kaplan"]


@pytest.fixture(scope="module")
def table():
    return simulated_table(rows=50)


@pytest.fixture(scope="module")
def compared(table):
    return bs.compare(table, LAWS, draws=500, method="fast")


def test_summary_is_consistent(compared):
    summary = compared.summary()
    assert list(summary.index) == compared.labels
    assert summary["log_evidence"].is_monotonic_decreasing
    assert summary["probability"].sum() == pytest.approx(1)
    assert summary["stacking_weight"].sum() == pytest.approx(1)
    assert np.all(summary["error"] < 0.05)
    # Kaplan has no floor: a table with one is far from it, both by evidence and by prediction.
    assert compared.labels[-1] == "kaplan"
    assert summary.loc["kaplan", "log_bayes_factor"] < -5
    assert summary.loc["kaplan", "elpd_difference"] < -5


def test_probabilities_of_two_laws_are_the_logistic_of_their_log_bayes_factor(compared):
    for factor in (1.0, 800.0):
        pair = with_evidence(compared, (factor, 0.0), {})
        best, other = pair.labels
        assert pair.probabilities[best] == pytest.approx(1 / (1 + np.exp(-factor)), rel=1e-12)
        assert pair.probabilities[other] == pytest.approx(1 - 1 / (1 + np.exp(-factor)), rel=1e-9)


def test_errors_of_loo_are_those_of_a_sum_over_runs(compared):
    """Root n times the standard deviation of the n terms, by n or n - 1 (arXiv:1507.04544, equation 23)."""
    summary = compared.summary()
    terms = {name: np.asarray(loo.elpd_i) for name, loo in compared.loo.items()}
    leader = summary["elpd_loo"].idxmax()
    for name, row in summary.iterrows():
        assert row["elpd_loo"] == pytest.approx(terms[name].sum())
        assert row["elpd_se"] == pytest.approx(np.sqrt(50) * terms[name].std(), rel=0.015)
        off = terms[name] - terms[leader]
        assert row["elpd_difference"] == pytest.approx(off.sum())
        assert row["difference_se"] == pytest.approx(np.sqrt(50) * off.std(), rel=0.015)


def test_sensitivity_has_every_setting(compared):
    rows = compared.sensitivity_table()
    expected = ["as fitted", "prior widths x1/2", "prior widths x2", "normal noise", "a discrepancy"]
    assert list(rows.index) == expected
    assert np.all(rows[compared.labels[0]] == 0)
    assert len(np.unique(rows["kaplan"])) == len(rows)


def test_bayes_factors_are_of_each_law_over_the_best_as_fitted(compared):
    rows, best = compared.sensitivity_table(), compared.labels[0]
    summary = compared.summary()
    for name in compared.labels:
        factor = compared.evidences[name].log - compared.evidences[best].log
        assert summary.loc[name, "log_bayes_factor"] == rows.loc["as fitted", name] == factor
        for setting, found in compared.sensitivity.items():
            assert rows.loc[setting.name, name] == found[name][0].log - found[best][0].log


def test_a_summary_counts_what_a_law_has_and_runs_whose_loo_is_unreliable(compared):
    best, *others = compared.labels
    spoilt = replace(compared, sensitivity={})
    k = np.where(np.arange(50) < 3, 0.8, 0.2)
    good = {n: SimpleNamespace(pareto_k=np.full(50, 0.2), good_k=0.7) for n in others}
    spoilt.__dict__["loo_table"] = compared.loo_table
    spoilt.__dict__["loo"] = {best: SimpleNamespace(pareto_k=k, good_k=0.7)} | good
    summary = spoilt.summary()
    assert summary["high_pareto_k"].to_dict() == {best: 3} | dict.fromkeys(others, 0)
    said = [w for w in spoilt.warnings if "LOO" in w]
    assert said == [f"LOO of {best} is unreliable for 3 of 50 runs (Pareto k above 0.70)"]
    parameters = {"chinchilla": 5, "chinchilla-shared": 4, "kaplan": 4}
    assert summary["parameters"].to_dict() == parameters


def test_heldout_scores_are_the_backtests(table):
    compared = bs.compare(table, LAWS[1:], heldout=True, sensitivity=False, draws=300, method="fast")
    summary = compared.summary()
    for law in LAWS[1:]:
        scores = bs.backtest(table, law, methods=["law-only"]).summary().loc["law-only"]
        assert summary.loc[law, "heldout_crps_%"] == pytest.approx(scores["crps_%"])
        assert summary.loc[law, "heldout_coverage_90%"] == scores["coverage_90%"]
    assert (summary["heldout_failed"] == 0).all()
    # A law without a floor cannot forecast a table with one.
    assert summary.loc["kaplan", "heldout_crps_%"] > 2 * summary.loc["chinchilla-shared", "heldout_crps_%"]


def test_options_of_fits_reach_their_scores_on_hidden_runs(table):
    grouped = replace(table, frame=table.frame.assign(family=np.arange(50) % 5))
    priors = {"E": "LogNormal(2, 0.1)", "noise_sd": "LogNormal(0.02, 0.1)"}
    how = {"priors": priors, "noise": "normal", "group_effect": "family", "seed": 7}
    made = {"discrepancy": False, "sensitivity": False, "method": "fast", "draws": 100}
    compared = bs.compare(grouped, LAWS[:2], heldout=True, **made, **how)
    for law in compared.labels:
        scores = bs.backtest(grouped, law, methods=["law-only"], **how).summary().loc["law-only"]
        assert compared.heldout.loc[law, "heldout_crps_%"] == pytest.approx(scores["crps_%"], rel=1e-12)


def test_scores_on_hidden_runs_by_fits_that_fail_are_marked(compared):
    heldout = pd.DataFrame({"heldout_failed": [2, 0]}, index=compared.labels[:2])
    said = [w for w in replace(compared, heldout=heldout).warnings if "hidden runs" in w]
    words = "do not rely on the scores of {} on hidden runs: diagnostics failed in 2 of its fits"
    assert said == [words.format(compared.labels[0])]


def test_a_refit_keeps_the_priors_of_noise(table):
    fitted = bs.fit(table, method="fast", discrepancy=False, priors={"noise_sd": "LogNormal(0.1, 0.05)"})
    again = refit(fitted, Setting("nothing else", "nothing", 1.0, {}))
    assert again.evidence.log == pytest.approx(fitted.evidence.log, abs=1e-9)


def test_a_refit_differs_in_its_setting_alone(table):
    grouped = replace(table, frame=table.frame.assign(family=np.arange(50) % 5))
    how = {"noise": "normal", "group_effect": "family", "draws": 60, "chains": 2, "seed": 7}
    fitted = bs.fit(grouped, method="fast", discrepancy=False, **how)
    again = refit(fitted, Setting("nothing else", "nothing", 1.0, {}))
    assert again.options | {"priors": {}} == fitted.options
    assert again.priors == fitted.priors
    np.testing.assert_allclose(again.z, fitted.z, rtol=1e-9)
    other = refit(fitted, Setting("student-t noise", "the noise model", 1.0, {"noise": "student-t"}))
    assert other.options | {"priors": {}} == fitted.options | {"noise": "student-t"}


def test_wider_priors_cost_evidence(table):
    fitted = bs.fit(table, discrepancy=False, method="fast")
    settings = {s.name: s for s in settings_beside("student-t", False)}
    wide = refit(fitted, settings["prior widths x2"])
    cost = fitted.evidence.log - wide.evidence.log
    # Five widths doubled cost at most 5 log 2 = 3.5 nats, where the data leave the prior no say.
    assert 1 < cost < 5 * np.log(2) + 0.1
    assert wide.law.parameter("E").prior == LogNormal(1.5, 1.0)
    narrow = refit(fitted, settings["prior widths x1/2"])
    assert narrow.law.parameter("E").prior == LogNormal(1.5, 0.25)


def test_a_tables_own_floor_prior_is_widened_too(table):
    own = table.meta.model_copy(update={"floor_prior": "LogNormal(1.8, 0.1)"})
    fitted = bs.fit(replace(table, meta=own), discrepancy=False, method="fast", draws=100)
    wide = refit(fitted, settings_beside("student-t", False)[1])
    assert wide.law.parameter("E").prior == LogNormal(1.8, 0.2)


def test_widened_priors_keep_their_centre():
    rng = np.random.default_rng(0)
    for prior, width in (
        (LogNormal(0.5, 0.4), lambda x: np.log(x).std()),
        (Normal(1, 0.3), np.std),
        (Gamma(2, 0.1), np.std),
    ):
        narrow, wide = prior.sample(rng, 200_000), widened(prior, 2).sample(rng, 200_000)
        assert width(wide) / width(narrow) == pytest.approx(2, rel=0.02)
    assert np.mean(widened(Gamma(2, 0.1), 2).sample(rng, 200_000)) == pytest.approx(20, rel=0.03)
    joined = Either(LogNormal(0.07, 0.7), LogNormal(0.003, 1))
    assert widened(joined, 2) == Either(LogNormal(0.07, 1.4), LogNormal(0.003, 2))


def with_evidence(compared, logs, elsewhere):
    """The same comparison with other evidences: of A and B, as fitted and by number of the setting."""
    a, b = compared.labels[:2]
    evidence = {n: Evidence(v, 0.01, "bridge") for n, v in zip((a, b), logs, strict=True)}
    settings = list(compared.sensitivity)
    changed = {
        s: {n: (Evidence(v, 0.01, "bridge"), []) for n, v in zip((a, b), elsewhere.get(i, logs), strict=True)}
        for i, s in enumerate(settings)
    }
    return Comparison({n: compared.fits[n] for n in (a, b)}, evidence, changed)


@pytest.mark.parametrize(
    ("factor", "words"),
    [(0.4, "cannot tell"), (2.0, "leans to"), (4.0, "favours"), (8.0, "decides for")],
)
def test_verdict_names_the_strength(compared, factor, words):
    sentence = with_evidence(compared, (factor, 0.0), {}).verdict()[0]
    assert words in sentence
    assert "hangs" not in sentence


@pytest.mark.parametrize(
    ("setting", "there", "words"),
    [
        (2, (0.0, 3.0), "the noise model: -3.0 with normal noise"),
        (0, (0.5, 0.0), "the prior widths: +0.5 with prior widths x1/2"),
        (3, (2.0, 0.0), "whether laws may be smoothly wrong (discrepancy): +2.0 with a discrepancy"),
    ],
)
def test_verdict_says_what_it_hangs_on(compared, setting, there, words):
    sentence = with_evidence(compared, (8.0, 0.0), {setting: there}).verdict()[0]
    assert "This hangs on" in sentence
    assert words in sentence


@pytest.mark.parametrize("factor", [0.4, 8.0])
def test_no_verdict_hangs_on_a_setting_that_has_no_number(compared, factor):
    assert "hangs" not in with_evidence(compared, (factor, 0.0), {2: (np.nan, np.nan)}).verdict()[0]


def test_verdict_tells_of_smooth_misfit(compared):
    calm = with_evidence(compared, (8.0, 0.0), {})
    bent = with_evidence(compared, (8.0, 0.0), {3: (60.0, 58.0)})
    assert not any("smoothly wrong on this table" in s for s in calm.verdict())
    assert any("adds 52 nats" in s for s in bent.verdict())


@pytest.mark.parametrize("fitted_with_it", [False, True])
def test_a_discrepancys_gain_is_the_best_law_with_it_over_the_best_without(compared, fitted_with_it):
    """With it 60 and 70 nats, without it 8 and 5: the best laws may differ, and either may be the fit."""
    a, b = compared.labels[:2]
    with_it, without = {a: 60.0, b: 70.0}, {a: 8.0, b: 5.0}
    here, there = (with_it, without) if fitted_with_it else (without, with_it)
    labels = sorted(here, key=lambda name: -here[name])
    setting = settings_beside("student-t", fitted_with_it)[-1]
    elsewhere = {n: (Evidence(there[n], 0.01, "bridge"), []) for n in labels}
    evidences = {n: Evidence(here[n], 0.01, "bridge") for n in labels}
    found = Comparison({n: compared.fits[n] for n in labels}, evidences, {setting: elsewhere})
    assert found.discrepancy_gain() == pytest.approx(62)


def test_a_setting_that_cannot_be_fitted_is_marked(compared, monkeypatch):
    honest = comparison.refit

    def failing(fit, setting, **how):
        if fit.law.name == "kaplan" and setting.name == "normal noise":
            raise FitError("no posterior mode")
        return honest(fit, setting, **how)

    monkeypatch.setattr(comparison, "refit", failing)
    found = bs.compare(list(compared.fits.values()), method="fast")
    assert np.isnan(found.sensitivity_table().loc["normal noise", "kaplan"])
    assert any("kaplan with normal noise: no posterior mode" in w for w in found.warnings)
    assert found.discrepancy_gain() == pytest.approx(compared.discrepancy_gain(), abs=0.2)
    assert (
        json.loads(json.dumps(found.to_dict(), allow_nan=False))["sensitivity"]["normal noise"]["kaplan"]
        is None
    )


@pytest.mark.parametrize("which", [0, 2])
def test_large_monte_carlo_error_is_marked(compared, which):
    a = compared.labels[which]
    noisy = Comparison(
        compared.fits, dict(compared.evidences) | {a: replace(compared.evidences[a], error=0.2)}, {}
    )
    (said,) = (w for w in noisy.warnings if "0.20 nats, above 0.05" in w)
    assert said.startswith(f"do not rely on {a}: ")
    assert noisy.summary()["reliable"].to_dict() == {name: name != a for name in compared.labels}
    assert noisy.unreliable == [a]
    asked = {"params": 1e11, "tokens": 2e12}
    doubt = [f"do not rely on the weights of laws: {a}: {noisy.reasons[a][0]}"]
    assert [w for w in noisy.forecast(**asked).warnings if "weights" in w] == doubt
    assert not any("weights" in w for w in noisy.forecast(weights="stacking", **asked).warnings)
    assert not any("weights" in w for w in compared.forecast(**asked).warnings)


@pytest.mark.parametrize(
    ("law", "special", "expected"),
    [
        ("chinchilla", "chinchilla-shared", "alpha - beta"),
        ("chinchilla", "power-params-floor", "B"),
        ("kaplan-floor", "kaplan", "E"),
        ("kaplan", "chinchilla", "None"),
    ],
)
def test_separating_parameter_is_found(law, special, expected):
    assert str(separation(BUILTIN[law], BUILTIN[special])) == expected


def test_what_is_next_to_nothing_has_the_unit_of_its_parameter():
    assert _scale_of(BUILTIN["curve-m3"], "d", False) == (None, "examples")
    assert _scale_of(BUILTIN["curve-bnsl-1"], "c", False) == (ROPE_EXPONENT, "")
    assert _scale_of(BUILTIN["kaplan-floor"], "E", False) == (ROPE_LOSS, "nats/token")


def test_nested_law_reports_its_parameter(compared):
    (found,) = compared.nested()
    assert found.parameter == "alpha - beta"
    draws = compared.fits["chinchilla"].parameters
    difference = draws["alpha"] - draws["beta"]
    assert found.median == pytest.approx(np.median(difference))
    assert found.inside == pytest.approx(np.mean(np.abs(difference) < found.rope))
    amplitude = separate(compared.fits["chinchilla"], BUILTIN["power-params-floor"])
    assert (amplitude.parameter, amplitude.inside) == ("B_centre", 0)


def test_a_separations_interval_is_its_quantiles(compared):
    (found,) = compared.nested()
    draws = compared.fits["chinchilla"].parameters
    ends = np.quantile(draws["alpha"] - draws["beta"], [0.05, 0.95])
    assert (found.low, found.high) == pytest.approx(tuple(ends))


def test_an_averages_draws_are_those_of_its_laws_and_its_seed(compared):
    inputs = {"params": [1e9, 1e11], "tokens": [2e10, 2e12]}
    averaged = compared.forecast(seed=3, **inputs)
    assert (compared.forecast(seed=4, **inputs).mixture.loss != averaged.mixture.loss).any()
    for name, part in averaged.parts.items():
        np.testing.assert_array_equal(part.loss, compared.fits[name].forecast(seed=3, **inputs).loss)
        mine = averaged.mixture.loss[0, averaged.law == name]
        assert np.isin(mine[:, 0], part.loss[..., 0]).all()
        assert not np.isin(mine[:, 0], part.expected_loss[..., 0]).any()
    for name, part in averaged.parts.items():
        assert {f"{name}: {w}" for w in part.warnings} <= set(averaged.warnings)
    by_loo = compared.forecast(weights="stacking", **inputs).weights
    stacked = compared.summary()["stacking_weight"]
    assert by_loo == pytest.approx({n: stacked[n] / stacked[list(by_loo)].sum() for n in by_loo})


def test_verdict_tells_where_loo_disagrees_and_when_an_error_hides_a_factor(compared, monkeypatch):
    best, other = compared.labels[:2]
    table = compared.loo_table.copy()
    table.loc[best, ["elpd_diff", "dse"]] = -8.0, 2.0
    table.loc[other, ["elpd_diff", "dse"]] = 0.0, 0.0
    ordered = replace(compared, sensitivity={})
    for frame, told in ((table.loc[[other, best]], True), (table.assign(dse=9.0).loc[[other, best]], False)):
        ordered.__dict__["loo_table"] = frame
        said = f"PSIS-LOO disagrees: {other} predicts left-out runs better than {best} by 8.0"
        assert any(said in line for line in ordered.verdict()) is told
    logs = {best: 5.0, other: 2.5, compared.labels[2]: 0.0}
    for errors, words in (((0.1, 0.1), "leans to"), ((0.1, 1.3), "cannot tell"), ((1.3, 0.1), "cannot tell")):
        sds = dict(zip(logs, (*errors, 0.1), strict=True))
        found = {n: Evidence(log, sds[n], "importance") for n, log in logs.items()}
        said = replace(compared, evidences=found, sensitivity={}).verdict()[0]
        assert words in said
        assert f"2.5 +- {np.hypot(*errors):.2f} nats" in said


def test_averaged_forecast_splits_its_spread(compared):
    averaged = compared.forecast(params=[1e9, 1e11], tokens=[2e10, 2e12])
    assert set(averaged.weights) <= set(compared.labels)
    assert sum(averaged.weights.values()) == pytest.approx(1)
    summary = averaged.summary()
    variance = averaged.mixture.expected_loss.reshape(-1, 2).var(axis=0)
    np.testing.assert_allclose(summary["within_sd"] ** 2 + summary["between_sd"] ** 2, variance, rtol=0.1)
    for name, weight in averaged.weights.items():
        assert np.mean(averaged.law == name) == pytest.approx(weight, abs=0.001)


def test_spreads_of_an_average_are_their_definitions(compared):
    """The variance of a mixture: of its parts' means, and on average within them, both by weight."""
    weights = {"chinchilla": 0.7, "chinchilla-shared": 0.2, "kaplan": 0.1}
    averaged = average(compared.fits, weights, params=[1e9, 1e12], tokens=[2e10, 2e13])
    draws = {n: averaged.parts[n].expected_loss.reshape(-1, 2) for n in weights}
    mean = sum(w * draws[n].mean(axis=0) for n, w in weights.items())
    within = sum(w * draws[n].var(axis=0) for n, w in weights.items())
    between = sum(w * (draws[n].mean(axis=0) - mean) ** 2 for n, w in weights.items())
    summary = averaged.summary()
    np.testing.assert_allclose(summary["within_sd"], np.sqrt(within))
    np.testing.assert_allclose(summary["between_sd"], np.sqrt(between))
    by_law = averaged.by_law()
    for (name, target), row in by_law.set_index(["law", "target"]).iterrows():
        assert row["weight"] == pytest.approx(weights[name])
        ends = np.quantile(draws[name][:, target], [0.5, 0.05, 0.95])
        np.testing.assert_allclose(row.drop("weight").to_numpy(float), ends)


def test_between_law_spread_shows(compared):
    even = compared.forecast(weights="stacking", params=1e12, tokens=2e13)
    from bayescale.averaging import average

    mixed = average(
        compared.fits, {"chinchilla": 0.5, "chinchilla-shared": 0, "kaplan": 0.5}, params=1e12, tokens=2e13
    )
    assert mixed.summary()["between_sd"][0] > 5 * mixed.summary()["within_sd"][0]
    assert even.summary()["between_sd"][0] < mixed.summary()["between_sd"][0]
    medians = mixed.by_law().set_index("law")["expected_loss"]
    assert medians["kaplan"] < medians["chinchilla"]


def test_fits_of_different_tables_are_refused(table, compared):
    fewer = bs.fit(table.where(np.arange(50) > 0), discrepancy=False, method="fast", draws=100)
    with pytest.raises(FitError, match=r"49 runs\).*not the same"):
        bs.compare([compared.fits["kaplan"], fewer])
    moved = table.frame.assign(loss=table.frame["loss"] * 1.001)
    other = bs.fit(replace(table, frame=moved), discrepancy=False, method="fast", draws=100)
    with pytest.raises(FitError, match="cannot be compared"):
        bs.compare([compared.fits["kaplan"], other])


@pytest.mark.parametrize(
    ("law", "change"),
    [
        ("kaplan-floor", lambda frame: {"tokens": frame["tokens"] * 1.001}),
        ("kaplan-floor", lambda frame: {"params": frame["params"] * 1.001}),
        ("power-params-floor", lambda frame: {"tokens": frame["tokens"] * 1.001}),
        ("kaplan-floor", lambda _: {"loss_se": 0.01}),
    ],
    ids=["tokens", "params", "an input of one law", "errors of losses"],
)
def test_equal_losses_of_different_runs_are_refused(table, compared, law, change):
    other = replace(table, frame=table.frame.assign(**change(table.frame)))
    moved = bs.fit(other, law, discrepancy=False, method="fast", draws=100)
    with pytest.raises(FitError, match="the runs are not the same"):
        bs.compare([compared.fits["chinchilla"], moved], sensitivity=False)
    with pytest.raises(FitError, match="the runs are not the same"):
        bs.compare([moved, compared.fits["chinchilla"]], sensitivity=False)


def test_fits_of_one_table_are_compared_as_they_are(compared):
    fits = [compared.fits["kaplan"], compared.fits["chinchilla"]]
    again = bs.compare(fits, sensitivity=False)
    assert again.labels == ["chinchilla", "kaplan"]
    assert again.evidences["kaplan"] == compared.evidences["kaplan"]
    with pytest.raises(FitError, match="noise cannot be"):
        bs.compare(fits, noise="normal")


def test_one_law_with_two_noises_is_told_apart(table):
    fits = [
        bs.fit(table, noise=n, discrepancy=False, method="fast", draws=100) for n in ("student-t", "normal")
    ]
    both = bs.compare(fits, sensitivity=False)
    assert set(both.labels) == {"chinchilla (student-t, law alone)", "chinchilla (normal, law alone)"}
    assert any("differ in more than their law" in w for w in both.warnings)


@pytest.mark.parametrize("option", [{"discrepancy": True}, {"group_effect": "family"}])
def test_fits_that_differ_in_discrepancy_or_groups_are_told_apart_from_laws_that_do(table, option):
    grouped = replace(table, frame=table.frame.assign(family=np.arange(50) % 5))
    how = {"discrepancy": False, "method": "fast", "draws": 60}
    fits = [bs.fit(grouped, "chinchilla", **how), bs.fit(grouped, "kaplan", **how | option)]
    assert any("differ in more than their law" in w for w in bs.compare(fits, sensitivity=False).warnings)


def test_too_few_laws_and_repeats_are_refused(table):
    with pytest.raises(FitError, match="at least two"):
        bs.compare(table, ["kaplan"], method="fast", draws=100)
    with pytest.raises(FitError, match="with itself"):
        bs.compare(table, ["kaplan", "kaplan"], method="fast", draws=100)


@pytest.mark.slow
def test_verdict_on_chinchilla_hangs_on_the_noise_model():
    laws = ["chinchilla", "chinchilla-shared", "kaplan-floor", "kaplan"]
    found = bs.compare(bs.load("chinchilla"), laws)
    rows = found.sensitivity_table()
    assert found.labels[0] == "chinchilla-shared"
    assert rows.loc["as fitted", "chinchilla"] == pytest.approx(-1.15, abs=0.2)
    assert rows.loc["normal noise", "chinchilla"] == pytest.approx(3.2, abs=0.3)
    assert rows.loc["as fitted", "kaplan-floor"] == pytest.approx(-173, abs=4)
    assert rows.loc["as fitted", "kaplan"] == pytest.approx(-225, abs=4)
    assert re.search(r"the noise model: -[23]\.\d with normal noise", found.verdict()[0])


def test_command_line(tmp_path, table):
    from bayescale.tablefiles import write_runs

    path = tmp_path / "runs.csv"
    write_runs(table, path)
    laws = "chinchilla, E + A*N**-a"
    picture = tmp_path / "compared.png"
    at = ("--params", 1e10, "--tokens", 1e11)
    done = run("compare", path, "--laws", laws, "--no-sensitivity", *at, "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["laws"]) == ["chinchilla", "E + A*N**-a"]
    assert "decides for chinchilla" in report["verdict"][0]
    (forecast,) = report["forecast"]
    assert forecast["loss_90%_low"] < forecast["loss"] < forecast["loss_90%_high"]
    # One law has all the weight: nothing of the spread is between laws.
    assert 0 <= forecast["between_sd"] < 1e-6 < forecast["within_sd"]
    assert picture.stat().st_size > 10_000
    done = run("compare", path, "--laws", "chinchilla", "--no-sensitivity")
    assert (done.returncode, "at least two laws" in done.stderr) == (2, True)


def test_laws_of_different_inputs_are_averaged(table):
    rows = table.frame.assign(streams=np.tile([1.0, 2.0], 25))
    other = bs.RunTable(rows, table.meta)
    laws = ["E + A*N**-a + B*streams**-b", "E + A*N**-a"]
    compared = bs.compare(other, laws, sensitivity=False, draws=200, method="fast")
    found = compared.forecast(params=1e9, streams=2.0)
    assert set(found.parts) <= {*laws}
    with pytest.raises(FitError, match="'width' has no place"):
        compared.forecast(params=1e9, streams=2.0, width=3.0)


def test_a_comparisons_pictures_say_what_not_to_rely_on(compared):
    failing = replace(compared, evidences={n: replace(e, error=0.5) for n, e in compared.evidences.items()})
    for draw in (plot_laws, plot_evidence):
        assert any("do not rely on" in text.get_text() for text in draw(failing).texts)
        assert not any("do not rely on" in text.get_text() for text in draw(compared).texts)


def test_weights_of_an_average_are_scaled_before_small_ones_are_dropped(compared):
    where = {"params": 1e11, "tokens": 2e12}
    small = {name: 1e-6 * (1 + i) for i, name in enumerate(compared.fits)}
    averaged = average(compared.fits, small, **where)
    assert averaged.weights == pytest.approx({n: w / sum(small.values()) for n, w in small.items()})
    for wrong in (-0.1, np.nan, np.inf):
        with pytest.raises(bs.BayescaleError, match=f"found {wrong}; expected a number, 0 or above"):
            average(compared.fits, small | {"chinchilla": wrong}, **where)
    with pytest.raises(bs.BayescaleError, match="found None; expected a number"):
        average(compared.fits, {}, **where)


def test_a_law_is_compared_with_itself_held_and_under_other_priors(table):
    held = BUILTIN["chinchilla"].with_constants({"E": 1.8})
    fits = [
        bs.fit(table, law, priors=priors, discrepancy=False, method="fast")
        for law, priors in (("chinchilla", {}), ("chinchilla", {"E": "LogNormal(1.8, 0.05)"}), (held, {}))
    ]
    found = bs.compare(fits)
    assert set(found.labels) == {
        "chinchilla (student-t, law alone), E ~ LogNormal(1.5, 0.5)",
        "chinchilla (student-t, law alone), E ~ LogNormal(1.8, 0.05)",
        held.formula,
    }
    # A prior that is right and narrow is worth evidence, and a floor held where it is more still.
    assert found.labels[-1] == "chinchilla (student-t, law alone), E ~ LogNormal(1.5, 0.5)"


def test_priors_given_for_all_laws_reach_those_that_have_the_parameter():
    table = simulated_table(rows=20)
    how = {"sensitivity": False, "draws": 100, "method": "fast"}
    priors = {"E": "LogNormal(1.6, 0.2)", "noise_sd": "LogNormal(0.005, 1)"}
    compared = bs.compare(table, ["chinchilla", "kaplan"], priors=priors, **how)
    assert str(compared.fits["chinchilla"].priors["E"]) == "LogNormal(1.6, 0.2)"
    assert "E" not in compared.fits["kaplan"].priors
    assert compared.fits["kaplan"].options["priors"] == {"noise_sd": "LogNormal(0.005, 1)"}
    with pytest.raises(FitError, match="'gamma', which is no parameter of any of the laws"):
        bs.compare(table, ["chinchilla", "kaplan"], priors={"gamma": "LogNormal(1, 1)"}, **how)


def test_a_laws_own_priors_above_all_losses_do_not_stop_a_refit():
    """Of losses near one, Kaplan's terms have by default medians of two."""
    table = simulated_table(rows=20)
    table = replace(table, frame=table.frame.assign(loss=table.frame["loss"] / 2.5))
    assert table.column("loss").max() < 2
    for setting in settings_beside("student-t", False):
        assert np.isfinite(
            refit(bs.fit(table, "kaplan", discrepancy=False, method="fast"), setting).evidence.log
        )
    with pytest.raises(bs.BayescaleError, match="of 'N_c': it is of the loss that the term adds"):
        bs.fit(table, "kaplan", priors={"N_c": "LogNormal(2.5, 0.7)"}, method="fast")
