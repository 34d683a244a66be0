"""Compute as a table counts it: told from its runs, inverted, and the same in all that is made of a fit."""

import json

import numpy as np
import pytest

import bayescale as bs
from bayescale.counting import Counting, counting_of
from tests.conftest import simulated_table
from tests.test_cli import run


@pytest.fixture(scope="module")
def attentive() -> bs.RunTable:
    """A table whose larger models take more compute per param and token."""
    table = simulated_table(rows=60)
    n, d = table.column("params"), table.column("tokens")
    return bs.RunTable(table.frame.assign(compute=3.1 * n**1.04 * d), table.meta)


@pytest.fixture(scope="module")
def fit(attentive) -> bs.Fit:
    return bs.fit(attentive, discrepancy=False, method="fast", draws=100)


def test_k_is_a_power_of_params_among_the_sizes_and_constant_beyond(attentive):
    n = attentive.column("params")
    counting = attentive.counting
    np.testing.assert_allclose(counting.compute(n, 7.0), 3.1 * n**1.04 * 7.0)
    assert counting.per_param_token(100 * n.max()) == pytest.approx(3.1 * n.max() ** 0.04)
    assert counting.per_param_token(n.min() / 100) == pytest.approx(3.1 * n.min() ** 0.04)


@pytest.mark.parametrize("slope", [-0.1, 0.0, 0.05])
def test_what_a_compute_buys_costs_that_compute(slope):
    counting = Counting(8.0, slope, (1e8, 1e10))
    params = np.geomspace(1e6, 1e12, 13)
    compute = counting.compute(params, 20 * params)
    np.testing.assert_allclose(counting.tokens(compute, params), 20 * params)
    np.testing.assert_allclose(counting.params(compute, tokens=20 * params), params)
    np.testing.assert_allclose(counting.params(compute, tokens_per_param=20.0), params)


def test_a_table_has_one_k_where_its_runs_differ_by_up_to_a_tenth():
    n, d = np.geomspace(1e6, 1e9, 4), np.full(4, 1e9)
    one = counting_of(n, d, np.array([6.0, 6.2, 6.3, 6.5]) * n * d)
    assert (one.k, one.slope, one.warnings) == (pytest.approx(6.25), 0.0, [])
    assert str(one) == "6.25 x params x tokens"
    several = counting_of(n, d, np.array([6.0, 6.2, 6.5, 6.7]) * n * d)
    assert several.slope > 0
    assert "6 to 6.7 times params x tokens in the table's runs (median 6.35)" in several.warnings[0]
    assert "from 1e+06 to 1e+09 params, and beyond as there" in several.warnings[0]
    same_size = counting_of(np.full(4, 1e8), d, np.array([5.0, 6, 7, 8]) * 1e8 * d)
    assert same_size.compute(1e9, 2.0) == pytest.approx((5 * 6 * 7 * 8) ** 0.25 * 2e9)


def test_without_compute_of_its_own_a_table_counts_as_it_states():
    raw = simulated_table().frame[["params", "tokens", "loss"]]
    table = bs.make_table(raw, bs.TableMeta(flops_per_param_token=2.5))
    assert table.counting.k == pytest.approx(2.5)
    assert not table.counting.warnings
    without = bs.RunTable(table.frame.drop(columns="compute"), table.meta)
    assert without.counting.compute(1e9, 2e10) == 2.5 * 1e9 * 2e10


def test_forecasts_and_allocations_count_as_the_table_does(attentive, fit):
    k = attentive.counting.per_param_token
    assert fit.forecast(params=1e9, tokens=2e10).inputs["compute"][0] == pytest.approx(k(1e9) * 2e19)
    given = fit.forecast(params=1e9, tokens=2e10, compute=2e20)
    assert given.inputs["compute"][0] == 2e20
    for asked in ({"compute": 1e21}, {"loss": 2.3}, {"loss": 2.3, "served_tokens": 1e11}):
        found = fit.allocate(**asked)
        of = {name: values.values for name, values in found.draws.items()}
        np.testing.assert_allclose(of["compute"], k(of["params"]) * of["params"] * of["tokens"])
        assert attentive.counting.warnings[0] in found.warnings
        served = asked.get("served_tokens", 0.0)
        if served:
            lifetime = k(of["params"]) * of["params"] * (of["tokens"] + served / 3)
            np.testing.assert_allclose(of["lifetime_compute"], lifetime)


def test_the_optimum_is_that_of_compute_as_counted(attentive, fit):
    found = fit.allocate(compute=1e21).draws.isel(budget=0)
    of = {name: float(values[0]) for name, values in fit.parameters.items() if values.ndim == 1}
    params = float(found["params"][0]) * np.geomspace(0.8, 1.25, 201)
    tokens = attentive.counting.tokens(1e21, params)
    loss = of["E"] + of["A"] * params ** -of["alpha"] + of["B"] * tokens ** -of["beta"]
    assert abs(int(loss.argmin()) - 100) <= 2  # a parabola through a grid of tokens per parameter
    waste = found["deadweight"].values
    assert waste.min() >= 0
    assert np.median(waste) < 1e20  # the median allocation is near each draw's own


def test_a_law_in_compute_is_forecast_where_the_tables_own_runs_lie():
    table = bs.load("cerebras-gpt")
    fit = bs.fit(table, "E + A*C**-a", discrepancy=False, method="fast", draws=100)
    dearest = table.frame.iloc[-1]
    found = fit.forecast(params=dearest.params, tokens=dearest.tokens)
    assert found.inputs["compute"][0] == pytest.approx(dearest.compute, rel=0.03)  # 6 N D is 13% less
    assert any("6.88 to 10.6 times" in w for w in found.warnings)
    told = fit.forecast(compute=dearest.compute)
    assert not any("times params x tokens" in w for w in told.warnings)


def test_plans_say_how_their_runs_are_counted_unless_the_runs_say_it(attentive, fit):
    target, warning = "params=1e10,tokens=2e11", attentive.counting.warnings[0]
    found = bs.plan(fit, target, 1e20)
    assert warning in found.warnings
    pool = found.candidates[["params", "tokens", "compute"]].head(6)
    assert warning not in bs.plan(fit, target, 1e20, candidates=pool).warnings


def test_commands_say_how_compute_is_counted(tmp_path, attentive):
    bs.fit(attentive, discrepancy=False, method="fast", draws=50).save(tmp_path / "own.nc")
    said = f"compute counted as {attentive.counting}"
    for command in (
        ["forecast", "own.nc", "--params", "1e9", "--tokens", "2e10"],
        ["allocate", "own.nc", "--compute", "1e21"],
        ["plan", "own.nc", "--target", "params=1e10,tokens=2e11", "--budget", "1e20"],
    ):
        assert said in run(*command, cwd=tmp_path).stdout
    given = run("forecast", "own.nc", "--params", "1e9", "--compute", "2e20", cwd=tmp_path)
    assert said not in given.stdout
    shown = run("allocate", "own.nc", "--compute", "1e21", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["compute_counted_as"] == str(attentive.counting)
