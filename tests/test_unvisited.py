"""Modes that no draw is near are counted, with a discrepancy and without."""

import numpy as np

import bayescale as bs
from bayescale.inference.unvisited import unvisited_modes
from tests.conftest import fit_of_two_modes


def test_a_mode_of_a_law_that_no_draw_is_near_is_counted():
    fitted = fit_of_two_modes()
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
