"""Runs that are to be served: the paper's printed example, exact minima draw by draw, and refusals."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import bayescale as bs
from bayescale.lifetime import _first_crossing
from tests.conftest import simulated_table

# Hoffmann et al.'s constants, with the exponents to three digits.
HOFFMANN = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.336, "beta": 0.283}


def test_a_13b_model_that_serves_2t_tokens_should_have_been_7b():
    """Figure 1 of arXiv:2401.00448: a 7B model of the same loss saves 1.7e22 FLOP, 17%."""
    table = simulated_table(noise_sd=3e-4, rows=300, constants=HOFFMANN)
    fit = bs.fit(table, discrepancy=False, method="fast")
    assert fit.diagnostics.passed
    c, served = HOFFMANN, 2e12
    params = 13e9  # and the tokens that make it compute-optimal
    tokens = (c["beta"] * c["B"] / (c["alpha"] * c["A"] * params ** -c["alpha"])) ** (1 / c["beta"])
    loss = c["E"] + c["A"] * params ** -c["alpha"] + c["B"] * tokens ** -c["beta"]
    allocation = fit.allocate(loss=loss, served_tokens=served)
    medians = allocation.summary().set_index("quantity")["median"]
    assert round(medians["params"] / 1e9) == 7
    cost = 6 * params * tokens + 2 * params * served
    assert cost - medians["lifetime_compute"] == pytest.approx(1.7e22, rel=0.03)
    assert 1 - medians["lifetime_compute"] / cost == pytest.approx(0.17, abs=0.01)


def test_each_draw_is_at_its_own_minimum(law_only_fit):
    loss, served = 2.0, 3e12
    allocation = law_only_fit.allocate(loss=loss, served_tokens=served)
    draws = law_only_fit.draws.stack(sample=("chain", "draw"))
    for sample in (0, 500, 1500):
        e, a, b, alpha, beta = (float(draws[n][sample]) for n in ("E", "A", "B", "alpha", "beta"))

        def cost(log_n, e=e, a=a, b=b, alpha=alpha, beta=beta):
            n = np.exp(log_n)
            rest = loss - e - a * n**-alpha
            return 6 * n * (rest / b) ** (-1 / beta) + 2 * n * served if rest > 0 else np.inf

        found = minimize_scalar(cost, bounds=(np.log(1e9), np.log(1e12)), method="bounded")
        best = {k: float(v) for k, v in allocation.draws.isel(sample=sample, budget=0).items()}
        assert best["lifetime_compute"] == pytest.approx(found.fun, rel=1e-3)
        assert np.log(best["params"]) == pytest.approx(found.x, abs=0.02)
        assert best["compute"] == pytest.approx(6 * best["params"] * best["tokens"])
        rest = loss - e - a * best["params"] ** -alpha
        assert best["tokens"] == pytest.approx((rest / b) ** (-1 / beta), rel=2e-3)


def test_serving_nothing_is_training_and_serving_more_is_smaller(full_fit):
    trained = full_fit.allocate(loss=2.2).summary().set_index("quantity")["median"]
    last = trained["params"] * 1.2  # the search along one path is a rougher optimum
    for served in (1e6, 1e12, 1e14):
        allocation = full_fit.allocate(loss=2.2, served_tokens=served)
        medians = allocation.summary().set_index("quantity")["median"]
        if served == 1e6:
            assert medians["lifetime_compute"] == pytest.approx(trained["compute"], rel=0.1)
        assert medians["params"] < last
        last = medians["params"]


def test_serving_needs_a_loss_to_reach(law_only_fit):
    with pytest.raises(bs.BayescaleError, match="need a loss to reach"):
        law_only_fit.allocate(compute=1e22, served_tokens=1e12)
    with pytest.raises(bs.BayescaleError, match="served_tokens is -1"):
        law_only_fit.allocate(loss=2.0, served_tokens=-1.0)
    beyond = law_only_fit.allocate(loss=1.5, served_tokens=1e12)
    assert np.isnan(beyond.draws["lifetime_compute"]).all()
    assert any("does not reach" in w for w in beyond.warnings)


def test_serving_costs_a_third_of_what_the_table_counts_for_training():
    table = simulated_table()
    params, tokens = table.column("params"), table.column("tokens")
    own = table.meta.model_copy(update={"flops_per_param_token": 2.5})
    table = bs.RunTable(table.frame.assign(compute=2.5 * params * tokens), own)
    fit = bs.fit(table, discrepancy=False, method="fast", draws=50)
    draws = fit.allocate(loss=2.2, served_tokens=1e12).draws
    np.testing.assert_allclose(draws["compute"], 2.5 * draws["params"] * draws["tokens"])
    served = 2.5 / 3 * draws["params"] * 1e12
    # Tokens are read off a line between points of the grid, the cost off a parabola.
    np.testing.assert_allclose(draws["lifetime_compute"], draws["compute"] + served, rtol=0.01)


def test_draws_whose_floor_is_above_the_loss_have_no_run_and_the_others_one(law_only_fit):
    fit = law_only_fit.thinned(600)
    floor = fit.parameters["E"]
    loss = float(np.median(floor)) + 0.02
    draws = fit.allocate(loss=loss, served_tokens=1e12).draws.isel(budget=0)
    for values in draws.values():
        assert np.isnan(values[floor >= loss]).all()
        assert np.isfinite(values[floor < loss - 0.04]).all()
    assert min((floor >= loss).sum(), (floor < loss - 0.04).sum()) > 20  # else nothing would be tested


def test_losses_cross_a_level_where_they_fall_to_it_or_never():
    grid = np.linspace(0.0, 6.0, 7)
    falling = 10 - grid
    rows = {
        "between two points": (falling, 7.5, 2.5),
        "at a point": (falling, 7.0, 3.0),
        "below it from the start": (falling, 10.0, np.nan),
        "never so low": (falling, 3.9, np.nan),
        "not known": (np.full(7, np.nan), 7.5, np.nan),
    }
    for what, (losses, level, expected) in rows.items():
        found = _first_crossing(losses[None, None], level, grid)
        np.testing.assert_allclose(found, [[expected]], err_msg=what)
