from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayescale as bs
from bayescale import backtesting, fitting
from bayescale.backtesting import Backtest, backtest, crps, log_density, scored, splits_of
from bayescale.errors import FitError
from bayescale.plots.calibration import plot_coverage, plot_pit
from bayescale.pointfit import point_fit
from bayescale.runs import RunTable
from tests.conftest import simulated_table


def test_crps_is_its_definition():
    rng = np.random.default_rng(0)
    draws, value = rng.normal(size=(50, 3)), np.array([0.0, 1.0, -3.0])
    pairs = np.abs(draws[:, None] - draws[None]).mean(axis=(0, 1))
    np.testing.assert_allclose(crps(draws, value), np.abs(draws - value).mean(axis=0) - pairs / 2)


def test_scores_are_averaged_split_by_split():
    def rows(factor, pits):
        count = len(pits)
        fixed = dict.fromkeys(
            ("loss", "median", "crps", "low_90", "high_90", "interval_score_90", "log_density"), 1.0
        )
        return pd.DataFrame(
            {"pit": pits, "factor": factor, "table": "t", "method": "m", **fixed}, range(count)
        )

    scores = pd.concat([rows(3, [0.5, 0.5, 0.5, 0.5]), rows(10, [0.99])])
    summary = Backtest(scores).summary().loc["m"]
    assert summary["splits"] == 2
    assert summary["coverage_90%"] == 0.5


def test_point_fit_covers_on_a_table_that_obeys_its_law(tmp_path):
    said = []
    how = {"methods": ["huber-bootstrap"], "factors": [3, 10], "folder": tmp_path, "progress": said.append}
    result = bs.backtest(simulated_table(rows=80), **how)
    # Normal noise, law true: about 20 held-out runs a split, so 90% +- 4 sd of .067.
    assert result.summary()["coverage_90%"].item() > 0.63
    assert result.summary()["abs_error_%"].item() < 0.6
    assert len(list(tmp_path.iterdir())) == 2


def test_interrupted_backtest_goes_on(tmp_path, monkeypatch):
    table = simulated_table(rows=80)
    how = {"methods": ["law-only"], "folder": tmp_path}
    whole = bs.backtest(table, factors=[3, 10], **how)
    assert len(list(tmp_path.iterdir())) == 2

    def made_again(*_):
        raise AssertionError("a split that was kept is made again")

    monkeypatch.setattr("bayescale.backtesting._score", made_again)
    again = bs.backtest(table, factors=[3, 10], **how)
    pd.testing.assert_frame_equal(again.scores, whole.scores)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"methods": ["magic"]}, "method 'magic' is unknown"),
        ({"factors": [1e9]}, "leaves 12 cheaper runs"),
    ],
)
def test_impossible_backtests_are_errors(options, match):
    with pytest.raises(bs.BayescaleError, match=match):
        bs.backtest(simulated_table(rows=30), **options)


def test_scoreboard_scores_what_it_can_and_says_what_it_left_out(tmp_path):
    board = bs.scoreboard(names=["zipf-facts", "opt"], methods=("law-only",), folder=tmp_path)
    assert set(board.backtest.scores["table"]) == {"zipf-facts"}
    assert "needs more runs" in board.left_out["opt"]
    with pytest.raises(FitError, match="no table can be scored"):
        bs.scoreboard(names=["opt"], methods=("law-only",))
    other = bs.scoreboard(names=["zipf-facts"], methods=("law-only",), seed=1, folder=tmp_path)
    alone = bs.backtest(bs.load("zipf-facts"), methods=["law-only"], seed=1)
    pd.testing.assert_frame_equal(other.backtest.scores, alone.scores)
    assert (other.backtest.scores["median"] != board.backtest.scores["median"]).all()


def test_scoreboard_leaves_out_runs_that_differ_in_what_the_law_does_not_know(monkeypatch):
    table = simulated_table(rows=30)
    table.frame["learning_rate"] = 1e-3
    sweep = RunTable(pd.concat([table.frame, table.frame.assign(learning_rate=3e-3)]), table.meta)
    monkeypatch.setattr("bayescale.scoreboards.load", {"one": table, "sweep": sweep}.get)
    board = bs.scoreboard(names=["one", "sweep"], methods=("law-only",))
    assert set(board.backtest.scores["table"]) == {table.name}
    assert board.left_out == {"sweep": "runs that chinchilla takes for alike differ in learning_rate"}
    # One size that was swept is enough, and losses must have a unit that priors know.
    one_size = RunTable(pd.concat([table.frame, sweep.frame.tail(1)]), table.meta)
    error_rates = RunTable(table.frame, table.meta.model_copy(update={"loss_unit": "other"}))
    named = {"one": table, "one size": one_size, "error rates": error_rates}
    monkeypatch.setattr("bayescale.scoreboards.load", named.get)
    board = bs.scoreboard(names=named, methods=("law-only",))
    assert board.left_out == {
        "one size": "runs that chinchilla takes for alike differ in learning_rate",
        "error rates": "its losses have no unit that a scaling law's priors know",
    }


def test_log_density_is_that_of_the_draws():
    draws = np.random.default_rng(0).normal(2.0, 0.1, (20_000, 1))
    found = log_density(draws, np.array([2.05]))
    assert found[0] == pytest.approx(-0.5 * 0.25 - np.log(0.1 * np.sqrt(2 * np.pi)), abs=0.05)


def test_priors_reach_the_fits_of_a_backtest():
    table = simulated_table(rows=40)
    wide = {"noise_sd": "LogNormal(0.05, 0.01)"}
    widths = [
        backtest(table, factors=[3], methods=["discrepancy"], priors=p).summary()["half_width_%"].iloc[0]
        for p in (None, wide)
    ]
    assert widths[1] > 3 * widths[0]


def test_bands_of_held_out_runs_hold_the_noise_known_of_them():
    table = simulated_table(rows=40)
    compute = table.column("compute")
    table.frame["loss_se"] = np.where(compute > compute.max() / 3, 0.2, np.nan)
    scores = backtest(table, factors=[3], methods=["law-only"]).scores
    half_widths = (scores["high_90"] - scores["low_90"]) / 2
    # 1.64 sd, or up to 2.1 at the degrees of freedom that 30 runs leave possible; all else is under .02 nats.
    assert ((half_widths > 1.6 * 0.2) & (half_widths < 2.2 * 0.2)).all()


def test_scores_of_a_run_are_their_definitions():
    """Draws 1, ..., 1001 of one run: the 90% band is 51 to 951 (Gneiting & Raftery 2007, equation 43)."""
    loss = np.array([500.5, 971.0, 20.0])
    draws = np.arange(1.0, 1002.0)[:, None].repeat(3, axis=1)
    rows = scored(draws, loss, passed=True)
    np.testing.assert_allclose(rows["pit"], [500 / 1001, 970 / 1001, 19 / 1001])
    interval_scores = np.array([900, 900 + 20 * (971 - 951), 900 + 20 * (51 - 20)])
    np.testing.assert_allclose(rows["interval_score_90"], interval_scores)
    board = Backtest(rows.assign(table="t", factor=3.0, method="m")).summary().iloc[0]
    expected = {
        "bias_%": 100 * (501 - loss) / loss,
        "abs_error_%": 100 * np.abs(501 - loss) / loss,
        "half_width_%": 100 * 450 / loss,
        "interval_score_%": 100 * interval_scores / loss,
        "crps_%": 100 * crps(draws, loss) / loss,
        "log_density": log_density(draws, loss),
        "coverage_90%": [1, 0, 0],
    }
    for name, values in expected.items():
        assert board[name] == pytest.approx(np.mean(values)), name


def test_medians_and_densities_of_skewed_draws_are_their_definitions():
    """The median, not the mean; a Gaussian kernel by Silverman's rule (1986, equation 3.31)."""
    draws = np.exp(3 * np.random.default_rng(0).standard_normal((999, 1)))
    rows = scored(draws, np.array([2.0]), passed=True)
    assert rows["median"][0] == np.sort(draws[:, 0])[499]
    low, high = np.quantile(draws, [0.25, 0.75])
    width = 0.9 * (high - low) / 1.349 * 999**-0.2
    assert rows["log_density"][0] == pytest.approx(np.log(stats.norm.pdf(2.0, draws, width).mean()))


def test_runs_at_the_split_are_cheap_and_twelve_of_them_are_enough():
    table = simulated_table(rows=14)
    at_split = replace(table, frame=table.frame.assign(compute=[1e20] * 12 + [1.01e20, 3e20]))
    ((_, cheap, dear),) = splits_of(at_split, [3])
    assert (len(cheap), len(dear)) == (12, 2)
    wide = replace(table, frame=table.frame.assign(compute=[1e18] * 12 + [1e20, 1e20]))
    assert [factor for factor, _, _ in splits_of(wide)] == [3, 10, 30]


def test_log_density_does_not_smooth_over_a_narrow_middle():
    rng = np.random.default_rng(0)
    draws = np.concatenate([rng.normal(0, 0.1, 9000), rng.normal(0, 10, 1000)])[:, None]
    truth = np.log(0.9 * stats.norm.pdf(0, 0, 0.1) + 0.1 * stats.norm.pdf(0, 0, 10))
    assert log_density(draws, np.zeros(1))[0] == pytest.approx(truth, abs=0.1)


def test_scores_are_kept_for_what_was_asked_and_a_seed_is_of_the_fits(tmp_path):
    table = simulated_table(rows=30)
    how = {"factors": [3.0], "methods": ["law-only"], "folder": tmp_path}
    first = backtest(table, **how).scores
    for other in ({"noise": "normal"}, {"seed": 1}):
        assert not np.allclose(backtest(table, **how, **other).scores["median"], first["median"], rtol=1e-9)
    pd.testing.assert_frame_equal(backtest(table, **how).scores, first)
    own = replace(table, meta=table.meta.model_copy(update={"floor_prior": "LogNormal(1, 0.01)"}))
    assert not np.allclose(backtest(own, **how).scores["median"], first["median"], rtol=1e-9)
    grouped = replace(table, frame=table.frame.assign(group=np.arange(30) % 3))
    shared, apart = (backtest(grouped, **how, group_effect=g).scores for g in ("group", None))
    assert not np.allclose(shared["median"], apart["median"], rtol=1e-9)


def test_a_point_fits_scores_are_kept_whatever_the_priors_and_noise(tmp_path, monkeypatch):
    table = simulated_table(rows=30)
    how = {"factors": [3.0], "methods": ["law-only", "huber-bootstrap"], "folder": tmp_path}
    backtest(table, **how)
    made = []
    score = backtesting._score
    monkeypatch.setattr(
        backtesting, "_score", lambda method, *rest: made.append(method) or score(method, *rest)
    )
    own = {"priors": {"E": "LogNormal(1.7, 0.1)"}, "noise": "normal"}
    options = backtest(table, **how, **own).options
    assert made == ["law-only"]
    assert options == {"law": "chinchilla", "group_effect": None, "seed": 0} | own


@pytest.mark.parametrize("method", ["discrepancy", "law-only"])
def test_a_backtests_seed_is_of_the_fit_and_of_its_forecast(method):
    ((factor, train, hidden),) = splits_of(simulated_table(rows=30), [3])
    fit = bs.fit(train, discrepancy=method == "discrepancy", seed=5)
    inputs = {"params": hidden.column("params"), "tokens": hidden.column("tokens")}
    draws = fit.forecast(seed=5, known_noise=hidden.known_noise(), **inputs).loss.reshape(-1, len(hidden))
    scores = backtest(simulated_table(rows=30), factors=[factor], methods=[method], seed=5).scores
    np.testing.assert_allclose(scores["median"], np.median(draws, axis=0), rtol=1e-12)
    np.testing.assert_allclose(scores["pit"], (draws < hidden.column("loss")).mean(axis=0))


def test_a_backtests_seed_is_of_the_resampling_and_of_its_noise(monkeypatch):
    def quick(train, law, *, seed, **_):
        return point_fit(train, law, starts=4, bootstrap=20, seed=seed)

    monkeypatch.setattr("bayescale.pointfit.point_fit", quick)
    ((factor, train, hidden),) = splits_of(simulated_table(rows=30), [3])
    inputs = {"params": hidden.column("params"), "tokens": hidden.column("tokens")}
    draws = quick(train, "chinchilla", seed=5).forecast(seed=5, **inputs)["loss"].values
    how = {"factors": [factor], "methods": ["huber-bootstrap"], "seed": 5}
    scores = backtest(simulated_table(rows=30), **how).scores
    np.testing.assert_allclose(scores["median"], np.median(draws, axis=0), rtol=1e-12)


def test_a_fit_that_fails_marks_the_rows_of_its_split_and_no_others(monkeypatch):
    honest = fitting.fit

    def failing(table, law, *, discrepancy, **how):
        made = honest(table, law, discrepancy=discrepancy, method="fast", draws=50, **how)
        k_hat = 0.9 if len(table) == few and not discrepancy else 0.1
        return replace(made, diagnostics=replace(made.diagnostics, k_hat=k_hat, min_ess=1000.0))

    table = simulated_table(rows=40)
    few = min(len(train) for _, train, _ in splits_of(table, [3, 10]))
    monkeypatch.setattr("bayescale.fitting.fit", failing)
    found = backtest(table, factors=[3, 10], methods=["discrepancy", "law-only"])
    marked = (found.scores["factor"] == 10) & (found.scores["method"] == "law-only")
    assert (found.scores["passed"] == ~marked).all()
    assert found.failures == [{"table": "simulated", "factor": 10, "method": "law-only"}]
    assert found.warnings == ["do not rely on law-only at factor 10 of simulated: its diagnostics failed"]


def test_pictures_of_scores_by_failed_fits_say_so():
    rows = scored(np.arange(1.0, 1002.0)[:, None], np.array([500.5]), passed=False)
    failed = Backtest(rows.assign(table="t", factor=3.0, method="law-only"))
    for ax in (plot_coverage(failed), plot_pit(failed, "law-only")):
        assert any("diagnostics failed in 1 fit(s)" in text.get_text() for text in ax.texts)


def test_a_kept_file_that_is_damaged_is_made_anew(tmp_path, monkeypatch):
    how = {"methods": ["law-only"], "folder": tmp_path, "factors": [10]}
    table = simulated_table(rows=80)
    whole = bs.backtest(table, **how).scores
    (path,) = tmp_path.iterdir()
    again = whole.drop(columns=["table", "factor", "method"])
    monkeypatch.setattr("bayescale.backtesting._score", lambda *_: again)
    for damaged in ("[]", "null", "{}", "not json"):
        path.write_text(damaged)
        pd.testing.assert_frame_equal(bs.backtest(table, **how).scores, whole)
        assert path.read_text() != damaged
