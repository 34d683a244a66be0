"""Fit: a law, a run table and draws of the posterior; made, saved, loaded and summarised here.

A fit is saved as NetCDF through ArviZ's DataTree, with the law, the table, versions and diagnostics inside
as numbers and JSON. Nothing in the file can run code, since fits are passed between people.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bayescale.errors import FitError
from bayescale.files import written_aside
from bayescale.inference.diagnostics import Diagnostics, diagnose
from bayescale.laws import Law, Prior, find_law
from bayescale.model.coordinates import Coordinates, LogParameters, Whitened
from bayescale.model.model import Model, Noise, make_model
from bayescale.runs import RunTable, TableMeta

if TYPE_CHECKING:
    from bayescale.allocations import Allocation
    from bayescale.forecasts import Forecast

_FORMAT = 1
_ATTRIBUTE = "bayescale"


@dataclass(frozen=True, eq=False)
class Fit:
    """A law, a run table, and draws of its posterior.

    Attributes
    ----------
    table : RunTable
        The runs that were fitted.
    model : Model
        The law on them, with noise and discrepancy.
    posterior : xarray.DataTree
        Groups ``posterior`` (parameters), ``unconstrained_posterior``, ``sample_stats``,
        ``observed_data`` and ``constant_data``; ArviZ's functions take it as it is.
    diagnostics : Diagnostics
        Whether the draws may be believed.
    options : mapping
        How the fit was made: noise, discrepancy, group effect, draws, seed, versions.
    """

    table: RunTable
    model: Model
    posterior: xr.DataTree
    diagnostics: Diagnostics
    options: Mapping[str, Any]

    @property
    def law(self) -> Law:
        """The law."""
        return self.model.law

    @property
    def draws(self) -> xr.Dataset:
        """The posterior's parameters with dimensions (chain, draw, ...)."""
        return self.posterior["posterior"].to_dataset()

    def summary(self) -> pd.DataFrame:
        """Return mean, sd and quantiles of each parameter, one row each, with its unit."""
        units = {p.name: p.unit for p in self.law.parameters}
        rows = {}
        for name, draws in self.draws.data_vars.items():
            if draws.ndim != 2:
                continue
            low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
            unit = units.get(str(name), "nats/token" if str(name).endswith("_centre") else "")
            rows[name] = {
                "mean": float(draws.mean()),
                "sd": float(draws.std()),
                "5%": low,
                "50%": middle,
                "95%": high,
                "unit": unit,
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")

    def forecast(self, **inputs: Any) -> "Forecast":
        """Forecast the loss of runs not yet trained; see `bayescale.forecasts.forecast`."""
        from bayescale.forecasts import forecast

        return forecast(self, **inputs)

    def allocate(self, *, compute: Any = None, loss: Any = None) -> "Allocation":
        """Split compute between params and tokens; see `bayescale.allocations.allocate`."""
        from bayescale.allocations import allocate

        return allocate(self, compute=compute, loss=loss)

    def save(self, path: str | Path) -> None:
        """Write the fit as NetCDF, aside and then renamed.

        Raises
        ------
        BayescaleError
            If the file cannot be written.
        """
        header = {
            "format": _FORMAT,
            "law": self.law.to_dict(),
            "table": self.table.meta.model_dump(),
            "options": dict(self.options),
            "diagnostics": self.diagnostics.to_dict(),
            "whitened": _whitening(self.model.coordinates),
        }
        tree = self.posterior.copy()
        tree["run_table"] = xr.DataTree(_frame_to_dataset(self.table.frame))
        tree.attrs = {**tree.attrs, _ATTRIBUTE: json.dumps(header)}
        with written_aside(path) as aside:
            tree.to_netcdf(aside, engine="h5netcdf")


def load_fit(path: str | Path) -> Fit:
    """Load a fit saved by `Fit.save`.

    Raises
    ------
    FitError
        If the file is missing, damaged, not a fit, or from a later version.
    """
    path = Path(path)
    if not path.is_file():
        raise FitError(f"{path}: no such file; expected a fit written by `bayescale fit -o`")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise FitError(
            f"{path}: not a complete NetCDF file ({type(error).__name__}); it may be truncated. "
            "Make the fit again: bayescale fit TABLE -o FIT.nc"
        ) from error
    if _ATTRIBUTE not in tree.attrs:
        raise FitError(f"{path}: a NetCDF file, but not a bayescale fit")
    try:
        header = json.loads(tree.attrs[_ATTRIBUTE])
        if header["format"] != _FORMAT:
            raise FitError(
                f"{path}: written in fit format {header['format']}, this bayescale "
                f"({version('bayescale')}) reads format {_FORMAT}; make the fit again, or use the "
                f"bayescale that wrote it ({header['options']['versions']['bayescale']})"
            )
        return _rebuild(tree, header)
    except (KeyError, TypeError, ValueError) as error:
        raise FitError(f"{path}: its bayescale header is damaged ({error!r})") from error


def fit(
    table: RunTable,
    law: str | Law = "chinchilla",
    *,
    priors: Mapping[str, Prior | str] | None = None,
    noise: Noise = "student-t",
    discrepancy: bool = True,
    group_effect: str | None = None,
    draws: int = 1500,
    tune: int = 1000,
    chains: int = 4,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Fit a scaling law to a run table by NUTS.

    Parameters
    ----------
    table : RunTable
        The runs; rows flagged as outliers are fitted too, unless left out before
        (`RunTable.without_outliers`, which `bayescale.load` does).
    law : str or Law
        A built-in law's name, a formula such as ``"E + A*N**-a"``, or a law.
    priors : mapping, optional
        Parameter to prior, replacing the law's own. An amplitude's is on the loss its term adds at the
        table's centre, nats/token.
    noise : str
        ``student-t`` or ``normal``: scatter of log loss about its expectation.
    discrepancy : bool
        Whether the law may be smoothly wrong (a Gaussian process). Without it, bands are too narrow.
    group_effect : str, optional
        Column whose values share a common offset of log loss.
    draws, tune, chains, seed : int
        Draws kept and warm-up draws per chain, number of chains, seed.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Fit
        ``fit.diagnostics.passed`` says whether the draws may be believed.

    Raises
    ------
    TableError, LawError, FitError
        If table, law or options do not fit together.
    """
    from bayescale.inference.nuts import sample_nuts

    for name, value, least in (("draws", draws, 4), ("tune", tune, 1), ("chains", chains, 1)):
        if value < least:
            raise FitError(f"{name} is {value}; expected at least {least}")
    found = _law_for(table, law, priors)
    model = make_model(table, found, noise=noise, discrepancy=discrepancy, group_effect=group_effect)
    model, unvisited = prepare(model, seed)
    sampled = sample_nuts(model, draws=draws, tune=tune, chains=chains, seed=seed, progress=progress)
    if unvisited:
        blocks = sampled.z[..., model.layout["law_coordinates"]].reshape(-1, unvisited[0].size)
        unvisited = [m for m in unvisited if not _visited(m, blocks)]
    tree = _tree(model, table, sampled.z, sampled.sample_stats)
    diagnostics = diagnose(
        tree["posterior"].to_dataset(),
        sampled.sample_stats,
        unvisited_modes=len(unvisited),
        seconds=sampled.seconds,
    )
    packages = ("bayescale", "pymc", "nutpie", "numpy", "arviz")
    options = {
        "noise": noise,
        "discrepancy": discrepancy,
        "group_effect": group_effect,
        "draws": draws,
        "tune": tune,
        "chains": chains,
        "seed": seed,
        "versions": {name: version(name) for name in packages},
    }
    return Fit(table, model, tree, diagnostics, options)


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
) -> xr.DataTree:
    """Draw tables from the prior, at the inputs of `table`; its losses are not looked at.

    Returns
    -------
    xarray.DataTree
        Groups ``prior`` (parameters) and ``prior_predictive`` (``loss``, nats/token, per run).
    """
    import pymc as pm

    from bayescale.model.pymc_model import build_pymc_model

    found = _law_for(table, law, priors)
    model = make_model(table, found, noise=noise, discrepancy=discrepancy, group_effect=group_effect)
    with build_pymc_model(model, naive=True):
        tree = pm.sample_prior_predictive(draws=draws, random_seed=seed)
    loss = np.exp(tree["prior_predictive"]["log_loss"])
    tree["prior_predictive"] = xr.DataTree(xr.Dataset({"loss": loss.assign_attrs(unit="nats/token")}))
    return tree


def prepare(model: Model, seed: int) -> tuple[Model, list[np.ndarray]]:
    """Place a model's start at its mode, and whiten a law that has no level/slope coordinates.

    Returns the model and, for models without discrepancy and groups, the law coordinates of other modes
    with a share of the mass.
    """
    from bayescale.inference.diagnostics import OTHER_MODE_SHARE
    from bayescale.inference.modes import find_modes

    modes = find_modes(model.law_only(), seed=seed)
    if not modes:
        raise FitError(
            f"law {model.law.name!r} has no posterior mode on this table; its priors may be far from the "
            "data: see `bayescale.prior_predictive`"
        )
    block = model.law_only().layout["law_coordinates"]
    start = modes[0].point[block]
    shares = np.exp([m.log_mass - modes[0].log_mass for m in modes[1:]])
    others = [m.point[block] for m, s in zip(modes[1:], shares, strict=True) if s > OTHER_MODE_SHARE]
    if isinstance(model.coordinates, LogParameters):
        scale = np.linalg.cholesky(modes[0].covariance[block, block])
        others = [np.linalg.solve(scale, o - start) for o in others]
        coordinates = Whitened(model.coordinates, tuple(start.tolist()), tuple(map(tuple, scale.tolist())))
        model = replace(model, coordinates=coordinates)
        start = np.zeros_like(start)
    if model.discrepancy is not None or model.group is not None:
        others = []
    return replace(model, start=start), others


def _law_for(table: RunTable, law: str | Law, priors: Mapping[str, Prior | str] | None) -> Law:
    """Return the law with the priors given, and the table's own for the floor unless one was given."""
    found = find_law(law, columns=list(map(str, table.frame.columns)), priors=priors)
    if table.meta.floor_prior and found.floor and found.floor not in (priors or {}):
        found = found.with_priors({found.floor: table.meta.floor_prior})
    return found


def _whitening(coordinates: Coordinates) -> dict[str, Any] | None:
    if not isinstance(coordinates, Whitened):
        return None
    return {"mode": coordinates.mode, "scale": coordinates.scale}


def _visited(mode: np.ndarray, draws: np.ndarray) -> bool:
    # Visited if some draw is nearer to the mode, in every coordinate's own scale, than 1 sd.
    return bool(np.any(np.all(np.abs(draws - mode) < draws.std(axis=0), axis=1)))


def _tree(model: Model, table: RunTable, z: np.ndarray, stats: xr.Dataset) -> xr.DataTree:
    chains, draws = z.shape[:2]
    flat = z.reshape(-1, model.size)
    point = model.point_at(flat)
    posterior = dict(point.values)
    posterior |= model.centred.published_parameters(point.values, model.centre)
    posterior |= {name: model.scale(flat, name) for name in model.scale_priors}
    dims: dict[str, tuple[str, ...]] = {name: ("chain", "draw") for name in posterior}
    if point.weights is not None:
        posterior["discrepancy_weights"] = point.weights
        dims["discrepancy_weights"] = ("chain", "draw", "knot")
    if model.group is not None:
        posterior["group_offsets"] = flat[:, model.layout["group_offsets"]]
        dims["group_offsets"] = ("chain", "draw", "group")
    index = {"chain": np.arange(chains), "draw": np.arange(draws)}
    coords = dict(index)
    if model.group is not None:
        coords["group"] = np.array(model.group_names)
    dataset = xr.Dataset(
        {n: (dims[n], v.reshape(chains, draws, *v.shape[1:])) for n, v in posterior.items()}, coords
    )
    inputs = dict(zip(model.law.columns, model.ratios, strict=True))
    values = [model.centre[s] * np.exp(r) for s, r in zip(model.law.inputs, inputs.values(), strict=True)]
    return xr.DataTree.from_dict(
        {
            "posterior": dataset,
            "unconstrained_posterior": xr.Dataset({"z": (("chain", "draw", "coordinate"), z)}, index),
            "sample_stats": stats,
            "observed_data": xr.Dataset({"log_loss": ("run", model.log_loss)}),
            "constant_data": xr.Dataset({n: ("run", v) for n, v in zip(inputs, values, strict=True)}),
        }
    )


def _rebuild(tree: xr.DataTree, header: Mapping[str, Any]) -> Fit:
    frame = tree["run_table"].to_dataset().to_dataframe().reset_index(drop=True)
    table = RunTable(frame, TableMeta(**header["table"]))
    options = header["options"]
    model = make_model(
        table,
        Law.from_dict(header["law"]),
        noise=options["noise"],
        discrepancy=options["discrepancy"],
        group_effect=options["group_effect"],
    )
    if header["whitened"] is not None and isinstance(model.coordinates, LogParameters):
        mode, scale = header["whitened"]["mode"], header["whitened"]["scale"]
        whitened = Whitened(model.coordinates, tuple(mode), tuple(map(tuple, scale)))
        model = replace(model, coordinates=whitened)
    posterior = xr.DataTree.from_dict(
        {name: node.to_dataset() for name, node in tree.children.items() if name != "run_table"}
    )
    return Fit(table, model, posterior, Diagnostics(**header["diagnostics"]), options)


def _frame_to_dataset(frame: pd.DataFrame) -> xr.Dataset:
    columns = {}
    for name, values in frame.items():
        array = values.to_numpy()
        if array.dtype.kind not in "biuf":
            array = values.astype(object).where(values.notna(), "").astype(str).to_numpy(object)
        columns[str(name)] = ("run", array)
    return xr.Dataset(columns)
