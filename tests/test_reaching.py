"""Reaching a loss: at least compute, each draw at its own optimum."""

import numpy as np
import pytest
import xarray as xr

from bayescale.allocations import _beyond_ratios
from bayescale.reaching import _by_bisection, _searched


def test_what_a_compute_buys_takes_that_compute(full_fit):
    compute = 3 * full_fit.table.column("compute").max()
    few = full_fit.thinned(1000)
    bought = few.allocate(compute=compute).draws.median("sample")
    for served in (0.0, 1.0):
        takes = few.allocate(loss=float(bought["loss"][0]), served_tokens=served).draws.median("sample")
        assert takes["compute"] == pytest.approx(compute, rel=0.1)
        assert takes["tokens_per_param"] == pytest.approx(float(bought["tokens_per_param"][0]), rel=0.2)


def test_the_search_finds_what_the_formula_knows(law_only_fit):
    searched, _ = _searched(law_only_fit, 2.0, seed=0)
    known, _ = _by_bisection(law_only_fit, 2.0)
    for name in ("compute", "tokens_per_param", "params"):
        np.testing.assert_allclose(searched[name], known[name], rtol=0.03)


@pytest.mark.parametrize(("beyond", "said"), [(3, False), (10, True)])
def test_optima_where_there_are_no_runs_are_said(full_fit, beyond, said):
    ratios = full_fit.table.column("tokens") / full_fit.table.column("params")
    of_draws = np.full((100, 2), np.median(ratios))
    of_draws[:beyond, 1] = 2 * ratios.max()
    draws = xr.Dataset({"tokens_per_param": (("sample", "budget"), of_draws)})
    assert [w.split(" of the posterior")[0] for w in _beyond_ratios(full_fit, draws)] == ["10%"] * said
