"""What CONTRIBUTING.md tells people to do, done: a table added by two files, a law by one entry."""

import re
import shutil
from pathlib import Path

import pytest

import bayescale as bs
from bayescale import catalogue
from bayescale.laws import BUILTIN
from bayescale.laws.law import EXPONENT_PRIOR, FLOOR_PRIOR, TERM_PRIOR
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


def test_a_law_is_one_entry(monkeypatch):
    law = bs.Law(
        name="vocabulary-floor",
        title="Chinchilla's term in params, with a floor",
        formula="E + A*N**-alpha",
        parameters=(
            bs.Parameter("E", FLOOR_PRIOR, "nats/token", "irreducible loss"),
            bs.Parameter("A", TERM_PRIOR, "nats/token", "loss from finite params at N = 1"),
            bs.Parameter("alpha", EXPONENT_PRIOR, "", "exponent in params"),
        ),
        citation="Us et al. 2026, arXiv:2601.00000, equation 1",
    )
    monkeypatch.setitem(BUILTIN, law.name, law)
    table = make_table(simulated_table(rows=20).frame, bs.TableMeta(name="t", loss_step=0.0))
    fit = bs.fit(table, "vocabulary-floor", method="fast", draws=200)
    assert fit.forecast(params=1e12).summary()["expected_loss"].item() < table.column("loss").max()
    assert "arXiv:2601.00000" in bs.report(fit)
