"""Modes that no draw is near are counted, with a discrepancy and without."""

import numpy as np

import bayescale as bs
from bayescale.inference.unvisited import unvisited_modes
from tests.conftest import simulated_table


def test_a_mode_of_a_law_that_no_draw_is_near_is_counted():
    # Two exponents that may swap: the posterior has two equal modes.
    table = simulated_table(rows=40)
    params = table.column("params")
    loss = 1.5 + 300 * params**-0.3 + 9e6 * params**-1.0
    table.frame["loss"] = loss * np.exp(0.003 * np.random.default_rng(0).standard_normal(40))
    priors = {"a": "LogNormal(0.5, 0.7)", "b": "LogNormal(0.5, 0.7)"}
    priors |= {"p": "LogNormal(0.5, 0.8)", "q": "LogNormal(0.5, 0.8)"}
    fitted = bs.fit(table, "E + a*N**-p + b*N**-q", priors=priors, discrepancy=False, method="fast")
    z = fitted.z.reshape(-1, fitted.model.size)
    larger = (fitted.parameters["p"] > fitted.parameters["q"]).ravel()
    assert 0.1 < larger.mean() < 0.9
    assert unvisited_modes(fitted.model, z) == 0
    assert unvisited_modes(fitted.model, z[larger]) >= 1


def test_a_mode_of_the_discrepancy_that_no_draw_is_near_is_counted():
    """Of the cheaper Chinchilla runs, where NUTS passes its own gates in the one of two that it starts at."""
    table = bs.load("chinchilla")
    compute = table.column("compute")
    fitted = bs.fit(table.where(compute <= compute.max() / 30), method="fast")
    z = fitted.z.reshape(-1, fitted.model.size)
    long = np.log(fitted.parameters["discrepancy_length"]).ravel() > -0.3
    assert 0.3 < long.mean() < 0.7
    assert unvisited_modes(fitted.model, z) == 0
    assert unvisited_modes(fitted.model, z[long]) == 1
    assert unvisited_modes(fitted.model, z[~long]) == 1
