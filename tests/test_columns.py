import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale.cli.options import FileOptions
from bayescale.columns import suggested_mapping
from bayescale.errors import TableError
from bayescale.runs import make_table
from bayescale.tablefiles import read_runs
from tests.conftest import GOOD, written


def test_columns_are_mapped_and_units_converted(tmp_path):
    path = written(tmp_path, "N,D,bpb,note\n1e8,2e9,1.2,a\n2e8,4e9,1.1,b\n")
    mapping = {"params": "N", "tokens": "D", "loss": "bpb"}
    table = read_runs(path, columns=mapping, loss_unit="bits/byte", tokens_per_byte=0.25)
    np.testing.assert_allclose(table.column("loss"), np.array([1.2, 1.1]) * np.log(2) / 0.25)
    assert table.meta.loss_unit == "bits/byte"
    assert list(table.frame["note"]) == ["a", "b"]


def test_columns_and_values_that_say_another_unit_are_refused(tmp_path):
    path = written(tmp_path, "params,tokens,Val PPL\n1e8,2e9,3.1\n")
    with pytest.raises(TableError, match="its name says perplexity, and no unit is stated"):
        read_runs(path, columns={"loss": "Val PPL"})
    assert read_runs(path, columns={"loss": "Val PPL"}, loss_unit="nats/token").column("loss")[0] == 3.1
    raw = pd.DataFrame({"params": [1e8, 2e8], "tokens": 2e9, "loss": [1.5, 0.9]})
    with pytest.raises(TableError, match=r"row 2, column 'loss': found 0\.9"):  # no perplexity is below 1
        make_table(raw, bs.TableMeta(loss_unit="perplexity"))


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
        ("bits per token", "bits/token"),
        ("val_nats_per_byte", "nats/byte"),
        ("loss (bits/byte)", "bits/byte"),
        ("loss [nats/byte]", "nats/byte"),
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


def test_a_column_may_be_read_twice_and_a_misspelt_name_of_ours_is_told(tmp_path):
    path = written(tmp_path, "N,loss\n1e8,3.1\n2e8,2.9\n4e8,2.7\n")
    table = read_runs(path, columns={"params": "N", "tokens": "N * 20"})
    np.testing.assert_allclose(table.column("tokens"), 20 * table.column("params"))
    path = written(tmp_path, "N,a*3,loss\n1e8,2,3.1\n2e8,4,2.9\n4e8,8,2.7\n", "stars.csv")
    for typed, first in (("a*3", 2.0), ("a*3 * 1e9", 2e9)):
        found = read_runs(path, columns={"params": "N", "width": typed})
        assert found.column("width")[0] == first
    path = written(tmp_path, "N,loss\n1e8,3.1\n2e8,2.9\n4e8,2.7\n")
    with pytest.raises(TableError, match="did you mean 'params'"):
        read_runs(path, columns={"parms": "N"})


def test_mistyped_mapping_names_the_near_column(tmp_path):
    with pytest.raises(TableError, match="did you mean 'tokens'"):
        read_runs(written(tmp_path, GOOD), columns={"tokens": "token"})


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
        "params": "Model/Non-Embedding Params",
        "tokens": "Tokens (B) * 1e9",
        "loss": "val/bits_per_byte (min)",
    }
    with pytest.raises(TableError, match=r"says bits/byte, and no unit is stated"):
        read_runs(path, columns=columns, drop_missing=True)
    how = {"loss_unit": "bits/byte", "tokens_per_byte": 0.25, "drop_missing": True}
    plain = columns | {"tokens": "Tokens (B)"}
    with pytest.raises(
        TableError, match=r'units of 1e9, and values go up to 24; say so: .*"tokens=Tok.* \* 1e9"'
    ):
        read_runs(path, columns=plain, **how)
    table = read_runs(path, columns=columns, **how)
    assert table.column("params").tolist() == [21e6, 58e6, 1.1e9]
    assert table.column("tokens").tolist() == [5e8, 2e9, 8e9]
    assert table.column("loss")[0] == pytest.approx(1.48 * np.log(2) / 0.25)


def test_the_hint_for_names_with_commas_can_be_pasted(tmp_path):
    path = written(tmp_path, '"Params, total (M)",tokens,"loss, val"\n100,2e9,3.5\n200,4e9,3.2\n')
    with pytest.raises(TableError) as caught:
        read_runs(path)
    typed = str(caught.value).partition("--columns ")[2].strip('"')
    table = FileOptions(columns=typed).load_all(str(path))
    assert table.column("params").tolist() == [1e8, 2e8]
    assert table.column("loss").tolist() == [3.5, 3.2]


def test_what_has_our_name_needs_no_mapping():
    have = [
        "tokens",
        "model_size",
        "train/loss",
        "eval/loss - _step",
        "eval/loss - eval/loss__MIN",
        "eval/loss",
    ]
    assert suggested_mapping(have).endswith('--columns "params=model_size,loss=eval/loss"')


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


def test_a_column_with_our_name_is_read_as_another_too(tmp_path):
    path = written(tmp_path, "params,tokens,compute,loss\n1e8,1e9,9e17,3.1\n2e8,2e9,3.6e18,2.9\n")
    for ours, theirs in (("group", "params"), ("unique_tokens", "tokens"), ("width", "params")):
        table = read_runs(path, columns={ours: theirs})
        assert table.column("params").tolist() == [1e8, 2e8]
        assert table.column("tokens").tolist() == [1e9, 2e9]
        assert table.column(ours).tolist() == table.column(theirs).tolist()


@pytest.mark.parametrize(
    "name", ["val_bpc", "bpt", "loss (bits)", "loss_bits", "bits/char", "byte_perplexity"]
)
def test_losses_in_bits_or_of_bytes_are_not_taken_for_nats(tmp_path, name):
    path = written(tmp_path, f"params,tokens,{name}\n1e8,2e9,1.1\n2e8,4e9,1.05\n4e8,8e9,1.0\n")
    with pytest.raises(TableError, match="no unit is stated") as caught:
        read_runs(path, columns={"loss": name})
    assert ("--loss-unit perplexity" in str(caught.value)) is False
    assert len(read_runs(path, columns={"loss": name}, loss_unit="nats/token")) == 3


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("Params (M)", (131, 2000, 9640), "1e6"),
        ("params_in_millions", (131, 2000, 9640), "1e6"),
        ("config.n_params_M", (131, 2000, 9640), "1e6"),
        ("size [B]", (1, 7, 1300), "1e9"),
        ("Params (M)", (131e6, 2e9, 9e9), None),
        ("model_b", (131e6, 2e9, 9e9), None),
        ("params", (131e6, 2e9, 9e9), None),
    ],
)
def test_counts_whose_name_states_a_unit_need_its_factor(tmp_path, name, values, scale):
    rows = "".join(f"{v},{v * 1e9},{3 - i / 10}\n" for i, v in enumerate(values))
    path = written(tmp_path, f"{name},tokens,loss\n" + rows)
    if scale is None:
        assert read_runs(path, columns={"params": name}).column("params").tolist() == list(values)
        return
    with pytest.raises(TableError, match=f"units of {scale}, and values go up to"):
        read_runs(path, columns={"params": name})
    table = read_runs(path, columns={"params": f"{name} * {scale}"})
    assert table.column("params").tolist() == [v * float(scale) for v in values]
