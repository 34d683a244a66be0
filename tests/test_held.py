"""Allocations by laws with more inputs than params and tokens, which are held at what the user says."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

import bayescale as bs
from bayescale.errors import FitError
from bayescale.runs import make_table
from bayescale.tablefiles import write_runs
from tests.test_cli import run

TRUTH = {"E": 1.9, "A": 500.0, "B": 1400.0, "alpha": 0.35, "beta": 0.36, "R_D": 5.0}
POOL = 3e9


def repeating_loss(p: dict, n, d, unique):
    """Muennighoff et al. 2023, arXiv:2305.16264, equation 5, params counted in full."""
    unique = np.minimum(unique, d)
    worth = unique * (1 + p["R_D"] * (1 - np.exp(-(d / unique - 1) / p["R_D"])))
    return p["E"] + p["A"] * n ** -p["alpha"] + p["B"] * worth ** -p["beta"]


@cache
def repeating_table() -> bs.RunTable:
    grid = np.meshgrid(10 ** np.linspace(18, 20.5, 7), 10 ** np.linspace(0.5, 2.5, 4), [1, 4, 20])
    compute, ratio, epochs = (g.ravel() for g in grid)
    n = np.sqrt(compute / 6 / ratio)
    frame = pd.DataFrame({"params": n, "tokens": ratio * n, "unique_tokens": ratio * n / epochs})
    noise = np.exp(0.002 * np.random.default_rng(0).standard_normal(len(n)))
    frame["loss"] = repeating_loss(TRUTH, n, frame["tokens"], frame["unique_tokens"]) * noise
    return make_table(frame, bs.TableMeta(name="repeating", loss_step=0.0))


@pytest.fixture(scope="module", params=[False, True], ids=["law alone", "discrepancy"])
def repeating(request) -> bs.Fit:
    return bs.fit(repeating_table(), "muennighoff", discrepancy=request.param, method="fast")


def least(p: dict, compute: float, pool: float) -> tuple[float, float]:
    """Return the log of tokens per parameter at which a compute buys the least loss, and that loss."""

    def loss(log_ratio):
        n = np.sqrt(compute / 6 / np.exp(log_ratio))
        return repeating_loss(p, n, compute / 6 / n, pool)

    found = minimize_scalar(loss, bounds=(-4, 8), method="bounded", options={"xatol": 1e-8})
    return found.x, found.fun


@pytest.mark.parametrize("pool", [POOL, 1e12])
def test_a_pool_of_unique_tokens_moves_the_optimum_to_where_the_law_has_it(pool):
    few = bs.fit(repeating_table(), "muennighoff", discrepancy=False, method="fast").thinned(20)
    allocation = few.allocate(compute=[1e20, 1e21], held={"unique_tokens": pool})
    reached = few.allocate(loss=2.35, held={"unique_tokens": pool}).draws.isel(budget=0)
    for i in range(20):
        p = {name: float(few.parameters[name][i]) for name in TRUTH}
        bought = [(c, allocation.draws.isel(sample=i, budget=b)) for b, c in enumerate((1e20, 1e21))]
        for compute, run_ in (*bought, (float(reached["compute"][i]), reached.isel(sample=i))):
            ratio, loss = least(p, compute, pool)
            assert np.log(float(run_["tokens_per_param"])) == pytest.approx(ratio, abs=0.01)
            assert float(run_["loss"]) == pytest.approx(loss, rel=2e-4)
            assert float(run_["epochs"]) == pytest.approx(max(float(run_["tokens"]) / pool, 1.0))
    assert not allocation.closed_form
    assert allocation.held == {"unique_tokens": pool}


def test_the_true_optimum_under_a_pool_is_in_the_band(repeating):
    rows = repeating.allocate(compute=1e21, held={"unique_tokens": POOL}).summary().set_index("quantity")
    ratio, loss = least(TRUTH, 1e21, POOL)
    for name, truth in (("tokens_per_param", np.exp(ratio)), ("loss", loss)):
        assert rows.loc[name, "90%_low"] < truth < rows.loc[name, "90%_high"]
    assert rows.loc["epochs", "unit"] == "epochs"
    assert rows.loc["epochs", "median"] == pytest.approx(rows.loc["tokens", "median"] / POOL)
    plenty = repeating.allocate(compute=1e21, held={"unique_tokens": 1e12}).summary().set_index("quantity")
    for found, sizes in ((rows, (8.7e9, 19e9)), (plenty, (4.0e9, 42e9))):  # docs/plan.md
        assert found.loc[["params", "tokens"], "median"].to_numpy() == pytest.approx(sizes, rel=0.02)
    wasted = rows.loc["deadweight", "median"]
    assert 0 <= wasted < 0.01 * 1e21


def test_serving_under_a_pool_takes_more_epochs_and_fewer_params(repeating):
    held = {"unique_tokens": POOL}
    trained, served = (
        repeating.thinned(200).allocate(loss=2.4, served_tokens=s, held=held).draws.median("sample")
        for s in (0.0, 1e11)
    )
    assert float(served["params"][0]) < float(trained["params"][0])
    assert float(served["epochs"][0]) > float(trained["epochs"][0])
    # Of a pool that holds more than any run wants, the two cost what they cost without one.
    n, d = (float(served[name][0]) for name in ("params", "tokens"))
    assert repeating_loss(TRUTH, n, d, POOL) == pytest.approx(2.4, rel=0.005)


def test_what_is_held_stays_where_it_is_and_compute_follows_params_and_tokens():
    """A learning rate's term moves all losses alike; the optimum is that of the law without it."""
    rng = np.random.default_rng(1)
    frame = repeating_table().frame[["params", "tokens"]].assign(width=10 ** rng.uniform(2, 4, 84))
    n, d = frame["params"], frame["tokens"]
    plain = 1.9 + 500 * n**-0.35 + 1400 * d**-0.36
    frame["loss"] = (plain + 3 * frame["width"] ** -0.5) * np.exp(0.002 * rng.standard_normal(84))
    table = make_table(frame, bs.TableMeta(name="wide", loss_step=0.0))
    with_width = bs.fit(table, "E + A*N**-a + B*D**-b + V*width**-w", discrepancy=False, method="fast")
    near, far = (with_width.allocate(compute=1e20, held={"width": w}).draws for w in (1e2, 1e4))
    np.testing.assert_allclose(near["params"], far["params"])
    gap = float((near["loss"] - far["loss"]).median())
    assert gap == pytest.approx(3 * (100**-0.5 - 10_000**-0.5), rel=0.1)


def test_a_law_in_compute_has_the_compute_of_params_and_tokens():
    fit = bs.fit(repeating_table(), "gadre", discrepancy=False, method="fast")
    bought = fit.allocate(compute=1e20).draws.isel(budget=0)
    first = {name: float(bought[name][0]) for name in ("params", "tokens")}
    made = fit.forecast(params=first["params"] * np.array([0.9, 1, 1.1]), compute=1e20).expected_loss
    losses = made.reshape(-1, 3)[0]
    assert losses.argmin() == 1
    assert float(bought["loss"][0]) == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("held", "match"),
    [
        (None, "'unique_tokens' is not given: say at what value it is held, --at unique_tokens=VALUE"),
        (
            {"tokens": 1e9},
            "input 'tokens' cannot be held in an allocation by law 'muennighoff'; expected unique",
        ),
        ({"unique_tokens": -1.0}, "expected positive numbers"),
        ({"unique_tokens": [1e9, 2e9]}, "expected one value to hold it at"),
        ({"unique_tokens": 1e60}, "unique_tokens: found 1e\\+60, .. decades outside"),
    ],
)
def test_what_cannot_be_held_is_an_error(repeating, held, match):
    with pytest.raises(FitError, match=match):
        repeating.allocate(compute=1e21, held=held)


def test_laws_without_params_or_tokens_or_another_input_hold_nothing(law_only_fit):
    with pytest.raises(FitError, match="expected none: params and tokens, which it finds, are all it has"):
        law_only_fit.allocate(compute=1e21, held={"unique_tokens": 1e9})
    streams = bs.fit(bs.load("parscale-pile"), "parscale", discrepancy=False, method="fast")
    with pytest.raises(
        FitError, match="inputs N, streams; an allocation needs a law in params N and tokens D"
    ):
        streams.allocate(compute=1e21)


def test_epochs_and_values_beyond_the_tables_runs_are_said(repeating):
    (said,) = (
        w
        for w in repeating.allocate(compute=1e23, held={"unique_tokens": 1e8}).warnings
        if "outside the table's range" in w
    )
    assert "epochs " in said
    inside = repeating.allocate(compute=1e20, held={"unique_tokens": 1e12}).warnings
    assert not any("epochs" in w or "unique_tokens" in w for w in inside)


def test_commands_hold_inputs(tmp_path):
    runs, saved, page = (tmp_path / name for name in ("runs.csv", "fit.nc", "page.html"))
    write_runs(repeating_table(), runs)
    assert run("fit", runs, "--law", "muennighoff", "--no-discrepancy", "-o", saved).returncode == 0
    command = ("allocate", saved, "--compute", "1e21", "--at", "unique_tokens=3B")
    made = json.loads(run(*command, "--json").stdout)
    assert made["held"] == {"unique_tokens": 3e9}
    (epochs,) = (row for row in made["allocations"] if row["quantity"] == "epochs")
    assert 5 < epochs["median"] < 8
    assert "Compute-optimal run for 1e+21 FLOP, unique_tokens 3e+09 (muennighoff on" in run(*command).stdout
    for bad, message in (
        ((), "--at unique_tokens=VALUE"),
        (("--at", "loss=2"), "input 'loss' cannot be held"),
    ):
        refused = run("allocate", saved, "--compute", "1e21", *bad)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    refused = run("forecast", saved, "--params", "1e9", "--tokens", "1e10", "--at", "seed=1")
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert "'seed' is no input of a law" in refused.stderr
    done = run("report", saved, "-o", page, "--compute", "1e21", "--at", "unique_tokens=3B")
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert 'FLOP</strong>, unique tokens <span class="n">3&thinsp;' in text
    assert '<th scope="row">epochs' in text
