"""Published constants reproduce what their papers print; where rounding breaks that, the test says so."""

import numpy as np
import pytest

import bayescale as bs
from bayescale.laws import BUILTIN

FITS = bs.published_fits()
RULES = bs.published_rules()
PF_DAY = 8.64e19


def optimum(name, compute):
    c = FITS[name].constants
    g = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / (c["alpha"] + c["beta"]))
    return g * (compute / 6) ** (c["beta"] / (c["alpha"] + c["beta"]))


def test_hoffmann_unrounded_optimum_at_the_gopher_budget():
    params = optimum("hoffmann-unrounded", 5.76e23)
    assert params == pytest.approx(40.3e9, rel=0.01)
    assert 5.76e23 / (6 * params**2) == pytest.approx(59, rel=0.02)


def test_rounding_of_hoffmanns_exponents_moves_the_optimum():
    # Printed .34 and .28 are not .3392 and .2849: the optimum moves by a fifth.
    moved = optimum("hoffmann", 5.76e23) / optimum("hoffmann-unrounded", 5.76e23)
    assert not 0.9 < moved < 1.1


def test_besiroglu_optimum():
    params = optimum("besiroglu", 5.76e23)
    assert params == pytest.approx(72e9, rel=0.03)
    assert 5.76e23 / (6 * params**2) == pytest.approx(18.4, rel=0.06)


def test_kaplan_laws_agree_with_each_other_in_their_limits():
    joint, params_only = FITS["kaplan-joint"], FITS["kaplan-params"]
    n = np.array([1e7, 1e8, 1e9])
    # The joint fit has its own N_c (6.4e13 against 8.8e13), 2.4% of the loss at its exponent.
    limit = joint.loss(params=n, tokens=np.full(3, 1e30))
    np.testing.assert_allclose(limit, params_only.loss(params=n), rtol=0.03)


def test_compute_is_in_flop():
    # One PF-day under the printed C_c of 3.1e8 PF-days and exponent .050.
    assert FITS["kaplan-compute"].loss(compute=PF_DAY) == pytest.approx(3.1e8**0.05, rel=1e-3)
    assert FITS["henighan-language-compute"].loss(compute=PF_DAY) == pytest.approx(3.47e8**0.048, rel=1e-3)


def test_muennighoff_equals_chinchilla_at_one_epoch_and_saturates():
    fit = FITS["muennighoff"]
    c = fit.constants
    at = {"params": 1e9, "tokens": 2e10}
    once = fit.loss(**at, unique_tokens=2e10)
    assert once == pytest.approx(c["E"] + c["A"] * 1e9 ** -c["alpha"] + c["B"] * 2e10 ** -c["alpha"])
    four = fit.loss(params=1e9, tokens=8e10, unique_tokens=2e10)
    forty = fit.loss(params=1e9, tokens=8e11, unique_tokens=2e10)
    endless = fit.loss(params=1e9, tokens=8e13, unique_tokens=2e10)
    assert once > four > forty > endless
    assert forty - endless < 0.1 * (four - endless)


@pytest.mark.parametrize("name", FITS)
def test_every_published_fit_falls_with_every_input(name):
    fit = FITS[name]
    columns = fit.columns.values()
    small = fit.loss(**dict.fromkeys(columns, 1e9))
    large = fit.loss(**dict.fromkeys(columns, 1e10))
    assert np.isfinite(small)
    assert large < small
    assert "arXiv:" in fit.citation


def test_missing_input_is_an_error():
    with pytest.raises(bs.BayescaleError, match="needs \\['params', 'tokens'\\]"):
        FITS["besiroglu"].loss(params=1e9)


def test_a_fit_that_names_its_law_has_the_laws_inputs():
    named = [fit for fit in FITS.values() if fit.law]
    assert len(named) > 20
    for fit in named:
        assert set(BUILTIN[fit.law].inputs) == set(fit.columns), fit.name


@pytest.mark.parametrize(("corpus", "agree"), [("image-8x8", True), ("image-32x32", True), ("math", False)])
def test_henighans_sizes_reach_the_losses_of_their_budgets(corpus, agree):
    """A model of the optimal size, trained on without end, beats the budget's loss: L(N_opt(C)) <= L(C).

    The printed constants of mathematics break this: its two floors, .28 and .14, cannot both be right.
    """
    compute = PF_DAY * 10.0 ** np.arange(-5, 1)
    params = RULES[f"henighan-optimal-params-{corpus}"].value(compute=compute)
    endless = FITS[f"henighan-{corpus}-params"].loss(params=params)
    at_budget = FITS[f"henighan-{corpus}-compute"].loss(compute=compute)
    assert bool(np.all(endless <= at_budget)) is agree


def test_kaplans_rules_split_the_budget():
    """Compute is 6 N B S: the optimal params, batch and steps of one PF-day multiply to about it."""
    at = {
        what: float(RULES[f"kaplan-optimal-{what}"].value(compute=PF_DAY))
        for what in ("params", "batch", "steps")
    }
    assert 6 * at["params"] * at["batch"] * at["steps"] == pytest.approx(PF_DAY, rel=0.05)


def test_kaplans_adjustments_meet_at_the_critical_batch():
    """Training at the critical batch takes twice the least steps and twice the least compute."""
    batch = RULES["kaplan-critical-batch"].value(loss=3.0)
    assert batch == pytest.approx(2e8 / 3 ** (1 / 0.21))
    equal = {"batch": batch, "critical_batch": batch}
    assert RULES["kaplan-minimum-steps"].value(steps=1e4, **equal) == pytest.approx(5e3)
    assert RULES["kaplan-minimum-compute"].value(compute=1e20, **equal) == pytest.approx(5e19)


def test_intrinsic_dimension_is_a_rule_for_posterior_draws():
    alpha = np.array([0.3, 0.4])
    assert RULES["sharma-dimension"].value(alpha=alpha) == pytest.approx(4 / alpha)


@pytest.mark.parametrize(("kind", "printed"), [("text", 3.7e8), ("text-and-code", 4.1e9)])
def test_hernandez_extrapolation_to_gpt_3(kind, printed):
    """To one character and 175e9 params, with k rounded to two digits: printed values are within a tenth."""
    assert RULES[f"hernandez-transfer-{kind}"].value(tokens=1, params=175e9) == pytest.approx(
        printed, rel=0.1
    )


@pytest.mark.parametrize("name", RULES)
def test_every_rule_can_be_evaluated_and_cited(name):
    rule = RULES[name]
    value = rule.value(**dict.fromkeys(rule.columns.values(), 1e3))
    assert np.isfinite(value)
    assert value > 0
    assert rule.gives
    assert "arXiv:" in rule.citation
