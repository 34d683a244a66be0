import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import bayescale as bs
from bayescale.errors import LawError
from bayescale.laws import (
    BUILTIN,
    CentredLaw,
    Either,
    Gamma,
    Law,
    LogNormal,
    Normal,
    as_used,
    find_law,
    law_from_formula,
    parse_prior,
    sample_priors,
)
from bayescale.laws.derived import derive, is_taken_away
from bayescale.laws.formula import compile_formula, names_in, parse_formula, with_numbers
from bayescale.laws.priors import marginal
from tests.conftest import simulated_table

positive = st.floats(0.05, 3)


@pytest.mark.parametrize("name", [n for n in BUILTIN if n.startswith(("chinchilla", "kaplan", "power-"))])
@given(data=st.data())
def test_centred_law_equals_the_published_formula(name, data):
    law = BUILTIN[name]
    centred = CentredLaw(law)
    centre = {i: 10 ** data.draw(st.floats(6, 12)) for i in law.inputs}
    inputs = {i: centre[i] * 10 ** data.draw(st.floats(-2, 2)) for i in law.inputs}
    sampled = {n: np.array(data.draw(positive)) for n in centred.names}
    values = {p.name: sampled.get(p.name) for p in law.parameters}
    values |= centred.published_parameters(sampled, centre)
    symbols = {s.name: s for s in law.expression.free_symbols}
    numbers = {symbols[k]: float(v) for k, v in {**values, **inputs}.items()}
    expected = float(law.expression.evalf(30, subs=numbers))
    ratios = [np.log(inputs[i] / centre[i]) for i in law.inputs]
    got = centred.function(centre)(*sampled.values(), *ratios)
    assert got == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("formula", "linear", "floor"),
    [
        ("E + A*N**-alpha + B*D**-beta", ("A", "B", "E"), "E"),
        ("((N_c/N)**(a/b) + D_c/D)**b", (), None),
        ("L0*exp(-k*log(N)) + floor", ("L0", "floor"), "floor"),
    ],
)
def test_linear_parameters_are_found(formula, linear, floor):
    priors = {"k": "LogNormal(0.3, 0.5)"} if "k*" in formula else {}
    if "N_c" in formula:
        priors = dict.fromkeys(("N_c", "D_c", "a", "b"), "LogNormal(1, 1)")
    law = law_from_formula(formula, priors=priors)
    assert (law.linear_parameters, law.floor) == (linear, floor)


def test_columns_of_known_inputs_are_read_as_their_symbols():
    columns = ["params", "tokens", "unique_tokens", "compute", "loss"]
    spelt = law_from_formula("E + A*params**-a + B*tokens**-b", columns=columns)
    assert spelt == law_from_formula("E + A*N**-a + B*D**-b", columns=columns)
    assert spelt.inputs == ("N", "D")
    mixed = law_from_formula("E + A*compute**-a + B*unique_tokens**-b")
    assert mixed == law_from_formula("E + A*C**-a + B*U**-b")


def test_a_column_that_is_called_as_parameters_are_is_not_taken_for_an_input():
    assert find_law("E0 + A*N**-a", columns=["params", "E"]).inputs == ("N",)
    with pytest.raises(
        LawError, match=r"'E' is a column of the table, and by custom a parameter.*'other_name=E'"
    ):
        find_law("E + A*N**-a", columns=["params", "E"])
    assert find_law("chinchilla", columns=["params", "tokens", "E"]).floor == "E"
    assert find_law("E + F*bits**-f", columns=["bits"]).inputs == ("bits",)
    assert find_law("E0 + A*k**-b", columns=["k"]).inputs == ("k",)


@pytest.mark.parametrize(
    ("law", "units"),
    [
        ("E + A*N**-a", {"E": "nats/token", "A_centre": "nats/token", "a": ""}),
        ("outer-exponent", {"A_centre": "nats/token"}),
        ("kaplan", {"N_c_centre": "nats/token", "alpha": ""}),
        ("curve-exponential", {"E": "", "A_centre": ""}),
        ("learning-rate-batch", {"r_centre": "", "k_centre": "", "v_centre": "sequences"}),
    ],
)
def test_values_at_the_centre_have_the_unit_of_what_they_are(law, units):
    found = CentredLaw(find_law(law)).units
    assert {name: found[name] for name in units} == units


def test_terms_of_power_laws_are_found_and_others_not():
    assert CentredLaw(BUILTIN["chinchilla"]).power_terms == {"A_centre": "alpha", "B_centre": "beta"}
    assert CentredLaw(BUILTIN["chinchilla"]).single_input_terms == {
        "N": ("A_centre", "alpha"),
        "D": ("B_centre", "beta"),
    }
    ratio = CentredLaw(law_from_formula("E + A*N**-a + B*(D/N)**-b"))
    assert ratio.power_terms == {"A_centre": "a", "B_centre": "b"}
    assert ratio.single_input_terms is None
    assert CentredLaw(BUILTIN["kaplan-floor"]).power_terms is None
    twice = CentredLaw(law_from_formula("E + A*N**-a + F*N**-f + B*D**-b"))
    assert twice.power_terms == {"A_centre": "a", "B_centre": "b", "F_centre": "f"}
    assert twice.single_input_terms is None  # two terms of one input have no optimum in closed form


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').system('true')",
        "(lambda: 1)()",
        "E.args",
        "[E]",
        "E if N else D",
        "open(N)",
        "9**9**9*N",
        "E + 'x'",
        "True + N",
        "E +",
    ],
)
def test_formulas_run_no_code(formula):
    with pytest.raises(LawError):
        parse_formula(formula)


@pytest.mark.parametrize("law", BUILTIN.values(), ids=BUILTIN)
def test_laws_travel_as_plain_data(law):
    assert Law.from_dict(law.to_dict()) == law


@given(median=st.floats(1e-3, 1e3), sigma=st.floats(1e-2, 5))
def test_priors_print_as_they_are_read(median, sigma):
    prior = LogNormal(float(f"{median:g}"), float(f"{sigma:g}"))
    assert parse_prior(str(prior)) == prior


@given(medians=st.tuples(*2 * [st.floats(1e-3, 1e3)]), sigma=st.floats(1e-2, 5))
def test_so_do_two_that_are_joined(medians, sigma):
    prior = Either(*(LogNormal(float(f"{m:g}"), float(f"{sigma:g}")) for m in medians))
    assert parse_prior(str(prior)) == prior


def test_two_joined_priors_have_even_odds():
    prior = parse_prior("LogNormal(0.07, 0.7) or LogNormal(0.003, 1)")
    parts = stats.lognorm(0.7, scale=0.07), stats.lognorm(1, scale=0.003)
    x = np.geomspace(1e-4, 1, 9)
    expected = np.mean([part.pdf(x) for part in parts], axis=0)
    np.testing.assert_allclose(np.exp(prior.logpdf(x, np.log(x), np)), expected)
    drawn = prior.sample(np.random.default_rng(0), 100_000)
    for at in x:
        share = np.mean([part.cdf(at) for part in parts])
        assert abs((drawn < at).mean() - share) < 4 * np.sqrt(share * (1 - share) / 1e5) + 1e-12


@pytest.mark.parametrize(
    ("law", "match"),
    [
        ("chinchila", "'chinchila' is unknown; did you mean 'chinchilla'\\? expected one of chinchilla"),
        ("E + A*N**a", "write N\\*\\*-a"),
        ("E + q*tanh(w*N)", "no default prior fits 'w'"),
        ("E + A*2**-b", "no input"),
    ],
)
def test_unusable_laws_say_what_to_do(law, match):
    with pytest.raises(LawError, match=match):
        find_law(law)


@pytest.mark.parametrize(
    "text",
    [
        "Beta(1, 2)",
        "LogNormal(1)",
        "LogNormal(-1, 1)",
        "Normal(0, 0)",
        "LogNormal(1, 1) or",
        "LogNormal(1, 1) or Normal(0, 1)",
        "LogNormal(1, 1) or LogNormal(alpha, 1)",
    ],
)
def test_unusable_priors_are_errors(text):
    with pytest.raises(LawError, match="prior"):
        parse_prior(text)


def test_a_prior_may_lie_about_another_parameter():
    law = law_from_formula(
        "E + A*N**-a + B*D**-b", priors={"a": "LogNormal(0.4, 0.35)", "b": "LogNormal(a, 0.2)"}
    )
    assert Law.from_dict(law.to_dict()) == law
    priors = CentredLaw(law).priors
    drawn = sample_priors(priors, np.random.default_rng(0), 100_000)
    ratio = np.log(drawn["b"] / drawn["a"])
    assert ratio.std() == pytest.approx(0.2, rel=0.02)
    assert np.log(drawn["b"]).std() == pytest.approx(np.hypot(0.35, 0.2), rel=0.02)
    assert marginal(priors, "b") == LogNormal(0.4, np.hypot(0.35, 0.2))
    density = priors["b"].given({"a": 0.3}).logpdf(0.5, np.log(0.5), np)
    assert density == pytest.approx(stats.lognorm(0.2, scale=0.3).logpdf(0.5))
    # An amplitude is meant as it is sampled, at the centre; a number takes a held parameter's place.
    about_a_term = law.with_priors({"B": "LogNormal(A, 0.5)"})
    assert CentredLaw(about_a_term).priors["B_centre"].about == "A_centre"
    assert law.with_constants({"a": 0.3}).parameter("b").prior == LogNormal(0.3, 0.2)


@pytest.mark.parametrize("prior", ["LogNormal(c, 0.2)", "LogNormal(b, 0.2)", "LogNormal(E, 0.2)"])
def test_a_prior_about_what_has_no_number_is_an_error(prior):
    priors = {"a": "LogNormal(0.4, 0.35)", "b": prior, "E": "Normal(1, 1)"}
    with pytest.raises(LawError, match="expected a parameter of the law with a log-normal prior of its own"):
        law_from_formula("E + A*N**-a + B*D**-b", priors=priors)


def test_numbers_take_the_place_of_names_signs_and_all():
    formula = "E + s*N**q + s**2"
    held = with_numbers(formula, {"s": -0.0625, "q": 0.13})
    values = {"E": 2.0, "N": 1e9}
    expected = 2.0 - 0.0625 * 1e9**0.13 + 0.0625**2
    assert compile_formula(held, values, np)(*values.values()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prior", "same"),
    [
        (LogNormal(0.5, 0.7), stats.lognorm(0.7, scale=0.5)),
        (Gamma(2.5, 0.1), stats.gamma(2.5, scale=10.0)),
        (Normal(-0.1, 0.2), stats.norm(-0.1, 0.2)),
    ],
)
def test_densities_draws_and_middles_are_scipys(prior, same):
    x = same.ppf(np.array([0.01, 0.3, 0.9]))
    with np.errstate(invalid="ignore"):
        found = prior.logpdf(x, np.log(x), np)
    np.testing.assert_allclose(found, same.logpdf(x), rtol=1e-12)
    drawn = prior.sample(np.random.default_rng(0), 40_000)
    assert stats.kstest(drawn, same.cdf).pvalue > 0.01
    assert prior.middles()[0] == pytest.approx(same.median(), rel=0.01)


def test_default_priors_of_a_formula_depend_on_its_floor():
    with_floor, bare = law_from_formula("E + A*N**-a"), law_from_formula("A*N**-a")
    assert with_floor.parameter("E").unit == "nats/token"
    assert str(with_floor.parameter("A").prior) == "LogNormal(0.5, 0.7)"
    assert str(with_floor.parameter("a").prior) == "LogNormal(0.4, 0.35)"
    # Without a floor the term is the whole loss, and bends slowly.
    assert str(bare.parameter("A").prior) == "LogNormal(2, 0.7)"
    assert str(bare.parameter("a").prior) == "LogNormal(0.1, 0.7)"
    held = law_from_formula("1.7 + A*N**-a")
    assert held.floor is None
    assert held.has_floor
    assert [str(p.prior) for p in held.parameters] == [str(p.prior) for p in with_floor.parameters[:1]] + [
        str(with_floor.parameter("a").prior)
    ]


@pytest.mark.parametrize(
    ("formula", "priors", "floor", "held"),
    [
        ("E + A*N**-a", {"E": "Normal(1.7, 0.3)"}, "E", 0.0),
        ("E + A*N**-a + B*D**-b", {}, "E", 0.0),
        ("1.5 + A*N**-a", {}, None, 1.5),
        ("A*N**-a", {}, None, 0.0),
        # What is taken away may exceed what stands alone: neither is a floor.
        ("c + k*log(N)", {"c": "Normal(0, 1)", "k": "Normal(0, 1)"}, None, 0.0),
        ("4 - k*log(N)", {"k": "LogNormal(0.1, 1)"}, None, 0.0),
    ],
)
def test_the_floor_is_what_all_else_adds_to(formula, priors, floor, held):
    law = law_from_formula(formula, priors=priors)
    assert law.floor == floor
    assert derive(law).held_floor == held
    assert law.has_floor == (floor is not None or held > 0)


@pytest.mark.parametrize(
    ("formula", "name"),
    [
        ("E + (N_0/N)**a", "N_0"),
        ("E + A*N**-a + D_0*D**-b", "D_0"),
        ("E + A*N**-a + A_centre*D**-b", "A_centre"),
        ("E + A*N**-x_N", "x_N"),
    ],
)
def test_names_that_the_centred_form_uses_are_refused(formula, name):
    with pytest.raises(LawError, match=f"the name '{name}' is used within"):
        law_from_formula(formula, priors={"N_0": "LogNormal(1e9, 1)"} if "N_0" in formula else None)


def test_priors_are_written_in_full():
    for prior in (LogNormal(1.054330983683298, 1e-7), LogNormal(2.0, 0.7), Gamma(1 / 3, 0.1)):
        assert parse_prior(str(prior)) == prior
    assert str(LogNormal(2.0, 0.7)) == "LogNormal(2, 0.7)"


def test_a_term_that_is_taken_away_is_no_amplitude_and_leaves_no_floor():
    law = law_from_formula("E - b*log(D)", priors={"b": "LogNormal(0.03, 1)"})
    assert law.floor is None
    assert derive(law).centred == {"E": "E", "b": "b"}
    with pytest.raises(LawError, match="no default prior fits 'b'"):
        law_from_formula("E - b*log(D)")


def test_a_law_with_a_parameter_of_any_sign_is_not_sampled_in_logarithms():
    law = BUILTIN["power-params-floor"].with_priors({"A": "Normal(0, 1)"})
    assert derive(law).power_terms is None
    assert derive(BUILTIN["power-params-floor"]).power_terms == {"A_centre": "alpha"}


@pytest.mark.parametrize(
    ("formula", "amplitude"),
    [
        ("E + A*N**-a + B*(U + U*R*(1 - exp(-(D/U - 1)/R)))**-b", "B"),
        ("E + A*N**-a + B*D**-b*(1 - q*exp(-N))", "B"),
        ("E + A*N**-a*(1 - tanh(D/k))", "A"),
        ("E + A*N**-a + B*(1 - exp(-(D/U - 1)/R))", "B"),
    ],
)
def test_terms_of_a_sign_that_sympy_cannot_tell_are_amplitudes(formula, amplitude):
    priors = dict.fromkeys({"R", "q", "k"} & names_in(formula), "LogNormal(1, 1)")
    law = law_from_formula(formula, priors=priors)
    assert law.floor == "E"
    assert str(law.parameter(amplitude).prior) == "LogNormal(0.5, 0.7)"
    assert derive(law).centred[amplitude] == f"{amplitude}_centre"


def test_no_run_has_more_unique_tokens_or_params_than_it_has():
    asked = {"N": 1e9, "D": np.array([2e10, 5e10]), "U": 3e10, "unique_params": np.array([5e8, 2e9])}
    used = as_used(asked)
    np.testing.assert_array_equal(used["U"], [2e10, 3e10])
    np.testing.assert_array_equal(used["unique_params"], [5e8, 1e9])
    assert as_used({"U": 3e10, "unique_params": 2e9}) == {"U": 3e10, "unique_params": 2e9}


def test_inputs_are_in_one_order_sizes_first():
    for name, inputs in (("parscale", "N streams"), ("muennighoff-excess", "N D U unique_params")):
        assert BUILTIN[name].inputs == tuple(inputs.split())
    assert law_from_formula("E + A*C**-a + B*U**-b + F*bits**-f", columns=["bits"]).inputs == (
        "C",
        "U",
        "bits",
    )


def test_what_is_held_is_held_in_terms_at_the_centre_too():
    """(A N^-alpha)^gamma is what the prior of A is about; with gamma held it still is."""
    held = BUILTIN["outer-exponent"].with_constants({"gamma": 0.5})
    law, centre = CentredLaw(held), {"N": 1e8, "D": 1e9}
    sampled = {name: np.array(0.7) for name in law.names}
    at = {name: float(value) for name, value in law.published_parameters(sampled, centre).items()}
    assert (at["A"] * 1e8**-0.7) ** 0.5 == pytest.approx(0.7)
    loss = law.function(centre)(*sampled.values(), np.log(2), np.log(3))
    expected = 0.7 + (at["A"] * 2e8**-0.7 + at["B"] * 3e9**-0.7) ** 0.5
    assert loss == pytest.approx(expected)


def test_what_is_taken_away_is_so_at_every_size():
    assert is_taken_away(parse_formula("-log(N)"), {"N"})
    for slope in ("log(N)", "log(N) - 12", "20 - log(N)", "N**-a"):  # of which two change their sign
        assert not is_taken_away(parse_formula(slope), {"N"})


def test_eulers_number_is_no_parameter():
    law = law_from_formula("E + A*log(steps/1e3 + exp(1))**-a", columns=["steps"])
    centred, centre = CentredLaw(law), {"steps": 3e4}
    x = np.log(np.array([1e3, 1e5]) / 3e4)
    loss = centred.function(centre)(0.5, 0.2, 1.3, x)
    steps = np.array([1e3, 1e5])
    term = (np.log(steps / 1e3 + np.e) / np.log(30 + np.e)) ** -1.3
    assert centred.names == ("A_centre", "E", "a")
    np.testing.assert_allclose(loss, 0.2 + 0.5 * term)
    bare = CentredLaw(law_from_formula("A*log(steps/1e3 + exp(1))**-a", columns=["steps"]))
    np.testing.assert_allclose(bare.function(centre)(0.5, 1.3, x), 0.5 * term)


def test_what_is_left_of_a_share_adds_to_the_loss():
    table = simulated_table(rows=20)
    shared = bs.RunTable(table.frame.assign(share=np.linspace(0.1, 0.9, 20)), table.meta)
    for term in ("B*D**-b*(1 - share)", "B*(1 - share)", "B*D**-b*share*(1 - share)", "-B*log(share)"):
        law = find_law(f"E + A*N**-a + {term}", **shared.names_for_laws())
        assert (law.floor, law.shares) == ("E", ("share",))
        assert "B_centre" in CentredLaw(law).names
        assert Law.from_dict(law.to_dict()) == law
    grown = bs.RunTable(table.frame.assign(share=np.linspace(1, 9, 20)), table.meta)
    taken = find_law("E + A*N**-a - B*log(share)", **grown.names_for_laws(), priors={"B": "LogNormal(1, 1)"})
    assert taken.floor is None
