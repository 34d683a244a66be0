"""Pictures: what they show is what the fit says, on axes with units, in every law they claim to draw."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale import plots
from bayescale.backtesting import Backtest
from bayescale.inference.diagnostics import Diagnostics
from bayescale.laws import BUILTIN
from bayescale.optimum import optimal_runs
from bayescale.plots.style import BLUE, ORANGE, draw_band
from bayescale.rounds import Tightening
from bayescale.runs import make_table
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
    spread = plots.plot_coverage(Backtest(scores.assign(pit=[0.5, 0.5, 0.34, 0.9, 0.99])))
    line = next(i for i in spread.lines if "discrepancy" in i.get_label())
    # Bands of 0, 0, 32% and 80% hold the runs of one split, a band of 98% that of the other.
    np.testing.assert_allclose(line.get_ydata()[[30, 34, 79, 81, 99]], [0.25, 0.375, 0.375, 0.5, 1])
    assert line.get_label() == "discrepancy: 90% band holds 50%"
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
    wave = np.exp(0.1 * np.sin(1.5 * np.log10(table.column("params") * table.column("tokens"))))
    table.frame["loss"] = 1.8 + (table.frame["loss"] - 1.8) * wave
    law = BUILTIN["chinchilla"]
    nearly, held = law.with_priors({"E": "LogNormal(1.8, 0.0001)"}), law.with_constants({"E": 1.8})
    most = []
    for of in (nearly, held):
        wrong = {"discrepancy_sd": "LogNormal(0.05, 0.1)"}
        fit = bs.fit(table, of, priors=wrong, method="fast", draws=400, seed=1)
        shades = plots.plot_discrepancy(fit).collections[0]
        most.append(max(-shades.zmin, shades.zmax))
    assert most[1] == pytest.approx(most[0], rel=0.15)  # a share of the whole loss would be a third of it


@pytest.fixture(scope="module")
def own(passing) -> bs.Fit:
    """The same fit of a table that counts 2.5 FLOP per parameter and token."""
    table = passing.table
    frame = table.frame.assign(compute=2.5 * table.column("params") * table.column("tokens"))
    meta = table.meta.model_copy(update={"flops_per_param_token": 2.5})
    return replace(passing, table=bs.RunTable(frame, meta))


@pytest.fixture(scope="module")
def compared(own) -> bs.Comparison:
    how = {"discrepancy": False, "method": "fast", "draws": 100}
    return bs.compare([bs.fit(own.table, law, **how) for law in ("chinchilla", "kaplan")])


def curve_of(ax, points):
    """The x and y of the only curve with so many points."""
    (line,) = (line for line in ax.lines if len(line.get_xdata()) == points)
    return line.get_data()


def median_of(fit, draws=1000, **inputs):
    return np.median(fit.thinned(draws).forecast(**inputs).expected_loss, axis=(0, 1))


def test_a_band_is_the_middle_of_its_draws():
    ax = plt.subplots()[1]
    draw_band(ax, np.arange(3), np.arange(101.0)[:, None] + [0.0, 10.0, 20.0])
    ends = [
        (p.get_paths()[0].vertices[:, 1].min(), p.get_paths()[0].vertices[:, 1].max()) for p in ax.collections
    ]
    np.testing.assert_allclose(ends, [(5, 115), (25, 95)])
    np.testing.assert_array_equal(curve_of(ax, 3)[1], [50, 60, 70])


def test_bands_over_compute_are_forecasts_at_the_runs_own_ratio(own):
    table = own.table
    x, y = curve_of(plots.plot_bands(own), 60)
    assert (x[0], x[-1]) == pytest.approx((table.column("compute").min(), 10 * table.column("compute").max()))
    ratio = np.median(table.column("tokens") / table.column("params"))
    params = np.sqrt(x / (2.5 * ratio))
    np.testing.assert_allclose(y, median_of(own, params=params, tokens=ratio * params))
    ax = plots.plot_bands(own, "params")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    for tokens in np.quantile(table.column("tokens"), [0.2, 0.5, 0.8]):
        assert f"90% band at {tokens:.2g} tokens" in texts


def test_a_surface_shows_medians_and_half_widths_in_percent(compared):
    fit = compared.fits["chinchilla"]
    params, tokens = (fit.table.column(c) for c in ("params", "tokens"))
    n, d = np.meshgrid(*(np.geomspace(v.min() / 2, v.max() * 10, 40) for v in (params, tokens)))
    made = fit.thinned(400).forecast(params=n.ravel(), tokens=d.ravel()).expected_loss
    low, loss, high = np.quantile(made.reshape(-1, 1600), [0.05, 0.5, 0.95], axis=0)
    shades, lines, *_ = plots.plot_surface(fit).collections
    half_width = 100 * (high - low) / 2 / loss
    assert (shades.zmin, shades.zmax) == pytest.approx((half_width.min(), half_width.max()))
    assert (lines.zmin, lines.zmax) == pytest.approx((loss.min(), loss.max()))


def test_isoflop_curves_keep_to_their_budget_and_optima_to_their_draws(own):
    budget = float(np.median(own.table.column("compute")))
    ax = plots.plot_isoflop(own, [budget])
    x, y = curve_of(ax, 50)
    np.testing.assert_allclose(y, median_of(own, params=x, tokens=budget / (2.5 * x)))
    ends = np.quantile(optimal_runs(own.thinned(1000), budget)["params"], [0.05, 0.95])
    bar = ax.containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(bar[:, 0], ends)
    compute = own.table.column("compute")
    near = (compute > budget / 1.3) & (compute < 1.3 * budget)
    shown = next(c for c in ax.collections if len(c.get_offsets()) == near.sum())
    np.testing.assert_allclose(shown.get_offsets()[:, 0], own.table.column("params")[near])
    assert 0 < near.sum() < len(near)


def test_an_allocation_is_drawn_a_hundredfold_beyond_the_table_or_as_far_as_asked(compared):
    fit = compared.fits["chinchilla"]
    compute = fit.table.column("compute")
    for quantity in ("params", "tokens", "tokens_per_param"):
        x, y = curve_of(plots.plot_allocation(fit, quantity, published=[]), 24)
        assert (x[0], x[-1]) == pytest.approx((compute.min(), 100 * compute.max()))
        np.testing.assert_allclose(y, np.median(optimal_runs(fit.thinned(400), x)[quantity], axis=0))
    far = plots.plot_allocation(fit, published=[], upto=1e30)
    assert far.get_xlim()[1] == pytest.approx(1e30)


def test_published_optima_share_the_tables_count_of_compute(compared):
    lines = {}
    for quantity in ("params", "tokens", "tokens_per_param"):
        ax = plots.plot_allocation(compared.fits["chinchilla"], quantity, published=["besiroglu"])
        lines[quantity] = next(i for i in ax.lines if "besiroglu" in i.get_label())
    n, d, ratio = (line.get_ydata() for line in lines.values())
    np.testing.assert_allclose(2.5 * n * d, lines["params"].get_xdata())
    np.testing.assert_allclose(ratio, d / n)


def test_residuals_are_measured_over_expected_where_the_runs_are(passing):
    table = passing.table
    points = plots.plot_residuals(passing).collections[0]
    n, d = table.column("params"), table.column("tokens")
    over = 100 * np.log(table.column("loss") / median_of(passing, params=n, tokens=d))
    # A forecast draws the discrepancy at its targets, where the knots leave it open by a trifle.
    places = np.stack([table.column("compute"), d / n], axis=1)
    order = np.lexsort(places.T[::-1])
    np.testing.assert_allclose(points.get_array(), over[order], atol=0.005)
    np.testing.assert_allclose(points.get_offsets(), places[order])


def test_of_runs_that_share_inputs_the_mean_residual_is_seen(passing):
    twice = replace(passing.table, frame=pd.concat([passing.table.frame] * 2, ignore_index=True))
    model = passing.model
    apart = np.repeat([0.01, -0.03], len(passing.table))
    model = replace(model, log_loss=np.tile(model.log_loss, 2) + apart, ratios=np.tile(model.ratios, (1, 2)),
                    known_noise=np.tile(model.known_noise, 2))  # fmt: skip
    one = plots.plot_residuals(passing).collections[0].get_array()
    both = plots.plot_residuals(replace(passing, table=twice, model=model)).collections[0].get_array()
    np.testing.assert_allclose(both, one - 1.0, atol=0.01)


def test_a_forecast_of_a_law_in_one_input_is_drawn_against_it():
    frame = pd.DataFrame({"examples": np.geomspace(1e6, 1e9, 12)})
    frame["loss"] = (2 + 50 * frame["examples"] ** -0.25) * np.exp(1e-3 * np.sin(np.arange(12)))
    fit = bs.fit(make_table(frame), "E + A*examples**-a", discrepancy=False, method="fast")
    target = fit.forecast(examples=[2e9, 5e10])
    ax = plots.plot_forecast(fit, target)
    assert ax.get_xlabel() == "examples"
    assert ax.get_xlim()[1] > 5e10
    diamonds = next(line for line in ax.lines if line.get_marker() == "D")
    np.testing.assert_allclose(diamonds.get_xydata(), target.summary()[["examples", "loss"]])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_discrepancy_is_drawn_in_percent_of_the_reducible_loss(passing, monkeypatch, sign):
    """A truth 1 to 3% above or below the law, in every draw: nowhere does its interval hold zero."""

    def bent(few, *, params, tokens):
        law = few.model.law_loss(few.parameters, few.model.ratios_at({"N": params, "D": tokens}))
        floor = few.model.floor(few.parameters)
        bend = np.exp(sign * np.linspace(0.01, 0.03, len(params)))
        return SimpleNamespace(draws={"expected_loss": SimpleNamespace(values=floor + (law - floor) * bend)})

    monkeypatch.setattr("bayescale.plots.misfit.forecast", bent)
    shades, dots, *_ = plots.plot_discrepancy(passing).collections
    assert sorted([sign * shades.zmin, sign * shades.zmax]) == pytest.approx([1, 3])
    assert dots.zmax == 0


def test_a_plan_shows_what_runs_tell_how_often_they_were_chosen_and_the_target(passing):
    pool = pd.DataFrame(
        {"params": [1e7, 2e7, 4e7], "tokens": [1e9, 3e9, 9e9], "gain_per_flop": [1e-20, 1e-22, 1e-30],
         "chosen": [3, 1, 0]}
    )  # fmt: skip
    plan = SimpleNamespace(
        candidates=pool, aim={"params": 1e10, "tokens": 2e11}, headline="a: b", gain_meaning="gain", failed=[]
    )
    ax = plots.plot_plan(passing, plan)
    of = {c.get_label().split(" ")[0]: c for c in ax.collections}
    np.testing.assert_allclose(of["candidates"].get_array(), [-20, -22, -24])  # a range of four decades
    np.testing.assert_allclose(of["candidates"].get_offsets(), pool[["params", "tokens"]])
    np.testing.assert_allclose(of["chosen"].get_offsets(), pool[["params", "tokens"]][:2])
    assert of["chosen"].get_sizes()[0] > of["chosen"].get_sizes()[1]
    np.testing.assert_allclose(of["target"].get_offsets(), [[1e10, 2e11]])


def test_rounds_stand_where_they_were_spent_and_are_numbered():
    found = rounds_of()
    found.rounds[0]["band"] = [1.2, 1.4]
    ax = plots.plot_rounds(found)
    assert [(t.get_text(), t.xy) for t in ax.texts] == [("0", (0.0, 1.4)), ("1", (2e12, 1.27))]
    bars, predicted = (c.get_segments() for c in ax.collections)
    np.testing.assert_allclose([bar[0, 0] for bar in bars], [0, 2e12])
    np.testing.assert_allclose(predicted, [[[2e12, 1.225], [2e12, 1.275]]])
    floor = plots.plot_rounds(rounds_of(), "floor")
    np.testing.assert_allclose(
        [bar[:, 1] for bar in floor.collections[0].get_segments()], [[0.9, 1.2], [1, 1.1]]
    )
    assert next(i for i in floor.lines if i.get_label() == "exact entropy rate").get_ydata()[0] == 1.05


def test_curves_of_laws_are_their_medians_at_three_ratios(compared):
    table = compared.table
    ratio = np.quantile(table.column("tokens") / table.column("params"), [0.1, 0.5, 0.9])
    ax = plots.plot_laws(compared)
    for name, lines in zip(compared.labels, (ax.lines[:3], ax.lines[3:]), strict=True):
        for r, line in zip(ratio, lines, strict=True):
            x, y = line.get_data()
            params = np.sqrt(x / (2.5 * r))
            np.testing.assert_allclose(
                y, median_of(compared.fits[name], 400, params=params, tokens=r * params)
            )


def test_evidence_is_drawn_against_the_best_as_fitted_and_in_every_setting(compared):
    ax = plots.plot_evidence(compared)
    rows = compared.sensitivity_table()
    assert [bars.get_label() for bars in ax.containers] == list(rows.index)
    for bars, (_, factors) in zip(ax.containers, rows.iterrows(), strict=True):
        np.testing.assert_allclose(bars.lines[0].get_xdata().astype(float), factors)
    segments = ax.containers[0].lines[2][0].get_segments()
    errors = [compared.evidences[name].error for name in compared.labels]
    np.testing.assert_allclose([np.ptp(s[:, 0]) / 2 for s in segments], errors)


def test_a_run_is_above_zero_where_the_best_law_predicts_it_better(compared):
    points = plots.plot_loo_difference(compared).collections[0]
    first, second = (np.asarray(compared.loo[name].elpd_i) for name in compared.labels)
    expected = np.stack([compared.table.column("compute"), first - second], axis=1)
    np.testing.assert_allclose(points.get_offsets(), expected)
    colours = {matplotlib.colors.to_hex(c).upper() for c in points.get_facecolors()[first > second]}
    assert colours == {BLUE}
    assert matplotlib.colors.to_hex(points.get_facecolors()[np.argmin(first - second)]).upper() == ORANGE


def test_a_marginal_shows_its_priors_density_per_log_and_its_median(passing):
    panels = plots.plot_prior_posterior(passing)
    for name, ax in zip(("E", "A_centre"), panels, strict=False):
        x, y = ax.collections[0].get_paths()[0].vertices.T
        prior = passing.model.centred.priors[name]
        expected = np.exp(-0.5 * (np.log(x / prior.median) / prior.sigma) ** 2)
        top = y > 0
        np.testing.assert_allclose(y[top], expected[top], rtol=0.01)
        median = next(i for i in ax.lines if i.get_label() == "median")
        assert median.get_xdata()[0] == pytest.approx(np.median(passing.parameters[name]))


def test_parts_of_a_title_stay_whole_on_as_many_lines_as_they_need():
    from bayescale.plots.style import title_of

    assert title_of("a law", "9 runs of a table", "group c4") == "a law, 9 runs of a table, group c4"
    law, runs, group = "l" * 40, "r" * 40, "group " + "g" * 40
    assert title_of(law, runs, group) == f"{law},\n{runs},\n{group}"
