"""Plans: the linear-Gaussian gain is right, informative runs are preferred, and the ladder can be trained."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale.candidates import noise_variance
from bayescale.deadweight import deadweight
from bayescale.design import choose_runs, condition, gains, joint_covariance
from bayescale.errors import BayescaleError, FitError
from bayescale.forecasts import expected_loss
from bayescale.ladders import write_ladder
from bayescale.plans import plan
from bayescale.targets import joint_draws, parse_target
from tests.conftest import simulated_table
from tests.test_cli import run

LADDER = 'name = "t"\n[source]\nkind = "zipf-facts"\nsymbols = 16\n[[runs]]\nparams = 2e3\ntokens = 4e3\n'


@pytest.fixture(scope="module")
def small_fit():
    return bs.fit(simulated_table(rows=25), discrepancy=False, method="fast", noise="normal", seed=3)


def test_gain_is_that_of_nested_monte_carlo(small_fit):
    """Simulate the run from a draw, reweight all draws by it, and average the target's variance."""
    target = parse_target("params=1e10,tokens=1e12")
    candidates = {"params": np.array([3e9, 3e7]), "tokens": np.array([3e10, 1e9])}
    draws, losses = joint_draws(small_fit, target, candidates, seed=0)
    covariance = joint_covariance([np.log(losses), draws])
    noise = noise_variance(small_fit)
    rng = np.random.default_rng(0)
    sd = small_fit.parameters["noise_sd"]
    for i in range(2):
        left = []
        for world in rng.integers(len(draws), size=400):
            seen = np.log(losses[world, i]) + sd[world] * rng.standard_normal()
            log_weights = -0.5 * ((seen - np.log(losses[:, i])) / sd) ** 2 - np.log(sd)
            weights = np.exp(log_weights - log_weights.max())
            weights /= weights.sum()
            left.append(weights @ (draws - weights @ draws) ** 2)
        nested = draws.var() - np.mean(left)
        error = np.std(left) / np.sqrt(len(left))
        predicted = gains(covariance, np.full(2, noise))[i]
        assert predicted == pytest.approx(nested, abs=4 * error + 0.1 * nested)
        assert predicted > 20 * covariance[-1, -1] / len(draws)  # the test would see a gain of nothing


def test_conditioning_runs_one_by_one_is_conditioning_on_all():
    rng = np.random.default_rng(1)
    root = rng.standard_normal((5, 5))
    covariance, noise = root @ root.T, np.array([0.3, 0.1, 0.2, 0.5])
    one_by_one = condition(condition(covariance, 2, noise[2]), 0, noise[0])
    seen = [2, 0]
    cross = covariance[:, seen]
    at_once = covariance - cross @ np.linalg.solve(
        covariance[np.ix_(seen, seen)] + np.diag(noise[seen]), cross.T
    )
    np.testing.assert_allclose(one_by_one, at_once, atol=1e-12)


def test_budget_times_and_the_dear_run_that_beats_many_cheap_ones():
    # Two candidates: a cheap one that knows little, a dear one that is the target itself.
    covariance = np.array([[1.0, 0.2, 0.2], [0.2, 1.0, 0.98], [0.2, 0.98, 1.0]])
    noise, cost = np.array([1e-3, 1e-3]), np.array([0.01, 1.0])
    assert [s.candidate for s in choose_runs(covariance, noise, cost, 1.0, times=3)] == [1]
    cheap = choose_runs(covariance, noise, cost, 0.05, times=3)
    assert [s.candidate for s in cheap] == [0, 0, 0]
    both = choose_runs(covariance, noise, cost, 1.05, times=1)
    assert sorted(s.candidate for s in both) == [0, 1]
    assert both[-1].variance == pytest.approx(1 - sum(s.gain for s in both))


def test_gains_of_several_targets_add_up_and_choices_condition_them_all():
    """The greedy choice keeps only what it needs of the covariance; `condition` keeps all of it."""
    rng = np.random.default_rng(2)
    root = rng.standard_normal((9, 9))
    covariance, noise, cost = root @ root.T, rng.uniform(0.1, 1, 6), rng.uniform(1, 2, 6)
    alone = [gains(covariance[:, keep][keep], noise) for keep in ([*range(6), t] for t in (6, 7, 8))]
    np.testing.assert_allclose(gains(covariance, noise), sum(alone))
    left = covariance
    steps = choose_runs(covariance, noise, cost, 5.0, times=2)
    assert len(steps) > 2
    for step in steps:
        assert step.gain == pytest.approx(gains(left, noise)[step.candidate])
        left = condition(left, step.candidate, noise[step.candidate])
        np.testing.assert_allclose(step.variance, np.diag(left)[6:], atol=1e-12)


def test_a_table_of_targets(small_fit, tmp_path):
    """Runs are chosen for all rows; with one row it is the plan for that row."""
    rows = pd.DataFrame({"params": [1e10, 1e8], "tokens": [1e10, 1e12], "note": ["wide", "long"]})
    pool = pd.DataFrame({"params": [1e9, 1e7, 3e7], "tokens": [2e9, 1e11, 6e8]})
    pool["compute"] = 6 * pool["params"] * pool["tokens"]
    one = plan(small_fit, rows[:1], 1e19, candidates=pool)
    same = plan(small_fit, "params=1e10,tokens=1e10", 1e19, candidates=pool)
    pd.testing.assert_frame_equal(one.runs, same.runs)
    assert one.band == same.band
    both = plan(small_fit, rows, 1e21, candidates=pool)
    pd.testing.assert_frame_equal(both.runs[["params"]], pool.loc[both.runs.index, ["params"]])
    assert both.width == pytest.approx(
        np.mean([plan(small_fit, rows[i : i + 1], 1e21, candidates=pool).width for i in range(2)])
    )
    assert both.predicted_width < both.width
    with pytest.raises(FitError, match="targets have no column 'tokens'"):
        plan(small_fit, rows[["params"]], 1e19)
    with pytest.raises(FitError, match="targets, column 'params', row 2"):
        plan(small_fit, rows.assign(params=[1e9, -1]), 1e19)
    with pytest.raises(FitError, match="targets have no row"):
        plan(small_fit, rows[:0], 1e19)
    small_fit.save(tmp_path / "fit.nc")
    pool.to_csv(tmp_path / "pool.csv")
    rows.to_csv(tmp_path / "test.csv")
    paths = [str(tmp_path / name) for name in ("fit.nc", "pool.csv", "test.csv")]
    command = ["plan", paths[0], "--budget", "1e21", "--candidates", paths[1]]
    found = json.loads(run(*command, "--target-table", paths[2], "--json").stdout)
    assert [r["params"] for r in found["runs"]] == both.runs["params"].tolist()
    refused = run(*command, "--target-table", paths[2], "--target", "E")
    assert "--target-table" in refused.stderr


def test_many_targets_share_one_discrepancy(full_fit):
    """Neighbours among more targets than are drawn by a factorisation differ no more than a few would."""
    params = np.geomspace(1e9, 1e12, 90)
    many, few = (
        expected_loss(
            full_fit,
            full_fit.model.ratios_at({"N": n, "D": 20 * n}),
            np.random.default_rng(0),
        )
        for n in (params, params[[60, 61, 62]])
    )
    for between in ((60, 61), (60, 62)):
        a, b = (x - 60 for x in between)
        steps = (many[:, between[1]] - many[:, between[0]], few[:, b] - few[:, a])
        assert steps[0].std() == pytest.approx(steps[1].std(), rel=0.15)
    assert many[:, 60].std() == pytest.approx(few[:, 0].std(), rel=0.1)
    assert np.quantile(many[:, 60], 0.95) == pytest.approx(np.quantile(few[:, 0], 0.95), rel=2e-3)


def test_informative_runs_are_preferred():
    """Where loss depends on tokens alone, params cost and tell nothing: the smallest models are trained."""
    table = simulated_table(rows=25)
    tokens = table.column("tokens")
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(25))
    table.frame["loss"] = (1.8 + 2000 * tokens**-0.366) * noise
    fitted = bs.fit(table, "power-tokens-floor", method="fast")
    chosen = plan(fitted, "tokens=1e13", 1e20)
    least = chosen.candidates.groupby("tokens")["params"].min()
    assert (chosen.runs["params"].to_numpy() == least[chosen.runs["tokens"]].to_numpy()).all()
    assert chosen.runs["tokens"].max() > tokens.max() / 2
    assert chosen.cost <= 1e20
    assert chosen.predicted_width < 0.9 * chosen.width
    assert chosen.runs["width"].is_monotonic_decreasing
    assert not chosen.runs["seed"].duplicated().any()
    assert chosen.grouped()["runs"].sum() == len(chosen.runs)


def test_an_allocations_deadweight(small_fit):
    """A worse allocation wastes more; a draw's waste is compute that its own law does not need."""
    found = small_fit.allocate(compute=1e22)
    waste = found.expected_deadweight()[0]
    assert 0 < waste < 0.05 * 1e22
    off = deadweight(small_fit, 1e22, 10 * float(found.draws["params"].median()))
    assert off.mean() > 5 * waste
    # By the law's own constants: less compute at the optimum ends at the loss of the misallocated run.
    values = {n: d[0] for n, d in small_fit.parameters.items()}

    def loss(n, c):
        return (
            values["E"] + values["A"] * n ** -values["alpha"] + values["B"] * (c / 6 / n) ** -values["beta"]
        )

    grid = np.geomspace(1e8, 1e12, 200_001)
    params = 2 * grid[loss(grid, 1e22).argmin()]
    needed = 1e22 - deadweight(small_fit, 1e22, params)[0]
    assert loss(grid, needed).min() == pytest.approx(loss(params, 1e22), abs=3e-5)
    aimed = plan(small_fit, "compute=1e22", 1e20)
    assert 0 < aimed.saved < waste * 1.5
    with pytest.raises(FitError, match="compute"):
        small_fit.allocate(loss=2.2).expected_deadweight()


def test_a_pool_is_chosen_from_once_and_named_where_it_is_wrong(small_fit):
    pool = pd.DataFrame({"params": [1e9, 1e9, 1e8], "tokens": [2e10, 2e9, 2e10]})
    with pytest.raises(FitError, match="compute"):
        plan(small_fit, "E", 1e21, candidates=pool)
    pool["compute"] = 6 * pool["params"] * pool["tokens"]
    chosen = plan(small_fit, "E", 1e30, candidates=pool)
    assert len(chosen.runs) == len(chosen.runs.drop_duplicates(["params", "tokens"])) <= 3
    pool.loc[1, "tokens"] = np.nan
    with pytest.raises(FitError, match="candidates, column 'tokens', row 2"):
        plan(small_fit, "E", 1e21, candidates=pool)


@pytest.mark.parametrize(
    ("target", "budget", "message"),
    [("gamma", 1e20, "gamma"), ("params=big", 1e20, "params=big"), ("E", -1, "budget"), ("E", 1e3, "budget"),
     ("streams=2", 1e20, "streams")],
)  # fmt: skip
def test_what_cannot_be_planned_is_said(small_fit, target, budget, message):
    with pytest.raises(FitError, match=message):
        plan(small_fit, target, budget)


def test_failed_fits_mark_their_plans(small_fit):
    failed = replace(small_fit, diagnostics=replace(small_fit.diagnostics, k_hat=0.9))
    assert any("do not rely" in w for w in plan(failed, "E", 1e20).warnings)


def test_planned_runs_beat_a_fixed_ratio_and_chance():
    """In simulated worlds whose law is wrong, for equal compute; and the width comes out as predicted."""
    from tests.benchmarks.plans import widths_in_world

    found = pd.DataFrame([widths_in_world(seed) for seed in range(4)])
    for peer in ("ladder", "random"):
        assert found["planned"].mean() < found[peer].mean()
    assert (found["planned"] / found["predicted"]).median() == pytest.approx(1, abs=0.25)


def test_the_ladder_of_a_plan_can_be_trained(tmp_path):
    pytest.importorskip("torch", reason="bayescale[trainer] is not installed")
    (tmp_path / "start.toml").write_text(LADDER)
    done = run("plan", "zipf-facts", "--target", "params=1e6,tokens=1e7", "--budget", "1e12", "--json",
               "--ladder", "start.toml", "-o", "next.toml", "--plot", "plan.svg", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["predicted_width"] < report["width"]
    assert report["cost"] <= report["budget"]
    assert (tmp_path / "plan.svg").read_text().startswith("<?xml")
    dry = run("train", "next.toml", "--dry-run", cwd=tmp_path, COLUMNS="200")
    assert dry.returncode == 0, dry.stderr
    assert f"{len(report['runs'])} runs" in dry.stdout


def test_paths_of_a_ladder_are_kept_when_it_moves(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "t.toml").write_text('[source]\nkind = "files"\npaths = ["x.txt"]\n')
    write_ladder(pd.DataFrame({"params": [1e4], "tokens": [1e5], "seed": [0]}), tmp_path / "a/t.toml",
                 tmp_path / "b/p.toml")  # fmt: skip
    assert '"../a/x.txt"' in (tmp_path / "b" / "p.toml").read_text()
    with pytest.raises(BayescaleError, match="tokens"):
        write_ladder(
            pd.DataFrame({"params": [1e4], "seed": [0]}), tmp_path / "a/t.toml", tmp_path / "b/p.toml"
        )
