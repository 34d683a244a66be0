"""Parameters that the data put far out in their prior are named, in every output made from the fit."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import bayescale as bs
from bayescale.laws.priors import Either, Gamma, LogNormal, Normal
from tests.conftest import simulated_table
from tests.test_cli import run


@pytest.mark.parametrize(
    ("prior", "same"),
    [
        (LogNormal(0.5, 0.7), stats.lognorm(0.7, scale=0.5)),
        (Normal(-0.1, 0.2), stats.norm(-0.1, 0.2)),
        (Gamma(2.0, 0.1), stats.gamma(2.0, scale=10.0)),
    ],
)
def test_sds_are_those_of_the_quantile(prior, same):
    for level in (0.01, 0.2, 0.5, 0.99):
        # The cube root of a gamma variable is Normal to a tenth of an sd.
        assert prior.sds_from_middle(same.ppf(level)) == pytest.approx(stats.norm.ppf(level), abs=0.12)


def test_sds_of_joined_priors_are_those_of_their_quantile():
    prior = Either(LogNormal(0.07, 0.7), LogNormal(0.003, 1.0))
    drawn = np.sort(prior.sample(np.random.default_rng(0), 100_000))
    for level in (0.01, 0.2, 0.5, 0.99):
        found = stats.norm.cdf(prior.sds_from_middle(drawn[int(level * len(drawn))]))
        assert found == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 1e5))
    assert prior.sds_from_middle(1e9) == -prior.sds_from_middle(1e-12) == pytest.approx(37, abs=0.1)


def test_a_table_from_the_prior_has_no_conflict():
    fit = bs.fit(simulated_table(rows=40), discrepancy=False)
    assert bs.prior_conflicts(fit) == []
    assert not any("middle of its prior" in w for w in fit.warnings)


def test_small_terms_are_told_apart_from_a_prior_for_language():
    table = bs.load("zipf-facts-steep")
    fit = bs.fit(replace(table, meta=table.meta.model_copy(update={"priors": {}})), discrepancy=False)
    found = {c.parameter: c for c in bs.prior_conflicts(fit)}
    assert {"A_centre", "B_centre"} <= found.keys()
    a = found["A_centre"]
    expected = np.log(np.median(fit.parameters["A_centre"]) / 0.5) / 0.7
    assert a.sds == pytest.approx(expected)
    assert a.sds < -3
    assert "below the middle of its prior LogNormal(0.5, 0.7)" in str(a)
    for made in (fit.forecast(params=1e6, tokens=1e7), fit.allocate(compute=1e14)):
        assert any(w.startswith("A_centre is 0.0") for w in made.warnings)
    small = "LogNormal(0.02, 1)"
    stated = bs.fit(table, discrepancy=False, priors={"A": small, "B": small})
    assert not {"A_centre", "B_centre"} & {c.parameter for c in bs.prior_conflicts(stated)}


def test_the_command_line_says_what_to_do():
    done = run("fit", "zipf-facts-steep", "--no-discrepancy", "--prior", "A=LogNormal(0.5, 0.7)")
    assert done.returncode == 0, done.stderr
    assert "! A_centre is 0.0" in done.stdout
    assert "--prior 'A=...' states another" in done.stdout


def test_conflicts_begin_at_two_and_a_half_sds_on_either_side():
    fit = bs.fit(simulated_table(rows=40), discrepancy=False)
    middle = float(np.median(fit.parameters["E"]))
    for sds in (-2.7, -2.3, 2.3, 2.7):
        prior = LogNormal(middle / np.exp(0.1 * sds), 0.1)
        own = fit.model.centred
        centred = SimpleNamespace(names=own.names, priors=own.priors | {"E": prior}, units=own.units)
        model = SimpleNamespace(centred=centred)
        stated = SimpleNamespace(model=model, law=fit.law, parameters=fit.parameters)
        found = [c for c in bs.prior_conflicts(stated) if c.parameter == "E"]
        assert len(found) == (abs(sds) > 2.5)
        if found:
            assert found[0].sds == pytest.approx(sds)
            assert f"{abs(sds):.1f} sd {'above' if sds > 0 else 'below'} the middle" in str(found[0])
