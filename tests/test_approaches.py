"""Approaches 1 and 2: where they find a known truth, where they are biased, and Porian et al."""

import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale.approaches import _lowest, _vertex, envelope, isoflop, isoflop_interpolated
from bayescale.runs import make_table

TRUE_EXPONENT = 0.4 / (0.3 + 0.4)


def isoflop_table(decades: float, shift: float = 0.0) -> bs.RunTable:
    """Losses without noise, at nine sizes about (or `shift` decades above) each budget's optimum."""
    rows = []
    for compute in 10.0 ** np.arange(18, 23):
        best = (0.3 * 400 / (0.4 * 2000)) ** (1 / 0.7) * (compute / 6) ** TRUE_EXPONENT
        for params in best * 10 ** (np.linspace(-decades, decades, 9) + shift):
            tokens = compute / (6 * params)
            loss = 1.7 + 400 * params**-0.3 + 2000 * tokens**-0.4
            rows.append({"params": params, "tokens": tokens, "compute": compute, "loss": loss})
    return make_table(pd.DataFrame(rows), bs.TableMeta(name="isoflop", loss_step=0.0))


@pytest.mark.parametrize("approach", [envelope, isoflop, isoflop_interpolated])
def test_approaches_find_a_known_optimum(approach):
    found = approach(isoflop_table(decades=0.4))
    assert found.exponent == pytest.approx(TRUE_EXPONENT, abs=0.005)
    best = (0.3 * 400 / (0.4 * 2000)) ** (1 / 0.7) * (1e20 / 6) ** TRUE_EXPONENT
    assert found.at(1e20) == pytest.approx(best, rel=0.03)


def test_the_parabola_is_biased_where_sizes_spread_and_the_curve_is_not():
    wide = isoflop_table(decades=1.2)
    best = (0.3 * 400 / (0.4 * 2000)) ** (1 / 0.7) * (1e20 / 6) ** TRUE_EXPONENT
    assert abs(isoflop(wide).at(1e20) / best - 1) > 0.05
    assert isoflop_interpolated(wide).at(1e20) == pytest.approx(best, rel=0.03)


def test_a_budget_whose_loss_still_falls_at_the_edge_has_no_optimum():
    table = isoflop_table(decades=0.4)
    cheapest = table.frame["compute"] < 2e18
    optimum = isoflop(table).params[0]
    one_sided = table.where(~(cheapest & (table.frame["params"] > optimum * 0.8)).to_numpy())
    found = isoflop_interpolated(one_sided)
    assert found.left_out == pytest.approx([1e18])
    assert len(found.compute) == 4


def test_losses_that_bend_down_or_are_lowest_at_an_end_have_no_vertex():
    x = np.linspace(0, 2, 9)
    assert _vertex(x, 3 + (x - 0.7) ** 2) == pytest.approx(0.7)
    assert _vertex(x, 3 - (x - 0.7) ** 2) is None
    assert _vertex(x, 3 + (x - 2.5) ** 2) is None
    doubled = np.append(x, x[3])  # a size run twice counts by its mean
    assert _lowest(doubled, np.exp(1 + np.append((x - 0.7) ** 2, (x[3] - 0.7) ** 2))) == pytest.approx(
        0.7, abs=0.02
    )


def test_a_budget_is_runs_of_one_compute_to_5_percent_and_counts_by_its_mean():
    table = isoflop_table(decades=0.4)
    spread = table.frame["compute"] * np.tile(np.linspace(0.98, 1.02, 9), 5)
    found = isoflop(bs.RunTable(table.frame.assign(compute=spread), table.meta))
    expected = np.exp(np.log(spread.to_numpy().reshape(5, 9)).mean(axis=1))
    np.testing.assert_allclose(found.compute, expected)
    apart = table.frame["compute"] * np.tile([1.0, 1.1, 1.21] * 3, 5)
    assert len(isoflop(bs.RunTable(table.frame.assign(compute=apart), table.meta)).compute) > 5


def test_one_budget_is_not_enough():
    table = isoflop_table(decades=0.4)
    with pytest.raises(bs.BayescaleError, match="1 budget"):
        isoflop(table.where((table.frame["compute"] < 2e18).to_numpy()))


# Porian et al. 2024, arXiv:2406.19146, RefinedWeb: exponent as published, and its interval.
STEPS = {
    "porian-1-kaplan": (0.835, 0.824, 0.846),
    "porian-2-head": (0.706, 0.691, 0.717),
    "porian-3-warmup": (0.602, 0.591, 0.617),
    "porian-4-decay": (0.571, 0.560, 0.589),
    "porian-5-tuned": (0.497, 0.491, 0.505),
}


@pytest.mark.parametrize("name", STEPS)
def test_porians_five_steps_from_kaplan_to_chinchilla(name, published):
    printed, low, high = STEPS[name]
    table = bs.pull(name, published)
    exponent = isoflop_interpolated(table).exponent
    assert low < exponent < high
    assert exponent == pytest.approx(printed, abs=0.006)
    # The plain parabola over every size lies outside the interval at each step but the fourth.
    assert (low < isoflop(table).exponent < high) is (name == "porian-4-decay")
