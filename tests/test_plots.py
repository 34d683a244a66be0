"""Pictures: what they show is what the fit says, on axes with units, in every law they claim to draw."""

from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale import plots
from bayescale.backtesting import Backtest
from bayescale.inference.diagnostics import Diagnostics
from bayescale.laws import BUILTIN
from bayescale.rounds import Tightening
from tests.conftest import simulated_table

matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def passing() -> bs.Fit:
    return bs.fit(simulated_table(rows=40, name="chinchilla"), method="fast", draws=300, seed=2)


@pytest.fixture(scope="module")
def failing(passing) -> bs.Fit:
    return replace(passing, diagnostics=Diagnostics("fast", min_ess=20.0, k_hat=0.9))


ONE_AXES = {
    "bands over compute": lambda fit, ax: plots.plot_bands(fit, ax=ax),
    "bands over params": lambda fit, ax: plots.plot_bands(fit, "params", ax=ax),
    "bands over tokens": lambda fit, ax: plots.plot_bands(fit, "tokens", ax=ax),
    "forecast": lambda fit, ax: plots.plot_forecast(fit, fit.forecast(params=1e10, tokens=2e11), ax),
    "surface": lambda fit, ax: plots.plot_surface(fit, ax),
    "isoflop": lambda fit, ax: plots.plot_isoflop(fit, ax=ax),
    "allocation": lambda fit, ax: plots.plot_allocation(fit, ax=ax),
    "residuals": lambda fit, ax: plots.plot_residuals(fit, ax),
    "discrepancy": lambda fit, ax: plots.plot_discrepancy(fit, ax),
}


@pytest.mark.parametrize("name", ONE_AXES)
def test_draws_on_the_axes_given_says_what_axes_mean_and_marks_failures(failing, passing, name):
    for fit, marked in ((failing, True), (passing, False)):
        ax = plt.subplots()[1]
        assert ONE_AXES[name](fit, ax) is ax
        assert "(" in ax.get_xlabel() + ax.get_ylabel() or "parameters" in ax.get_xlabel()
        assert ax.get_title(loc="left")
        assert any("diagnostics failed" in t.get_text() for t in ax.texts) is marked


def test_band_is_the_forecast_and_extrapolation_starts_at_the_last_run(passing):
    target = passing.forecast(params=1e10, tokens=2e11)
    ax = plots.plot_forecast(passing, target)
    row = target.summary().iloc[0]
    bars = ax.containers[0].lines[2][0].get_segments()[0]
    assert bars[:, 1] == pytest.approx([row["loss_90%_low"], row["loss_90%_high"]])
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert "90% band at 20 tokens per parameter" in texts
    shade = next(p for p in ax.patches if p.get_label() == "extrapolation")
    assert shade.get_x() == pytest.approx(passing.table.column("compute").max())


def test_optimum_is_where_the_allocation_puts_it(passing):
    ax = plots.plot_isoflop(passing, [1e20])
    x, y = ax.containers[0].lines[0].get_data()
    best = passing.allocate(compute=1e20).summary().set_index("quantity")["median"]
    assert float(x[0]) == pytest.approx(best["params"], rel=0.1)
    assert float(y[0]) == pytest.approx(best["loss"], rel=0.01)


def test_optima_are_drawn_without_what_is_not_shown(passing, monkeypatch):
    monkeypatch.delattr("bayescale.deadweight.deadweight")
    monkeypatch.delattr("bayescale.allocations.allocate")
    plots.plot_isoflop(passing, [1e20])
    with pytest.raises(bs.BayescaleError, match="expected positive numbers"):
        plots.plot_isoflop(passing, [-1e20])


def test_published_optimum_is_the_closed_form(passing):
    ax = plots.plot_allocation(passing, published=["besiroglu"])
    line = next(i for i in ax.lines if "besiroglu" in i.get_label())
    c = bs.published_fits()["besiroglu"].constants
    a, b = c["alpha"], c["beta"]
    gain = (a * c["A"] / (b * c["B"])) ** (1 / (a + b))
    expected = gain * (line.get_xdata() / 6) ** (b / (a + b))
    assert line.get_ydata() == pytest.approx(expected, rel=5e-3)
    assert len([i for i in plots.plot_allocation(passing).lines if "published" in str(i.get_label())]) == 3


def test_prior_and_posterior_have_a_panel_per_sampled_parameter(failing):
    panels = plots.plot_prior_posterior(failing)
    titles = [a.get_title(loc="left") for a in panels]
    assert titles[:2] == ["E (nats/token)", "A_centre (nats/token)"]
    assert {"noise_sd", "discrepancy_sd", "discrepancy_length"} <= set(titles)
    assert "diagnostics failed" in panels[0].figure.get_suptitle()
    with pytest.raises(bs.BayescaleError, match="1 axes given"):
        plots.plot_prior_posterior(failing, np.array([panels[0]]))


def test_pairs_show_the_ridge_of_alpha_and_amplitude(passing):
    axes = plots.plot_pairs(passing, ["A", "alpha"])
    x, y = np.concatenate([s.get_offsets() for s in axes[1, 0].collections]).T
    assert (axes[1, 0].get_xlabel(), axes[1, 0].get_ylabel()) == ("log10 A", "alpha")
    assert np.corrcoef(x, y)[0, 1] > 0.95
    assert plots.plot_pairs(passing)[-1, 0].get_xlabel() == "E (nats/token)"


def test_calibration_counts_every_split_alike():
    scores = pd.DataFrame(
        {
            "method": "discrepancy",
            "table": "t",
            "factor": [3.0] * 4 + [10.0],
            "pit": [0.5, 0.5, 0.5, 0.5, 0.99],
            "passed": True,
        }
    )
    ax = plots.plot_coverage(Backtest(scores))
    line = next(i for i in ax.lines if "discrepancy" in i.get_label())
    assert np.interp(0.9, *line.get_data()) == pytest.approx(0.5)
    heights = [p.get_height() for p in plots.plot_pit(Backtest(scores)).patches]
    assert sum(heights) == pytest.approx(10)
    assert heights[-1] == pytest.approx(5)
    with pytest.raises(bs.BayescaleError, match="no method"):
        plots.plot_pit(Backtest(scores), "mine")


def test_laws_of_one_input_are_drawn_and_others_refused_in_words():
    table = simulated_table(rows=20)
    fit = bs.fit(table, "power-compute-floor", method="fast", discrepancy=False, draws=300)
    assert "FLOP" in plots.plot_bands(fit).get_xlabel()
    for draw in (plots.plot_surface, plots.plot_isoflop, plots.plot_residuals, plots.plot_allocation):
        with pytest.raises(bs.BayescaleError, match="law in params N and tokens D"):
            draw(fit)
    with pytest.raises(bs.BayescaleError, match="no input 'params'"):
        plots.plot_bands(fit, "params")


def test_saved_pictures_repeat_byte_for_byte_and_leave_the_style_alone(passing, tmp_path):
    before = matplotlib.rcParams.copy()
    for name in ("a.svg", "b.svg"):
        plots.save_figure(plots.plot_bands(passing), tmp_path / name)
    assert matplotlib.rcParams == before
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(bs.BayescaleError, match="no picture format"):
        plots.save_figure(plots.plot_bands(passing), tmp_path / "a.xyz")


def rounds_of(failures=()) -> Tightening:
    """Two rounds whose band falls from .1 to .04, predicted .05, and the target run inside it."""
    about = {"target": "params=1e6,tokens=2e7", "unit": "nats/token", "entropy_rate": 1.05, "failures": []}
    rounds = [
        {**about, "round": 0, "runs": 6, "spent": 0.0, "band": [1.2, 1.3], "width": 0.1,
         "predicted_width": None, "floor_band": [0.9, 1.2], "plan": {"predicted_width": 0.05}},
        {**about, "round": 1, "runs": 9, "spent": 2e12, "band": [1.23, 1.27], "width": 0.04,
         "predicted_width": 0.05, "floor_band": [1.0, 1.1], "failures": list(failures), "stop": "narrow"},
    ]  # fmt: skip
    check = {
        "params": 1e6,
        "tokens": 2e7,
        "compute": 1.2e14,
        "loss": 1.25,
        "band": [1.22, 1.28],
        "inside": True,
    }
    return Tightening(rounds, check)


def test_rounds_show_bands_predictions_and_what_is_known_exactly():
    ax = plt.subplots()[1]
    assert plots.plot_rounds(rounds_of(), ax=ax) is ax
    bars = [line.get_segments() for line in ax.collections]
    np.testing.assert_allclose([p[:, 1] for p in bars[0]], [[1.2, 1.3], [1.23, 1.27]])
    np.testing.assert_allclose(np.diff(bars[1][0][:, 1]), 0.05)
    assert [line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 2][-1] == 1.25
    assert "FLOP" in ax.get_xlabel()
    assert "nats/token" in ax.get_ylabel()
    floor = plots.plot_rounds(rounds_of(["k-hat is .9"]), "floor")
    assert any(line.get_label() == "exact entropy rate" for line in floor.lines)
    assert any("diagnostics failed" in t.get_text() for t in floor.texts)


def test_a_plan_shows_what_it_chose(passing):
    plan = bs.plan(passing, "params=1e10,tokens=2e11", budget=1e21)
    ax = plots.plot_plan(passing, plan)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"runs of the table", "candidates", "target"} <= set(labels)
    candidates, chosen = (
        next(c for c in ax.collections if c.get_label().startswith(n)) for n in ("cand", "chosen")
    )
    assert len(candidates.get_offsets()) == len(plan.candidates)
    assert len(chosen.get_offsets()) == (plan.candidates["chosen"] > 0).sum() > 0
    assert not ax.texts
    marked = plots.plot_plan(passing, replace(plan, failed=["kaplan"]))
    assert any("do not rely" in text.get_text() for text in marked.texts)


def test_a_law_of_many_parameters_has_all_its_pairs():
    fit = bs.fit(bs.load("chinchilla"), "farseer", discrepancy=False, method="fast", draws=100)
    axes = plots.plot_pairs(fit)
    assert axes.shape == (9, 9)


def test_dollars_in_a_tables_name_are_dollars():
    table = simulated_table(rows=20, name="pay$a_$b^")
    fit = bs.fit(table, discrepancy=False, method="fast")
    ax = plots.plot_forecast(fit, fit.forecast(params=1e9, tokens=2e10))
    ax.figure.canvas.draw()
    assert r"pay\$a_\$b^" in ax.get_title(loc="left")


def test_forecasts_of_laws_with_further_inputs_are_drawn():
    table = simulated_table(rows=20)
    frame = table.frame.assign(unique_tokens=table.column("tokens") / np.tile([1.0, 8.0], 10))
    fit = bs.fit(bs.RunTable(frame, table.meta), "muennighoff", method="fast", draws=100)
    target = fit.forecast(params=1e9, tokens=2e10, unique_tokens=1e10)
    assert plots.plot_forecast(fit, target).get_legend() is not None


def test_a_map_of_the_discrepancy_is_a_share_of_the_loss_above_a_floor_that_is_held():
    table = simulated_table(rows=30)
    law = BUILTIN["chinchilla"]
    nearly, held = law.with_priors({"E": "LogNormal(1.8, 0.0001)"}), law.with_constants({"E": 1.8})
    most = []
    for of in (nearly, held):
        wrong = {"discrepancy_sd": "LogNormal(0.05, 0.1)"}
        fit = bs.fit(table, of, priors=wrong, method="fast", draws=400, seed=1)
        shades = plots.plot_discrepancy(fit).collections[0]
        most.append(max(-shades.zmin, shades.zmax))
    assert most[1] == pytest.approx(most[0], rel=0.5)  # a share of the whole loss would be a third of it
