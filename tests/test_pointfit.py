import numpy as np
import pytest

import bayescale as bs


def test_huber_fit_reproduces_the_published_optimum():
    fit = bs.point_fit(bs.load("chinchilla"), starts=20, bootstrap=0)
    assert fit.objective == pytest.approx(1.018274e-3, rel=1e-6)
    expected = {"E": 1.81722, "A": 477.83, "B": 2143.4, "alpha": 0.34731, "beta": 0.36717}
    assert fit.parameters == pytest.approx(expected, rel=2e-5)
    assert fit.starts_at_best >= 15


def test_huber_fit_of_all_245_rows():
    fit = bs.point_fit(bs.load("chinchilla", outliers=True), starts=10, bootstrap=0)
    expected = {"E": 1.891, "A": 495.7, "B": 12846, "alpha": 0.3493, "beta": 0.4530}
    assert fit.parameters == pytest.approx(expected, rel=5e-4)


def test_bootstrap_matches_published_intervals_and_forecasts():
    fit = bs.point_fit(bs.load("chinchilla"), starts=3, bootstrap=100)
    low, high = fit.bootstrap["E"].quantile([0.025, 0.975]).values
    # Besiroglu et al. print 1.769-1.871; 100 resamples place a 2.5% quantile to about .01.
    assert (low, high) == pytest.approx((1.769, 1.871), abs=0.02)
    forecast = fit.forecast(params=[7e10], tokens=[1.4e12])
    assert forecast["loss"].shape == (100, 1)
    assert np.median(forecast["expected_loss"]) == pytest.approx(1.974, abs=0.01)


def test_a_point_fits_forecast_adds_residuals_and_its_seed_draws_them():
    fit = bs.point_fit(bs.load("chinchilla"), starts=3, bootstrap=40, seed=1)
    forecast = fit.forecast(seed=2, params=[7e10], tokens=[1.4e12])
    noise = np.log(forecast["loss"] / forecast["expected_loss"]).values.ravel()
    assert np.abs(noise[:, None] - fit.residuals).min(axis=1).max() < 1e-12
    table, p = bs.load("chinchilla"), fit.parameters
    fitted = p["E"] + p["A"] * table.column("params") ** -p["alpha"]
    fitted = fitted + p["B"] * table.column("tokens") ** -p["beta"]
    np.testing.assert_allclose(fit.residuals, np.log(table.column("loss") / fitted), atol=1e-12)
    other = fit.forecast(seed=3, params=[7e10], tokens=[1.4e12])
    assert (other["loss"] != forecast["loss"]).any()
    refit = bs.point_fit(bs.load("chinchilla"), starts=3, bootstrap=40, seed=2)
    assert (refit.bootstrap["E"] != fit.bootstrap["E"]).any()


def test_unknown_inputs_are_errors():
    fit = bs.point_fit(bs.load("cerebras-gpt"), "E + A*N**-a", starts=3, bootstrap=0)
    with pytest.raises(bs.BayescaleError, match="expected \\['params'\\]"):
        fit.forecast(tokens=1e9)


def test_held_parameters_stay_and_the_rest_is_fitted():
    table = bs.load("chinchilla")
    free = bs.point_fit(table, starts=5, bootstrap=0)
    held = bs.point_fit(table, starts=5, bootstrap=0, fixed={"A": free.parameters["A"]})
    # Held at its optimum, a parameter moves nothing else.
    assert held.parameters == pytest.approx(free.parameters, rel=1e-3)
    assert held.parameters["A"] == free.parameters["A"]
    worse = bs.point_fit(table, starts=5, bootstrap=0, fixed={"E": 1.5})
    assert worse.parameters["E"] == 1.5
    assert worse.objective > free.objective * 1.01


def test_a_fit_that_is_nowhere_finite_is_an_error():
    with pytest.raises(bs.BayescaleError, match="no finite objective"):
        bs.point_fit(bs.load("chinchilla"), "E + A*N**-a", starts=3, bootstrap=0, fixed={"E": -1e5})


@pytest.mark.parametrize(
    ("fixed", "match"),
    [
        ({"a": 1.0}, "no parameter 'a'; it has E, A, B, alpha, beta"),
        (dict.fromkeys(("E", "A", "B", "alpha", "beta"), 1.0), "every parameter is held"),
    ],
)
def test_unusable_held_parameters_are_errors(fixed, match):
    with pytest.raises(bs.BayescaleError, match=match):
        bs.point_fit(bs.load("chinchilla"), fixed=fixed)
