"""Replicates tell noise from lack of fit; runs of one trunk share an offset."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayescale as bs
from bayescale import replicates
from tests.conftest import simulated_table

NOISE = 0.004


def repeated_table(*, copies=3, rows=30, misfit=0.0, seed=0) -> bs.RunTable:
    """Configurations of a known law, each run several times; `misfit` bends the law across D/N."""
    single = simulated_table(noise_sd=0.0, rows=rows)
    frame = pd.concat([single.frame] * copies, ignore_index=True)
    rng = np.random.default_rng(seed)
    ratio = np.log10(frame["tokens"] / frame["params"])
    bend = misfit * np.sin(3 * ratio)
    frame["loss"] *= np.exp(bend + NOISE * rng.standard_normal(len(frame)))
    return replace(single, frame=frame)


@pytest.mark.parametrize("misfit", [0.0, 0.03])
def test_noise_between_replicates_is_told_from_lack_of_fit(misfit):
    found = bs.lack_of_fit(bs.fit(repeated_table(misfit=misfit), discrepancy=False))
    assert found is not None
    assert (found.configurations, found.repeated, found.degrees_of_freedom) == (30, 30, 60)
    assert found.interval[0] < NOISE < found.interval[1]
    if misfit:
        assert found.lack_of_fit == pytest.approx(misfit / np.sqrt(2), rel=0.4)
    else:  # about its own standard error, NOISE / sqrt(copies * configurations), or nothing
        assert found.lack_of_fit < NOISE / np.sqrt(3)
    assert f"lack of fit of the law alone {found.lack_of_fit:.2%}" in str(found)


def test_intervals_of_pure_error_cover_as_often_as_they_say():
    fitted = bs.fit(repeated_table(), discrepancy=False)
    inside = 0
    for seed in range(100):
        table = repeated_table(seed=seed)
        model = replace(fitted.model, log_loss=np.log(table.column("loss")))
        low, high = bs.lack_of_fit(replace(fitted, table=table, model=model)).interval
        inside += low < NOISE < high
    assert abs(inside - 90) <= 3 * np.sqrt(100 * 0.9 * 0.1)


def test_each_configuration_counts_once_whatever_its_number_of_runs():
    """One, two and four runs of a configuration: means off the law by 1%, 2% and 3%, runs off their means by
    .3%; pure error is 4 squares of .4% over 1 + 3 degrees of freedom."""
    counts, off = np.tile([1, 2, 4], 8), np.tile([0.01, -0.02, 0.03], 8)
    single = simulated_table(rows=24)
    frame = single.frame.loc[np.repeat(np.arange(24), counts)].reset_index(drop=True)
    table = replace(single, frame=frame.assign(seed=np.arange(len(frame))))
    fit = bs.fit(table, discrepancy=False, method="fast", draws=50)
    law = fit.model.law_loss({n: fit.parameters[n] for n in fit.model.centred.names}, fit.model.ratios)
    within = {1: [0.0], 2: [0.004, -0.004], 4: [0.004, -0.004, 0.004, -0.004]}
    scatter = np.repeat(off, counts) + np.concatenate([within[n] for n in counts])
    found = bs.lack_of_fit(
        replace(fit, model=replace(fit.model, log_loss=np.log(law.mean(axis=0)) + scatter))
    )
    variance = 6 * 0.004**2 / 4
    assert (found.configurations, found.repeated, found.degrees_of_freedom) == (24, 16, 32)
    assert found.pure_error == pytest.approx(np.sqrt(variance))
    of_noise = variance * (1 + 1 / 2 + 1 / 4) / 3
    expected = np.sqrt((0.01**2 + 0.02**2 + 0.03**2) / 3 - of_noise)
    assert found.lack_of_fit == pytest.approx(expected)
    # The sum of squares over the variance is chi-squared with 32 degrees of freedom.
    ends = np.sqrt(32 * variance / stats.chi2.ppf([0.95, 0.05], 32))
    assert found.interval == pytest.approx(tuple(ends))


def test_without_replicates_there_is_nothing_to_tell():
    assert bs.lack_of_fit(bs.fit(simulated_table(rows=20), discrepancy=False)) is None


@pytest.mark.parametrize("effect", ["group", "study", None])
def test_runs_of_other_groups_are_no_replicates(effect):
    """Two groups 20% apart share every input; only runs of one group tell the noise."""
    frame = repeated_table(copies=4, rows=12).frame
    group = np.repeat([0, 1], 24)
    frame["loss"] *= np.exp(0.2 * group)
    frame[effect or "group"] = np.where(group, "b", "a")
    table = replace(simulated_table(rows=12), frame=frame)
    found = bs.lack_of_fit(bs.fit(table, discrepancy=False, method="fast", group_effect=effect))
    assert (found.configurations, found.repeated, found.degrees_of_freedom) == (24, 24, 24)
    assert found.interval[0] < NOISE < found.interval[1]


@pytest.mark.parametrize("discrepancy", [False, True])
def test_offsets_of_groups_are_no_lack_of_fit(discrepancy):
    single = repeated_table()
    group = np.arange(len(single)) % 5
    frame = single.frame.assign(group=[f"study {g}" for g in group])
    frame["loss"] *= np.exp(np.array([0.05, -0.04, 0.01, -0.05, 0.03])[group])
    table = replace(single, frame=frame)
    fit = bs.fit(table, discrepancy=discrepancy, method="fast", group_effect="group")
    found = bs.lack_of_fit(fit)
    assert found.interval[0] < NOISE < found.interval[1]
    assert found.lack_of_fit < NOISE
    expected = fit.model.log_mean_at(fit.z.reshape(-1, fit.model.size)[:200])
    assert np.std(fit.model.log_loss - np.median(expected, axis=0)) == pytest.approx(NOISE, rel=0.3)


@pytest.mark.parametrize("seeds", [None, [0.0] * 12, [np.nan] * 12])
def test_a_run_listed_twice_is_no_replicate(seeds):
    single = simulated_table(rows=12)
    frame = single.frame if seeds is None else single.frame.assign(seed=seeds)
    table = replace(single, frame=pd.concat([frame, frame[:5]], ignore_index=True))
    assert bs.lack_of_fit(bs.fit(table, discrepancy=False, method="fast")) is None
    table.frame["loss"] *= np.where(np.arange(17) == 12, 1.01, 1)
    found = bs.lack_of_fit(bs.fit(table, discrepancy=False, method="fast"))
    assert (found.configurations, found.repeated, found.degrees_of_freedom) == (12, 1, 1)
    assert found.pure_error == pytest.approx(np.log(1.01) / np.sqrt(2), rel=1e-6)


@pytest.mark.parametrize(
    ("law", "same", "other"),
    [("power-params-floor", "params", "tokens"), ("power-tokens-floor", "tokens", "params")],
)
def test_runs_of_other_sizes_are_no_replicates_to_a_law_of_one(law, same, other):
    table = simulated_table(rows=12)
    table = replace(table, frame=table.frame.assign(**{same: 1e9, other: np.geomspace(1e9, 1e11, 12)}))
    assert bs.lack_of_fit(bs.fit(table, law, discrepancy=False, method="fast", draws=50)) is None


@pytest.mark.parametrize("law", ["chinchilla", "power-compute-floor"])
def test_compute_that_is_measured_run_by_run_makes_no_other_configuration(law):
    table = repeated_table(copies=2, rows=12)
    measured = table.column("compute") * np.exp(0.01 * np.random.default_rng(1).standard_normal(24))
    table = replace(table, frame=table.frame.assign(compute=measured))
    found = bs.lack_of_fit(bs.fit(table, law, discrepancy=False, method="fast", draws=50))
    assert (found.configurations, found.repeated) == (12, 12)


def test_pools_larger_than_a_run_make_no_other_configuration():
    table = repeated_table(copies=2, rows=12)
    tokens = table.column("tokens")
    pools = np.concatenate([tokens[:12], np.where(np.arange(12) % 2, 20 * tokens[:12], np.nan)])
    found = bs.lack_of_fit(
        bs.fit(
            replace(table, frame=table.frame.assign(unique_tokens=pools)), discrepancy=False, method="fast"
        )
    )
    assert (found.configurations, found.repeated) == (12, 12)


def test_what_a_discrepancy_explains_is_no_lack_of_fit():
    table = repeated_table()
    with_it, alone = (bs.lack_of_fit(bs.fit(table, method="fast", discrepancy=d)) for d in (True, False))
    assert with_it.lack_of_fit == pytest.approx(alone.lack_of_fit, abs=NOISE / 10)
    assert with_it.pure_error == pytest.approx(alone.pure_error)


def trunk_table() -> bs.RunTable:
    """Eight trunks of five runs, of which the last has no label."""
    table = simulated_table(rows=40, noise_sd=0.001)
    rng = np.random.default_rng(1)
    trunk = np.arange(40) // 5
    table.frame["trunk"] = [f"trunk {t}" if t < 7 else None for t in trunk]
    table.frame["loss"] *= np.exp(0.02 * rng.standard_normal(8)[trunk])
    return table


def test_no_allocation_is_the_luckiest_of_new_trunks(tmp_path):
    fit = bs.fit(trunk_table(), method="fast")
    best = fit.allocate(compute=1e20).draws.median("sample")
    there = {name: float(best[name][0]) for name in ("params", "tokens")}
    made = fit.forecast(**there)
    assert float(best["loss"][0]) == pytest.approx(np.median(made.expected_loss), rel=0.004)
    # A new run is of a new trunk.
    spread = np.log(made.loss / made.expected_loss)
    assert spread.std() > np.median(fit.parameters["group_sd"])
    fit.save(tmp_path / "fit.nc")
    again = bs.load_fit(tmp_path / "fit.nc")
    assert again.model.group_names == fit.model.group_names
    np.testing.assert_array_equal(again.forecast(**there).loss, made.loss)


def test_runs_of_one_trunk_share_an_offset_by_themselves():
    table = trunk_table()
    shared = bs.fit(table, discrepancy=False)
    assert shared.options["group_effect"] == "trunk"
    # Seven trunks, and five runs that share theirs with no other.
    assert len(shared.model.group_names) == 12
    assert np.median(shared.parameters["group_sd"]) == pytest.approx(0.02, rel=0.6)
    apart = bs.fit(table, discrepancy=False, group_effect="none")
    assert apart.model.group is None
    assert np.median(apart.parameters["noise_sd"]) > 2 * np.median(shared.parameters["noise_sd"])


def test_trunks_of_one_run_each_share_nothing():
    table = simulated_table(rows=20)
    for trunks in ([f"trunk {row}" for row in range(20)], [None] * 19 + ["trunk"]):
        table.frame["trunk"] = trunks
        assert bs.fit(table, discrepancy=False).model.group is None


def test_a_law_alone_that_failed_marks_the_lack_of_fit(monkeypatch):
    table = repeated_table()
    alone = bs.fit(table, method="fast", discrepancy=False)
    assert "do not rely" not in str(bs.lack_of_fit(alone))
    alone = replace(alone, diagnostics=replace(alone.diagnostics, k_hat=0.9))
    monkeypatch.setattr(replicates, "refit", lambda fit, setting: alone)
    found = bs.lack_of_fit(bs.fit(table, method="fast", draws=50))
    assert found.failures == tuple(alone.diagnostics.failures)
    assert "(do not rely on it: k-hat of the importance weights is 0.90" in str(found)
