"""Error rates show on how many examples they were counted, also where some of them are means of several."""

import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale.errorrates import counted_examples, sampling_error
from bayescale.runs import make_table
from tests.benchmarks.curves import read_curves, split


def rates(examples, count=60, seed=0):
    """Error rates that fall from .8 to .2, counted on so many examples each time."""
    rng = np.random.default_rng(seed)
    return rng.binomial(examples, np.linspace(0.8, 0.2, count)) / examples


def smoothed(rate):
    """Means of neighbours where a rate rises (isotonic regression by pooling)."""
    blocks = []
    for value in rate:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-1][0] > blocks[-2][0]:
            (one, n), (other, m) = blocks.pop(), blocks.pop()
            blocks.append([(one * n + other * m) / (n + m), n + m])
    return np.repeat([value for value, _ in blocks], [count for _, count in blocks])


@pytest.mark.parametrize("examples", [369, 5792, 48_000])
def test_rates_show_the_number_of_examples(examples):
    assert counted_examples(rates(examples)) == examples
    as_stored = rates(examples).astype(np.float32).astype(float)
    assert counted_examples(as_stored) == examples


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("examples", [5792, 6080])
def test_means_of_rates_hide_no_examples(examples, seed):
    smooth = smoothed(rates(examples, count=80, seed=seed))
    assert np.mean(np.abs(smooth * examples - np.rint(smooth * examples)) > 1e-6) > 0.1
    assert counted_examples(smooth) == examples


def test_what_is_no_count_shows_none():
    rng = np.random.default_rng(0)
    for losses in (
        rng.uniform(0.2, 0.8, 200),
        rates(999)[:5],  # too few
        np.round(rng.uniform(0.2, 0.8, 200), 4),  # decimals
        rates(10_000),  # decimals, too
        2 + rates(999),  # no rates
        rng.uniform(0.2, 0.8, 5000),
    ):
        assert counted_examples(losses) is None


def test_the_sampling_error_is_that_of_a_binomial():
    rng = np.random.default_rng(0)
    counted = rng.binomial(500, 0.3, 200_000) / 500
    assert counted.std() / 0.3 == pytest.approx(float(sampling_error(np.array(0.3), 500)), rel=0.01)


def test_check_says_on_how_many_examples_rates_were_counted(curve_of_rates):
    found = {finding.code: finding.message for finding in bs.check(curve_of_rates)}
    assert "counted on 5,792 examples" in found["counted"]
    assert "0.67% to 2.63% of the loss" in found["counted"]
    assert "counted" not in {finding.code for finding in bs.check(bs.load("chinchilla"))}


@pytest.fixture
def curve_of_rates():
    rate = rates(5792)

    frame = pd.DataFrame({"seen_examples": np.geomspace(1e5, 1e8, len(rate)), "loss": rate})
    return make_table(frame, bs.TableMeta(name="rates", loss_unit="other"))


def test_published_image_curves_show_their_test_sets(published):
    """From the points to fit, half to three quarters of which are no means; on two curves too few are."""
    images = {"bird": 5792, "c": 10_000, "cal": 6080, "inet": 50_000}
    found = []
    for name, curve in read_curves(published):
        domain, task, _ = name.split(" / ")
        if domain == "IC":
            known, _ = split(curve, "outer")
            found.append((counted_examples(known["Loss"].to_numpy(float)), images[task.split("_")[0]]))
    assert len(found) == 72
    assert sum(shown == counted for shown, counted in found) == 68
    assert all(shown in (None, 2 * counted) for shown, counted in found if shown != counted)
