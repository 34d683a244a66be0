"""Forecasts, allocations and plans for one group of a fit with a group effect, or for none in particular."""

import json

import numpy as np
import pytest

import bayescale as bs
from bayescale.candidates import noise_variance
from bayescale.errors import FitError
from bayescale.plots import plot_forecast
from bayescale.tablefiles import write_runs
from tests.conftest import simulated_table
from tests.test_cli import run

OFFSETS = {"c4": 0.06, "books": -0.04, "code": 0.0, "wiki": 0.03, "web": -0.05}
LARGE = {"params": 3e9, "tokens": 6e10}
TRUE_LOSS = 1.8 + 480 * 3e9**-0.35 + 2000 * 6e10**-0.366


def corpora_table() -> bs.RunTable:
    table = simulated_table(rows=60, noise_sd=0.002)
    names = np.array(list(OFFSETS))[np.arange(60) % 5]
    table.frame["group"] = names
    table.frame["loss"] *= np.exp([OFFSETS[name] for name in names])
    return table


@pytest.fixture(scope="module", params=[True, False], ids=["discrepancy", "law alone"])
def grouped(request) -> bs.Fit:
    return bs.fit(corpora_table(), discrepancy=request.param, group_effect="group", method="fast")


def test_a_groups_forecast_has_its_own_offset_and_a_new_groups_is_wide(grouped):
    new = grouped.forecast(**LARGE)
    for name, offset in OFFSETS.items():
        own = grouped.forecast(group=name, **LARGE)
        assert own.group == name
        for draws in (own.expected_loss, own.loss):
            assert np.median(draws) == pytest.approx(TRUE_LOSS * np.exp(offset), rel=0.01)
        assert own.loss.std() < new.loss.std() / 3
        noise = np.log(own.loss / own.expected_loss)
        assert noise.std() == pytest.approx(0.002, rel=0.6)
    assert new.group is None


def test_a_groups_draws_are_those_of_no_group_times_its_factor(grouped):
    p = grouped.parameters
    factor = np.exp(p["group_sd"] * p["group_offsets"][:, grouped.model.group_names.index("c4")])
    own, new = (grouped.forecast(group=g, **LARGE).expected_loss.ravel() for g in ("c4", None))
    np.testing.assert_allclose(own, new * factor, rtol=1e-12)
    few = grouped.thinned(200)
    p = few.parameters
    factor = np.exp(p["group_sd"] * p["group_offsets"][:, few.model.group_names.index("c4")])
    own, new = (few.allocate(compute=1e21, group=g).draws.isel(budget=0) for g in ("c4", None))
    np.testing.assert_allclose(own["loss"], new["loss"] * factor, rtol=1e-9)
    for name in ("params", "deadweight"):  # all losses are larger by as much
        np.testing.assert_allclose(own[name], new[name], rtol=1e-4)


def test_a_group_reaches_at_a_compute_the_loss_that_the_compute_buys_it(grouped):
    for group in ("c4", "web"):
        bought = grouped.allocate(compute=1e21, group=group).draws.median("sample")
        takes = grouped.allocate(loss=float(bought["loss"][0]), group=group).draws.median("sample")
        assert float(takes["compute"][0]) == pytest.approx(1e21, rel=0.15)


def test_a_plan_for_a_group_is_of_runs_of_the_group(grouped):
    of_group, of_none = grouped.for_group("c4"), grouped
    sd = grouped.parameters["group_sd"]
    np.testing.assert_allclose(noise_variance(of_none) - noise_variance(of_group), sd**2)
    target = "params=3e9,tokens=6e10"
    own, new = (bs.plan(grouped, target, 2e20, group=g) for g in ("c4", None))
    middle = np.quantile(grouped.forecast(group="c4", **LARGE).expected_loss, [0.05, 0.95])
    np.testing.assert_allclose(own.band, middle, rtol=0.003)
    assert own.width < new.width
    assert own.predicted_width < own.width


def test_groups_that_a_fit_does_not_have_are_errors(grouped, law_only_fit):
    have = "the 5 groups of this fit, by 'group', are books, c4, code, web, wiki"
    for ask in (
        lambda: grouped.forecast(group="C4", **LARGE),
        lambda: grouped.allocate(compute=1e21, group="C4"),
        lambda: bs.plan(grouped, "E", 1e20, group="C4"),
    ):
        with pytest.raises(FitError, match=f"group 'C4' is unknown; {have}"):
            ask()
    with pytest.raises(FitError, match="this fit has no group effect; fit with the column"):
        law_only_fit.forecast(group="c4", **LARGE)


def test_a_fit_for_a_group_says_so_wherever_it_goes(grouped, tmp_path):
    own = grouped.for_group("c4")
    made = own.forecast(**LARGE)
    assert "for group c4" in repr(own)
    assert "group c4" in repr(made)
    assert made.draws.attrs["group"] == "c4"
    assert "group c4" in plot_forecast(grouped, made).get_title("left")
    own.save(tmp_path / "fit.nc")
    again = bs.load_fit(tmp_path / "fit.nc")
    np.testing.assert_array_equal(again.forecast(**LARGE).loss, made.loss)
    assert again.forecast(group=None, **LARGE).group == "c4"


def test_commands_take_a_group(tmp_path):
    runs, saved = tmp_path / "runs.csv", tmp_path / "fit.nc"
    write_runs(corpora_table(), runs)
    how = ("--no-discrepancy", "--group-effect", "group")
    assert run("fit", runs, *how, "-o", saved).returncode == 0
    bs.load_fit(saved).for_group("c4").save(tmp_path / "own.nc")
    own = ("forecast", tmp_path / "own.nc", "--params", "3B", "--tokens", "60B", "--json")
    assert json.loads(run(*own).stdout)["group"] == "c4"
    forecast = ("forecast", saved, "--params", "3B", "--tokens", "60B")
    made = json.loads(run(*forecast, "--group", "c4", "--json").stdout)
    assert made["group"] == "c4"
    assert made["targets"][0]["loss"] == pytest.approx(TRUE_LOSS * np.exp(0.06), rel=0.01)
    assert "group c4)" in run(*forecast, "--group", "c4").stdout
    assert "group c4)" in run("allocate", saved, "--compute", "1e21", "--group", "c4").stdout
    planned = run("plan", saved, "--target", "params=3B,tokens=60B", "--budget", "2e20", "--group", "c4")
    assert "on simulated, group c4)" in planned.stdout
    for command in (forecast, ("allocate", saved, "--compute", "1e21")):
        refused = run(*command, "--group", "C4")
        assert refused.returncode == 2
        assert "groups of this fit, by 'group', are books, c4, code, web, wiki" in refused.stderr
