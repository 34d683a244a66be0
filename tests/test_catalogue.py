import shutil

import numpy as np
import pytest

import bayescale as bs
from bayescale import catalogue
from bayescale.errors import TableError

BUNDLED = [e.name for e in catalogue.tables() if e.bundled]
PULLED = [e.name for e in catalogue.tables() if not e.bundled]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_tables_load_with_citation(name):
    table = bs.load(name)
    assert len(table) >= 6
    assert table.meta.citation
    assert table.meta.licence
    assert table.meta.obtained


def test_chinchilla_has_240_rows_and_245_with_outliers():
    assert len(bs.load("chinchilla")) == 240
    everything = bs.load("chinchilla", outliers=True)
    assert len(everything) == 245
    left_out = everything.column("loss")[everything.frame["outlier"]]
    assert left_out.min() > bs.load("chinchilla").column("loss").max()


def test_opt_perplexities_become_nats():
    published = [3.407, 2.825, 2.545, 2.486, 2.438, 2.279]
    np.testing.assert_allclose(bs.load("opt").column("loss"), published, atol=6e-4)


@pytest.mark.parametrize("name", PULLED)
def test_published_tables_are_pulled_and_used_by_name(published, name):
    table = bs.pull(name, published)
    again = bs.load(name, outliers=True)
    assert len(again) == len(table)
    np.testing.assert_allclose(again.column("loss"), table.column("loss"), rtol=1e-8)
    assert again.meta.citation


def test_row_counts_of_the_originals(published):
    counts = {"chinchilla-original": 245, "gadre-c4": 34, "olmo-ladder-c4": 30, "scalebench-farseer": 411}
    assert {n: len(bs.pull(n, published)) for n in counts} == counts


def test_wrong_checksum_is_an_error(published, tmp_path):
    (tmp_path / "gadre").mkdir()
    target = tmp_path / "gadre" / "models.csv"
    shutil.copy(published / "gadre" / "models.csv", target)
    target.write_text(target.read_text().replace("3.5279492850157737", "3.4279492850157737"))
    with pytest.raises(TableError, match="it is not the file that the catalogue describes"):
        bs.pull("gadre-c4", tmp_path)


def test_what_cannot_be_had_says_how(tmp_path):
    with pytest.raises(TableError, match="--from DIR"):
        bs.pull("olmo-ladder-c4")
    with pytest.raises(TableError, match="does not exist"):
        bs.pull("olmo-ladder-c4", tmp_path)
    with pytest.raises(TableError, match="nothing to pull"):
        bs.pull("opt")
    with pytest.raises(TableError, match="`bayescale tables` lists names"):
        bs.load("chinchila")


def test_table_not_pulled_says_how_to_pull(monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESCALE_CACHE", str(tmp_path))
    with pytest.raises(TableError, match="bayescale tables pull gadre-c4"):
        bs.load("gadre-c4")
