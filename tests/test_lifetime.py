"""Runs that are to be served: the paper's printed example, exact minima draw by draw, and refusals."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import bayescale as bs
from bayescale.lifetime import _first_crossing, _read_off
from tests.conftest import simulated_table

# Hoffmann et al.'s constants, with the exponents to three digits.
HOFFMANN = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.336, "beta": 0.283}


@pytest.fixture(scope="module")
def kaplan_fit() -> bs.Fit:
    return bs.fit(bs.load("chinchilla"), "kaplan-floor", discrepancy=False, method="fast", seed=1)


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


# Of each law, the fewest params that reach a reducible loss at some tokens, and the fewest tokens that can.
FEWEST = {
    "chinchilla": (
        lambda p, loss, d: ((loss - p["B"] * d ** -p["beta"]) / p["A"]) ** (-1 / p["alpha"]),
        lambda p, loss: (loss / p["B"]) ** (-1 / p["beta"]),
    ),
    "kaplan-floor": (
        lambda p, loss, d: p["N_c"] * (loss ** (1 / p["beta"]) - p["D_c"] / d) ** (-p["beta"] / p["alpha"]),
        lambda p, loss: p["D_c"] * loss ** (-1 / p["beta"]),
    ),
}


def cheapest(fit: bs.Fit, loss: float, served: float) -> np.ndarray:
    """Params, tokens and lifetime compute of each draw's minimum by its law's formula, shape (draw, 3)."""
    fewest_params, fewest_tokens = FEWEST[fit.law.name]
    found = []
    for draw in range(len(fit.parameters["E"])):
        p = {name: float(values[draw]) for name, values in fit.parameters.items()}

        def run(log_d, p=p):
            d = np.exp(log_d)
            n = fewest_params(p, loss - p["E"], d)
            return n, d, 6 * n * d + 2 * n * served

        fewest = np.log(fewest_tokens(p, loss - p["E"]))
        bounds = (fewest + 1e-6, np.log(served + np.exp(fewest + 6)))
        best = minimize_scalar(lambda x, run=run: np.log(run(x)[2]), bounds=bounds, method="bounded")
        found.append(run(best.x))
    return np.array(found)


@pytest.mark.parametrize("times", [1e-3, 1, 100, 1e4])
@pytest.mark.parametrize("law", FEWEST)
def test_each_draw_is_at_its_own_minimum_however_much_is_served(law_only_fit, kaplan_fit, law, times):
    fit, loss = {"chinchilla": law_only_fit, "kaplan-floor": kaplan_fit}[law].thinned(200), 2.3
    served = times * float(fit.allocate(loss=loss).draws["tokens"].median())
    allocation = fit.allocate(loss=loss, served_tokens=served)
    draws = allocation.draws.isel(budget=0)
    exact = cheapest(fit, loss, served)
    for values, name, within in zip(
        exact.T, ("params", "tokens", "lifetime_compute"), (0.005, 0.005, 5e-4), strict=True
    ):
        np.testing.assert_allclose(draws[name], values, rtol=within)
    np.testing.assert_allclose(draws["compute"], 6 * draws["params"] * draws["tokens"])
    np.testing.assert_allclose(draws["tokens_per_param"], draws["tokens"] / draws["params"])


def test_serving_ever_more_takes_ever_more_tokens():
    fit = bs.fit(bs.load("zipf-facts"), discrepancy=False, method="fast", draws=100)
    few, many = (fit.allocate(loss=1.08, served_tokens=s).draws.median("sample") for s in (1e14, 1e18))
    assert float(many["tokens"][0]) > 100 * float(few["tokens"][0])
    assert 0.8 < float(many["params"][0] / few["params"][0]) < 1
    per_token = [float(r["lifetime_compute"][0]) / s for r, s in ((few, 1e14), (many, 1e18))]
    assert per_token[1] < per_token[0]


def test_what_has_its_optimum_at_the_edge_of_the_search_is_said(law_only_fit, monkeypatch):
    fit = law_only_fit.thinned(200)
    monkeypatch.setattr("bayescale.lifetime._PARAMS_RANGE", (-6.0, -1.8))
    allocation = fit.allocate(loss=1.9, served_tokens=1e13)
    share = float(np.isnan(allocation.draws["lifetime_compute"]).mean())
    assert 0 < share < 1
    assert any(
        w.startswith(f"{100 * share:.3g}% of the posterior has its optimum for") for w in allocation.warnings
    )


def test_serving_nothing_is_training_and_serving_more_is_smaller(full_fit):
    few = full_fit.thinned(600)
    trained = few.allocate(loss=2.2).summary().set_index("quantity")["median"]
    last = trained["params"] * 1.1  # two searches, on grids of their own
    for served in (1e6, 1e12, 1e14):
        allocation = few.allocate(loss=2.2, served_tokens=served)
        medians = allocation.summary().set_index("quantity")["median"]
        if served == 1e6:
            assert medians["lifetime_compute"] == pytest.approx(trained["compute"], rel=0.1)
        assert medians["params"] < last
        last = medians["params"]


def test_draws_whose_curve_ends_abruptly_have_their_optimum_there():
    """With a discrepancy the fewest params that reach a loss may end at some tokens: no edge searched."""
    fit = bs.fit(bs.load("chinchilla"), method="fast").thinned(150)
    for served in (1e9, 1e12):
        allocation = fit.allocate(loss=1.9, served_tokens=served)
        assert np.isnan(allocation.draws["loss"].values).mean() < 0.02


def test_serving_needs_a_loss_to_reach(law_only_fit):
    with pytest.raises(bs.BayescaleError, match="need a loss to reach"):
        law_only_fit.allocate(compute=1e22, served_tokens=1e12)
    with pytest.raises(bs.BayescaleError, match="served_tokens is -1"):
        law_only_fit.allocate(loss=2.0, served_tokens=-1.0)
    beyond = law_only_fit.allocate(loss=1.5, served_tokens=1e12)
    assert np.isinf(beyond.draws["lifetime_compute"]).all()
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
    np.testing.assert_allclose(draws["lifetime_compute"], draws["compute"] + served)


def test_draws_whose_floor_is_above_the_loss_have_no_run_and_the_others_one(law_only_fit):
    fit = law_only_fit.thinned(600)
    floor = fit.parameters["E"]
    loss = float(np.median(floor)) + 0.02
    draws = fit.allocate(loss=loss, served_tokens=1e12).draws.isel(budget=0)
    for values in draws.values():
        assert not np.isfinite(values[floor >= loss]).any()
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


def test_a_curve_is_read_by_the_parabola_nearest_or_where_it_ends_by_a_line():
    grid = np.linspace(0.0, 3.0, 7)
    curve = (grid - 1.2) ** 2
    cut = np.where(grid < 1.2, np.nan, grid)
    found = _read_off(np.stack([curve, cut, cut[::-1]]), grid, np.array([1.7, 1.6, 1.4]))
    np.testing.assert_allclose(found, [0.25, 1.6, 1.6])
