from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayescale as bs
from bayescale.errors import TableError
from bayescale.runs import TableMeta, detect_step, make_table
from bayescale.tablefiles import read_runs, write_runs
from tests.conftest import simulated_table, written


@given(
    params=st.floats(1e5, 1e13),
    tokens=st.floats(1e6, 1e15),
    missing=st.sampled_from(["params", "tokens", "compute"]),
    k=st.floats(2, 10),
)
def test_any_two_of_params_tokens_compute_give_the_third(params, tokens, missing, k):
    full = {"params": params, "tokens": tokens, "compute": k * params * tokens, "loss": 2.0}
    raw = pd.DataFrame([full]).drop(columns=missing)
    table = make_table(raw, bs.TableMeta(flops_per_param_token=k))
    assert table.column(missing)[0] == pytest.approx(full[missing], rel=1e-12)


def test_errors_of_a_shared_evaluation_are_no_noise_between_runs():
    raw = pd.DataFrame({"params": [1e8, 2e8], "tokens": [2e9, 4e9], "loss": [3.5, 3.2], "loss_se": 0.01})
    apart = make_table(raw, bs.TableMeta()).known_noise()
    np.testing.assert_allclose(apart, 0.01 / np.array([3.5, 3.2]))
    assert not make_table(raw, bs.TableMeta(shared_evaluation=True)).known_noise().any()


@given(
    st.integers(1, 4),
    st.lists(st.integers(1000, 90000), min_size=3, max_size=20).filter(lambda x: any(i % 10 for i in x)),
)
def test_rounding_is_detected(decimals, units):
    assert detect_step(np.array(units) / 10**decimals) == pytest.approx(10.0**-decimals)


@pytest.mark.parametrize(("unit", "nats"), [("bits/byte", np.log(2) / 0.25), ("nats/byte", 1 / 0.25)])
def test_rounding_is_detected_in_the_unit_of_the_losses_and_enters_the_noise_in_nats(unit, nats):
    raw = pd.DataFrame({"params": [1e8, 2e8, 4e8], "tokens": 2e9, "loss": [1.21, 1.1, 1.03]})
    table = make_table(raw, bs.TableMeta(loss_unit=unit, tokens_per_byte=0.25))
    assert table.meta.loss_step == pytest.approx(0.01)
    # A rounding error is uniform over a step.
    np.testing.assert_allclose(table.frame["loss_rounding"], 0.01 / np.sqrt(12) * nats)
    np.testing.assert_allclose(table.known_noise(), 0.01 / np.sqrt(12) / raw["loss"])


def test_unrounded_losses_have_no_step():
    assert detect_step(np.random.default_rng(0).uniform(2, 3, 50)) == 0.0


def test_a_frame_alone_is_read_as_a_file_is():
    raw = pd.DataFrame({"params": [1e8, 2e8], "tokens": 2e9, "loss": [3.1, 3.0]})
    table = bs.make_table(raw)
    assert table.meta.loss_unit == "nats/token"
    assert table.column("loss").tolist() == [3.1, 3.0]
    with pytest.raises(TableError, match="raw: found a dict; expected a pandas DataFrame"):
        bs.make_table(raw.to_dict())


def test_a_frame_with_a_column_twice_is_refused():
    with pytest.raises(TableError, match="table: column 'loss' stands twice; rename or remove one"):
        make_table(pd.DataFrame([[1e8, 2e9, 3.5, 3.4]], columns=["params", "tokens", "loss", "loss"]))


def test_a_frame_without_losses_is_not_told_what_to_type():
    with pytest.raises(TableError) as error:
        make_table(pd.DataFrame({"params": [1e8], "val_loss": [3.1]}), TableMeta())
    assert str(error.value) == "table: no column 'loss'; found params, val_loss"


@pytest.mark.parametrize("column", ["loss", "loss_se"])
def test_commas_group_digits_of_sizes_and_never_those_of_losses(tmp_path, column):
    """A comma in a loss may be the decimal one: a perplexity of 218,123 may be 218.123."""
    path = written(
        tmp_path, 'params,tokens,compute,loss\n"21,000,000","1,000,000","126,000,000,000,000",11.3\n'
    )
    table = read_runs(path, loss_unit="perplexity")
    assert table.frame[["params", "tokens", "compute"]].iloc[0].tolist() == [21e6, 1e6, 126e12]
    for cell in ("218,123", "218,1"):
        raw = pd.DataFrame([{"params": 1e8, "tokens": 2e9, "loss": 218.1, "loss_se": 0.5} | {column: cell}])
        with pytest.raises(TableError, match=f"column '{column}': found '{cell}'; .* decimal point"):
            make_table(raw, TableMeta(loss_unit="perplexity"))


def test_a_perplexity_worse_than_a_uniform_guess_is_refused_in_its_own_words():
    raw = pd.DataFrame({"params": [1e8, 2e8], "tokens": 2e9, "loss": [250_000.0, 260_000.0]})
    with pytest.raises(TableError, match=r"row 2.* uniform guess \(256,000\); is a decimal point missing"):
        make_table(raw, TableMeta(loss_unit="perplexity"))


@pytest.mark.parametrize("flags", [[False, False, True], ["false", "no", "true"]])
def test_a_run_that_blew_up_and_is_flagged_does_not_stand_in_the_way(flags):
    raw = pd.DataFrame({"params": [1e8, 2e8, 3e8], "tokens": 2e9, "loss": [3.5, 3.4, 2506.6]})
    with pytest.raises(TableError, match=r"row 3, column 'loss': found 2506\.6 nats/token, worse than"):
        make_table(raw)
    assert len(make_table(raw.assign(outlier=flags)).without_outliers()) == 2
    raw.loc[0, "loss"] = 30.0
    with pytest.raises(TableError, match="row 1, column 'loss': found 30 nats/token, worse than"):
        make_table(raw.assign(outlier=flags))


UNITS = {
    "compute in EFLOP": ({"compute": [2.4e-2, 5e-2]}, "mostly 9.1e-20 times params x tokens; expected FLOP"),
    "compute in watt hours": ({"compute": [2.4e21, 5e21]}, r"mostly 9.1e\+03 times params x tokens"),
    "some in billions": (
        {"tokens": [2.0, 4e9]},
        "row 1, column 'tokens': found 2, and up to 4e\\+09 elsewhere",
    ),
    "unique tokens in billions": ({"unique_tokens": [2.0, 4.0]}, "'unique_tokens': the largest value is 4;"),
    "errors in per cent": (
        {"loss_se": [0.01, 5.0]},
        "row 2, column 'loss_se': found 5, no less than the loss",
    ),
    "flags": ({"loss": [True, False]}, "row 1, column 'loss': found 'True'; expected a number such as 1.5"),
    "dates": ({"tokens": pd.to_datetime(["2026-01-01"] * 2)}, "row 1, column 'tokens': found '2026-01-01"),
}


@pytest.mark.parametrize("case", UNITS)
def test_what_cannot_be_in_the_unit_expected_is_refused(case):
    columns, message = UNITS[case]
    raw = pd.DataFrame({"params": [1e8, 2e8], "tokens": [2e9, 4e9], "loss": [3.5, 3.2]})
    with pytest.raises(TableError, match=message):
        make_table(raw.assign(**columns))


@pytest.mark.parametrize("text", ["21,00", "1.2.3", "M", "ten", "5X", "1,000,00"])
def test_what_is_no_number_stays_an_error(tmp_path, text):
    (tmp_path / "t.csv").write_text(f'params,tokens,loss\n"{text}",2e9,3.5\n')
    with pytest.raises(TableError, match=r"row 2, column 'params': found .*; expected a number"):
        read_runs(tmp_path / "t.csv")


def test_a_rounding_error_that_is_given_is_in_the_losses_unit():
    raw = pd.DataFrame({"params": [1e8, 2e8], "tokens": 2e9, "loss": [4.0, 3.5], "loss_rounding": 0.1})
    table = make_table(raw, bs.TableMeta(loss_unit="bits/token", loss_step=0.0))
    np.testing.assert_allclose(table.column("loss_rounding"), 0.1 * np.log(2))


def test_seeds_of_runs_left_out_are_no_new_ones(tmp_path):
    frame = simulated_table(rows=12).frame.assign(seed=np.arange(12), outlier=[False] * 11 + [True])
    table = make_table(frame, TableMeta(name="t"))
    kept = table.without_outliers()
    assert kept.frame["seed"].max() == 10
    assert kept.first_new_seed() == kept.where(np.arange(11) < 3).first_new_seed() == 12
    write_runs(kept, tmp_path / "kept.csv")
    assert bs.load(tmp_path / "kept.csv").first_new_seed() == 12
    assert simulated_table(rows=12).first_new_seed() == 0


def test_seeds_that_no_trainer_takes_leave_new_ones_that_it_does():
    frame = simulated_table(rows=3).frame.assign(seed=[20_240_101, 2, 20_240_103])
    assert make_table(frame).first_new_seed() == 3


@given(st.integers(2, 4), st.floats(0.5, 8), st.integers(0, 10_000))
def test_rounding_is_found_in_losses_stored_in_32_bits(decimals, least, seed):
    losses = np.round(least * np.random.default_rng(seed).uniform(1, 1.3, 20), decimals)
    step = detect_step(losses)
    assert detect_step(losses.astype(np.float32).astype(float)) == step > 0


def test_compute_in_another_unit_is_told_by_what_follows_from_it():
    frame = pd.DataFrame({"params": [1e8, 2e8], "compute": [0.1, 0.4], "loss": [3.1, 2.9]})
    with pytest.raises(
        TableError, match=r"column 'compute': by it the largest number of tokens is .* PF-days"
    ):
        make_table(frame)


def test_seeds_of_runs_without_a_loss_are_taken():
    frame = simulated_table(rows=12).frame.assign(seed=range(12))
    crashed = frame.assign(loss=[*frame["loss"][:11], np.nan])
    assert make_table(crashed, drop_missing=True).first_new_seed() == 12


def test_rows_of_another_frame_are_its_own():
    table = make_table(simulated_table(rows=12).frame, rows=range(2, 14))
    for rows in (20, 8):
        other = replace(table, frame=simulated_table(rows=rows).frame)
        assert other.where(np.arange(rows) > 3).rows is None
    assert table.where(np.arange(12) > 9).rows == (12, 13)
