"""Fits recover what is known, say when they cannot be relied on, and survive being passed on."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import arviz_stats
import numpy as np
import pytest
import xarray as xr
from arviz_stats.base import array_stats
from scipy import stats

import bayescale as bs
from bayescale.allocations import _at_edge
from bayescale.deadweight import deadweight
from bayescale.errors import FitError, LawError, TableError
from bayescale.fitting import law_for, prepare
from bayescale.forecasts import _noise, outside_range
from bayescale.inference.diagnostics import Diagnostics, diagnose
from bayescale.laws import BUILTIN, law_from_formula
from bayescale.model.coordinates import Whitened
from bayescale.model.making import make_model
from bayescale.optimum import RATIO_RANGE, positive_numbers, ratio_grid
from bayescale.reaching import _along_path, _served
from tests.conftest import simulated_table

TRUTH = {"E": 1.8, "A": 480.0, "B": 2000.0, "alpha": 0.35, "beta": 0.366}
BESIROGLU_95 = {"alpha": (0.317, 0.373), "beta": (0.331, 0.415), "E": (1.769, 1.871)}


def test_plain_law_on_chinchilla_agrees_with_besiroglu(law_only_fit):
    assert law_only_fit.diagnostics.passed, law_only_fit.diagnostics.failures
    means = law_only_fit.summary()["mean"]
    for name, (low, high) in BESIROGLU_95.items():
        assert low < means[name] < high


def test_student_t_keeps_the_floor_when_outliers_come_back(law_only_fit):
    everything = bs.load("chinchilla", outliers=True)
    with_outliers = bs.fit(everything, discrepancy=False, seed=1).summary()["mean"]["E"]
    normal = [
        bs.fit(t, discrepancy=False, noise="normal", seed=1).summary()["mean"]["E"]
        for t in (bs.load("chinchilla"), everything)
    ]
    assert abs(with_outliers - law_only_fit.summary()["mean"]["E"]) < 0.01
    assert normal[1] - normal[0] == pytest.approx(0.14, abs=0.02)


def test_arviz_works_on_the_posterior_and_counts_repeated_draws_once(law_only_fit):
    assert law_only_fit.options["method"] == "fast"
    summary = arviz_stats.summary(law_only_fit.posterior, var_names=["alpha", "E"], round_to="none")
    assert list(summary.index) == ["alpha", "E"]
    worth = law_only_fit.diagnostics.min_ess
    assert worth < 0.25 * law_only_fit.z[..., 0].size  # else there would be nothing to count
    for kind in ("ess_bulk", "ess_tail"):
        assert (summary[kind].astype(float) / worth).between(0.7, 1.4).all()
    assert (summary["r_hat"].astype(float) < 1.03).all()  # copies are in no order but their own


def test_arvizs_plots_find_every_dimension_of_the_posterior(full_fit):
    posterior = full_fit.posterior["posterior"]
    assert set(posterior.dims) == set(posterior.coords)


def test_a_saved_fit_holds_no_log_likelihoods_and_tells_them_when_loaded(full_fit, tmp_path):
    full_fit.posterior  # noqa: B018 computed here: the file must not get it
    full_fit.save(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as saved:
        assert "log_likelihood" not in saved.children
    again = bs.load_fit(tmp_path / "fit.nc").posterior
    xr.testing.assert_allclose(again["log_likelihood"], full_fit.posterior["log_likelihood"])


def test_allocation_in_closed_form_is_the_minimum(law_only_fit):
    allocation = law_only_fit.allocate(compute=5.76e23)
    assert allocation.closed_form
    draws = law_only_fit.draws.isel(chain=0, draw=0)
    best = {k: float(v) for k, v in allocation.draws.isel(sample=0, budget=0).items()}
    law = [float(draws[k]) for k in ("E", "A", "B", "alpha", "beta")]

    def loss(params):
        e, a, b, alpha, beta = law
        return e + a * params**-alpha + b * (5.76e23 / (6 * params)) ** -beta

    grid = best["params"] * np.geomspace(0.5, 2, 201)
    assert loss(grid).min() == pytest.approx(best["loss"], abs=1e-9)
    assert grid[loss(grid).argmin()] == pytest.approx(best["params"], rel=0.01)
    # Besiroglu et al.: 72B and about 20 tokens per parameter.
    medians = allocation.summary().set_index("quantity")["median"]
    assert medians["params"] == pytest.approx(72e9, rel=0.15)


def test_an_allocations_seed_draws_the_discrepancy(full_fit):
    first, again, other = (full_fit.allocate(compute=1e22, seed=s).draws["params"] for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_compute_for_a_loss_inverts_the_allocation(law_only_fit):
    forward = law_only_fit.allocate(compute=1e22).draws
    sample = 7
    loss = float(forward["loss"][sample, 0])
    back = law_only_fit.allocate(loss=loss).draws
    assert float(back["compute"][sample, 0]) == pytest.approx(1e22, rel=1e-6)
    unreachable = law_only_fit.allocate(loss=1.5)
    assert np.isinf(unreachable.draws["compute"]).all()
    assert any("does not reach" in w for w in unreachable.warnings)


def test_draws_that_do_not_reach_a_loss_count_in_its_interval(law_only_fit):
    """A quantile of the rest alone would have a loss near the floor look cheap."""
    floor = law_only_fit.parameters["E"].ravel()
    loss = float(np.quantile(floor, 0.7))
    allocation = law_only_fit.allocate(loss=loss)
    compute = allocation.draws["compute"].values[:, 0]
    assert np.isinf(compute).mean() == pytest.approx((floor >= loss).mean(), abs=0.01)
    rows = allocation.summary().set_index("quantity")
    assert rows.loc["compute", "90%_high"] == rows.loc["params", "90%_high"] == np.inf
    assert rows.loc["compute", "median"] == np.quantile(compute, 0.5, method="nearest") < np.inf
    assert any(w.startswith("30% of the posterior does not reach") for w in allocation.warnings)
    assert bs.allocate(law_only_fit, loss=[loss, 1.0]).summary()["median"].notna().sum() == 8


def test_forecast_shapes_units_and_flags(law_only_fit):
    forecast = law_only_fit.forecast(params=[1e9, 70e9], tokens=[2e10, 1.4e12])
    assert forecast.draws["loss"].dims == ("chain", "draw", "target")
    assert forecast.draws.attrs["unit"] == "nats/token"
    np.testing.assert_allclose(forecast.draws["compute"], [1.2e20, 5.88e23])
    assert all(decades[0] == 0 for decades in forecast.outside.values())
    table = law_only_fit.table
    expected = np.log10(70e9 / table.column("params").max())
    assert forecast.outside["params"][1] == pytest.approx(expected)
    rows = forecast.summary()
    assert (rows["loss_90%_low"] < rows["expected_loss_90%_low"]).all()
    assert (rows["expected_loss_50%_high"] < rows["expected_loss_80%_high"]).all()
    assert any("too narrow" in w for w in forecast.warnings)
    by_compute = law_only_fit.forecast(params=1e9, compute=1.2e20).summary()
    assert by_compute["expected_loss"][0] == rows["expected_loss"][0]


def test_a_forecasts_summary_is_the_quantiles_of_its_draws(law_only_fit):
    forecast = law_only_fit.forecast(params=[1e9, 70e9], tokens=[2e10, 1.4e12])
    rows = forecast.summary()
    for name in ("expected_loss", "loss"):
        flat = getattr(forecast, name).reshape(-1, 2)
        np.testing.assert_allclose(rows[name], np.quantile(flat, 0.5, axis=0))
        for width, ends in (("50%", (0.25, 0.75)), ("80%", (0.1, 0.9)), ("90%", (0.05, 0.95))):
            for side, q in zip(("low", "high"), ends, strict=True):
                np.testing.assert_allclose(rows[f"{name}_{width}_{side}"], np.quantile(flat, q, axis=0))
    parameters = law_only_fit.summary()
    for name, q in (("5%", 0.05), ("50%", 0.5), ("95%", 0.95)):
        assert parameters[name]["E"] == pytest.approx(np.quantile(law_only_fit.parameters["E"], q))


def test_a_seed_is_of_the_forecast_and_known_noise_adds_in_quadrature(law_only_fit):
    inputs = {"params": 1e9, "tokens": 2e10}
    first, again = (law_only_fit.forecast(seed=1, **inputs) for _ in range(2))
    np.testing.assert_array_equal(first.loss, again.loss)
    assert (law_only_fit.forecast(seed=2, **inputs).loss != first.loss).all()
    known = law_only_fit.forecast(seed=1, known_noise=0.01, **inputs)
    noise, more = (np.log(f.loss / f.expected_loss)[..., 0] for f in (first, known))
    sd = law_only_fit.parameters["noise_sd"].reshape(noise.shape)
    np.testing.assert_allclose(more / noise, np.hypot(sd, 0.01) / sd, rtol=1e-6)


def test_noise_of_infinite_variance_is_the_tables_not_the_next_runs():
    draws = {"noise_df": np.full(20_000, 0.5), "noise_sd": np.ones(20_000)}
    fit = SimpleNamespace(model=SimpleNamespace(noise="student-t"), parameters=draws)
    noise = _noise(fit, (20_000, 1), 0.0, np.random.default_rng(0))
    assert np.quantile(noise, 0.95) == pytest.approx(stats.t.ppf(0.95, 2), rel=0.05)


def test_targets_below_the_table_are_outside_it_too(law_only_fit):
    least = law_only_fit.table.column("params").min()
    near, far = (law_only_fit.forecast(params=least / by, tokens=2e10) for by in (10**0.04, 10**0.3))
    assert far.outside["params"][0] == pytest.approx(0.3)
    assert any("0.3 decades outside the table's range: params" in w for w in far.warnings)
    assert not any("range: params" in w for w in near.warnings)


def test_a_tables_own_flops_per_token_hold_in_forecasts_and_allocations():
    table = simulated_table()
    table = bs.RunTable(
        table.frame.assign(compute=2.5 * table.column("params") * table.column("tokens")),
        table.meta.model_copy(update={"flops_per_param_token": 2.5}),
    )
    fit = bs.fit(table, discrepancy=False, method="fast", seed=1)
    assert fit.forecast(params=1e9, compute=2.5e20).inputs["tokens"][0] == pytest.approx(1e11)
    allocation = fit.allocate(compute=1e21).draws.isel(budget=0)
    np.testing.assert_allclose(2.5 * allocation["params"] * allocation["tokens"], 1e21)
    draw = {name: float(values[0]) for name, values in fit.parameters.items() if values.ndim == 1}
    params = float(allocation["params"][0]) * np.geomspace(0.8, 1.25, 201)
    tokens = 1e21 / (2.5 * params)
    loss = draw["E"] + draw["A"] * params ** -draw["alpha"] + draw["B"] * tokens ** -draw["beta"]
    assert loss.argmin() == 100


def test_an_allocations_summary_is_the_quantiles_of_its_draws(full_fit):
    allocation = bs.allocate(full_fit, compute=[1e21, 1e22], seed=1)
    rows = allocation.summary().set_index(["budget", "quantity"])
    for budget in (0, 1):
        draws = allocation.draws["params"].values[:, budget]
        for name, q in (("median", 0.5), ("50%_low", 0.25), ("80%_high", 0.9), ("90%_low", 0.05)):
            assert rows.loc[(budget, "params"), name] == pytest.approx(np.quantile(draws, q))
    wasted = allocation.draws["deadweight"].values
    np.testing.assert_allclose(allocation.expected_deadweight(), wasted.mean(axis=0))
    other = bs.allocate(full_fit, compute=[1e21, 1e22], seed=2)
    assert (other.draws["loss"].values != allocation.draws["loss"].values).any()


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({}, "no inputs given; law 'chinchilla' needs params, tokens"),
        ({"params": 1e9}, "'tokens' is not given"),
        ({"params": -1.0, "tokens": 1e9}, "expected positive numbers"),
        ({"parms": 1.0, "tokens": 1e9}, "'parms' has no place"),
        ({"params": [1e9, 2e9, 3e9], "tokens": [1e9, 2e9]}, "unequal numbers of targets"),
    ],
)
def test_bad_targets_are_errors(law_only_fit, inputs, match):
    with pytest.raises(FitError, match=match):
        law_only_fit.forecast(**inputs)


def test_full_model_recovers_known_parameters(full_fit):
    assert full_fit.diagnostics.passed, full_fit.diagnostics.failures
    summary = full_fit.summary()
    for name in ("E", "alpha", "beta"):
        assert abs(summary["mean"][name] - TRUTH[name]) < 3 * summary["sd"][name]
    assert summary["mean"]["noise_sd"] == pytest.approx(0.003, rel=0.4)


def test_full_model_forecasts_the_truth_more_widely_outside_the_table(full_fit):
    forecast = full_fit.forecast(params=[1e9, 70e9], tokens=[2e10, 1.4e12]).summary()
    truth = 1.8 + 480 * forecast["params"] ** -0.35 + 2000 * forecast["tokens"] ** -0.366
    width = forecast["expected_loss_90%_high"] - forecast["expected_loss_90%_low"]
    assert (np.abs(forecast["expected_loss"] - truth) < width).all()
    assert width[1] > 3 * width[0]  # 4.6 to 6.5 over six tables and three seeds


def test_allocation_with_discrepancy_is_searched(full_fit):
    few = full_fit.thinned(1000)
    allocation = few.allocate(compute=1e21)
    assert not allocation.closed_form
    g = (0.35 * 480 / (0.366 * 2000)) ** (1 / 0.716)
    truth = g * (1e21 / 6) ** (0.366 / 0.716)
    row = allocation.summary().set_index("quantity").loc["params"]
    assert row["90%_low"] < truth < row["90%_high"]
    reach = few.allocate(loss=float(allocation.draws["loss"].median())).summary()
    compute = reach.set_index("quantity")["median"]["compute"]
    assert compute == pytest.approx(1e21, rel=0.1)
    # The worst run of the table was had for less than its dearest, too.
    easy = few.allocate(loss=float(few.table.column("loss").max()))
    assert np.isfinite(easy.draws["compute"].values).all()


def test_an_allocations_warnings_say_how_far_its_medians_lie_outside_the_table(full_fit):
    compute, params, tokens = (full_fit.table.column(c) for c in ("compute", "params", "tokens"))
    few = full_fit.thinned(500)
    for budget in (1e15, 1e26):
        allocation = few.allocate(compute=[1e20, budget])
        (said,) = (w for w in allocation.warnings if "outside the table's range" in w)
        medians = allocation.summary().set_index(["budget", "quantity"])["median"][1]
        for name, seen in (("compute", compute), ("params", params), ("tokens", tokens)):
            decades = max(np.log10(medians[name] / seen.max()), np.log10(seen.min() / medians[name]))
            assert f"{name} {decades:.1f}" in said
    hair = 1.05 * compute.max()
    assert not any("range" in w for w in few.allocate(compute=[1e20, hair]).warnings)


def test_draws_are_below_a_loss_before_the_search_begins_or_never_reach_it(full_fit):
    """Whatever the law, some share of the posterior does either; each is said as what it is."""
    few = full_fit.thinned(500)
    high, low = 20.0, float(np.median(few.parameters["E"]))
    allocation = few.allocate(loss=[high, low])
    for budget, said in ((0, "less compute than was searched, which begins at"), (1, "does not reach")):
        counted = (0.0, np.inf)[budget]
        share = float((allocation.draws["compute"].values[:, budget] == counted).mean())
        assert 0.02 < share < 0.98
        asked = [w for w in allocation.warnings if f"a loss of {(high, low)[budget]:g}" in w]
        assert sum(float(w.split("%")[0]) for w in asked) == pytest.approx(100 * share, rel=0.005)
        assert sum(said in w for w in asked) == 1


def test_the_share_without_a_run_is_said_whatever_the_way_of_searching(law_only_fit, full_fit):
    """In closed form the search begins at 1,000 FLOP, along a path at a millionth of the table's least."""
    easy = law_only_fit.allocate(loss=1e6)
    assert (easy.draws["compute"] == 0).all()
    assert easy.warnings[-1] == (
        "100% of the posterior reaches a loss of 1e+06 with less compute than was searched, which begins at "
        "1e+03 FLOP; it counts as 0, and not in tokens per parameter"
    )
    few = full_fit.thinned(500)
    least = 1e-6 * few.table.column("compute").min()
    (said,) = (w for w in few.allocate(loss=20.0).warnings if "than was searched" in w)
    assert f"begins at {least:.2g} FLOP; it counts as 0, and not in tokens per parameter" in said
    # Runs to be served are searched for elsewhere: what is found there needs no word.
    served = few.thinned(100).allocate(loss=20.0, served_tokens=1e12)
    assert np.isfinite(served.draws["compute"]).all()
    assert not any("than was searched" in w for w in served.warnings)


def test_an_allocation_for_a_loss_follows_its_seed(full_fit):
    few = full_fit.thinned(100)
    for served in (0.0, 1e12):
        first, again, other = (few.allocate(loss=2.1, served_tokens=served, seed=s).draws for s in (0, 0, 1))
        xr.testing.assert_equal(first, again)
        assert (first["params"] != other["params"]).any()


def test_served_runs_have_a_discrepancy_of_their_seed(full_fit):
    """Searched for about the same runs, whatever the seed of the search before."""
    few = full_fit.thinned(100)
    trained = {
        name: np.full(100, value) for name, value in (("params", 3e9), ("tokens", 6e10), ("loss", 2.1))
    }
    one, other = (_served(few, 2.1, trained, 1e12, seed)["params"] for seed in (0, 1))
    assert (one != other).any()


def test_the_path_to_a_loss_meets_the_closed_form(law_only_fit, monkeypatch):
    few = law_only_fit.thinned(200)
    exact = few.allocate(loss=[2.0, 2.6]).summary().set_index(["budget", "quantity"])["median"]
    monkeypatch.setattr("bayescale.reaching.has_closed_form", lambda fit: False)
    along = few.allocate(loss=[2.0, 2.6]).summary().set_index(["budget", "quantity"])["median"]
    for quantity in ("compute", "params", "tokens", "tokens_per_param"):
        for budget in (0, 1):  # draws share a path, and loss is flat across it
            assert along[budget, quantity] == pytest.approx(exact[budget, quantity], rel=0.1)


def test_a_loss_that_rises_on_the_way_is_reached_where_it_was_first(full_fit, monkeypatch):
    """From 4 nats to 1, with a hill half way that rises above 2 again once that is reached."""

    def hilly(fit, path, rng):
        at = np.linspace(0, 1, path.shape[1])
        loss = np.interp(at, [0, 0.4, 0.5, 0.6, 1], [4, 1.9, 2.3, 1.9, 1])
        return np.tile(loss, (2, 1))

    monkeypatch.setattr("bayescale.reaching.expected_loss", hilly)
    log_compute, _ = _along_path(full_fit, 2.0, seed=0)
    begins, ends = np.log(full_fit.table.column("compute").min()) + np.log([1e-6, 1e12])
    np.testing.assert_allclose(log_compute, begins + (ends - begins) * 0.4 * 2 / 2.1, rtol=1e-3)


def test_tokens_per_param_are_searched_over_the_range_that_is_stated(full_fit):
    centre = full_fit.model.centre
    n, d = ratio_grid(full_fit, np.log(1e21))
    ratio = centre["D"] * np.exp(d) / (centre["N"] * np.exp(n))
    np.testing.assert_allclose(ratio[[0, -1]], RATIO_RANGE)
    compute = full_fit.table.meta.flops_per_param_token * centre["N"] * centre["D"] * np.exp(n + d)
    np.testing.assert_allclose(compute, 1e21)


@pytest.mark.parametrize("share", [0.01, 0.03])
@pytest.mark.parametrize("edge", RATIO_RANGE)
def test_optima_at_either_edge_of_the_search_are_said_from_1_percent_on(share, edge):
    ratio = np.full((100, 1), 20.0)
    ratio[: round(100 * share)] = edge * 1.1 ** np.sign(20 - edge)
    said = _at_edge(xr.Dataset({"tokens_per_param": (("sample", "budget"), ratio)}))
    assert said == (["3% of the posterior has its optimum at the edge of the search"] if share > 0.01 else [])


def test_deadweight_is_that_of_the_median_allocation_in_the_same_worlds(full_fit):
    few = full_fit.thinned(300)
    draws = few.allocate(compute=1e22, seed=4).draws
    params = float(draws["params"].median())
    wasted = draws["deadweight"].values[:, 0]
    np.testing.assert_allclose(wasted, deadweight(few, 1e22, params, seed=4))
    assert (wasted != deadweight(few, 1e22, params, seed=5)).any()


def test_quantities_of_an_allocation_have_their_units(law_only_fit):
    few = law_only_fit.thinned(50)
    units = few.allocate(compute=1e22).summary().set_index("quantity")["unit"].to_dict()
    assert units == {
        "params": "params", "tokens": "tokens", "compute": "FLOP", "loss": "nats/token", "deadweight": "FLOP",
        "tokens_per_param": "",
    }  # fmt: skip
    served = few.allocate(loss=2.2, served_tokens=1e12).summary().set_index("quantity")["unit"]
    assert served["lifetime_compute"] == "FLOP"


def test_an_allocation_a_fifth_of_a_decade_beyond_the_table_says_so(law_only_fit):
    least = law_only_fit.table.column("compute").min()
    (said,) = (w for w in law_only_fit.allocate(compute=least / 10**0.2).warnings if "range" in w)
    assert "compute 0.2" in said


@pytest.mark.parametrize("asked", [0.0, -1.0, np.inf, np.nan, [], [1e20, 0.0], [[1e20]]])
def test_what_is_asked_for_is_a_positive_number(asked):
    with pytest.raises(FitError, match="expected positive numbers"):
        positive_numbers(asked, "compute")


def test_nothing_is_asked_thirty_decades_beyond_a_table(law_only_fit):
    seen = np.array([1e6, 1e9])
    np.testing.assert_allclose(outside_range("x", seen, np.array([1e38, 1e-23])), 29)
    for far in (1e40, 1e-25):
        with pytest.raises(FitError, match=r"31 decades outside the table's 1e\+06 to 1e\+09; .* at most 30"):
            outside_range("x", seen, np.array([1e7, far]))
    most = law_only_fit.table.column("compute").max()
    with pytest.raises(FitError, match=r"compute: .* 31 decades outside"):
        law_only_fit.allocate(compute=[1e21, most * 1e31])


def test_compute_that_is_not_of_these_params_and_tokens_is_refused_either_way(law_only_fit):
    inputs = {"params": 1e9, "tokens": 2e10}
    for times in (2.9, 1 / 2.9):
        law_only_fit.forecast(**inputs, compute=times * 1.2e20)
    for times in (3.1, 1 / 3.1):
        with pytest.raises(FitError, match=f"compute is {times:.3g} times 6 x params x tokens"):
            law_only_fit.forecast(**inputs, compute=[1.2e20, times * 1.2e20])


def test_one_target_outside_the_table_among_others_is_told(law_only_fit):
    most = law_only_fit.table.column("params").max()
    made = law_only_fit.forecast(params=[1e9, 10 * most], tokens=2e10)
    assert any(w == "1.0 decades outside the table's range: params" for w in made.warnings)


def test_saved_fits_come_back_whole(full_fit, tmp_path):
    full_fit.save(tmp_path / "fit.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["fit.nc"]
    again = bs.load_fit(tmp_path / "fit.nc")
    xr.testing.assert_equal(again.draws, full_fit.draws)
    assert again.diagnostics == full_fit.diagnostics
    assert again.evidence == full_fit.evidence
    assert again.priors == full_fit.priors
    assert again.law == full_fit.law
    assert again.table.meta == full_fit.table.meta
    one, two = (f.forecast(params=2e9, tokens=4e10).summary() for f in (full_fit, again))
    assert one.equals(two)
    point = again.posterior["unconstrained_posterior"]["z"].values.reshape(-1, again.model.size)
    np.testing.assert_allclose(
        again.model.point_at(point[:5]).values["E"], again.draws["E"].values.ravel()[:5]
    )


def test_a_saved_fit_keeps_priors_of_noise_groups_and_missing_numbers(tmp_path):
    table = simulated_table(rows=24)
    table.frame["family"] = np.arange(24) % 3
    table.frame["unique_tokens"] = np.where(np.arange(24) % 2, 1e9, np.nan)
    fit = bs.fit(
        table, discrepancy=False, group_effect="family", method="fast",
        priors={"noise_sd": "LogNormal(0.02, 0.5)", "E": "LogNormal(1.7, 0.1)"},
    )  # fmt: skip
    fit.save(tmp_path / "fit.nc")
    again = bs.load_fit(tmp_path / "fit.nc")
    assert again.priors == fit.priors
    assert again.model.scale_priors == fit.model.scale_priors
    np.testing.assert_array_equal(again.model.group, fit.model.group)
    np.testing.assert_array_equal(again.table.frame["unique_tokens"], table.frame["unique_tokens"])
    np.testing.assert_array_equal(again.parameters["group_offsets"], fit.parameters["group_offsets"])
    one, two = (f.thinned(100).parameters["E"] for f in (fit, again))
    np.testing.assert_array_equal(one, two)
    assert one[-1] in fit.parameters["E"][-100:]  # evenly spaced, to the end


def test_a_saved_fit_of_nuts_keeps_its_whitened_coordinates_and_its_samplers_record(tmp_path):
    """Points about the mode stand for draws: what is saved is told apart from how it was sampled."""
    fast = bs.fit(simulated_table(rows=24), "kaplan-floor", discrepancy=False, method="fast", draws=50)
    model = prepare(make_model(fast.table, fast.law, discrepancy=False), 0)
    assert isinstance(model.coordinates, Whitened)
    rng = np.random.default_rng(0)
    start = np.append(model.start, [np.log(0.003), np.log(5.0)])
    z = start + 0.3 * rng.standard_normal((2, 50, model.size))
    stats = {"diverging": rng.random((2, 50)) < 0.1, "n_steps": rng.integers(1, 8, (2, 50))}
    fit = replace(
        fast, model=model, z=z, sample_stats=stats, evidence=None, options=fast.options | {"method": "nuts"}
    )
    fit.save(tmp_path / "fit.nc")
    again = bs.load_fit(tmp_path / "fit.nc")
    far = {"params": [1e9, 1e12], "tokens": [2e10, 2e13]}
    np.testing.assert_array_equal(again.forecast(**far).loss, fit.forecast(**far).loss)
    assert again.sample_stats.keys() == stats.keys()
    for name, values in stats.items():
        np.testing.assert_array_equal(again.sample_stats[name], values)


def test_damaged_and_foreign_files_are_errors(full_fit, tmp_path):
    path = tmp_path / "fit.nc"
    full_fit.save(path)
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 100):
        (tmp_path / "cut.nc").write_bytes(whole[:size])
        with pytest.raises(FitError, match="truncated"):
            bs.load_fit(tmp_path / "cut.nc")
    (tmp_path / "text.nc").write_text("not a fit")
    with pytest.raises(FitError, match="not a complete NetCDF"):
        bs.load_fit(tmp_path / "text.nc")
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(FitError, match="not a bayescale fit"):
        bs.load_fit(tmp_path / "other.nc")
    with pytest.raises(FitError, match="no such file"):
        bs.load_fit(tmp_path / "absent.nc")


def test_fit_from_a_later_format_names_both_versions(full_fit, tmp_path, monkeypatch):
    monkeypatch.setattr("bayescale.fitfile._FORMAT", 99)
    full_fit.save(tmp_path / "later.nc")
    monkeypatch.undo()
    with pytest.raises(FitError, match=r"written in fit format 99, this bayescale .* reads format \d+"):
        bs.load_fit(tmp_path / "later.nc")


def test_failed_diagnostics_mark_every_output():
    fit = bs.fit(simulated_table(rows=15), discrepancy=False, method="fast", draws=15)
    assert not fit.diagnostics.passed
    assert any("effective sample size" in f for f in fit.diagnostics.failures)
    outputs = (fit.forecast(params=1e9, tokens=2e10), fit.allocate(compute=1e20))
    assert all(any("do not rely on this fit" in w for w in o.warnings) for o in outputs)


@pytest.mark.parametrize(
    ("passing", "failing", "reason"),
    [
        ({"k_hat": 0.699}, {"k_hat": 0.7}, "k-hat of the importance weights is 0.70, not below 0.7"),
        ({"k_hat": 0.1}, {"k_hat": np.nan}, "k-hat"),
        ({"memory": 0.299}, {"memory": 0.3}, "a correlation of 0.30 is left, not below 0.3"),
        ({"memory": 0.1}, {"memory": np.nan}, "chains have not forgotten"),
        ({"drift": 0.099}, {"drift": 0.1}, "moved by 0.10 sd beyond its error, not below 0.1"),
        ({"max_rhat": 1.009}, {"max_rhat": 1.01, "worst_rhat": "E"}, "R-hat of E is 1.010, not below 1.01"),
        ({"min_ess": 201}, {"min_ess": 200}, "effective sample size is 200, not above 200"),
        ({"method": "nuts", "min_ess": 401}, {"method": "nuts", "min_ess": 400}, "is 400, not above 400"),
        ({}, {"divergences": 1}, "1 divergent transitions"),
        ({}, {"unvisited_modes": 1}, "1 other mode(s) that no chain visited"),
    ],
)
def test_gates_are_where_they_are_said_to_be(passing, failing, reason):
    sound = {"method": "fast", "min_ess": 1000.0}
    assert Diagnostics(**sound | passing).failures == []
    (found,) = Diagnostics(**sound | failing).failures
    assert reason in found
    assert not Diagnostics(**sound | failing).passed


def test_diagnostics_of_nuts_are_the_worst_of_all_parameters():
    rng = np.random.default_rng(0)
    good, other = rng.standard_normal((2, 4, 500))
    apart = other + np.array([0.0, 0.0, 0.0, 0.2])[:, None]
    tails = good * np.where(np.arange(500) < 250, 0.3, 1.0)  # visited in the later half alone
    draws = {"good": good, "vector": np.stack([good, tails, other], axis=-1), "apart": apart}
    diverging = np.zeros((4, 500), bool)
    diverging[1, :3] = True
    found = diagnose(draws, diverging, unvisited_modes=2)
    of = {"chain_axis": 0, "draw_axis": 1}
    ess = [float(array_stats.ess(tails, method=m, prob=p, **of)) for m, p in (("bulk", None), ("tail", 0.9))]
    assert (found.worst_rhat, found.worst_ess) == ("vector", "vector")
    assert found.max_rhat == pytest.approx(float(array_stats.rhat(tails, **of)))
    assert found.min_ess == pytest.approx(ess[1])
    assert ess[1] < ess[0] / 10
    assert (found.divergences, found.unvisited_modes) == (3, 2)
    stuck = diagnose({"good": good, "stuck": np.full((4, 500), np.nan)}, diverging)
    assert (stuck.worst_rhat, stuck.worst_ess) == ("stuck", "stuck")
    assert len(stuck.failures) == 3


def test_printed_results_are_short_and_tell_what_not_to_rely_on(law_only_fit):
    assert repr(law_only_fit) == "<Fit of chinchilla alone to chinchilla, 240 runs>"
    forecast = law_only_fit.forecast(params=np.geomspace(1e9, 1e12, 12), tokens=1.4e12)
    assert len(repr(forecast).splitlines()) < 20
    for words in (
        "and 2 more targets",
        "nats/token",
        "no discrepancy",
        f"({np.quantile(forecast.loss[..., 0], 0.05):.4f}",
    ):
        assert words in repr(forecast)
    failed = replace(law_only_fit, diagnostics=replace(law_only_fit.diagnostics, divergences=3))
    assert "do not rely on it: 3 divergent transitions" in repr(failed)
    assert "do not rely" in repr(failed.forecast(params=1e9, tokens=2e10))
    compared = bs.compare(
        [failed, bs.fit(failed.table, "kaplan", discrepancy=False, method="fast")], sensitivity=False
    )
    assert "do not rely on chinchilla" in repr(compared)
    assert "probabilities chinchilla 1" in repr(compared)
    assert "240 runs of params" in repr(failed.table)


def test_what_is_made_of_fits_and_tables_prints_as_a_line(law_only_fit):
    pointed = repr(bs.point_fit(law_only_fit.table, starts=2, bootstrap=3))
    assert pointed.startswith("<PointFit of chinchilla to 240 runs, 3 bootstrap refits: ")
    allocated = repr(law_only_fit.allocate(compute=[1e21, 1e23]))
    assert allocated.startswith("<Allocation, medians of the first of 2 budget(s): compute 1e+21, params ")
    planned = bs.plan(law_only_fit, "E", 1e21)
    assert (
        repr(planned) == f"<Plan of {len(planned.runs)} runs for {planned.cost:.3g} FLOP; {planned.headline}>"
    )
    failed = repr(replace(planned, failed=["chinchilla"]))
    assert failed.endswith("; do not rely on it, or on chinchilla>")
    tested = repr(bs.backtest(law_only_fit.table, factors=[3], methods=["huber-bootstrap"]))
    assert tested.startswith("<Backtest on chinchilla: 1 split(s), ")
    for shown in (pointed, allocated, repr(planned), tested):
        assert len(shown) < 300
        assert "\n" not in shown


def test_collinear_table_leaves_exponents_to_their_priors():
    apart = {"beta": "LogNormal(0.4, 0.35)"}
    fit = bs.fit(bs.load("cerebras-gpt"), priors=apart, discrepancy=False, seed=1)
    spread = fit.summary()["sd"]
    prior_sd = 0.4 * np.sqrt(np.expm1(0.35**2))
    assert spread["alpha"] > 0.4 * prior_sd
    assert spread["beta"] > 0.4 * prior_sd


def test_a_law_without_level_and_slopes_recovers_its_floor_and_the_groups_offsets():
    """A floor well below its prior's median of 1.5, and four runs in a group for each of ten groups."""
    table, group = simulated_table(rows=40), np.arange(40) % 10
    rng = np.random.default_rng(2)
    offsets = 0.02 * rng.standard_normal(10)
    n, d = table.column("params"), table.column("tokens")
    loss = 1.1 + ((2e8 / n) ** (0.36 / 0.33) + 3e9 / d) ** 0.33
    loss = loss * np.exp(offsets[group] + 0.002 * rng.standard_normal(40))
    frame = table.frame.assign(loss=loss, family=group)
    fit = bs.fit(
        replace(table, frame=frame), "kaplan-floor", discrepancy=False, group_effect="family", method="fast"
    )
    assert fit.diagnostics.passed, fit.diagnostics.failures
    found = fit.summary().loc["E"]
    assert abs(found["mean"] - 1.1) < 3 * found["sd"] < 0.3
    drawn = fit.parameters["group_sd"][:, None] * fit.parameters["group_offsets"]
    apart, truth = drawn - drawn.mean(axis=1, keepdims=True), offsets - offsets.mean()
    assert (np.abs(apart.mean(axis=0) - truth) < 4 * apart.std(axis=0)).all()
    assert apart.std(axis=0).max() < offsets.std() / 4


def test_users_formula_with_its_own_prior():
    table = simulated_table(rows=40)
    fit = bs.fit(table, "L0 + a*N**-p + b*D**-q", priors={"L0": "LogNormal(1.8, 0.01)"}, discrepancy=False)
    assert fit.diagnostics.passed, fit.diagnostics.failures
    assert fit.summary()["sd"]["L0"] < 0.02


def test_prior_predictive_covers_plausible_losses_and_not_the_data():
    tree = bs.prior_predictive(bs.load("cerebras-gpt"), discrepancy=False, draws=500)
    loss = tree["prior_predictive"]["loss"]
    assert loss.sizes["run"] == 7
    low, high = np.quantile(loss, [0.05, 0.95])
    assert 0.8 < low < 2
    assert 3 < high < 8


def test_the_tables_floor_prior_yields_to_one_that_is_given():
    table = simulated_table(rows=12)
    told = bs.RunTable(table.frame, table.meta.model_copy(update={"floor_prior": "LogNormal(0.5, 0.01)"}))

    def floor(**given):
        tree = bs.prior_predictive(told, discrepancy=False, draws=200, **given)
        return float(np.median(tree["prior"]["E"]))

    assert floor() == pytest.approx(0.5, rel=0.01)
    assert floor(priors={"E": "LogNormal(3, 0.01)"}) == pytest.approx(3, rel=0.01)


def test_the_tables_own_priors_are_for_laws_with_a_floor():
    table = simulated_table(rows=12)
    priors = {"A": "LogNormal(0.1, 1.4)", "B": "LogNormal(0.1, 1.4)", "alpha": "LogNormal(0.5, 0.3)"}
    own = bs.RunTable(table.frame, table.meta.model_copy(update={"priors": priors}))
    law = law_for(own, "chinchilla", {"A": "LogNormal(2, 1)"})
    assert [str(law.parameter(n).prior) for n in "AB"] == ["LogNormal(2, 1)", "LogNormal(0.1, 1.4)"]
    assert str(law_for(own, "chinchilla-shared", None).parameter("alpha").prior) == "LogNormal(0.5, 0.3)"
    assert law_for(own, "kaplan", None) == law_for(table, "kaplan", None)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"noise": "cauchy"}, "noise 'cauchy' is unknown"),
        ({"group_effect": "lab"}, "no column 'lab' to group by"),
        ({"draws": 0}, "draws is 0"),
        ({"method": "smc"}, "method 'smc' is unknown"),
        ({"law": "power-compute-floor", "priors": {"B": "LogNormal(1, 1)"}}, "no parameter 'B'"),
        ({"law": "E + A*U**-a"}, "no column 'unique_tokens'"),
    ],
)
def test_impossible_options_are_errors_before_any_sampling(options, match):
    with pytest.raises(bs.BayescaleError, match=match):
        bs.fit(bs.load("chinchilla"), **options)


@pytest.mark.parametrize("rows", [1, 2])
def test_one_row_cannot_be_fitted_nor_two(rows):
    with pytest.raises(FitError, match=rf"has {rows} run\(s\); a law needs at least 3"):
        bs.fit(simulated_table(rows=rows))


def test_inputs_of_a_law_are_positive_and_within_reason():
    table = simulated_table(rows=12)
    law = "E + A*N**-a + B*streams**-b"
    for streams, match in (
        ([1.0] * 11 + [0.0], r"column 'streams', run 12: found 0; .* needs positive inputs"),
        (np.geomspace(1, 1e31, 12), "runs span 31 decades, 1 to 1e\\+31; expected at most 30"),
    ):
        wrong = replace(table, frame=table.frame.assign(streams=streams))
        with pytest.raises(bs.BayescaleError, match=match):
            bs.fit(wrong, law)


def test_a_fit_travels_after_it_was_used(law_only_fit):
    before = law_only_fit.forecast(params=1e9, tokens=2e10)
    again = pickle.loads(pickle.dumps(law_only_fit))
    np.testing.assert_array_equal(again.forecast(params=1e9, tokens=2e10).loss, before.loss)


def test_numbers_of_numpy_are_numbers(tmp_path):
    table = simulated_table(rows=20)
    how = {"seed": np.int64(3), "draws": np.int64(100), "discrepancy": np.bool_(False)}
    bs.fit(table, method="fast", **how).save(tmp_path / "fit.nc")
    assert bs.load_fit(tmp_path / "fit.nc").options["seed"] == 3


def test_columns_and_labels_of_any_name_are_saved(tmp_path):
    table = simulated_table(rows=20)
    labels = np.array(["", "b", None, "=d"] * 5, object)
    table.frame["train/loss"], table.frame["run"], table.frame["note"] = 1.5, np.arange(20) % 4, labels
    fit = bs.fit(table, discrepancy=False, method="fast", group_effect="run")
    fit.save(tmp_path / "fit.nc")
    again = bs.load_fit(tmp_path / "fit.nc")
    assert list(again.table.frame) == list(table.frame)
    assert again.table.frame["note"].fillna("missing").tolist() == ["", "b", "missing", "=d"] * 5
    np.testing.assert_array_equal(again.table.frame["run"], table.frame["run"])


@pytest.mark.parametrize("law", ["chinchilla", BUILTIN["chinchilla"].with_constants({"E": 1.7})])
def test_a_floor_stays_one_with_any_prior_or_held(law):
    priors = {"E": "Normal(1.7, 0.1)"} if law == "chinchilla" else {}
    fit = bs.fit(simulated_table(rows=30), law, priors=priors, method="fast")
    floor = fit.parameters["E"] if priors else np.full(fit.parameters["alpha"].shape, 1.7)
    far = np.asarray(fit.forecast(params=[1e15], tokens=[1e15]).expected_loss)[..., 0]
    assert (far > floor.reshape(far.shape)).all()
    assert np.median(far) < 1.9


@pytest.mark.parametrize("inputs", [{"params": [], "tokens": []}, {"params": [[1e9]], "tokens": 1e10}])
def test_no_target_and_tables_of_targets_are_errors(law_only_fit, inputs):
    with pytest.raises(FitError, match="expected one or more numbers"):
        law_only_fit.forecast(**inputs)
    with pytest.raises(FitError, match="expected positive numbers"):
        law_only_fit.allocate(compute=inputs["params"])


@pytest.mark.parametrize("prior", ["Normal(0, 0.02)", "LogNormal(alpha, 1)"])
def test_priors_of_scales_are_positive_and_about_numbers(prior):
    with pytest.raises(FitError, match=r"prior .* of 'noise_sd', which is a positive scale"):
        bs.fit(simulated_table(rows=12), priors={"noise_sd": prior}, method="fast")


def test_what_is_no_table_and_no_number_is_told(law_only_fit):
    frame = simulated_table(rows=12).frame
    for use in (bs.fit, bs.check, bs.point_fit, bs.backtest):
        with pytest.raises(TableError, match="table: found a DataFrame; expected a RunTable"):
            use(frame)
    with pytest.raises(TableError, match="table: found a DataFrame; expected the name"):
        bs.load(frame)
    with pytest.raises(FitError, match="input 'params': found '70B'; expected one or more numbers"):
        law_only_fit.forecast(params="70B", tokens=1.4e12)
    with pytest.raises(FitError, match="known_noise is -1"):
        law_only_fit.forecast(params=70e9, tokens=1.4e12, known_noise=-1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda fit: bs.fit(fit.table, law=None), "law: found a NoneType; expected a built-in law's name"),
        (lambda fit: bs.fit(fit.table, seed=None), "seed is None; expected a whole number, at least 0"),
        (lambda fit: bs.fit(fit.table, seed=1.5), "seed is 1.5; expected a whole number"),
        (lambda fit: bs.fit(fit.table, draws="100"), "draws is '100'; expected a whole number"),
        (lambda fit: bs.fit(fit.table, discrepancy="no"), "discrepancy is 'no'; expected True or False"),
        (lambda fit: bs.compare(fit.table.frame), "found a str; expected a table or fits"),
        (lambda fit: bs.compare(fit.table, laws=["chinchilla", None]), "law: found a NoneType"),
        (lambda fit: bs.forecast(fit.table, params=1e9, tokens=2e10), "found a RunTable; expected a fit"),
        (lambda fit: bs.forecast(fit, params=1e9, tokens=2e10, known_noise="a"), "known_noise: found 'a'"),
        (lambda fit: bs.allocate(fit.table, compute=1e21), "found a RunTable; expected a fit"),
        (lambda fit: bs.allocate(fit, compute="1e21 FLOP"), "found '1e21 FLOP'; expected positive numbers"),
        (lambda fit: bs.allocate(fit, loss=2.2, served_tokens="1T"), "served_tokens is '1T'; expected"),
        (lambda fit: bs.plan(fit.table, "E", 1e20), "found a RunTable; expected a fit or a comparison"),
        (lambda fit: bs.plan(fit, "E", "1e20"), "budget is '1e20' FLOP; expected a positive number"),
        (lambda fit: bs.plan(fit, {"params": 1e9}, 1e20), "target: found a dict; expected text"),
        (lambda fit: bs.plan_between(fit, 1e20), "found a Fit; expected a comparison"),
        (lambda fit: bs.report(fit.table), "found a RunTable; expected a fit"),
        (lambda fit: bs.lack_of_fit(fit.table), "found a RunTable; expected a fit"),
        (lambda fit: bs.make_table(fit.table.frame, {"name": "x"}), "meta: found a dict; expected a Tab"),
        (lambda fit: bs.write_runs(fit, "runs.csv"), "table: found a Fit; expected a RunTable"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_told(law_only_fit, asked, message):
    with pytest.raises(bs.BayescaleError, match=message):
        asked(law_only_fit)


@pytest.mark.parametrize(
    ("priors", "match"),
    [
        ({"E": 1.8}, "found 1.8 for 'E'"),
        ({"noise_sd": 1}, "found 1 for 'noise_sd'"),
        ("E=1.8", "found 'E=1.8'"),
    ],
)
def test_what_is_no_prior_is_told(priors, match):
    with pytest.raises(LawError, match=f"priors: {match}; expected .*LogNormal"):
        bs.fit(simulated_table(rows=12), priors=priors)


def test_no_more_draws_are_effective_than_are_kept():
    few = bs.fit(simulated_table(rows=30), discrepancy=False, method="fast", draws=10)
    assert few.diagnostics.min_ess == few.z[..., 0].size == 40
    assert not few.diagnostics.passed
    with pytest.raises(FitError, match="draws is 9; expected a whole number, at least 10"):
        bs.fit(simulated_table(rows=30), draws=9)


@pytest.mark.parametrize(
    ("priors", "said"),
    [
        ({"E": "LogNormal(1.8, 1e-9)"}, "into the law's formula"),
        ({"E": "Normal(-5, 0.1)"}, "no posterior mode"),
        ({"group_sd": "LogNormal(0.01, 1)"}, "no runs share an offset"),
    ],
)
def test_priors_that_cannot_be_used_are_told(priors, said):
    with pytest.raises(FitError, match=said):
        bs.fit(simulated_table(), priors=priors, method="fast")


def test_an_input_that_the_law_has_no_place_for_is_refused(law_only_fit):
    """It was named in the forecast, which was that without it."""
    with pytest.raises(FitError, match="'unique_tokens' has no place in law 'chinchilla'"):
        law_only_fit.forecast(params=7e9, tokens=1.4e11, unique_tokens=1e9)


def test_a_prior_of_an_amplitude_as_papers_print_it_is_refused():
    table = simulated_table(rows=20)
    with pytest.raises(
        FitError, match=r"'A': it is of the loss that the term adds at .* and not of A as pap"
    ):
        bs.fit(table, priors={"A": "LogNormal(406.4, 0.5)"}, discrepancy=False, method="fast")
    with pytest.raises(FitError, match="'A': it is of the loss"):
        bs.fit(table, "A*N**-a", priors={"A": "LogNormal(406.4, 0.5)"}, discrepancy=False, method="fast")


def test_a_laws_own_priors_are_kept_where_a_table_states_others():
    table = simulated_table(rows=20)
    stated = bs.RunTable(table.frame, table.meta.model_copy(update={"priors": {"A": "LogNormal(0.1, 1.4)"}}))
    how = {"discrepancy": False, "method": "fast", "draws": 50}
    mine = BUILTIN["chinchilla"].with_priors({"A": "LogNormal(0.3, 0.1)"})
    for law, prior in (
        (mine, "LogNormal(0.3, 0.1)"),
        (BUILTIN["chinchilla"], "LogNormal(0.1, 1.4)"),
        ("E + A*N**-a", "LogNormal(0.1, 1.4)"),
        (law_from_formula("E + A*N**-a"), "LogNormal(0.1, 1.4)"),
        (law_from_formula("E + A*N**-a", priors={"A": "LogNormal(0.3, 0.1)"}), "LogNormal(0.3, 0.1)"),
    ):
        fit = bs.fit(stated, law, **how)
        assert str(fit.law.parameter("A").prior) == prior
        assert str(bs.fit(stated, fit.law, **how).law.parameter("A").prior) == prior


def test_inputs_that_all_runs_share_are_told():
    table = simulated_table(rows=20)
    same = bs.make_table(table.frame[["tokens", "loss"]].assign(params=1e8))
    (said,) = (w for w in bs.fit(same, discrepancy=False, method="fast").warnings if "all runs have" in w)
    assert said == "all runs have params 1e+08: how loss changes with it is told by priors alone"
    assert not any("all runs" in w for w in bs.fit(table, discrepancy=False, method="fast").warnings)


def test_a_value_missing_in_a_laws_input_is_named_by_its_row():
    frame = simulated_table(rows=20).frame[["params", "tokens", "loss"]]
    missing = frame.assign(width=[1.0] * 7 + [None] + [2.0] * 12)
    table = bs.make_table(missing, where="mine.csv", rows=range(2, 22))
    with pytest.raises(
        bs.BayescaleError, match="row 9, column 'width': the value is missing; expected a num"
    ):
        bs.fit(table, "E + A*params**-a + B*width**-b", discrepancy=False, method="fast")
