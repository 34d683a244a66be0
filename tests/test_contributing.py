"""What CONTRIBUTING.md tells people to do, done: a table added by two files, a law by one."""

import re
import shutil
from pathlib import Path

import pytest

import bayescale as bs
from bayescale import catalogue
from bayescale.laws import BUILTIN
from bayescale.laws.builtin import read_laws
from bayescale.runs import make_table
from tests.conftest import simulated_table

ROOT = Path(__file__).parents[1]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Return a copy of the data folder that the catalogue reads."""
    folder = shutil.copytree(catalogue.DATA, tmp_path / "data")
    monkeypatch.setattr(catalogue, "DATA", folder)
    catalogue._entries.cache_clear()
    yield folder
    catalogue._entries.cache_clear()


def test_a_table_is_two_files(data):
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    toml = re.search(r"```toml\n(name = .*?)```", guide, re.DOTALL)[1]
    frame = simulated_table(rows=10).frame[["params", "tokens", "loss"]]
    (data / "mine.toml").write_text(toml)
    frame.to_csv(data / "mine.csv", index=False)
    assert "mine" in [e.name for e in bs.tables() if e.bundled]
    table = bs.load("mine")
    assert (len(table), table.meta.params_convention) == (10, "non-embedding")
    assert table.meta.citation.startswith("Us et al. 2026")
    assert "params-convention" not in [f.code for f in bs.check(table)]


def test_a_law_is_one_file(tmp_path, monkeypatch):
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (tmp_path / "mine.toml").write_text(re.search(r"```toml\n(\[\[law\]\].*?)```", guide, re.DOTALL)[1])
    law = read_laws(tmp_path)["tokens-offset"]
    monkeypatch.setitem(BUILTIN, law.name, law)
    table = make_table(simulated_table(rows=20).frame, bs.TableMeta(name="t", loss_step=0.0))
    fit = bs.fit(table, "tokens-offset", method="fast", draws=200)
    assert fit.forecast(tokens=1e13).summary()["expected_loss"].item() < table.column("loss").max()
    assert "arXiv:2601.00000" in bs.report(fit)
    (tmp_path / "again.toml").write_text((tmp_path / "mine.toml").read_text())
    with pytest.raises(bs.BayescaleError, match=r"mine.toml: a law called 'tokens-offset' exists already"):
        read_laws(tmp_path)
