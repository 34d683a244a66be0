"""Minima on a grid: a parabola's own inside, the edge and its value where the grid ends first."""

import numpy as np
import pytest

from bayescale.minima import lowest

GRID = np.linspace(-1.0, 1.0, 11)


def test_a_parabolas_minimum_is_found_between_the_points():
    places, depths = np.array([-0.77, 0.0, 0.31]), np.array([2.0, 3.0, 4.0])
    where, how_low, at_edge = lowest((GRID - places[:, None]) ** 2 + depths[:, None], GRID)
    np.testing.assert_allclose(where, places, atol=1e-12)
    np.testing.assert_allclose(how_low, depths)
    assert not at_edge.any()


@pytest.mark.parametrize("towards", [1, -1])
def test_where_the_grid_ends_first_its_edge_has_its_own_value(towards):
    values = ((GRID - 1.3 * towards) ** 2)[None]
    where, how_low, at_edge = lowest(values, GRID)
    assert where == pytest.approx(towards)
    assert how_low == pytest.approx(0.09)
    assert at_edge


def test_what_has_no_value_is_no_minimum_and_bends_no_parabola_beside_it():
    beside, nothing = np.where(GRID < -0.3, np.inf, GRID), np.full(11, np.inf)
    where, how_low, at_edge = lowest(np.stack([beside, nothing]), GRID)
    assert where[0] == pytest.approx(-0.2)
    assert how_low[0] == pytest.approx(-0.2)
    assert at_edge.tolist() == [False, True]
