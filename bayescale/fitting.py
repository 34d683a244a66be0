"""Fit: a law, a run table and draws of the posterior; made and summarised here (`fitfile` saves it)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bayescale.errors import FitError, LawError
from bayescale.inference.diagnostics import Diagnostics, diagnose
from bayescale.inference.evidence import Evidence
from bayescale.laws import BUILTIN, Law, Prior, find_law, parse_priors
from bayescale.model.coordinates import NEEDS_WHITENING, Whitened
from bayescale.model.making import make_model, shared_trunks
from bayescale.model.model import BLOCK, SCALE_PRIORS, Model
from bayescale.model.noise import Noise
from bayescale.runs import RunTable, require_table

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayescale.allocations import Allocation
    from bayescale.forecasts import Forecast

Method = Literal["auto", "nuts", "fast"]

# Groups that an error lists.
_MOST_SHOWN = 40
# Models of so many coordinates and more took NUTS over 20 minutes.
_LARGE = 150
# Of fewer draws a chain diagnostics cannot be told.
LEAST_DRAWS = 10


@dataclass(frozen=True, eq=False)
class Fit:
    """A law, a run table, and draws of its posterior.

    Attributes
    ----------
    table : RunTable
        The runs that were fitted.
    model : Model
        The law on them, with noise and discrepancy.
    z : array, shape (chain, draw, size)
        Draws in unconstrained coordinates, in the layout of `Model.layout`.
    diagnostics : Diagnostics
        Whether the draws may be believed.
    options : mapping
        How the fit was made: method, noise, discrepancy, group effect, draws, seed, versions.
    evidence : Evidence or None
        The log marginal likelihood, where the fast path found it.
    sample_stats : mapping
        The sampler's own record, arrays of shape (chain, draw).
    group : str or None
        Whose losses are forecast (`for_group`); None for those of no group in particular.
    """

    table: RunTable
    model: Model
    z: np.ndarray
    diagnostics: Diagnostics
    options: Mapping[str, Any]
    evidence: Evidence | None = None
    sample_stats: Mapping[str, np.ndarray] | None = None
    group: str | None = None

    def __repr__(self) -> str:
        misfit = "alone" if self.model.discrepancy is None else "with discrepancy"
        line = f"<Fit of {self.law.name} {misfit} to {self.table.name}, {len(self.table)} runs"
        line += f", for group {self.group}" if self.group else ""
        return "; do not rely on it: ".join([line, *self.diagnostics.failures]) + ">"

    @property
    def law(self) -> Law:
        """The law."""
        return self.model.law

    @property
    def priors(self) -> dict[str, Prior | str]:
        """Every prior by name: given to another fit, they keep its table's own from coming in."""
        return {**self.options["priors"], **{p.name: p.prior for p in self.law.parameters}}

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """Draws of every parameter, shape (sample, ...), chains one after the other."""
        return _parameters(self.model, self.z.reshape(-1, self.model.size))

    @cached_property
    def posterior(self) -> "xr.DataTree":
        """The draws and the data for ArviZ: ``az.summary``, ``az.loo``, ``az.plot_forest`` ...

        Groups ``posterior``, ``unconstrained_posterior``, ``sample_stats``, ``log_likelihood`` (nats of log
        loss, given each draw's own discrepancy and group offsets), ``observed_data`` and ``constant_data``.
        Draws by importance sampling repeat, copies one after the other: ArviZ's effective sample sizes take
        that for correlation and are about ``diagnostics.min_ess``. They are no chains, so that ``r_hat``
        says nothing of convergence there, and is up to 1.02 by chance; k-hat is what to look at or, where
        chains moved draws on, memory and drift (`diagnostics`).
        """
        import xarray as xr

        from bayescale.fitfile import posterior_tree
        from bayescale.inference.crossvalidation import pointwise_log_likelihood

        tree = posterior_tree(self)
        values = pointwise_log_likelihood(self.model, self.z)
        index = tree["unconstrained_posterior"].indexes
        likelihood = xr.Dataset({"log_loss": (("chain", "draw", "run"), values)}, index)
        tree["log_likelihood"] = xr.DataTree(likelihood)
        return tree

    @property
    def draws(self) -> "xr.Dataset":
        """The posterior's parameters with dimensions (chain, draw, ...)."""
        return self.posterior["posterior"].to_dataset()

    def summary(self) -> "pd.DataFrame":
        """Return mean, sd and quantiles of each parameter, one row each, with its unit."""
        import pandas as pd

        rows = {}
        for name, draws in self.parameters.items():
            if draws.ndim != 1:
                continue
            low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
            rows[name] = {
                "mean": float(draws.mean()),
                "sd": float(draws.std()),
                "5%": low,
                "50%": middle,
                "95%": high,
                "unit": self.unit(name),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")

    def unit(self, parameter: str) -> str:
        """Return the unit of a parameter; empty where it has none."""
        units = {p.name: p.unit for p in self.law.parameters}
        return (units | self.model.centred.units).get(parameter, "")

    @cached_property
    def cautions(self) -> list[str]:
        """Which of the posterior's features to mind although diagnostics pass; one sentence each."""
        from bayescale.priorconflicts import prior_conflicts

        return [*map(str, prior_conflicts(self)), *self._untold()]

    def _untold(self) -> list[str]:
        """Say of which inputs the table tells nothing: all its runs have the same."""
        inputs = zip(self.law.inputs, self.law.columns, self.model.ratios, strict=True)
        return [
            f"all runs have {column} {self.model.centre[symbol]:.4g}: how loss changes with it is told by "
            "priors alone"
            for symbol, column, ratios in inputs
            if np.ptp(ratios) == 0
        ]

    @cached_property
    def warnings(self) -> list[str]:
        """What to know before relying on the fit, or on anything made from it; one sentence each."""
        found = [f"do not rely on this fit: {reason}" for reason in self.diagnostics.failures]
        found += self.cautions
        if self.model.discrepancy is None:
            found.append("no discrepancy: bands ignore misfit of the law and are too narrow")
        return found

    def forecast(self, **inputs: Any) -> "Forecast":
        """Forecast the loss of runs not yet trained; see `bayescale.forecasts.forecast`."""
        from bayescale.forecasts import forecast

        return forecast(self, **inputs)

    def allocate(
        self,
        *,
        compute: Any = None,
        loss: Any = None,
        served_tokens: float = 0.0,
        group: Any = None,
        held: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> "Allocation":
        """Split compute between params and tokens; see `bayescale.allocations.allocate`."""
        from bayescale.allocations import allocate

        return allocate(
            self,
            compute=compute,
            loss=loss,
            served_tokens=served_tokens,
            group=group,
            held=held,
            seed=seed,
        )

    def for_group(self, group: Any) -> "Fit":
        """Return the fit with forecasts, and all that is made of them, for one of its groups.

        The same draws; expected losses then have the offset of the group, and so do new runs.

        Parameters
        ----------
        group : str
            A value of the column of the group effect; with None the fit stays as it is.

        Raises
        ------
        FitError
            If the fit has no group effect, or none of its groups is called so.
        """
        if group is None:
            return self
        known = self.model.group_names
        if not known:
            columns = " or ".join(c for c in ("group", "trunk") if c in self.table.frame) or "COLUMN"
            raise FitError(
                f"group {str(group)!r}: this fit has no group effect; fit with the column that names the "
                f"groups (group_effect, --group-effect {columns})"
            )
        if str(group) not in known:
            shown = ", ".join(known[:_MOST_SHOWN]) + (", ..." if len(known) > _MOST_SHOWN else "")
            raise FitError(
                f"group {str(group)!r} is unknown; the {len(known)} groups of this fit, by "
                f"{self.options['group_effect']!r}, are {shown}"
            )
        return replace(self, group=str(group))

    def thinned(self, most: int) -> "Fit":
        """Return the fit with at most `most` of its draws, evenly spaced, as one chain."""
        z = self.z.reshape(1, -1, self.model.size)
        return replace(self, z=z[:, :: math.ceil(z.shape[1] / most)], sample_stats=None)

    def save(self, path: str | Path) -> None:
        """Write the fit as NetCDF, aside and then renamed.

        Raises
        ------
        BayescaleError
            If the file cannot be written.
        """
        from bayescale.fitfile import save_fit

        save_fit(self, path)


def fit(
    table: RunTable,
    law: str | Law = "chinchilla",
    *,
    priors: Mapping[str, Prior | str] | None = None,
    noise: Noise = "student-t",
    discrepancy: bool = True,
    group_effect: str | None = None,
    method: Method = "auto",
    draws: int = 1500,
    tune: int = 1000,
    chains: int = 4,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Fit:
    """Fit a scaling law to a run table.

    Parameters
    ----------
    table : RunTable
        The runs; rows flagged as outliers are fitted too, unless left out before
        (`RunTable.without_outliers`, which `bayescale.load` does).
    law : str or Law
        A built-in law's name, a formula such as ``"E + A*N**-a"``, or a law.
    priors : mapping, optional
        Parameter to prior, replacing the law's own (an amplitude's is on the loss its term adds at the
        table's centre, nats/token) or one of ``noise_sd``, ``noise_df``, ``discrepancy_sd``,
        ``discrepancy_length`` (decades), ``discrepancy_stretch`` and ``group_sd``.
    noise : str
        ``student-t`` or ``normal``: scatter of log loss about its expectation.
    discrepancy : bool
        Whether the law may be smoothly wrong (a Gaussian process). Without it, bands are too narrow.
    group_effect : str, optional
        Column whose values share a common offset of log loss: a training trunk, a study, a model size. Where
        runs share a ``trunk`` (cooldowns from one training run), that is the default; ``none`` leaves it out.
    method : str
        ``fast`` (importance sampling, under a second), ``nuts`` (the reference, a minute), or ``auto``: fast
        where its draws stand, NUTS otherwise.
    draws, tune, chains, seed : int
        Draws kept and warm-up draws per chain, number of chains, seed. The fast path returns draws x chains
        equally weighted draws, which repeat: they are worth ``fit.diagnostics.min_ess`` independent ones.
    progress : callable, optional
        Told what takes long. NUTS shows its bar, too, where stderr is a terminal.

    Returns
    -------
    Fit
        ``fit.diagnostics.passed`` says whether the draws may be believed.

    Raises
    ------
    TableError, LawError, FitError
        If table, law or options do not fit together.
    """
    require_table(table)
    if method not in get_args(Method):
        raise FitError(f"method {method!r} is unknown; expected one of {', '.join(get_args(Method))}")
    for name, value, least in (
        ("draws", draws, LEAST_DRAWS),
        ("tune", tune, 1),
        ("chains", chains, 1),
        ("seed", seed, 0),
    ):
        if not (isinstance(value, int | np.integer) and value >= least):
            raise FitError(f"{name} is {value!r}; expected a whole number, at least {least}")
    if not isinstance(discrepancy, bool | np.bool_):
        raise FitError(f"discrepancy is {discrepancy!r}; expected True or False")
    draws, tune, chains, seed, discrepancy = int(draws), int(tune), int(chains), int(seed), bool(discrepancy)
    group_effect = group_effect or shared_trunks(table)
    given = parse_priors(priors)
    model = _model(table, law, given, noise=noise, discrepancy=discrepancy, group_effect=group_effect)
    options = {
        "priors": {name: str(prior) for name, prior in given.items()},
        "noise": noise,
        "discrepancy": discrepancy,
        "group_effect": group_effect,
        "draws": draws,
        "tune": tune,
        "chains": chains,
        "seed": seed,
    }
    if method != "nuts":
        fitted = _fit_fast(table, model, options, progress)
        if method == "fast" or fitted.diagnostics.passed:
            return fitted
        progress(f"importance sampling handed over: {fitted.diagnostics.failures[0]}")
    what = f"{law if isinstance(law, str) else law.name} to the {len(table)} runs of {table.name}"
    progress(f"Fitting {what} by NUTS, {_how_long(model)} ...")
    return _fit_nuts(table, model, options)


def fit_many(
    tables: Sequence[RunTable],
    law: str | Law = "chinchilla",
    *,
    jobs: int = -1,
    summarise: Callable[[Fit], Any] | None = None,
    **options: Any,
) -> list[Any]:
    """Fit a law to many tables at once.

    Parameters
    ----------
    tables : sequence of RunTable
        The tables.
    law : str or Law
        The law.
    jobs : int
        Processes; -1 for all cores. Under ``joblib.parallel_config("ray")`` (after
        ``ray.util.joblib.register_ray()``) the fits run on a Ray cluster.
    summarise : callable, optional
        Reduces each fit where it was made, so that only the result travels back.
    **options
        Of `fit`.

    Returns
    -------
    list
        A fit (or its summary) per table, in order.
    """
    from joblib import Parallel, delayed

    def one(table: RunTable) -> Any:
        fitted = fit(table, law, **options)
        return summarise(fitted) if summarise else fitted

    return Parallel(n_jobs=jobs)(delayed(one)(table) for table in tables)


def prior_predictive(
    table: RunTable,
    law: str | Law = "chinchilla",
    *,
    priors: Mapping[str, Prior | str] | None = None,
    noise: Noise = "student-t",
    discrepancy: bool = True,
    group_effect: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> "xr.DataTree":
    """Draw tables from the prior, at the inputs of `table`; its losses are not looked at.

    Returns
    -------
    xarray.DataTree
        Groups ``prior`` (parameters) and ``prior_predictive`` (``loss``, nats/token, per run).
    """
    import pymc as pm
    import xarray as xr

    from bayescale.model.pymc_model import build_pymc_model

    group = group_effect or shared_trunks(table)
    given = parse_priors(priors)
    model = _model(table, law, given, noise=noise, discrepancy=discrepancy, group_effect=group)
    with build_pymc_model(model, naive=True):
        tree = pm.sample_prior_predictive(draws=draws, random_seed=seed)
    loss = np.exp(tree["prior_predictive"]["log_loss"])
    tree["prior_predictive"] = xr.DataTree(xr.Dataset({"loss": loss.assign_attrs(unit="nats/token")}))
    return tree


def require_fit(fit: Any, expected: str = "a fit") -> None:
    """Raise unless it is a fit: a table is given for one easily.

    Raises
    ------
    FitError
        If it is none.
    """
    if not isinstance(fit, Fit):
        raise FitError(
            f"found a {type(fit).__name__}; expected {expected}, as bayescale.fit and load_fit return"
        )


def prepare(model: Model, seed: int) -> Model:
    """Place a model's start at its mode, and whiten a law that is not sampled by its level and slopes."""
    from bayescale.inference.modes import find_modes

    best = find_modes(model.law_only(), seed=seed)[0]
    block = model.law_only().layout["law_coordinates"]
    start = best.point[block]
    if isinstance(model.coordinates, NEEDS_WHITENING):
        scale = np.linalg.cholesky(best.covariance[block, block])
        coordinates = Whitened(model.coordinates, tuple(start.tolist()), tuple(map(tuple, scale.tolist())))
        return replace(model, coordinates=coordinates, start=np.zeros_like(start))
    return replace(model, start=start)


def _how_long(model: Model) -> str:
    if model.size < _LARGE:
        return "a minute or two"
    easier = "; noise='normal' (--noise normal) may stand without it" if model.noise == "student-t" else ""
    return f"which takes long with {model.size} coordinates{easier}"


def law_for(table: RunTable, law: str | Law, priors: Mapping[str, Prior | str] | None) -> Law:
    """Return the law with the priors given, and the table's own where none was given."""
    found = find_law(law, **table.names_for_laws(), priors=priors)
    if not found.has_floor:  # without one, a term has to explain the whole loss
        return found
    _require_known_priors(table, found)
    floor, names = table.meta.floor_prior, {p.name for p in found.parameters} - (priors or {}).keys()
    own = table.meta.priors | ({found.floor: floor} if floor else {})
    if own and isinstance(law, Law):
        names &= _as_usual(table, law)
    return found.with_priors({name: prior for name, prior in own.items() if name in names})


def _as_usual(table: RunTable, law: Law) -> set[str]:
    """Return the parameters of a law whose priors it has by default: others were given with it."""
    try:
        usual = find_law(law.name if law.name in BUILTIN else law.formula, **table.names_for_laws())
    except LawError:  # a formula that has no default priors
        return set()
    defaults = {p.name: p.prior for p in usual.parameters}
    return {p.name for p in law.parameters if defaults.get(p.name) == p.prior}


def _require_known_priors(table: RunTable, law: Law) -> None:
    """Raise for a prior of the table's own that is of no parameter here: a slip of the pen."""
    known = {p.name for other in (law, *BUILTIN.values()) for p in other.parameters}
    if strangers := sorted(table.meta.priors.keys() - known):
        have = ", ".join(p.name for p in law.parameters)
        raise FitError(
            f"table {table.name!r} states a prior of {strangers[0]!r}, which is no parameter of {law.name!r} "
            f"or of any built-in law; {law.name!r} has {have}"
        )


def _model(table: RunTable, law: str | Law, priors: Mapping[str, Prior], **options: Any) -> Model:
    """Return the model with the priors given, of the law and of noise, discrepancy and groups."""
    scales = {name: prior for name, prior in priors.items() if name in SCALE_PRIORS}
    of_law = {name: prior for name, prior in priors.items() if name not in SCALE_PRIORS}
    if wrong := [name for name, prior in scales.items() if not prior.positive or prior.about]:
        raise FitError(
            f"prior {scales[wrong[0]]} of {wrong[0]!r}, which is a positive scale: expected LogNormal or "
            "Gamma, with numbers alone"
        )
    model = make_model(table, law_for(table, law, of_law), scale_priors=scales, **options)
    if "group_sd" in scales and model.group is None:
        raise FitError(
            "prior of 'group_sd': no runs share an offset in this fit; leave it out, or name the column of "
            "those that do (group_effect, --group-effect)"
        )
    # A law's own priors come back with it where a fit is made again in another setting.
    own = {p.name: p.prior for p in law.parameters} if isinstance(law, Law) else {}
    _require_terms_below_losses(table, model, of_law, own)
    return model


def _require_terms_below_losses(
    table: RunTable, model: Model, priors: Mapping[str, Prior], own: Mapping[str, Prior]
) -> None:
    """Raise for a prior of an amplitude as papers print it: it is on what the term adds at the centre.

    Not where the law's own lies there, too.
    """
    centred, most = model.centred, float(table.column("loss").max())

    def is_above(prior: Prior) -> bool:
        return not prior.about and min(prior.middles()) > most

    for name, prior in priors.items():
        sampled = centred.derived.centred[name]
        if sampled == name or centred.units[sampled] != "nats/token":
            continue
        if is_above(prior) and not (name in own and is_above(own[name])):
            inputs = ", ".join(f"{s} {v:.3g}" for s, v in model.centre.items())
            raise FitError(
                f"prior {prior} of {name!r}: it is of the loss that the term adds at the table's centre "
                f"({inputs}), where no run's is above {most:.3g} nats/token, and not of {name} as papers "
                "print it; expected such as LogNormal(0.5, 0.7)"
            )


def _fit_fast(table: RunTable, model: Model, options: dict[str, Any], progress: Callable[[str], None]) -> Fit:
    from bayescale.inference.fast import sample_fast

    chains, draws = options["chains"], options["draws"]
    sampled = sample_fast(model, draws=chains * draws, seed=options["seed"], progress=progress)
    plain = model.with_plain_weights()
    diagnostics = Diagnostics(
        "fast",
        min(sampled.ess, float(chains * draws)),  # no more than are kept
        k_hat=sampled.k_hat,
        memory=sampled.memory,
        drift=sampled.drift,
        latent_variance=sampled.latent_variance,
        floor_decades=_floor_decades(plain, sampled.z),
        seconds=sampled.seconds,
    )
    options = options | {"method": "fast", "versions": _versions("bayescale", "numpy")}
    z = sampled.z.reshape(chains, draws, -1)
    return Fit(table, plain, z, diagnostics, options, sampled.evidence)


def _floor_decades(model: Model, z: np.ndarray) -> float | None:
    """Return over how many decades 90% of the draws of a positive floor spread."""
    floor = model.centred.floor
    if floor is None or not model.centred.priors[floor].positive:
        return None
    low, high = np.quantile(model.parameters_at(z)[0][floor], [0.05, 0.95])
    return float(np.log10(high / low)) if low > 0 else math.inf


def _fit_nuts(table: RunTable, model: Model, options: dict[str, Any]) -> Fit:
    from bayescale.inference.nuts import sample_nuts
    from bayescale.inference.unvisited import unvisited_modes

    model = prepare(model, options["seed"])
    how = {name: options[name] for name in ("draws", "tune", "chains", "seed")}
    sampled = sample_nuts(model, **how)
    shape, z = sampled.z.shape[:2], sampled.z.reshape(-1, model.size)
    diagnostics = diagnose(
        {name: v.reshape(*shape, *v.shape[1:]) for name, v in _parameters(model, z).items()},
        sampled.sample_stats["diverging"],
        unvisited_modes=unvisited_modes(model, z, seed=options["seed"]),
        seconds=sampled.seconds,
    )
    versions = _versions("bayescale", "pymc", "nutpie", "numpy", "arviz")
    options = options | {"method": "nuts", "versions": versions}
    return Fit(table, model, sampled.z, diagnostics, options, sample_stats=sampled.sample_stats)


@cache
def _versions(*packages: str) -> Mapping[str, str]:
    return {name: version(name) for name in packages}


def _parameters(model: Model, z: np.ndarray) -> dict[str, np.ndarray]:
    """Return what points z, shape (sample, size), stand for, by parameter."""
    # Draws by importance sampling repeat.
    distinct, where = np.unique(z, axis=0, return_inverse=True)
    parts = [_parameters_of(model, distinct[i : i + BLOCK]) for i in range(0, len(distinct), BLOCK)]
    return {name: np.concatenate([part[name] for part in parts])[where] for name in parts[0]}


def _parameters_of(model: Model, z: np.ndarray) -> dict[str, np.ndarray]:
    values, weights = model.parameters_at(z)
    parameters = dict(values)
    parameters |= model.centred.published_parameters(values, model.centre)
    parameters |= {name: model.scale(z, name) for name in model.scale_priors}
    if weights is not None:
        parameters["discrepancy_weights"] = weights
    if model.group is not None:
        parameters["group_offsets"] = z[:, model.layout["group_offsets"]]
    return parameters
