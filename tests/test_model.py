"""The NumPy density is the PyMC model's, and its change of variables is right."""

import numpy as np
import pytest
from scipy import stats

from bayescale.errors import FitError
from bayescale.fitting import prepare
from bayescale.laws import BUILTIN, CentredLaw, find_law
from bayescale.laws.priors import parse_prior
from bayescale.model.coordinates import Level, LevelRatios, LevelSlope, LogParameters, natural_coordinates
from bayescale.model.discrepancy import Discrepancy, axes_of, knots_over, stretch_of
from bayescale.model.making import make_model
from tests.conftest import simulated_table


def points_near_mode(model, count=8, seed=0):
    rng = np.random.default_rng(seed)
    z = 0.3 * rng.standard_normal((count, model.size))
    z[:, model.layout["law_coordinates"]] += model.start
    for name, value in {
        "noise_sd": 0.004,
        "noise_df": 6,
        "discrepancy_sd": 0.05,
        "discrepancy_length": 2,
        "discrepancy_stretch": 1.5,
    }.items():
        if name in model.layout:
            z[:, model.layout[name]] += np.log(value)
    return z


@pytest.mark.parametrize(
    ("law", "options"),
    [
        ("chinchilla", {"discrepancy": False}),
        ("chinchilla", {"discrepancy": True}),
        ("chinchilla", {"discrepancy": True, "noise": "normal", "group_effect": "family"}),
        ("kaplan-floor", {"discrepancy": True}),
        ("kaplan", {"discrepancy": False}),
        (BUILTIN["chinchilla"].with_priors({"E": "Normal(1.7, 0.3)"}), {"discrepancy": True}),
        (BUILTIN["chinchilla"].with_constants({"E": 1.7}), {"discrepancy": True}),
    ],
)
def test_numpy_and_pymc_densities_agree(law, options):
    from bayescale.model.pymc_model import build_pymc_model

    table = simulated_table(rows=30)
    table.frame["family"] = np.arange(30) % 4
    table.frame["loss_se"] = 0.002
    model = prepare(make_model(table, find_law(law), **options), seed=0)
    z = points_near_mode(model)
    built = build_pymc_model(model)
    logp = built.compile_logp(mode="FAST_COMPILE")  # of six graphs: Numba would take minutes
    names = {v.name for v in built.value_vars}
    for point, expected in zip(z, model.log_density(z), strict=True):
        values = {
            (n if n in names else f"{n}_log__"): point[b] if n in names else point[b][0]
            for n, b in model.layout.items()
        }
        # The terms that cancel in some densities are hundreds of nats, and the kernel's inverse rounds.
        assert logp(values) == pytest.approx(expected, rel=1e-10, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chinchilla", LevelSlope),
        ("chinchilla-shared", LevelSlope),
        ("power-params-floor", LevelSlope),
        ("kaplan-floor", Level),
        ("muennighoff", Level),
        ("curve-bnsl-1", Level),
        ("kaplan", LevelRatios),
        ("transfer", LevelRatios),
        ("power-params", LogParameters),
        ("distillation", LogParameters),
        (BUILTIN["chinchilla"].with_priors({"E": "Normal(1.7, 0.3)"}), Level),
    ],
)
def test_log_jacobian_is_the_determinant(name, kind):
    law = CentredLaw(find_law(name))
    coordinates = natural_coordinates(law, {i: 10.0 + number for number, i in enumerate(law.law.inputs)})
    assert isinstance(coordinates, kind)
    rng = np.random.default_rng(1)
    values = {n: rng.uniform(0.3, 1.5) for n in law.names}
    z = coordinates.from_sampled(values)
    sampled = coordinates.to_sampled(z, np)
    assert {n: float(v) for n, v in sampled.values.items()} == pytest.approx(values)
    step = 1e-6 * np.eye(len(z))

    def stacked(z):
        return np.stack([coordinates.to_sampled(z, np).values[n] for n in law.names], axis=-1)

    jacobian = (stacked(z + step) - stacked(z - step)) / 2e-6
    assert float(sampled.log_jacobian) == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-6)


@pytest.mark.parametrize("law", ["chinchilla", "kaplan-floor"])
@pytest.mark.parametrize("prior", ["LogNormal(1, 2)", "LogNormal(1, 5)", "Gamma(1, 1)", "Gamma(0.3, 0.3)"])
def test_a_positive_floors_vague_prior_has_no_mass_below_zero(law, prior):
    """Its density may grow towards 0, and would on the way of a leapfrog step that overshoots."""
    model = make_model(simulated_table(rows=20), find_law(law).with_priors({"E": parse_prior(prior)}))
    names = model.centred.names
    z = model.coordinates.from_sampled({name: 0.4 for name in names})
    rest = np.exp(z[0]) - 0.4
    floors = np.linspace(-0.99 * rest, 50.0, 2_000_001)
    z = np.column_stack([np.log(rest + floors), np.tile(z[1:], (len(floors), 1))])
    sampled = model.coordinates.to_sampled(z, np)
    log_density = model.law_log_prior(sampled.values, sampled.logs) + sampled.log_jacobian - z[:, 0]
    density = np.exp(log_density - log_density.max())
    assert density[sampled.values["E"] <= 0].sum() < 1e-3 * density.sum()


@pytest.mark.parametrize(
    "prior", ["LogNormal(1e-4, 1)", "LogNormal(1e-3, 1)", "Gamma(0.5, 10)", "Gamma(1, 10)"]
)
def test_a_small_floors_prior_has_all_of_its_mass(prior):
    """Also where that is next to nothing beside the loss, as of error rates."""
    model = make_model(
        simulated_table(rows=20), find_law("chinchilla").with_priors({"E": parse_prior(prior)})
    )
    z = model.coordinates.from_sampled({name: 0.4 for name in model.centred.names})
    rest = np.exp(z[0]) - 0.4
    log_floors = np.linspace(-40.0, 3.0, 200_001)
    floors = np.exp(log_floors)
    z = np.column_stack([np.log(rest + floors), np.tile(z[1:], (len(floors), 1))])
    sampled = model.coordinates.to_sampled(z, np)
    others = {name: p for name, p in model.centred.priors.items() if name != "E"}
    assert set(others) == {"A_centre", "B_centre", "alpha", "beta"}
    known = sum(p.logpdf(0.4, np.log(0.4), np) for p in (q.given({"alpha": 0.4}) for q in others.values()))
    log_density = model.law_log_prior(sampled.values, sampled.logs) + sampled.log_jacobian - z[:, 0]
    # d E = rest + E less rest: of the other coordinates the Jacobian is that of logarithms at .4.
    mass = np.trapezoid(np.exp(log_density - known - 4 * np.log(0.4)) * floors, log_floors)
    assert mass == pytest.approx(1, abs=2e-4)


def test_knots_lie_no_further_apart_than_a_prior_expects_misfits_to_reach():
    table = simulated_table(rows=30)
    law, short = BUILTIN["chinchilla"], {"discrepancy_length": parse_prior("LogNormal(0.4, 0.2)")}
    usual, fine = (make_model(table, law, scale_priors=p).discrepancy.knots for p in ({}, short))
    assert max(np.diff(k).max() for k in fine) <= 0.4 < max(np.diff(k).max() for k in usual) <= 1
    with pytest.raises(FitError, match=r"'discrepancy_length': a misfit of 0.01 decades, its middle, takes"):
        make_model(table, law, scale_priors={"discrepancy_length": parse_prior("LogNormal(0.01, 0.2)")})


def test_discrepancy_weights_map_has_its_jacobian():
    table = simulated_table(rows=25)
    model = prepare(make_model(table, BUILTIN["chinchilla"]), seed=0)
    z = points_near_mode(model, 1)
    block = model.layout["discrepancy_coordinates"]
    size = block.stop - block.start

    def weights(standard):
        moved = np.repeat(z, len(standard), axis=0)
        moved[:, block] = standard
        return model.point_at(moved).weights

    centre, step = z[0, block], 1e-5 * np.eye(size)
    jacobian = (weights(centre + step) - weights(centre - step)) / 2e-5
    law_only = model.coordinates.to_sampled(z[:, model.layout["law_coordinates"]], np).log_jacobian
    expected = np.linalg.slogdet(jacobian)[1] + law_only[0]
    assert model.point_at(z).log_jacobian[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("most", [0.0, 0.1])
def test_log_likelihood_is_scipys_and_sums_to_its_total(most):
    table = simulated_table(rows=70)
    table.frame["loss_se"] = np.linspace(0, most, 70)  # known noise, which adds in quadrature
    model = make_model(table, BUILTIN["chinchilla"], discrepancy=False)
    rng = np.random.default_rng(3)
    z = rng.standard_normal((50, model.size))
    z[:, model.layout["noise_df"].start] = rng.uniform(-6, 9, 50)
    log_mean = model.log_loss + 0.1 * rng.standard_t(2, (50, 70))
    sd, df = np.exp(z[:, [model.layout[n].start for n in ("noise_sd", "noise_df")]]).T[..., None]
    scale = np.hypot(sd, np.linspace(0, most, 70) / table.column("loss"))
    expected = stats.t.logpdf(model.log_loss, df, log_mean, scale)
    np.testing.assert_allclose(model.log_likelihood(z, log_mean), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model.total_log_likelihood(z, log_mean), expected.sum(axis=1), rtol=1e-9)


def test_evidence_of_a_two_parameter_law_by_quadrature():
    # Known noise, wide grid: the density integrates to the evidence found by Monte Carlo on the prior.
    table = simulated_table(rows=4, noise_sd=0.05)
    model = make_model(table, BUILTIN["power-params"], discrepancy=False, noise="normal")
    priors = model.centred.priors
    axes = [np.linspace(-3, 3.5, 161), np.linspace(-7, 1, 161), np.linspace(-8, 1.5, 121)]
    mesh = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)
    density = np.exp(model.log_density(mesh))
    cell = np.prod([a[1] - a[0] for a in axes])
    rng = np.random.default_rng(0)
    draws = {n: p.sample(rng, 400_000) for n, p in priors.items()}
    z = np.column_stack(
        [model.coordinates.from_sampled(draws), np.log(0.01 * np.exp(rng.standard_normal(400_000)))]
    )
    log_mean = np.log(model.point_at(z).loss)
    likelihood = np.exp(model.log_likelihood(z, log_mean).sum(axis=1))
    error = likelihood.std() / np.sqrt(len(likelihood))
    assert abs(density.sum() * cell - likelihood.mean()) < 4 * error


def test_knots_reproduce_the_exact_process_on_the_table():
    rng = np.random.default_rng(0)
    axes = rng.uniform(-2, 2, (2, 40))
    discrepancy = Discrepancy(knots_over(axes))
    lengths = np.array([[1.6, 1.5], [6.0, 1.5], [5.0, 5.0]])
    basis = discrepancy.basis(axes, lengths, np)
    exact = np.ones((3, 40, 40))
    for x, length in zip(axes, lengths.T, strict=True):
        exact *= np.exp(-0.5 * np.subtract.outer(x, x) ** 2 / length[:, None, None] ** 2)
    missing = 1 - np.diagonal(basis @ basis.mT, axis1=1, axis2=2)
    assert np.all(missing > -1e-6)
    assert missing[0].max() < 0.02  # the shortest plausible length
    assert missing[1:].max() < 1e-3
    rest = discrepancy.unexplained(axes, lengths)
    np.testing.assert_allclose(basis @ basis.mT + rest @ rest.mT, exact, atol=1e-5)


def test_far_from_the_table_the_discrepancy_has_its_prior_scale():
    axes = np.random.default_rng(0).uniform(-2, 2, (2, 40))
    far = np.array([[15.0], [0.0]])
    rest = Discrepancy(knots_over(axes)).unexplained(far, np.array([[2.0, 2.0]]))
    assert rest[0, 0, 0] == pytest.approx(1.0, abs=1e-3)


def test_functions_drawn_have_the_covariance_of_what_knots_leave_unexplained():
    """Many targets are drawn as functions, few by their covariance: the same process either way."""
    axes = np.random.default_rng(0).uniform(-2, 2, (2, 40))
    targets = np.array([[0.3, 3.5, 4.0, 9.0], [0.1, 0.5, -1.0, 3.0]])
    discrepancy = Discrepancy(knots_over(axes))
    lengths = np.array([[4.0, 1.5]])
    rest = discrepancy.unexplained(targets, lengths)[0]
    draws = discrepancy.draw_unexplained(
        targets, np.repeat(lengths, 20_000, axis=0), np.random.default_rng(1)
    )
    covariance, exact = np.cov(draws, rowvar=False), rest @ rest.T
    sd = np.sqrt(np.diagonal(exact))
    error = np.sqrt((np.outer(sd, sd) ** 2 + exact**2) / len(draws))
    assert np.all(np.abs(covariance - exact) < 4.5 * error + 1e-6)


def test_constant_inputs_leave_one_knot():
    assert knots_over(np.array([[0.0, 0.0, 0.0]])) == ((0.0,),)


def test_compute_is_no_third_axis_beside_params_and_tokens():
    n, d = np.random.default_rng(0).standard_normal((2, 5))
    alone = axes_of(["N", "D"], np.stack([n, d]))
    np.testing.assert_array_equal(axes_of(["N", "D", "C"], np.stack([n, d, n + d])), alone)
    assert len(stretch_of(["N", "D", "C"])) == 2


def test_misfit_of_repeated_data_is_along_epochs():
    """Runs that repeat nothing lie at one value of the third axis, so that they have Chinchilla's misfit."""
    n, d = np.random.default_rng(0).standard_normal((2, 5))
    axes = axes_of(["N", "D", "U"], np.stack([n, d, d]))
    np.testing.assert_array_equal(axes[:2], axes_of(["N", "D"], np.stack([n, d])))
    np.testing.assert_array_equal(axes[2], 0.0)
    assert axes_of(["N", "D", "U"], np.array([[0.0], [0.0], [-np.log(10)]]))[2, 0] == pytest.approx(1.0)
    np.testing.assert_array_equal(stretch_of(["N", "D", "U"]), [0.5, -0.5, 0.0])


def test_law_only_drops_discrepancy_and_groups():
    table = simulated_table(rows=12)
    model = make_model(table, BUILTIN["chinchilla"], group_effect="params")
    assert "discrepancy_coordinates" in model.layout
    assert "group_offsets" in model.layout
    assert set(model.law_only().layout) == {"law_coordinates", "noise_sd", "noise_df"}
    assert model.law_only().law == model.law
