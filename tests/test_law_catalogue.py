"""Every built-in law can be sampled, has sane priors, and contains the laws that it says it nests."""

import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale.laws import BUILTIN, CentredLaw, law_details, sample_priors
from bayescale.laws.formula import compile_formula, names_in
from bayescale.publishedfits import published_fits
from bayescale.runs import make_table
from tests.conftest import simulated_table

# Values at which a law turns into one that it nests: constants, another parameter's value, or functions of
# the special case's parameters.
SPECIAL = {
    ("chinchilla", "chinchilla-shared"): {"beta": "alpha"},
    ("chinchilla", "power-params-floor"): {"B": 0.0},
    ("chinchilla", "power-tokens-floor"): {"A": 0.0},
    ("generalised-sum", "chinchilla"): {"p": 1.0},
    ("kaplan-floor", "kaplan"): {"E": 0.0},
    ("power-params-floor", "power-params"): {"E": 0.0},
    ("power-tokens-floor", "power-tokens"): {"E": 0.0},
    ("power-compute-floor", "power-compute"): {"E": 0.0},
    ("curve-m2", "curve-m1"): {"E": 0.0},
    ("curve-m3", "curve-m2"): {"d": 0.0},
    ("curve-bnsl-1", "curve-m2"): {"c": 0.0},
    ("curve-bnsl-2", "curve-bnsl-1"): {"k": 0.0},
    ("curve-pruned", "curve-m2"): {"g": 0.0, "p": 0.0},
    ("parscale", "power-params-floor"): {"k": 0.0},
    ("fine-grained-moe", "chinchilla"): {"g": 0.0},
    ("vocabulary", "chinchilla"): {"V": 0.0},
    ("quantised", "chinchilla"): {"Q": 0.0},
    ("joint-moe", "chinchilla"): {"delta": 0.0, "gamma": 0.0, "omega": 0.0, "zeta": 0.0},
    ("transfer", "kaplan"): {"k": 0.0},
    ("outer-exponent", "chinchilla"): {"gamma": 1.0},
    ("outer-exponent", "kaplan-floor"): {
        "A": lambda v: v["N_c"] ** (v["alpha"] / v["beta"]),
        "alpha": lambda v: v["alpha"] / v["beta"],
        "B": lambda v: v["D_c"],
        "beta": 1.0,
        "gamma": lambda v: v["beta"],
    },
}
INPUTS = {"N": 3e9, "D": 6e10, "C": 1e21, "U": 2e10, "seen_examples": 3e7, "streams": 4.0, "experts": 16.0}
INPUTS |= {"granularity": 4.0, "bits": 8.0, "vocabulary_params": 1e8, "share": 0.3, "steps": 1e5}
INPUTS |= {"unique_params": 1e9, "teacher_loss": 2.2, "supervised_loss": 2.5}
INPUTS |= {
    "kept": 0.5,
    "lr_area": 7.0,
    "lr_annealed": 0.2,
    "lr_reduction": 1e-4,
    "learning_rate": 1e-3,
    "batch_size": 512.0,
}


def evaluate(law, values):
    arguments = sorted(names_in(law.formula))
    return compile_formula(law.formula, arguments, np)(*({**INPUTS, **values}[a] for a in arguments))


def test_every_nesting_is_checked():
    assert set(SPECIAL) == {(law.name, nested) for law in BUILTIN.values() for nested in law.nests}


@pytest.mark.parametrize(("outer", "inner"), SPECIAL)
def test_a_law_contains_what_it_nests(outer, inner):
    rng = np.random.default_rng(0)
    names = sorted({p.name for law in (outer, inner) for p in BUILTIN[law].parameters})
    for _ in range(20):
        values = {n: float(v) for n, v in zip(names, rng.uniform(0.2, 0.9, len(names)), strict=True)}
        if outer == "parscale":  # there the amplitude is inside the power
            inside = {**values, "A": values["A"] ** (1 / values["alpha"])}
        else:
            inside = dict(values)
        for name, value in SPECIAL[outer, inner].items():
            inside[name] = value(values) if callable(value) else inside.get(value, value)
        if inner == "power-tokens-floor":  # its amplitude and exponent carry the names of the term in params
            values |= {"A": values["B"], "alpha": values["beta"]}
        assert evaluate(BUILTIN[outer], inside) == pytest.approx(evaluate(BUILTIN[inner], values), rel=1e-9)


# Laws that no value of their parameters makes another, but a limit does; nested in effect, not by formula.
LIMITS = {
    ("muennighoff", "chinchilla"): {"R_D": 1e8},
    ("muennighoff-excess", "chinchilla"): {"R_D": 1e8, "R_N": 1e8},
    ("muennighoff-excess", "muennighoff"): {"R_N": 1e8},
    ("muennighoff-excess", "muennighoff-params"): {"R_D": 1e8},
    ("muennighoff-params", "chinchilla"): {"R_N": 1e8},
    ("precision", "chinchilla"): {"gamma": 1e-3},
    ("routing-saturating", "routing"): {"start": 1.0, "most": 1e9},
}


@pytest.mark.parametrize(("outer", "inner"), LIMITS)
def test_a_law_becomes_another_in_a_limit(outer, inner):
    rng = np.random.default_rng(0)
    names = [p.name for p in BUILTIN[inner].parameters]
    for _ in range(20):
        values = {n: float(v) for n, v in zip(names, rng.uniform(0.2, 0.9, len(names)), strict=True)}
        at_limit = evaluate(BUILTIN[outer], values | LIMITS[outer, inner])
        assert at_limit == pytest.approx(evaluate(BUILTIN[inner], values), rel=1e-6)


def test_distillation_has_the_limits_its_paper_asks_for():
    v = {
        "A": 2000.0,
        "B": 2e4,
        "alpha": 0.32,
        "beta": 0.64,
        "gamma": 0.76,
        "q": 2.5,
        "c": 2.0,
        "d": 1.3,
        "f": 0.1,
    }
    endless = evaluate(BUILTIN["distillation"], v | {"N": 1e40, "D": 1e40})
    assert endless == pytest.approx(INPUTS["teacher_loss"], abs=1e-6)  # an able student models any teacher
    random = evaluate(BUILTIN["distillation"], v | {"teacher_loss": 1e3})
    assert random == pytest.approx(1e3, abs=1e-3)  # a random teacher makes random students
    # Where the teacher's loss over the student's own passes d, the exponent in it changes by c.
    excess = [
        evaluate(BUILTIN["distillation"], v | {"teacher_loss": t, "supervised_loss": 1.0}) - t
        for t in (0.1, 0.2, 50.0, 100.0)
    ]
    assert np.log2(excess[0] / excess[1]) == pytest.approx(v["q"], abs=1e-3)
    assert np.log2(excess[2] / excess[3]) == pytest.approx(v["q"] + v["c"], abs=1e-3)


def test_repetition_costs_nothing_in_the_first_epoch():
    values = {"E": 1.8, "A": 480.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37, "R_D": 15.0}
    once = evaluate(BUILTIN["muennighoff"], values | {"U": INPUTS["D"]})
    assert once == pytest.approx(evaluate(BUILTIN["chinchilla"], values), rel=1e-12)


def test_gadres_law_is_the_shared_exponent_where_compute_is_six_params_tokens():
    v = {"E": 1.5, "a": 140.0, "b": 190.0, "eta": 0.12}
    shared = {"E": 1.5, "A": v["a"] * 6 ** -v["eta"], "B": v["b"] * 6 ** -v["eta"], "alpha": 2 * v["eta"]}
    gadre = evaluate(BUILTIN["gadre"], v | {"C": 6 * INPUTS["N"] * INPUTS["D"]})
    assert gadre == pytest.approx(evaluate(BUILTIN["chinchilla-shared"], shared), rel=1e-12)


def test_three_regions_are_an_offset_of_examples_in_other_words():
    # Evidence between the two tells their priors apart, nothing else.
    v = {"E": 0.1, "A": 0.5, "a": 0.4, "d": 1e6}
    offset = evaluate(BUILTIN["curve-m3"], v | {"A": v["A"] * v["d"] ** v["a"]})
    assert offset == pytest.approx(evaluate(BUILTIN["curve-three-regions"], v), rel=1e-12)


def test_m4_solves_its_papers_equation():
    v = {"E": 0.1, "A": 0.8, "d": 1e6, "c": 0.4, "a": 1.7}
    scale = v["d"] ** v["c"] * v["A"] ** (1 - v["a"])
    for examples in (1e3, 1e6, 1e9):
        found = evaluate(BUILTIN["curve-m4"], v | {"seen_examples": examples})
        assert v["E"] < found < v["E"] + v["A"]
        ratio = (found - v["E"]) / (v["E"] + v["A"] - found) ** v["a"]
        assert ratio == pytest.approx(scale * examples ** -v["c"], rel=1e-9)


def test_m4_has_the_same_slopes_in_sympy_and_pytensor():
    import pytensor
    import pytensor.tensor as pt

    law, x = CentredLaw(BUILTIN["curve-m4"]), np.linspace(-8, 8, 5)
    at = [0.1, 0.8, 1e6, 0.4, 1.7]
    by_sympy = law.gradient({"seen_examples": 1e7})(*at, x)
    symbols = [pt.dvector(n) for n in law.names]  # a value a point, so that the sum's slopes are the points'
    loss = law.function({"seen_examples": 1e7}, pt)(*symbols, pt.as_tensor(x))
    slopes = pytensor.grad(loss.sum(), symbols)
    by_pytensor = pytensor.function(symbols, [loss, *slopes], mode="FAST_COMPILE")(
        *(np.full(5, v) for v in at)
    )
    for one, other in zip(by_sympy, by_pytensor, strict=True):
        np.testing.assert_allclose(np.broadcast_to(one, 5), other, rtol=1e-9, atol=1e-12)


def test_m4_is_m2_where_the_plateau_plays_no_part():
    v = {"E": 0.1, "A": 0.8, "d": 1e6, "c": 0.4, "a": 1e-3, "seen_examples": 1e9}
    power = {"E": 0.1, "A": 0.8 * 1e6**0.4, "a": 0.4, "seen_examples": 1e9}
    assert evaluate(BUILTIN["curve-m4"], v) == pytest.approx(evaluate(BUILTIN["curve-m2"], power), rel=1e-3)


@pytest.mark.parametrize("name", BUILTIN)
def test_prior_draws_give_plausible_losses_at_the_centre(name):
    law = CentredLaw(BUILTIN[name])
    rng = np.random.default_rng(1)
    draws = sample_priors(law.priors, rng, 2000)
    inputs = BUILTIN[name].inputs
    function = law.function({i: INPUTS[i] for i in inputs})
    with np.errstate(all="ignore"):
        loss = function(*draws.values(), *(np.zeros(2000) for _ in inputs))
    assert np.mean(np.isfinite(loss) & (loss > 0)) > 0.9
    assert 0.02 < np.median(loss[np.isfinite(loss)]) < 10


@pytest.mark.parametrize("name", BUILTIN)
def test_laws_are_described(name):
    details = law_details(name)
    assert details["title"]
    assert details["citation"]
    assert all(p["meaning"] for p in details["parameters"])
    assert details["latex"].startswith("L = ")


def test_details_find_published_fits_and_tables():
    details = law_details("chinchilla")
    assert {"hoffmann", "besiroglu"} <= set(details["published_fits"])
    assert {"chinchilla", "gadre-c4"} <= set(details["tables"])
    assert law_details("parscale")["tables"][:2] == ["parscale-pile", "parscale-stack"]
    assert "parscale-pile" not in details["tables"]
    # Fits that print a scale where the law has an amplitude are fits of it all the same.
    assert "kaplan-params" in law_details("power-params")["published_fits"]
    assert "henighan-math-compute" in law_details("power-compute-floor")["published_fits"]


@pytest.mark.parametrize("name", BUILTIN)
def test_the_centred_form_is_the_formula_over_the_prior(name):
    law = CentredLaw(BUILTIN[name])
    inputs = BUILTIN[name].inputs
    centre = {i: INPUTS[i] for i in inputs}
    rng = np.random.default_rng(2)
    sampled = sample_priors(law.priors, rng, 200)
    ratios = rng.uniform(-1, 1, (len(inputs), 200))
    at = {i: centre[i] * np.exp(x) for i, x in zip(inputs, ratios, strict=True)}
    with np.errstate(all="ignore"):
        values = sampled | law.published_parameters(sampled, centre) | at
        expected = evaluate(BUILTIN[name], values)
        loss = law.function(centre)(*sampled.values(), *ratios)
        gradient = law.gradient(centre)(*sampled.values(), *ratios)
    usable = np.isfinite(expected) & np.isfinite(loss)
    assert usable.mean() > 0.9
    np.testing.assert_allclose(loss[usable], expected[usable], rtol=1e-6)
    assert len(gradient) == 1 + len(law.names)
    np.testing.assert_allclose(gradient[0][usable], loss[usable], rtol=1e-6)
    slopes = [np.broadcast_to(slope, loss.shape)[usable] for slope in gradient[1:]]
    assert all(np.isfinite(slope).mean() > 0.9 for slope in slopes)


CHINCHILLAS = sorted(outer for outer, inner in {*SPECIAL, *LIMITS} if inner == "chinchilla")


@pytest.mark.parametrize("law", CHINCHILLAS)
def test_priors_are_chinchillas_where_a_law_contains_it(law):
    """Or Bayes factors between the two would be about the priors of what they share."""
    theirs = {p.name: str(p.prior) for p in BUILTIN[law].parameters}
    assert theirs.items() >= {p.name: str(p.prior) for p in BUILTIN["chinchilla"].parameters}.items()


def test_the_logarithmic_null_falls():
    rng = np.random.default_rng(0)
    seen = 10 ** rng.uniform(5, 9, 40)
    loss = (1 - 0.03 * np.log(seen)) * np.exp(0.01 * rng.standard_normal(40))
    frame = pd.DataFrame({"seen_examples": seen, "loss": loss})
    table = make_table(frame, bs.TableMeta(name="falling", loss_unit="other"))
    fit = bs.fit(table, "curve-logarithmic", discrepancy=False, method="fast")
    assert fit.diagnostics.passed
    falls = fit.parameters["a"]
    assert abs(falls.mean() - 0.03) < 4 * falls.std()


def test_a_pool_larger_than_a_run_is_no_less_than_an_epoch():
    """More unique tokens than tokens once meant negative repeats: a loss that rose with the pool, or NaN."""
    rng = np.random.default_rng(0)
    table = simulated_table(rows=24)
    epochs = np.where(rng.random(24) < 0.5, 1.0, 8.0)
    fits = []
    for pool in (1.0, 20.0):  # times the tokens of runs that repeat nothing
        unique = table.column("tokens") / np.where(epochs > 1, epochs, 1 / pool)
        repeated = bs.RunTable(table.frame.assign(unique_tokens=unique), table.meta)
        fits.append(bs.fit(repeated, "muennighoff", discrepancy=False, method="fast", draws=100))
    np.testing.assert_array_equal(fits[1].z, fits[0].z)
    fit = bs.fit(bs.RunTable(repeated.frame, table.meta), "muennighoff", method="fast", draws=100)
    fit.forecast(params=1e9, tokens=2e10, unique_tokens=1e10)
    most = np.minimum(repeated.column("unique_tokens"), table.column("tokens")).max()
    assert fit.forecast(params=1e9, tokens=most, unique_tokens=1e14).outside["unique_tokens"] == 0
    once, endless = (fit.forecast(params=1e9, tokens=2e10, unique_tokens=u) for u in (2e10, 1e14))
    np.testing.assert_array_equal(once.loss, endless.loss)
    assert once.inputs["unique_tokens"] == endless.inputs["unique_tokens"] == 2e10
    published = published_fits()["muennighoff"]
    assert published.loss(params=1e9, tokens=2e10, unique_tokens=1e14) == published.loss(
        params=1e9, tokens=2e10, unique_tokens=2e10
    )
