"""Areas of a schedule: by their definition as double sums, on curves of several schedules, and refusals."""

import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale.runs import make_table
from bayescale.schedules import schedule_reduction


def test_areas_are_the_double_sums_of_the_paper():
    rate = np.r_[np.full(20, 3.0), np.linspace(3, 0.5, 30)]
    step = np.arange(1, 51)
    area, annealed = bs.schedule_areas(step, rate, decay=0.9)
    np.testing.assert_allclose(area, np.cumsum(rate))
    for s in (20, 35, 50):
        terms = ((rate[k - 1] - rate[k]) * 0.9 ** (i - k) for i in range(1, s) for k in range(1, i + 1))
        assert annealed[s - 1] == pytest.approx(sum(terms), abs=1e-12)


def test_reduction_is_the_double_sum_of_the_paper():
    rate = np.r_[np.full(20, 3.0), np.linspace(3, 0.5, 30)]
    found = schedule_reduction(np.arange(1, 51), rate, shape=(0.1, 0.6, 0.5))
    for s in (20, 35, 50):
        terms = (
            (rate[k - 1] - rate[k]) * (1 - (1 + 0.1 * rate[k] ** -0.5 * rate[k:s].sum()) ** -0.6)
            for k in range(1, s)
        )
        assert found[s - 1] == pytest.approx(sum(terms), abs=1e-12)


def test_held_constants_are_the_papers_and_the_decay_is_that_given():
    """C, beta and gamma of the multi-power law, as printed for 400M params (arXiv:2503.12811)."""
    rate = np.r_[np.full(20, 3e-3), np.linspace(3e-3, 5e-4, 30)]
    step = np.arange(1, 51)
    shape = (2.03, 0.594, 0.635)
    np.testing.assert_array_equal(schedule_reduction(step, rate), schedule_reduction(step, rate, shape=shape))
    frame = pd.DataFrame({"step": step, "learning_rate": rate, "loss": np.linspace(4, 3, 50)})
    curves = bs.with_schedule_areas(make_table(frame, bs.TableMeta(loss_unit="other")), decay=0.9)
    _, annealed = bs.schedule_areas(step, rate, decay=0.9)
    np.testing.assert_allclose(curves.column("lr_annealed")[30:], annealed[30:])


@pytest.mark.parametrize("after", [[], [0.02]])
def test_a_drop_to_nothing_is_the_limit_of_drops_to_little(after):
    rates = [[0.1, 0.1, 0.05, low, *after] for low in (1e-12, 0.0)]
    ends = [schedule_reduction(np.arange(1, len(rate) + 1), rate)[-1] for rate in rates]
    assert ends[1] == pytest.approx(ends[0], rel=0.01)


def test_rows_may_be_steps_apart_and_a_warm_up_counts_as_area_alone():
    area, annealed = bs.schedule_areas([100, 200], [1.0, 1.0])
    assert area.tolist() == pytest.approx([50.5, 150.5])
    assert annealed.tolist() == [0.0, 0.0]
    step = np.arange(10, 501, 10)
    rate = np.interp(step, [0, 100, 200, 500], [0.0, 3.0, 3.0, 0.1])
    for shown in (step > 0, step >= 100):  # rows of the warm-up are there, or are not
        _, annealed = bs.schedule_areas(step[shown], rate[shown])
        reduction = schedule_reduction(step[shown], rate[shown])
        seen = np.flatnonzero(step[shown] == 500)[0]
        ends = (annealed[seen], reduction[seen])
        if shown.all():
            with_warm_up = ends
    assert ends == pytest.approx(with_warm_up)
    assert min(ends) > 0.1


def test_curves_of_a_table_have_their_own_schedules():
    curve = pd.DataFrame({"step": [10, 20, 30], "learning_rate": [1.0, 1.0, 0.5], "loss": [3.0, 2.5, 2.2]})
    rows = pd.concat([curve.assign(group="a"), curve.assign(group="b", learning_rate=1.0)])
    table = bs.with_schedule_areas(make_table(rows.reset_index(drop=True), bs.TableMeta(name="two")))
    annealed = table.column("lr_annealed").reshape(2, 3)
    assert annealed[0, 2] > 1
    assert np.all(annealed[1] == 1e-9)  # inputs of a law are positive
    np.testing.assert_allclose(table.column("lr_area")[3:], [5.5, 15.5, 25.5])


@pytest.mark.parametrize(
    ("step", "rate"),
    [([2, 1], [1, 1]), ([0, 1], [1, 1]), ([1, np.nan], [1, 1]), ([1, 2], [1, -1]), ([], [])],
)
def test_schedules_that_cannot_be_are_refused(step, rate):
    with pytest.raises(bs.BayescaleError, match="steps that rise"):
        bs.schedule_areas(step, rate)


@pytest.mark.parametrize("unit", ["bits/token", "perplexity", "nats/token"])
def test_losses_stay_as_they_are(unit):
    frame = pd.DataFrame({"step": [1, 2, 3], "learning_rate": [0.1, 0.1, 0.05], "loss": [4.0, 3.5, 3.2]})
    table = make_table(frame.assign(loss_se=0.01), bs.TableMeta(loss_unit=unit, loss_step=0.0))
    curves = bs.with_schedule_areas(table)
    for column in ("loss", "loss_se"):
        np.testing.assert_array_equal(curves.column(column), table.column(column))
