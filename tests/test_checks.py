from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale.runs import make_table
from tests.conftest import simulated_table


def codes(table):
    return {finding.code for finding in bs.check(table)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cerebras-gpt", {"collinear", "few-runs", "rounding"}),
        ("opt", {"few-runs", "rounding"}),
        ("chinchilla", {"near-duplicates", "flagged-outliers", "outliers"}),
    ],
)
def test_pitfalls_of_published_tables(name, expected):
    assert expected <= codes(bs.load(name, outliers=True))


def test_clean_table_has_only_its_convention_to_state():
    assert codes(simulated_table()) == {"params-convention"}


def test_made_pitfalls_are_found():
    n = np.geomspace(1e7, 1e9, 20)
    frame = pd.DataFrame(
        {
            "params": n,
            "tokens": 1e18 / (6 * n),
            "unique_tokens": 1e18 / (60 * n),
            "loss": 2 + 300 * n**-0.3,
            "tokenizer": ["a", "b"] * 10,
            "compute": 1e18,
        }
    )
    found = codes(make_table(frame, bs.TableMeta(loss_step=0.0)))
    assert {"single-budget", "repeated-data", "mixed-tokenizers"} <= found
    frame = frame.assign(compute=9 * n * frame["tokens"], tokens=3e9)
    found = codes(make_table(frame, bs.TableMeta(loss_step=0.0)))
    assert {"constant-input", "compute-convention"} <= found


def test_every_finding_cites():
    for finding in bs.check(bs.load("cerebras-gpt")):
        assert finding.citation.startswith("arXiv:")
        assert len(finding.message) > 20


def test_smoothed_curves_are_found():
    rng = np.random.default_rng(0)
    seen = np.geomspace(1e6, 1e9, 60)
    raw = 0.2 + 3 * seen**-0.2 * np.exp(0.02 * rng.standard_normal(60))

    def found(**columns):
        return codes(make_table(pd.DataFrame(columns), bs.TableMeta(loss_unit="other", loss_step=0.0)))

    assert "smoothed" not in found(seen_examples=seen, loss=raw)
    best = np.minimum.accumulate(raw)
    assert "smoothed" in found(seen_examples=seen, loss=best)
    assert "smoothed" in found(step=np.arange(60), tokens=seen, params=1e8, loss=best)
    both = {"seen_examples": np.tile(seen, 2), "loss": np.append(raw, best)}
    assert "smoothed" in found(**both, group=np.repeat(["raw", "best"], 60))
    assert "smoothed" not in found(seen_examples=seen, loss=0.2 + 3 * seen**-0.2)  # a curve without noise
    rng.shuffle(best)
    assert "smoothed" not in found(seen_examples=seen, loss=best)


def grid(**columns):
    """A clean grid of runs on which no pitfall but its convention is found; columns replace its own."""
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(2e9, 2e10, 5)))
    loss = 1.8 + 480 * n**-0.35 + 2000 * d**-0.366
    return pd.DataFrame({"params": n, "tokens": d, "loss": loss, "compute": 6 * n * d}).assign(**columns)


def found_in(frame, code, **meta):
    """Return the message of a finding, or None."""
    table = make_table(frame, bs.TableMeta(**{"loss_step": 0.0, "params_convention": "total"} | meta))
    return {finding.code: finding.message for finding in bs.check(table)}.get(code)


FLOP = grid()["compute"]
SAME = {"params": 1e8, "tokens": 1e9, "loss": 2.5}
ROWS = np.arange(25)


def ratios(low, high):
    """Columns of a grid whose tokens per parameter span these."""
    return {"tokens": grid()["params"] * np.geomspace(low, high, 25)}


def about_one_budget(factor):
    """Compute that spans a factor."""
    return {"compute": np.geomspace(1, factor, 25) * FLOP[12]}


def sizes_from(least):
    """Params from a least number up, and compute."""
    params = np.geomspace(least, 9e5, 25)
    return {"params": params, "compute": 6 * params * grid()["tokens"]}


def correlated(r):
    """Columns of a grid whose log params and log tokens have this correlation, at about 20 to 1."""
    n, d = (np.log(grid()[c]) - np.log(grid()[c]).mean() for c in ("params", "tokens"))
    return {
        "tokens": 20
        * np.exp(np.log(grid()["params"]).mean() + r * n + np.sqrt(1 - r**2) * d * n.std() / d.std())
    }


@pytest.mark.parametrize(
    ("code", "inside", "outside", "meta"),
    [
        ("single-budget", about_one_budget(2.1), about_one_budget(1.9), {}),
        ("repeated-data", {"unique_tokens": 5.1e9}, {"unique_tokens": 4.9e9}, {}),
        ("wide-ratio", {"params": np.geomspace(9e7, 1e7, 25)}, {"params": np.geomspace(2e8, 1e7, 25)}, {}),
        ("small-count", sizes_from(1001), sizes_from(999), {}),
        ("checkpoints", {"run_id": ROWS}, {"run_id": ROWS % 5}, {}),
        ("checkpoints", {"run_id": ROWS // 5}, {"Name": ROWS % 5}, {}),
        ("checkpoints", {"run_id": ROWS % 5, "trunk": ROWS}, {"run_id": np.where(ROWS % 10, ROWS, 0)}, {}),
        ("checkpoints", {"model": ROWS % 5}, {"run": ROWS % 5}, {}),
        ("groups", {"group": "a"}, {"group": ["a"] * 24 + ["b"]}, {}),
        ("compute-convention", {}, {"compute": FLOP * 0.8}, {}),
        ("compute-convention", {"compute": FLOP * 1.19}, {"compute": FLOP * 1.21}, {}),
        ("compute-convention", {"compute": FLOP / 2}, {}, {"flops_per_param_token": 3.0}),
        ("near-duplicates", {"seed": np.arange(25)}, {"seed": 0, **SAME}, {}),
        ("near-duplicates", {**SAME, "loss": 2.5 * 1.0003**ROWS}, {**SAME, "loss": 2.5 * 1.00001**ROWS}, {}),
        ("near-duplicates", {**SAME, "params": 1e8 * 1.003**ROWS}, {**SAME, "params": 1e8 + 1e4 * ROWS}, {}),
        ("narrow-ratio", ratios(20, 61), ratios(20, 59), {}),
        ("collinear", correlated(0.985), correlated(0.995), {}),
        ("mixed-tokenizers", {"tokenizer": "a"}, {"tokenizer": ["a"] * 24 + ["b"]}, {}),
    ],
)  # fmt: skip
def test_pitfalls_begin_where_they_are_said_to(code, inside, outside, meta):
    assert found_in(grid(**inside), code, **meta) is None
    assert found_in(grid(**outside), code, **meta) is not None


def test_ten_runs_are_not_few_and_a_thousandth_of_a_nat_is_a_coarse_step():
    assert found_in(grid()[:10], "few-runs") is None
    assert found_in(grid()[:9], "few-runs") is not None
    assert found_in(grid(), "rounding", loss_step=0.001) is not None
    assert found_in(grid(), "rounding", loss_step=0.0009) is None


@pytest.mark.parametrize(
    ("code", "columns", "words"),
    [
        ("collinear", correlated(0.995), "|r| = 0.9950, about 20 tokens per parameter"),
        ("constant-input", {"params": 1e8}, "the same params; the law's term in params"),
        ("constant-input", {"tokens": 1e10}, "the same tokens; the law's term in tokens"),
        ("single-budget", {"compute": np.geomspace(1e20, 1.7e20, 25)}, "spans a factor of 1.7;"),
        ("repeated-data", {"unique_tokens": 1e9}, "over 4 times (up to 20) in 15 of 25 runs"),
        ("wide-ratio", ratios(2, 500), "run from 2 to 5e+02;"),
        ("narrow-ratio", ratios(15, 30), "run from 15 to 30 only"),
        (
            "compute-convention",
            {"compute": FLOP * np.where(ROWS < 9, 0.5, 1)},
            "is 3 to 6 times params x tokens, in 9 ",
        ),
        (
            "near-duplicates",
            {**SAME, "loss": np.where(ROWS < 4, 2.5, 2.6 + 0.01 * ROWS)},
            "without a seed column: 3 (row 2 of row 1,",
        ),
        ("mixed-corpora", {"corpus": np.resize(["a", "b", "c"], 25)}, "3 corpora in one table"),
    ],
)
def test_findings_tell_the_numbers(code, columns, words):
    assert words in found_in(grid(**columns), code)


def test_one_run_far_off_is_told_of_and_does_not_hide_itself():
    rng = np.random.default_rng(0)
    frame = grid()
    frame["loss"] *= np.exp(0.002 * rng.standard_normal(25))
    assert found_in(frame, "outliers") is None
    frame.loc[7, "loss"] *= 1.05
    frame.loc[11, "loss"] *= 1.2  # without weights it would stretch the surface and hide the other
    assert "2 of 25 runs (worst: row 12, loss" in found_in(frame, "outliers")


def test_runs_are_named_by_their_rows_in_the_file(tmp_path):
    """Rows that were left out, flagged ones too, do not move the others."""
    frame = grid(Name=[f"sweep-{number}" for number in range(25)], outlier=False)
    frame["loss"] *= np.exp(0.002 * np.random.default_rng(0).standard_normal(25))
    frame.loc[11, "loss"] *= 1.2
    frame.loc[2, "loss"], frame.loc[3, "outlier"] = np.nan, True
    frame = pd.concat([frame, frame.iloc[[5, 6, 5, 7]]])
    frame.to_csv(tmp_path / "runs.csv", index=False)
    table = bs.load(tmp_path / "runs.csv", drop_missing=True)
    messages = {finding.code: finding.message for finding in bs.check(table)}
    assert "(worst: row 13, Name sweep-11, loss" in messages["outliers"]
    assert ": 4 (row 27 of row 7, row 28 of row 8, row 29 of row 7, ...);" in messages["near-duplicates"]


@pytest.mark.parametrize("column", ["params", "tokens", "compute"])
def test_repeats_are_found_in_tables_with_one_input(column):
    table = make_table(pd.DataFrame({column: [1e20, 2e20, 2e20, 2e20], "loss": [3.0, 2.5, 2.5, 2.6]}))
    messages = {finding.code: finding.message for finding in bs.check(table)}
    assert ": 1 (row 3 of row 2);" in messages["near-duplicates"]


def test_a_table_that_no_law_can_be_fitted_to_is_told():
    frame = pd.DataFrame({"Params (M)": [100, 200, 400], "loss": [3.0, 2.5, 2.3]})
    assert "no law built in can be fitted: found Params (M), loss" in found_in(frame, "no-inputs")
    assert found_in(grid(), "no-inputs") is None


def test_runs_of_a_frame_put_in_place_are_named_by_their_number():
    table = make_table(grid(), bs.TableMeta(loss_step=0.0))
    table = replace(table, frame=pd.concat([table.frame, table.frame[:1]], ignore_index=True))
    messages = {finding.code: finding.message for finding in bs.check(table)}
    assert ": 1 (run 26 of run 1);" in messages["near-duplicates"]


def test_outliers_begin_at_eight_robust_sds():
    """Residuals of .1% either way, which is their median, and one run off by 6 or 12 robust sds."""
    scatter = 0.001 * (-1.0) ** ROWS
    sd = 1.4826 * 0.001
    n, d = (np.log(grid()[c]) for c in ("params", "tokens"))
    for sds, told in ((6, False), (12, True)):
        loss = np.exp(1 - 0.05 * (n - n.mean()) - 0.04 * (d - d.mean()) + scatter + sds * sd * (ROWS == 12))
        assert (found_in(grid(loss=loss), "outliers") is not None) is told


def test_rounding_is_given_as_a_standard_deviation():
    rounded = grid(loss=grid()["loss"].round(2))
    assert "rounding error of sd 0.003 enters" in found_in(rounded, "rounding", loss_step=0.01)


def test_a_trainers_records_are_checked_as_they_are():
    records = bs.load(Path(__file__).parents[1] / "data" / "zipf-facts.jsonl")
    assert isinstance(records.frame["training"].iloc[0], dict)  # no column to group runs by
    assert "smoothed" not in codes(records)
    assert "rounding" not in codes(records)


def test_runs_that_lack_unique_tokens_are_no_reason_to_refuse_a_table():
    unique = np.where(np.arange(25) < 12, np.nan, 1e9)
    assert "in 13 of 25 runs" in found_in(grid(unique_tokens=unique, tokens=1e10), "repeated-data")


def test_settings_that_trackers_nest_are_labels():
    frame = simulated_table(rows=12).frame
    nested = frame.assign(
        corpus=[["c4", "pile"]] * 6 + [["c4"]] * 6,
        tokenizer=[{"name": "a"}] * 12,
        group=[["a"]] * 6 + [["b"]] * 6,
        run=[{"id": i} for i in range(12)],
    )
    codes = {f.code for f in bs.check(make_table(nested))}
    assert {"mixed-corpora", "groups"} <= codes
    assert "mixed-tokenizers" not in codes
