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
    rng.shuffle(best)
    assert "smoothed" not in found(seen_examples=seen, loss=best)
