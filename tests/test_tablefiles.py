import gzip

import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale.errors import BayescaleError, TableError
from bayescale.runs import make_table
from bayescale.tablefiles import MAX_ROWS, read_runs, write_runs
from tests.conftest import GOOD, written


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


def test_toml_beside_a_gz_is_found_without_it(tmp_path):
    path = tmp_path / "runs.csv.gz"
    path.write_bytes(gzip.compress(GOOD.encode()))
    written(tmp_path, 'title = "mine"\n', "runs.toml")
    assert read_runs(path).meta.title == "mine"
    written(tmp_path, 'title = "of the gz"\n', "runs.csv.toml")
    assert read_runs(path).meta.title == "of the gz"


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


def test_a_file_in_another_encoding_is_told_what_to_do(tmp_path):
    (tmp_path / "runs.csv").write_bytes("params,tokens,loss,note\n1e8,2e9,3.5,déjà vu\n".encode("latin-1"))
    with pytest.raises(TableError, match=r"runs\.csv: no UTF-8 text .*; save it as UTF-8"):
        read_runs(tmp_path / "runs.csv")


def test_json_lines_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"params": 1e8, "tokens": 2e9, "loss": 3.5}\n', "utf-8-sig")
    assert read_runs(tmp_path / "runs.jsonl").column("params").tolist() == [1e8]


BAD = {
    "bars between columns": ("params|tokens|loss\n1e8|2e9|3.5\n", "line 1: the file looks separated by '|'"),
    "tabs in a csv": ("params\ttokens\tloss\n1e8\t2e9\t3.5\n", r"line 1: the file looks separated by '\t'"),
    "millions twice": ("params,tokens,loss\n1,2,3\n", "column 'params': the largest value is 1;"),
    "missing column": ("params,tokens,val_loss\n1e8,2e9,3\n", '--columns "loss=val_loss"'),
    "negative loss": (GOOD + "8e8,2e10,-2\n", "row 5, column 'loss': found -2"),
    "zero params": ("params,tokens,loss\n0,2e9,3\n", "row 2, column 'params': found 0"),
    "infinite loss": (
        "params,tokens,loss\n1e8,2e9,inf\n",
        "row 2, column 'loss': found inf; expected a finite number above 0",
    ),
    "perplexity as nats": ("params,tokens,loss\n1e8,2e9,30.1\n", "--loss-unit perplexity"),
    "loss missing after lines of spaces": (GOOD + "\n  \n8e8,2e10,\n", "row 7, column 'loss': the value"),
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
    "semicolons": (
        "params;tokens;loss\n1e8;2e9;3,1\n",
        "save it with decimal points (3.1, not 3,1) and with commas",
    ),
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


@pytest.mark.parametrize("name", [".", "", "/", "x" * 300 + ".csv"])
def test_what_is_no_file_is_an_error(name):
    with pytest.raises(TableError):
        bs.load(name)


def test_losses_that_a_factor_converts_are_rounded_as_the_file_has_them(tmp_path):
    (tmp_path / "runs.csv").write_text(
        "params,tokens,bpb\n1e8,2e9,1.21\n2e8,2e9,1.1\n4e8,2e9,1.03\n4e8,4e9,\n"
    )
    table = bs.read_runs(
        tmp_path / "runs.csv", columns={"loss": "bpb * 2.77"}, loss_unit="nats/token", drop_missing=True
    )
    assert table.meta.loss_step == pytest.approx(0.0277)
    np.testing.assert_allclose(table.known_noise(), 0.01 / np.sqrt(12) / np.array([1.21, 1.1, 1.03]))


def test_missing_rows_can_be_left_out(tmp_path):
    table = read_runs(written(tmp_path, GOOD + "8e8,2e10,\n"), drop_missing=True)
    assert len(table) == 3


@pytest.mark.parametrize("kind", ["csv", "jsonl", "frame"])
def test_runs_that_crashed_to_an_infinite_loss_can_be_left_out(tmp_path, kind):
    def read(drop_missing=False, crashed="inf"):
        if kind == "csv":
            return read_runs(written(tmp_path, GOOD + f"8e8,2e10,{crashed}\n"), drop_missing=drop_missing)
        if kind == "frame":
            raw = pd.DataFrame({"params": [1e8, 2e8, 4e8, 8e8], "tokens": 2e9})
            raw["loss"] = [3.5, 3.2, 3.0, float(crashed)]
            return make_table(raw, bs.TableMeta(), drop_missing=drop_missing)
        losses = (3.5, 3.2, 3.0, crashed.replace("inf", "Infinity"))
        lines = [f'{{"params": {n}e8, "tokens": 2e9, "loss": {loss}}}' for n, loss in enumerate(losses, 1)]
        return read_runs(written(tmp_path, "\n".join(lines), "runs.jsonl"), drop_missing=drop_missing)

    with pytest.raises(TableError, match=r"'loss': found inf; .*\(1 such rows\).*--drop-missing"):
        read()
    assert len(read(drop_missing=True)) == 3
    with pytest.raises(TableError, match=r"'loss': found -inf; expected a finite number above 0$"):
        read(drop_missing=True, crashed="-inf")


def test_training_log_is_refused_before_it_is_read_whole(tmp_path):
    path = tmp_path / "log.csv"
    with path.open("w") as file:
        file.write("params,tokens,loss\n")
        file.writelines("1e8,2e9,3.1\n" for _ in range(MAX_ROWS + 1))
    with pytest.raises(TableError, match="one row per trained model"):
        read_runs(path)


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


def test_tables_are_written_as_csv_or_not_at_all(tmp_path):
    for name in ("t.csv.gz", "t.tsv", "t.parquet", "t"):
        with pytest.raises(TableError, match=r"written as \.csv"):
            write_runs(bs.load("opt"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_cannot_be_written_leaves_no_metadata(tmp_path):
    (tmp_path / "runs.csv").mkdir()
    with pytest.raises(BayescaleError, match=r"runs\.csv"):
        write_runs(bs.load("opt"), tmp_path / "runs.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_words_for_what_is_missing_are_labels_among_labels(tmp_path):
    rows = [
        f"{i + 1}e8,{i + 1}e9,{3 - i / 10:.2f},{g},{w},no"
        for i, g, w in zip(range(6), ["C4", "None"] * 3, ["NA", *"12345"], strict=True)
    ]
    path = written(
        tmp_path,
        "\n".join(
            ["params,tokens,loss,group,width,outlier", *rows, "7e8,7e9,2.3,,NaN,NaN", "nan,7e9,2.3,C4,4,no"]
        ),
    )
    table = read_runs(path, drop_missing=True)
    assert table.frame["group"].value_counts().to_dict() == {"C4": 3, "None": 3}
    assert table.frame["group"].isna().sum() == 1
    assert np.isnan(table.frame["width"].to_numpy(float)).tolist() == [True, *[False] * 5, True]
    assert not table.frame["outlier"].any()
    assert len(table) == 7
    with pytest.raises(TableError, match="row 9, column 'params': the value is missing"):
        read_runs(path)


def test_a_loss_times_a_negative_factor_has_a_positive_step(tmp_path):
    rows = "\n".join(f"{i}e8,{i}e9,{-3 + i / 100:.3f}" for i in range(1, 7))
    table = read_runs(written(tmp_path, "params,tokens,ll\n" + rows), columns={"loss": "ll * -1"})
    assert table.meta.loss_step == pytest.approx(0.01)
    assert (table.frame["loss_rounding"] > 0).all()


def test_rounding_errors_that_were_given_are_written_and_read(tmp_path):
    frame = pd.DataFrame(
        {"params": [1e8, 2e8, 4e8], "tokens": [2e9, 4e9, 8e9], "loss": [3.51234, 3.22345, 3.01299]}
    )
    table = bs.make_table(frame.assign(loss_rounding=[0.01, 0.02, 0.0]))
    write_runs(table, tmp_path / "runs.csv")
    np.testing.assert_allclose(read_runs(tmp_path / "runs.csv").known_noise(), table.known_noise(), rtol=1e-6)
    rounded = bs.make_table(frame.round({"loss": 2}))
    write_runs(rounded, tmp_path / "rounded.csv")
    assert "loss_rounding" not in (tmp_path / "rounded.csv").read_text()
    np.testing.assert_allclose(read_runs(tmp_path / "rounded.csv").known_noise(), rounded.known_noise())
