"""Plans that tell laws apart: the bound bounds, conditioning adds up, runs tell what was expected of them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm

import bayescale as bs
from bayescale.discrimination import Prediction, divergence, pairs_of
from bayescale.errors import FitError
from bayescale.greedy import choose_runs
from bayescale.plots import plot_plan
from bayescale.runs import make_table
from tests.conftest import simulated_table
from tests.test_cli import run

LAWS = ["chinchilla", "chinchilla-shared"]


def random_laws(rng: np.random.Generator, probabilities: list[float], size: int = 6) -> list[Prediction]:
    laws = []
    for p in probabilities:
        root = rng.standard_normal((size, size)) * 0.5
        laws.append(Prediction(p, rng.standard_normal(size), root @ root.T, rng.uniform(0.1, 0.5)))
    return laws


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_the_information_of_one_run_is_bounded_from_below(shift):
    """The exact mutual information, by quadrature over the one loss."""
    laws = [
        Prediction(p, np.array([m]), np.array([[v]]), 0.2) for p, m, v in ((0.7, 0, 0.1), (0.3, shift, 0.5))
    ]
    losses = np.linspace(-8, 12, 40_001)
    densities = np.stack([norm.pdf(losses, w.mean[0], np.sqrt(w.covariance[0, 0] + 0.2)) for w in laws])
    p = np.array([w.probability for w in laws])
    log_mixed = np.log(p @ densities)
    exact = np.trapezoid(p @ (densities * (np.log(densities) - log_mixed)), losses)
    known = pairs_of(laws).add(0)
    assert 0.5 * exact < known.value <= exact + 1e-9
    assert pairs_of(laws).values_with(np.array([0]))[0] == known.value


def test_runs_conditioned_one_by_one_tell_what_they_tell_together():
    rng = np.random.default_rng(0)
    laws = random_laws(rng, [0.5, 0.3, 0.2])
    steps = choose_runs(pairs_of(laws), rng.uniform(1, 2, 6), 6.0, times=2, least_gain=0.0)
    assert len(steps) > 2
    for count in range(1, len(steps) + 1):
        runs = [s.candidate for s in steps[:count]]
        affinity = np.eye(3)
        for i in range(3):
            for j in range(i):
                (m1, c1), (m2, c2) = laws[i].of_runs(runs), laws[j].of_runs(runs)
                middle, logs = (c1 + c2) / 2, [np.linalg.slogdet(c)[1] for c in (c1, c2)]
                distance = (m1 - m2) @ np.linalg.solve(middle, m1 - m2) / 8
                distance += 0.5 * (np.linalg.slogdet(middle)[1] - sum(logs) / 2)
                affinity[i, j] = affinity[j, i] = np.exp(-distance)
        p = np.array([w.probability for w in laws])
        information = sum(s.gain for s in steps[:count])
        assert information == pytest.approx(-p @ np.log(affinity @ p))


def test_divergence_is_the_expected_log_ratio_of_densities():
    rng = np.random.default_rng(1)
    one, two = random_laws(rng, [0.5, 0.5])
    runs = [0, 3, 3]
    density, other = (multivariate_normal(*w.of_runs(runs)) for w in (one, two))
    drawn = density.rvs(20_000, random_state=2)
    ratios = density.logpdf(drawn) - other.logpdf(drawn)
    error = ratios.std() / np.sqrt(len(ratios))
    assert divergence(one, two, runs) == pytest.approx(ratios.mean(), abs=4 * error)
    assert divergence(one, two, []) == 0.0


@pytest.fixture(scope="module")
def undecided():
    """Thirty runs that lean to one of two laws, one of which holds the other."""
    table = simulated_table(rows=30, seed=4)
    return bs.compare(
        table, LAWS, sensitivity=False, discrepancy=False, noise="normal", method="fast", seed=1
    )


def test_planned_runs_tell_what_they_were_expected_to(undecided):
    """Train the plan in worlds drawn from one law's posterior, and compare again."""
    planned = bs.plan_between(undecided, 3e21)
    law = "chinchilla"
    now, expected = planned.odds.loc[law, ["log_odds", "expected"]].astype(float)
    assert expected - now > 1  # else nothing would be tested
    fit, table = undecided.fits[law], undecided.table
    inputs = {c: planned.runs[c].to_numpy(float) for c in ("params", "tokens")}
    losses = fit.forecast(**inputs, seed=7).loss.reshape(-1, len(planned.runs))
    odds = []
    for world in np.random.default_rng(3).permutation(len(losses))[:24]:
        trained = pd.DataFrame(inputs | {"loss": losses[world]})
        both = make_table(pd.concat([table.frame[["params", "tokens", "loss"]], trained]), table.meta)
        again = bs.compare(
            both, LAWS, sensitivity=False, discrepancy=False, noise="normal", method="fast", seed=world
        )
        odds.append(again.evidences[law].log - again.evidences["chinchilla-shared"].log)
    error = np.std(odds) / np.sqrt(len(odds))
    assert np.mean(odds) == pytest.approx(expected, abs=3 * error + 0.15 * (expected - now))


def test_what_is_planned_for_laws_is_affordable_and_drawn(undecided, tmp_path):
    planned = bs.plan_between(undecided, 1e21)
    assert 0 < planned.cost <= 1e21
    assert 0 < planned.information < planned.uncertainty <= np.log(2)
    more = bs.plan_between(undecided, 1e22)
    assert more.information > planned.information
    axes = plot_plan(undecided.fits["chinchilla"], planned)
    assert "doubt" in axes.get_title(loc="left")
    pool = planned.candidates.iloc[:40][["params", "tokens", "compute"]]
    chosen = bs.plan_between(undecided, 1e21, candidates=pool).runs
    assert chosen.index.is_unique
    assert set(chosen["params"]) <= set(pool["params"])


def test_laws_told_apart_already_are_not_planned_for():
    told = bs.compare(
        simulated_table(rows=60),
        ["chinchilla", "kaplan"],
        sensitivity=False,
        discrepancy=False,
        method="fast",
    )
    with pytest.raises(FitError, match="have told these laws apart already: chinchilla has probability 1"):
        bs.plan_between(told, 1e21)


def test_a_plan_between_laws_says_whose_fit_failed(undecided):
    assert not any("do not rely" in w for w in bs.plan_between(undecided, 1e21).warnings)
    good = undecided.fits["chinchilla"]
    failed = replace(good, diagnostics=replace(good.diagnostics, k_hat=0.9))
    found = bs.plan_between(replace(undecided, fits=dict(undecided.fits) | {"chinchilla": failed}), 1e21)
    (reason,) = failed.diagnostics.failures
    said = [w for w in found.warnings if "do not rely" in w]
    assert said == [f"do not rely on this plan: chinchilla: {reason}"]


@pytest.mark.parametrize("choose", [bs.plan_between, lambda posterior, c: bs.plan(posterior, "E", c)])
def test_a_plan_weighted_by_noisy_evidence_says_so(undecided, choose):
    name = undecided.labels[-1]
    noisy = replace(undecided.evidences[name], error=np.inf)
    found = choose(replace(undecided, evidences=dict(undecided.evidences) | {name: noisy}), 1e21)
    assert found.failed == [name]
    assert any(w.startswith(f"do not rely on this plan: {name}: Monte Carlo error") for w in found.warnings)


def test_a_plan_from_several_laws_counts_what_is_between_them(undecided):
    target = "params=1e11,tokens=2e12"
    mixed = bs.plan(undecided, target, 1e21)
    alone = [bs.plan(fit, target, 1e21) for fit in undecided.fits.values()]
    medians = [np.mean(p.band) for p in alone]
    share = list(undecided.probabilities.values())
    between = np.sqrt(share[0] * share[1]) * abs(medians[0] - medians[1])
    within = np.sqrt(sum(w * (p.width / 3.29) ** 2 for w, p in zip(share, alone, strict=True)))
    assert mixed.width / 3.29 == pytest.approx(np.hypot(within, between), rel=0.1)
    assert mixed.predicted_width < mixed.width


def test_laws_on_the_command_line(tmp_path):
    simulated_table(rows=30, seed=4).frame.to_csv(tmp_path / "runs.csv", index=False)
    command = ["plan", str(tmp_path / "runs.csv"), "--budget", "1e21", "--no-discrepancy"]
    both = [*command, "--laws", ",".join(LAWS)]
    found = json.loads(run(*both, "--target", "law", "--json").stdout)
    assert found["laws"] == list(found["odds"])
    assert found["information"] > 0
    assert "Log odds over the strongest rival" in run(*both, "--target", "law").stdout
    assert "chinchilla" in run(*both, "--target", "params=1e11,tokens=2e12").stdout
    wrong = run(*command, "--target", "law")
    assert "name them, --laws A,B" in wrong.stderr
    wrong = run("plan", "fit.nc", "--budget", "1e21", "--laws", "a,b", "--target", "law")
    assert "not the fit fit.nc" in wrong.stderr
