"""Plans: gains are those of simulated runs, informative runs are preferred, the ladder can be trained."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayescale as bs
from bayescale.candidates import candidate_grid, noise_variance
from bayescale.deadweight import deadweight
from bayescale.design import Draws, belief_from
from bayescale.errors import BayescaleError, BudgetError, FitError
from bayescale.forecasts import expected_loss
from bayescale.greedy import choose_runs
from bayescale.ladders import write_ladder
from bayescale.laws import BUILTIN
from bayescale.plans import _draws, _draws_of, plan
from bayescale.plots import plot_plan
from bayescale.targets import MAX_DRAWS, Target, band, joint_draws, parse_target
from tests.conftest import simulated_table
from tests.test_cli import run

LADDER = 'name = "t"\n[source]\nkind = "zipf-facts"\nsymbols = 16\n[[runs]]\nparams = 2e3\ntokens = 4e3\n'


@pytest.fixture(scope="module")
def small_fit():
    return bs.fit(simulated_table(rows=25), discrepancy=False, method="fast", noise="normal", seed=3)


@pytest.fixture(scope="module")
def bent_fit():
    """Few runs, so that noise and discrepancy are uncertain and a run teaches much about them."""
    return bs.fit(simulated_table(rows=16, seed=5), method="fast", noise="normal", seed=3)


@pytest.mark.parametrize("name", ["small_fit", "bent_fit"])
def test_gain_is_that_of_nested_monte_carlo(name, request):
    """Simulate the run from a draw, reweight all draws by it, and average the target's sd."""
    fit = request.getfixturevalue(name)
    pool = pd.DataFrame({"params": [3e9, 2e9, 3e9], "tokens": [1e12, 2e12, 4e11]})
    law = _draws_of(fit, parse_target("params=1e10,tokens=1e12"), pool, seed=0)
    belief = belief_from([law], seed=0)
    predicted = belief.values_with(np.arange(3)) - belief.value
    rng = np.random.default_rng(0)
    for i in range(3):
        left = []
        for world in rng.integers(len(law.targets), size=400):
            seen = law.log_losses[world, i] + np.sqrt(law.noise_variance[world]) * rng.standard_normal()
            surprise = (seen - law.log_losses[:, i]) ** 2 / law.noise_variance
            log_weights = -0.5 * (surprise + np.log(law.noise_variance))
            weights = np.exp(log_weights - log_weights.max())
            weights /= weights.sum()
            left.append(np.sqrt(weights @ (law.targets - weights @ law.targets) ** 2))
        nested = law.targets.std() - np.mean(left)
        # The belief averages over fewer outcomes, of which the same error shrinks by their number.
        error = np.std(left) * np.sqrt(1 / len(left) + 1 / 64)
        assert predicted[i] == pytest.approx(nested, abs=3 * error + 0.1 * nested)
        assert nested > 0.1 * law.targets.std()  # the test would see a gain of nothing


def gaussian_draws(seed: int, candidates: int = 6, targets: int = 3, draws: int = 400) -> Draws:
    """Draws of correlated candidates and targets."""
    rng = np.random.default_rng(seed)
    both = rng.standard_normal((draws, candidates + targets)) @ rng.standard_normal(
        (candidates + targets,) * 2
    )
    noise = rng.uniform(0.1, 1, draws)
    return Draws(both[:, candidates:], both[:, :candidates], noise, np.log(noise)[:, None])


def test_in_one_group_runs_one_by_one_condition_as_all_at_once(monkeypatch):
    monkeypatch.setattr("bayescale.design._GROUPS", 1)
    monkeypatch.setattr("bayescale.design._VARIANCE_KEPT", 1.0)
    law = gaussian_draws(1)
    belief = belief_from([law], seed=0)
    joined = np.concatenate([law.log_losses, law.targets], axis=1)
    covariance = np.cov(joined, rowvar=False, bias=True)
    assert belief.sd == pytest.approx(np.sqrt(np.diag(covariance)[6:].sum()))
    seen = [2, 0, 2]
    cross = covariance[:, seen]
    inner = covariance[np.ix_(seen, seen)] + law.noise_variance.mean() * np.eye(3)
    left = covariance - cross @ np.linalg.solve(inner, cross.T)
    for candidate in seen:
        belief = belief.add(candidate)
    assert belief.sd == pytest.approx(np.sqrt(np.diag(left)[6:].sum()))


def test_chance_among_few_draws_is_hardly_taken_for_knowledge():
    """Sixty runs tell nothing. By the draws of one group alone they would take away a third of the sd."""
    rng = np.random.default_rng(6)
    noise = np.exp(rng.normal(-4, 0.1, 800))
    law = Draws(rng.standard_normal(800), rng.standard_normal((800, 60)), noise, np.log(noise)[:, None])
    belief = start = belief_from([law], seed=0)
    for candidate in range(60):
        belief = belief.add(candidate)
    assert 0.9 * start.sd < belief.sd < start.sd


def test_what_a_run_is_expected_to_add_is_what_it_adds():
    """For groups of several kinds and several targets, whatever was chosen before."""
    belief = belief_from([gaussian_draws(2), gaussian_draws(3)], seed=0)
    for candidate in (1, 4, 1):
        expected = belief.values_with(np.arange(6))
        assert expected.max() > belief.value
        added = [belief.add(i).value for i in range(6)]
        np.testing.assert_allclose(expected, added, rtol=1e-9)
        belief = belief.add(candidate)


def test_a_run_teaches_what_noise_is_like():
    """Two kinds of draws, of equal means; the target is wide in the noisier one. One loss may tell which."""
    rng = np.random.default_rng(4)
    noisy = rng.permutation(np.repeat([False, True], 2000))
    targets = np.where(noisy, 10.0, 1.0) * rng.standard_normal(4000)
    kind = np.stack([np.ones(4000), noisy], axis=1)  # of a length that all draws share, and of noise
    law = Draws(targets, np.zeros((4000, 1)), np.where(noisy, 1.0, 1e-4), kind)
    belief = belief_from([law], seed=0)
    assert belief.sd == pytest.approx(targets.std(), rel=1e-6)
    # Were it known which, the expected sd would be 5.5, half way between 1 and 10.
    known = belief
    for _ in range(4):
        known = known.add(0)
    assert belief.values_with(np.array([0]))[0] > belief.value + 0.5
    assert known.sd == pytest.approx(5.5, rel=0.05)


def test_runs_of_one_candidate_have_noise_of_their_own():
    """Noise of sd 1 or 2: thirty losses tell which, where the same loss thirty times would mislead."""
    rng = np.random.default_rng(4)
    noisy = np.repeat([False, True], 2000)
    targets = np.where(noisy, 10.0, 1.0) * rng.standard_normal(4000)
    belief = belief_from(
        [Draws(targets, np.zeros((4000, 1)), np.where(noisy, 4.0, 1.0), 1.0 * noisy[:, None])], seed=0
    )
    for _ in range(30):
        belief = belief.add(0)
    assert belief.sd == pytest.approx(5.5, rel=0.05)


def test_laws_count_by_their_draws_before_any_run():
    """Groups of one law may be larger than those of another."""
    rng = np.random.default_rng(5)
    laws = [
        Draws(mean + rng.standard_normal(n), np.zeros((n, 1)), np.ones(n), rng.standard_normal((n, 1)))
        for mean, n in ((0.0, 700), (5.0, 300))
    ]
    every = np.concatenate([law.targets for law in laws])
    assert belief_from(laws, seed=0).sd == pytest.approx(every.std(), rel=1e-9)


class Budgeted:
    """Knowledge of a Gaussian: candidates and, last, the target, with the runs known so far."""

    def __init__(self, covariance, noise):
        self.covariance, self.noise, self.value = covariance, noise, -covariance[-1, -1]

    def values_with(self, candidates):
        return np.array([self.add(i).value for i in candidates])

    def add(self, candidate):
        column = self.covariance[:, candidate]
        explained = np.outer(column, column) / (column[candidate] + self.noise)
        return Budgeted(self.covariance - explained, self.noise)


def test_budget_times_and_the_dear_run_that_beats_many_cheap_ones():
    # Two candidates: a cheap one that knows little, a dear one that is the target itself.
    start = Budgeted(np.array([[1.0, 0.2, 0.2], [0.2, 1.0, 0.98], [0.2, 0.98, 1.0]]), 1e-3)
    cost = np.array([0.01, 1.0])

    def chosen(budget, times, least_gain=0.0):
        steps = choose_runs(start, cost, budget, times=times, least_gain=least_gain)
        return [s.candidate for s in steps]

    assert chosen(1.0, 3) == [1]
    assert chosen(0.05, 3) == [0, 0, 0]
    assert sorted(chosen(1.05, 1)) == [0, 1]
    assert chosen(0.05, 3, least_gain=0.1) == []
    steps = choose_runs(start, cost, 1.05, times=1, least_gain=0.0)
    assert start.value + sum(s.gain for s in steps) == pytest.approx(start.add(0).add(1).value)


class Covered:
    """Knowledge of things, each worth something once, whatever run tells it."""

    def __init__(self, worth, told, known=frozenset()):
        self.worth, self.told, self.known = worth, told, known
        self.value = sum(worth[thing] for thing in known)

    def values_with(self, candidates):
        return np.array([self.add(i).value for i in candidates])

    def add(self, candidate):
        return Covered(self.worth, self.told, self.known | set(self.told[candidate]))


def test_the_best_first_run_may_not_be_the_one_that_tells_most():
    """ "b" and "c" are the best that 1 buys. "x" is a bargain that leaves too little, "d" takes all."""
    worth = {"b": 0.76, "x": 0.02, "c": 0.5, "d": 0.8} | dict.fromkeys("uvw", 0.01)
    told = ["x", "bx", "c", "d", "u", "v", "w"]
    cost = np.array([0.01, 0.6, 0.4, 1, 1, 1, 1])
    steps = choose_runs(Covered(worth, told), cost, 1.0, times=1, least_gain=0.0)
    assert [step.candidate for step in steps] == [1, 2]
    np.testing.assert_allclose([step.gain for step in steps], [0.78, 0.5])


def test_runs_are_chosen_by_what_they_tell_per_cost():
    worth = dict.fromkeys("abcdefghij", 0.2) | {"z": 0.3}
    steps = choose_runs(Covered(worth, [*worth]), np.array([0.1] * 10 + [0.5]), 1.0, times=1, least_gain=0.0)
    assert sorted(step.candidate for step in steps) == list(range(10))


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
    assert [r["params"] for r in found["proposed"]] == both.runs["params"].tolist()
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


def test_what_a_plan_saves_falls_with_the_square_of_its_width():
    """Waste is quadratic in how far the optimum is off: of a band half as wide a quarter is left."""
    fit = bs.fit(simulated_table(rows=25), discrepancy=False, method="fast", noise="normal", draws=500)
    waste = fit.allocate(compute=1e22).expected_deadweight()[0]
    planned = plan(fit, "compute=1e22", 1e21)
    left = planned.predicted_width / planned.width
    assert 0.2 < left < 0.8  # else the square would hardly be seen
    # The same draws; their optimum is read off a grid, not off the formula.
    assert planned.saved == pytest.approx(waste * (1 - left**2), rel=0.01)


def test_a_plans_band_is_the_middle_90_percent_of_its_targets_draws(small_fit):
    drawn = np.arange(101.0)
    assert band(drawn) == (5, 95)
    assert band(np.stack([drawn, 1000 + 3 * drawn], axis=1)) == ((5 + 1015) / 2, (95 + 1285) / 2)
    planned = plan(small_fit, "E", 1e20)
    ends = np.quantile(small_fit.thinned(MAX_DRAWS).parameters["E"], [0.05, 0.95])
    assert planned.band == pytest.approx(tuple(ends))
    assert planned.width == pytest.approx(ends[1] - ends[0])


def test_an_allocation_is_a_target_in_decades(small_fit):
    target = parse_target("compute=1e22")
    assert target.describe(small_fit) == ("optimal params at 1e+22 FLOP", "decades")
    drawn, losses = joint_draws(small_fit, target, {"params": np.array([1e9]), "tokens": np.array([2e10])}, 0)
    params = small_fit.allocate(compute=1e22).draws["params"].values[:, 0]
    np.testing.assert_allclose(drawn, np.log10(params), atol=1e-3)
    made = small_fit.forecast(params=1e9, tokens=2e10).expected_loss
    np.testing.assert_allclose(losses[:, 0], made.ravel())


def test_widths_of_a_plan_are_its_band_times_the_sd_that_is_left(small_fit):
    pool = pd.DataFrame({"params": [3e9, 1e8, 1e9], "tokens": [6e10, 2e9, 1e12]})
    pool["compute"] = 6 * pool["params"] * pool["tokens"]
    target = parse_target("params=1e10,tokens=1e12")
    planned = plan(small_fit, target, 1e30, candidates=pool, seed=2)
    drawn = _draws({"": (small_fit, 1.0)}, target, pool, 2)
    belief = start = belief_from(drawn, seed=2)
    assert start.sd == pytest.approx(drawn[0].targets.std(), rel=0.01)
    assert len(planned.runs) > 1
    for candidate, run_ in planned.runs.iterrows():
        before, belief = belief.sd, belief.add(candidate)
        assert run_["gain"] == pytest.approx((before - belief.sd) / start.sd)
        assert run_["width"] == pytest.approx(planned.width * belief.sd / start.sd)
    assert planned.predicted_width == planned.runs["width"].iloc[-1]


@pytest.mark.parametrize(("there", "first"), [([3, 7, 5], 8), ([np.nan, 0, np.nan], 1), (None, 0)])
def test_no_run_of_a_plan_has_a_seed_that_its_table_has(small_fit, there, first):
    frame = small_fit.table.frame
    if there is not None:
        frame = frame.assign(seed=np.resize(np.array(there, float), len(frame)))
    planned = plan(replace(small_fit, table=replace(small_fit.table, frame=frame)), "E", 1e20)
    assert planned.runs["seed"].tolist() == list(range(first, first + len(planned.runs)))
    assert len(planned.runs) > 1


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("params=1B,tokens=20B", {"params": 1e9, "tokens": 2e10}),
        ("params = 70M, tokens = 1.4T", {"params": 7e7, "tokens": 1.4e12}),
        ("tokens=250K,params=21,000", None),
        ("compute=1e21", {"compute": 1e21}),
        ("compute=500T", {"compute": 5e14}),
        ("compute=1X", None),
        ("params=1e9,params=2e9", None),
        ("params=0", None),
    ],
)
def test_targets_are_read_as_people_write_them_or_refused(text, inputs):
    if inputs is None:
        with pytest.raises(FitError, match="target"):
            parse_target(text)
    else:
        assert parse_target(text).inputs == inputs


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


def test_candidates_of_a_pool_far_cheaper_than_the_budget_are_left_out_and_told(small_fit):
    pool = pd.DataFrame({"params": [1e6, 1e7, 1e9, 1e10], "tokens": [2e7, 2e8, 2e10, 2e11]})
    pool["compute"] = 6 * pool["params"] * pool["tokens"]
    chosen = plan(small_fit, "params=1e12,tokens=2e13", 2e20, candidates=pool)
    assert chosen.candidates.index.tolist() == [2, 3]  # the last is too dear to buy, or to set the scale
    assert any("not considered: 2 of 4 candidates" in w for w in chosen.warnings)
    both = plan(small_fit, "params=1e12,tokens=2e13", 1e17, candidates=pool)
    assert both.candidates.index.tolist() == [1, 2, 3]
    small = plan(small_fit, "params=1e12,tokens=2e13", 1e17, candidates=pool[:2].assign(compute=[3e15, 1e17]))
    assert len(small.candidates) == 2
    assert not any("not considered" in w for w in small.warnings)
    assert plot_plan(small_fit, chosen)


@pytest.mark.parametrize(
    ("target", "budget", "message"),
    [("gamma", 1e20, "gamma"), ("params=big", 1e20, "params=big"), ("E", -1, "budget"), ("E", 1e3, "budget"),
     ("streams=2", 1e20, "streams")],
)  # fmt: skip
def test_what_cannot_be_planned_is_said(small_fit, target, budget, message):
    with pytest.raises(FitError, match=message):
        plan(small_fit, target, budget)


def test_an_allocation_is_not_planned_from_laws_that_have_none(small_fit):
    bare = {"discrepancy": False, "method": "fast"}
    fits = [bs.fit(small_fit.table, law, **bare) for law in ("chinchilla", "power-compute-floor")]
    # Odds that drop no law, whatever the table says.
    compared = bs.compare(fits, sensitivity=False)
    even = replace(compared, evidences=dict.fromkeys(compared.labels, fits[0].evidence))
    with pytest.raises(FitError, match="plan from laws of one kind"):
        plan(even, "compute=1e21", 1e20)


def test_failed_fits_mark_their_plans(small_fit):
    failed = replace(small_fit, diagnostics=replace(small_fit.diagnostics, k_hat=0.9))
    assert any("do not rely" in w for w in plan(failed, "E", 1e20).warnings)


def test_plans_warn_of_what_their_fit_warns_of():
    contradicted = bs.fit(simulated_table(rows=20), priors={"E": "LogNormal(0.3, 0.4)"}, discrepancy=False)
    assert any("middle of its prior" in w for w in contradicted.warnings)
    assert set(contradicted.cautions) <= set(plan(contradicted, "E", 1e20).warnings)


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
    assert f"{len(report['proposed'])} runs" in dry.stdout


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


def test_what_a_run_tells_of_is_its_fisher_information(small_fit):
    """Of a Student-t about its location, by numerical integration of the squared score."""
    df, sd = np.array([2.5, 30.0]), np.array([0.01, 0.02])
    fit = SimpleNamespace(
        model=SimpleNamespace(noise="student-t", group="trunk"),
        parameters={"noise_sd": sd, "noise_df": df, "group_sd": np.array([0.0, 0.03])},
        group=None,
    )
    x = np.linspace(-200, 200, 400_001)
    for i, variance in enumerate(noise_variance(fit)):
        score = (df[i] + 1) * x / (df[i] + x**2)
        information = np.trapezoid(score**2 * stats.t.pdf(x, df[i]), x) / sd[i] ** 2
        assert variance == pytest.approx(1 / information + (0.0, 0.03)[i] ** 2, rel=1e-3)


def test_candidates_cost_what_their_table_counts():
    table = simulated_table(rows=40)
    n, d = table.column("params"), table.column("tokens")
    counted = table.frame.assign(compute=3.1 * n**1.1 * d)  # attention makes larger models dearer per param
    dearer = bs.RunTable(counted, table.meta)
    grid = candidate_grid(dearer, [BUILTIN["chinchilla"]], 1e21, most={})
    np.testing.assert_allclose(grid["compute"], 3.1 * grid["params"] ** 1.1 * grid["tokens"])


def test_candidates_of_a_large_budget_are_the_dearest_there_are():
    table, law = simulated_table(rows=40), [BUILTIN["chinchilla"]]
    dearest = candidate_grid(table, law, 1e30, most={})["compute"]
    assert dearest.min() >= dearest.max() / 50
    beyond = candidate_grid(table, law, 1e30)
    for name in ("params", "tokens"):
        assert 7 < beyond[name].max() / table.column(name).max() <= 10
    with pytest.raises(BudgetError, match=r"costs 1 FLOP or less: the cheapest costs .* FLOP; change the bu"):
        candidate_grid(table, law, 1.0)


@pytest.mark.parametrize("target", ["compute=1e24", "E"])
def test_more_budget_makes_no_worse_a_plan(full_fit, target):
    few = full_fit.thinned(1500)
    most = few.table.column("compute").max()
    small, large = (bs.plan(few, target, budget) for budget in (most, 30 * most))
    assert large.predicted_width < small.predicted_width
    assert large.candidates["params"].max() > few.table.column("params").max()


def test_a_run_is_the_same_target_however_its_size_is_written(full_fit):
    few = full_fit.thinned(300)
    compute = float(few.table.counting.compute(70e9, 1.4e12))
    written = (
        "params=70e9,tokens=1.4e12",
        f"params=70e9,compute={compute!r}",
        f"tokens=1.4e12,compute={compute!r}",
    )
    plans = [bs.plan(few, target, 1e22) for target in written]
    for other in plans[1:]:
        pd.testing.assert_frame_equal(other.runs, plans[0].runs, rtol=1e-6)
    rows = pd.DataFrame({"params": [70e9], "compute": [compute]})
    np.testing.assert_allclose(bs.plan(few, rows, 1e22).runs["gain"], plans[0].runs["gain"], rtol=1e-6)


def test_a_far_target_is_told_and_an_absurd_one_refused(full_fit):
    few = full_fit.thinned(100)
    (said,) = (w for w in bs.plan(few, "params=1e13,tokens=2e13", 1e22).warnings if "params" in w)
    assert "decades outside the table's range: params" in said
    for target in ("compute=1e60", "params=1e60,tokens=1e9"):
        with pytest.raises(FitError, match="decades outside the table's"):
            bs.plan(few, target, 1e22)


def test_a_pool_that_the_budget_does_not_buy_is_refused(full_fit):
    pool = pd.DataFrame({"params": [1e9, 2e9], "tokens": [2e10, 2e10], "compute": [1.2e20, 2.4e20]})
    with pytest.raises(BudgetError, match=r"the cheapest of 2 candidates costs 1.2e\+20 FLOP, and the bud"):
        bs.plan(full_fit.thinned(100), "E", 1e19, candidates=pool)


def test_a_plan_stays_below_target_and_budget_and_counts_gain_per_flop(small_fit):
    found = plan(small_fit, "params=1e9,tokens=2e10", 3e20)
    assert found.candidates["compute"].max() < 6 * 1e9 * 2e10
    assert found.cost <= 3e20
    grouped = found.grouped()
    np.testing.assert_allclose(
        grouped["gain_per_flop"], grouped["gain"] / (grouped["compute"] * grouped["runs"])
    )
    assert grouped["gain"].sum() == pytest.approx(found.runs["gain"].sum())
    assert found.runs["correlation"].abs().max() <= 1 + 1e-9
    pool = found.candidates[["params", "tokens", "compute"]].head(6)
    bought = plan(small_fit, "params=1e9,tokens=2e10", 3e20, candidates=pool)
    assert bought.candidates["chosen"].max() <= 1  # a run of a pool is there once


def test_a_term_at_the_centre_is_a_target_with_a_unit(small_fit):
    assert Target({}, "A_centre").describe(small_fit) == ("A_centre", "nats/token")
    assert Target({}, "alpha").describe(small_fit) == ("alpha", "")
