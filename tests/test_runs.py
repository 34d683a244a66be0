import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayescale as bs
from bayescale.errors import BayescaleError, TableError
from bayescale.runs import MAX_ROWS, TableMeta, detect_step, make_table, read_runs, write_runs
from tests.conftest import simulated_table

GOOD = "params,tokens,loss\n1e8,2e9,3.5\n2e8,4e9,3.2\n4e8,8e9,3.0\n"


def written(tmp_path, text, name="runs.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_every_format_reads_the_same(tmp_path, kind):
    frame = pd.DataFrame({"params": [1e8, 2e8], "tokens": [2e9, 4e9], "loss": [3.5, 3.2]})
    path = tmp_path / f"runs.{kind}"
    writers = {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(path),
        "csv.gz": lambda: path.write_bytes(gzip.compress(frame.to_csv(index=False).encode())),
    }
    writers[kind]()
    table = read_runs(path)
    np.testing.assert_array_equal(table.column("loss"), frame["loss"])
    np.testing.assert_allclose(table.column("compute"), 6 * frame["params"] * frame["tokens"])
    assert table.name == "runs"


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


def test_columns_are_mapped_and_units_converted(tmp_path):
    path = written(tmp_path, "N,D,bpb,note\n1e8,2e9,1.2,a\n2e8,4e9,1.1,b\n")
    mapping = {"params": "N", "tokens": "D", "loss": "bpb"}
    table = read_runs(path, columns=mapping, loss_unit="bits/byte", tokens_per_byte=0.25)
    np.testing.assert_allclose(table.column("loss"), np.array([1.2, 1.1]) * np.log(2) / 0.25)
    assert table.meta.loss_unit == "bits/byte"
    assert list(table.frame["note"]) == ["a", "b"]


def test_toml_beside_the_file_gives_metadata_and_columns(tmp_path):
    path = written(tmp_path, "N,D,ppl\n1e8,2e9,30.5\n2e8,4e9,25.1\n3e8,6e9,22.0\n")
    written(
        tmp_path,
        'title = "mine"\nloss_unit = "perplexity"\n[columns]\nparams="N"\ntokens="D"\nloss="ppl"\n',
        "runs.toml",
    )
    table = read_runs(path)
    assert table.meta.title == "mine"
    np.testing.assert_allclose(table.column("loss"), np.log([30.5, 25.1, 22.0]))
    # Rounded to .1 perplexity: the error is that over the square root of 12, over the perplexity.
    expected = 0.1 / np.sqrt(12) / np.array([30.5, 25.1, 22.0]) / np.log([30.5, 25.1, 22.0])
    np.testing.assert_allclose(table.known_noise(), expected)


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


def test_written_tables_read_back(tmp_path):
    table = bs.load("opt")
    write_runs(table, tmp_path / "opt.csv")
    again = read_runs(tmp_path / "opt.csv")
    pd.testing.assert_frame_equal(again.frame, table.frame, rtol=1e-9)
    assert again.meta == table.meta


@pytest.mark.parametrize(
    ("unit", "losses"), [("perplexity", [30.5, 25.1, 22.0]), ("bits/byte", [0.91, 0.83, 0.8])]
)
def test_errors_of_losses_are_converted_and_written_back(tmp_path, unit, losses):
    """An error is in the unit of its loss: the conversion's slope times it, in nats, and back in the file."""
    se = np.array([0.03, 0.02, 0.01])
    raw = pd.DataFrame({"params": [1e8, 2e8, 3e8], "tokens": 2e9, "loss": losses, "loss_se": se})
    table = make_table(raw, bs.TableMeta(loss_unit=unit, tokens_per_byte=0.3, loss_step=0.0))
    slope = 1 / np.array(losses) if unit == "perplexity" else np.log(2) / 0.3
    np.testing.assert_allclose(table.column("loss_se"), slope * se)
    np.testing.assert_allclose(table.known_noise(), slope * se / table.column("loss"))
    write_runs(table, tmp_path / "again.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "again.csv")["loss_se"], se)
    pd.testing.assert_frame_equal(read_runs(tmp_path / "again.csv").frame, table.frame, rtol=1e-9)


def test_columns_and_values_that_say_another_unit_are_refused(tmp_path):
    path = written(tmp_path, "params,tokens,Val PPL\n1e8,2e9,3.1\n")
    with pytest.raises(TableError, match="its name says perplexity, and no unit is stated"):
        read_runs(path, columns={"loss": "Val PPL"})
    assert read_runs(path, columns={"loss": "Val PPL"}, loss_unit="nats/token").column("loss")[0] == 3.1
    raw = pd.DataFrame({"params": [1e8, 2e8], "tokens": 2e9, "loss": [1.5, 0.9]})
    with pytest.raises(TableError, match=r"row 2, column 'loss': found 0\.9"):  # no perplexity is below 1
        make_table(raw, bs.TableMeta(loss_unit="perplexity"))


def test_tokens_per_byte_that_would_do_nothing_are_refused(tmp_path):
    path = written(tmp_path, GOOD)
    for how in ({}, {"loss_unit": "bits/token"}):
        with pytest.raises(TableError, match=r"runs\.csv: found tokens_per_byte .*--loss-unit bits/byte"):
            read_runs(path, tokens_per_byte=0.25, **how)
    written(tmp_path, 'loss_unit = "nats/byte"\ntokens_per_byte = 0.3\n', "runs.toml")
    assert read_runs(path, tokens_per_byte=0.25).column("loss")[0] == pytest.approx(3.5 / 0.25)
    # A TOML may state what is known of the tokenizer.
    written(tmp_path, "tokens_per_byte = 0.3\n", "runs.toml")
    assert read_runs(path).column("loss")[0] == 3.5


@pytest.mark.parametrize(("kind", "separator"), [("csv", ", "), ("tsv", " \t ")])
def test_spaces_around_names_and_values_are_no_part_of_them(tmp_path, kind, separator):
    rows = (("params", "tokens", "loss", "note"), ("1e8", "2e9", "3.5", '"a, b"'), ("2e8", "4e9", "", "c"))
    path = written(tmp_path, "\n".join(map(separator.join, rows)), f"runs.{kind}")
    table = read_runs(path, drop_missing=True)
    assert table.frame[["params", "tokens", "loss"]].to_numpy().tolist() == [[1e8, 2e9, 3.5]]
    assert table.frame["note"].tolist() == ["a, b"]


@pytest.mark.parametrize("nothing", ["NaN", '"NaN"', '"nan"', "null"])
def test_a_nan_in_json_lines_is_a_missing_value(tmp_path, nothing):
    lines = [f'{{"params": {n}e8, "tokens": 2e9, "loss": {loss}}}' for n, loss in ((1, 3.5), (2, nothing))]
    path = written(tmp_path, "\n".join(lines), "runs.jsonl")
    with pytest.raises(TableError, match="row 2, column 'loss': the value is missing"):
        read_runs(path)
    assert read_runs(path, drop_missing=True).column("loss").tolist() == [3.5]


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("val_ppl", "perplexity"),
        ("ppl", "perplexity"),
        ("evalPPL", "perplexity"),
        ("Perplexity (val)", "perplexity"),
        ("bits per byte", "bits/byte"),
        ("val/bits_per_byte (min)", "bits/byte"),
        ("bpb2", "bits/byte"),
        ("eval/apples loss", None),
        ("supplied_loss", None),
    ],
)
def test_a_unit_is_told_by_whole_words_of_a_name(tmp_path, name, unit):
    path = written(tmp_path, f"params,tokens,{name}\n1e8,2e9,3.1\n")
    if unit is None:
        assert read_runs(path, columns={"loss": name}).column("loss")[0] == 3.1
    else:
        with pytest.raises(TableError, match=f"its name says {unit}, and no unit is stated"):
            read_runs(path, columns={"loss": name})


def test_a_frame_without_losses_is_not_told_what_to_type():
    with pytest.raises(TableError) as error:
        make_table(pd.DataFrame({"params": [1e8], "val_loss": [3.1]}), TableMeta())
    assert str(error.value) == "table: no column 'loss'; found params, val_loss"


BAD = {
    "millions twice": ("params,tokens,loss\n1,2,3\n", "column 'params': the largest value is 1;"),
    "missing column": ("params,tokens,val_loss\n1e8,2e9,3\n", '--columns "loss=val_loss"'),
    "negative loss": (GOOD + "8e8,2e10,-2\n", "row 5, column 'loss': found -2"),
    "zero params": ("params,tokens,loss\n0,2e9,3\n", "row 2, column 'params': found 0"),
    "infinite loss": (
        "params,tokens,loss\n1e8,2e9,inf\n",
        "row 2, column 'loss': found inf; expected a finite number above 0",
    ),
    "perplexity as nats": ("params,tokens,loss\n1e8,2e9,30.1\n", "--loss-unit perplexity"),
    "missing value": (GOOD + "8e8,2e10,\n", "row 5, column 'loss': the value is missing"),
    "empty file": ("", "the file is empty"),
    "header only": ("params,tokens,loss\n", "no runs"),
    "header twice": ("params,tokens,loss,loss\n1,2,3,4\n", "column 'loss' stands twice"),
    "header twice but for spaces": ("params,tokens, loss,loss\n1,2,3,4\n", "column 'loss' stands twice"),
    "text in a number": ("params,tokens,loss\n1e8,2e9,3\n2e8,12X,3\n", "row 3, column 'tokens': found '12X'"),
    "binary": ("\x00\x01\x02", "runs.csv"),
    "a field too many": (
        GOOD + "8e8,2e10,3.1,0.01\n",
        "line 5: found 4 fields, expected at most the header's 3",
    ),
    "semicolons": ("params;tokens;loss\n1e8;2e9;3,1\n", "looks separated by ';'"),
    "blank lines before": ("params,tokens,loss\n\n\n1e8,2e9,x\n", "row 4, column 'loss': found 'x'"),
    "error of some": (
        "params,tokens,loss,loss_se\n1e8,2e9,3,0.1\n2e8,2e9,3,\n",
        "row 3, column 'loss_se': the value is missing, and others are not",
    ),
    "flag of no kind": (
        "params,tokens,loss,outlier\n1e8,2e9,3,maybe\n",
        "row 2, column 'outlier': found 'maybe'; expected true",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_one_clear_error(tmp_path, what):
    text, match = BAD[what]
    path = written(tmp_path, text)
    with pytest.raises(TableError) as error:
        read_runs(path)
    assert match in str(error.value)
    assert "runs.csv" in str(error.value)


def test_rows_left_out_do_not_move_the_others(tmp_path):
    text = "params,tokens,loss\n1e8,2e9,\n2e8,4e9,3\n4e8,8e9,-1\n"
    with pytest.raises(TableError, match="row 4, column 'loss': found -1"):
        read_runs(written(tmp_path, text), drop_missing=True)


def test_the_index_of_a_parquet_is_a_column_like_others(tmp_path):
    frame = pd.DataFrame({"params": [1e8, 2e8, 4e8], "tokens": 2e9, "loss": [3.1, 2.9, 2.7]})
    frame.set_index("params").to_parquet(tmp_path / "runs.parquet")
    assert read_runs(tmp_path / "runs.parquet").column("params").tolist() == [1e8, 2e8, 4e8]


@pytest.mark.parametrize("cut", [10, 40])
def test_a_damaged_gz_is_an_error(tmp_path, cut):
    whole = gzip.compress(GOOD.encode() * 3)
    (tmp_path / "runs.csv.gz").write_bytes(whole[:cut])
    with pytest.raises(TableError, match=r"runs.csv.gz: cannot be read as .csv"):
        read_runs(tmp_path / "runs.csv.gz")


def test_a_column_may_be_read_twice_and_a_misspelt_name_of_ours_is_told(tmp_path):
    path = written(tmp_path, "N,loss\n1e8,3.1\n2e8,2.9\n4e8,2.7\n")
    table = read_runs(path, columns={"params": "N", "tokens": "N * 20"})
    np.testing.assert_allclose(table.column("tokens"), 20 * table.column("params"))
    with pytest.raises(TableError, match="did you mean 'params'"):
        read_runs(path, columns={"parms": "N"})


@pytest.mark.parametrize("name", [".", "", "/", "x" * 300 + ".csv"])
def test_what_is_no_file_is_an_error(name):
    with pytest.raises(TableError):
        bs.load(name)


def test_missing_rows_can_be_left_out(tmp_path):
    table = read_runs(written(tmp_path, GOOD + "8e8,2e10,\n"), drop_missing=True)
    assert len(table) == 3


def test_training_log_is_refused_before_it_is_read_whole(tmp_path):
    path = tmp_path / "log.csv"
    with path.open("w") as file:
        file.write("params,tokens,loss\n")
        file.writelines("1e8,2e9,3.1\n" for _ in range(MAX_ROWS + 1))
    with pytest.raises(TableError, match="one row per trained model"):
        read_runs(path)


def test_mistyped_mapping_names_the_near_column(tmp_path):
    with pytest.raises(TableError, match="did you mean 'tokens'"):
        read_runs(written(tmp_path, GOOD), columns={"tokens": "token"})


def test_unknown_metadata_is_an_error(tmp_path):
    written(tmp_path, 'titel = "x"', "runs.toml")
    with pytest.raises(TableError, match="'titel' is not known"):
        read_runs(written(tmp_path, GOOD))


def test_truncated_parquet_is_an_error(tmp_path):
    path = tmp_path / "runs.parquet"
    pd.DataFrame({"loss": [1.0]}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TableError, match=r"cannot be read as \.parquet"):
        read_runs(path)


def test_unwritable_place_leaves_nothing(tmp_path):
    with pytest.raises(BayescaleError, match="cannot write here"):
        write_runs(bs.load("opt"), tmp_path / "absent" / "opt.csv")
    assert list(tmp_path.iterdir()) == []


EXPORT = """Name,Model/Non-Embedding Params,Tokens (B),train/loss,val/bits_per_byte (min)
a,"21,000,000",0.5,3.9,1.48
b,58M,2,3.5,1.31
c,1.1B,8,3.1,1.07
d,410000000,24,3.1,
"""


def test_export_of_a_tracker(tmp_path):
    path = tmp_path / "export.csv"
    path.write_text(EXPORT)
    with pytest.raises(TableError) as caught:
        read_runs(path)
    typed = str(caught.value).partition("--columns ")[2].strip('"')
    columns = dict(pair.split("=") for pair in typed.split(","))
    assert columns == {
        "params": "Model/Non-Embedding Params", "tokens": "Tokens (B)", "loss": "val/bits_per_byte (min)",
    }  # fmt: skip
    with pytest.raises(TableError, match=r"says bits/byte, and no unit is stated"):
        read_runs(path, columns=columns, drop_missing=True)
    how = {"loss_unit": "bits/byte", "tokens_per_byte": 0.25, "drop_missing": True}
    with pytest.raises(TableError, match=r"largest value is 8; expected a count.*1e9"):
        read_runs(path, columns=columns, **how)
    columns["tokens"] += " * 1e9"
    table = read_runs(path, columns=columns, **how)
    assert table.column("params").tolist() == [21e6, 58e6, 1.1e9]
    assert table.column("tokens").tolist() == [5e8, 2e9, 8e9]
    assert table.column("loss")[0] == pytest.approx(1.48 * np.log(2) / 0.25)


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


@pytest.mark.parametrize("text", ["21,00", "1.2.3", "M", "ten", "5X", "1,000,00"])
def test_what_is_no_number_stays_an_error(tmp_path, text):
    (tmp_path / "t.csv").write_text(f'params,tokens,loss\n"{text}",2e9,3.5\n')
    with pytest.raises(TableError, match=r"row 2, column 'params': found .*; expected a number"):
        read_runs(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("cell", "match"),
    [
        ("3.2B", "found '3.2B'; expected a number without K, M, B or T, to multiply by 1e\\+09"),
        ("abc", "found 'abc'; expected a number"),
    ],
)
def test_a_factor_multiplies_numbers_alone(tmp_path, cell, match):
    """A letter and a factor would multiply twice; text is no missing value, which could be dropped."""
    path = written(tmp_path, f'params,Tokens (B),loss\n1e8,"1,000",3.5\n2e8,{cell},3.2\n')
    for drop_missing in (False, True):
        with pytest.raises(TableError, match=rf"runs\.csv, row 3, column 'tokens': {match}"):
            read_runs(path, columns={"tokens": "Tokens (B) * 1e9"}, drop_missing=drop_missing)
    path = written(tmp_path, 'params,Tokens (B),loss\n1e8,"1,000",3.5\n2e8,,3.2\n')
    table = read_runs(path, columns={"tokens": "Tokens (B) * 1e9"}, drop_missing=True)
    assert table.column("tokens").tolist() == [1e12]


def test_a_rounding_error_that_is_given_is_in_the_losses_unit():
    raw = pd.DataFrame({"params": [1e8, 2e8], "tokens": 2e9, "loss": [4.0, 3.5], "loss_rounding": 0.1})
    table = make_table(raw, bs.TableMeta(loss_unit="bits/token", loss_step=0.0))
    np.testing.assert_allclose(table.column("loss_rounding"), 0.1 * np.log(2))


def test_tables_are_written_as_csv_or_not_at_all(tmp_path):
    for name in ("t.csv.gz", "t.tsv", "t.parquet", "t"):
        with pytest.raises(TableError, match=r"written as \.csv"):
            write_runs(bs.load("opt"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_seeds_of_runs_left_out_are_no_new_ones(tmp_path):
    frame = simulated_table(rows=12).frame.assign(seed=np.arange(12), outlier=[False] * 11 + [True])
    table = make_table(frame, TableMeta(name="t"))
    kept = table.without_outliers()
    assert kept.frame["seed"].max() == 10
    assert kept.first_new_seed() == kept.where(np.arange(11) < 3).first_new_seed() == 12
    write_runs(kept, tmp_path / "kept.csv")
    assert bs.load(tmp_path / "kept.csv").first_new_seed() == 12
    assert simulated_table(rows=12).first_new_seed() == 0
