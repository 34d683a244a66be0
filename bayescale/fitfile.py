"""A fit as a file: NetCDF through an ArviZ DataTree, with law, table, versions and diagnostics inside.

All of it numbers and JSON: nothing in the file can run code, since fits are passed between people.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayescale.errors import FitError
from bayescale.files import written_aside
from bayescale.fitting import Fit
from bayescale.inference.diagnostics import Diagnostics
from bayescale.inference.evidence import Evidence
from bayescale.laws import Law, parse_prior
from bayescale.model.coordinates import NEEDS_WHITENING, Coordinates, Whitened
from bayescale.model.making import make_model
from bayescale.model.model import SCALE_PRIORS
from bayescale.runs import RunTable, TableMeta

_FORMAT = 10
_ATTRIBUTE = "bayescale"


def save_fit(fit: Fit, path: str | Path) -> None:
    """Write a fit as NetCDF, aside and then renamed."""
    header = {
        "format": _FORMAT,
        "law": fit.law.to_dict(),
        "table": fit.table.meta.model_dump(),
        "options": dict(fit.options),
        "group": fit.group,
        "diagnostics": fit.diagnostics.to_dict(),
        "evidence": fit.evidence.to_dict() if fit.evidence else None,
        "whitened": _whitening(fit.model.coordinates),
        "sha256": _digest(fit.z, fit.model.log_loss),
        "columns": list(map(str, fit.table.frame.columns)),
    }
    tree = posterior_tree(fit)
    tree["run_table"] = xr.DataTree(_frame_to_dataset(fit.table.frame))
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
        raise FitError(f"{path}: damaged ({error}); make the fit again") from error


def posterior_tree(fit: Fit) -> xr.DataTree:
    """Return a fit's draws and data as ArviZ lays them out, without what can be computed from them."""
    model, shape = fit.model, fit.z.shape[:2]
    index: dict[str, Any] = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    dims = {"discrepancy_weights": ("knot",), "group_offsets": ("group",)}
    variables = {
        name: (("chain", "draw", *dims.get(name, ())), values.reshape(*shape, *values.shape[1:]))
        for name, values in fit.parameters.items()
    }
    named = {"group": np.array(model.group_names)} if model.group is not None else {}
    if model.discrepancy is not None:  # ArviZ's plots want a coordinate for each dimension
        named["knot"] = np.arange(fit.parameters["discrepancy_weights"].shape[1])
    values = [model.centre[s] * np.exp(r) for s, r in zip(model.law.inputs, model.ratios, strict=True)]
    stats = {name: (("chain", "draw"), v) for name, v in (fit.sample_stats or {}).items()}
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(variables, index | named),
            "unconstrained_posterior": xr.Dataset({"z": (("chain", "draw", "coordinate"), fit.z)}, index),
            "sample_stats": xr.Dataset(stats, index),
            "observed_data": xr.Dataset({"log_loss": ("run", model.log_loss)}),
            "constant_data": xr.Dataset(
                {n: ("run", v) for n, v in zip(model.law.columns, values, strict=True)}
            ),
        }
    )


def _rebuild(tree: xr.DataTree, header: Mapping[str, Any]) -> Fit:
    frame = _dataset_to_frame(tree["run_table"].to_dataset(), header["columns"])
    table = RunTable(frame, TableMeta(**header["table"]))
    options = header["options"]
    model = make_model(
        table,
        Law.from_dict(header["law"]),
        noise=options["noise"],
        discrepancy=options["discrepancy"],
        group_effect=options["group_effect"],
        scale_priors={n: parse_prior(text) for n, text in options["priors"].items() if n in SCALE_PRIORS},
    )
    if options["method"] == "fast":
        model = model.with_plain_weights()
    if header["whitened"] is not None and isinstance(model.coordinates, NEEDS_WHITENING):
        mode, scale = header["whitened"]["mode"], header["whitened"]["scale"]
        whitened = Whitened(model.coordinates, tuple(mode), tuple(map(tuple, scale)))
        model = replace(model, coordinates=whitened)
    stats = {str(name): v.values for name, v in tree["sample_stats"].data_vars.items()}
    z = np.asarray(tree["unconstrained_posterior"].to_dataset()["z"])
    if _digest(z, model.log_loss) != header["sha256"] or z.shape[-1] != model.size:
        raise ValueError("its draws or losses are not those that were saved")
    return Fit(
        table,
        model,
        z,
        Diagnostics(**header["diagnostics"]),
        options,
        Evidence(**header["evidence"]) if header["evidence"] else None,
        stats or None,
        header.get("group"),
    )


def _digest(z: np.ndarray, log_loss: np.ndarray) -> str:
    """Return a checksum of draws and losses: a file may be damaged and still be read."""
    digest = sha256(np.ascontiguousarray(z, float).tobytes())
    digest.update(np.ascontiguousarray(log_loss, float).tobytes())
    return digest.hexdigest()


def _whitening(coordinates: Coordinates) -> dict[str, Any] | None:
    if not isinstance(coordinates, Whitened):
        return None
    return {"mode": coordinates.mode, "scale": coordinates.scale}


# A table's columns may have names that no variable can have; their order stands for them. Text begins with a
# mark: without one it is missing.
_MARK = "="


def _frame_to_dataset(frame: pd.DataFrame) -> xr.Dataset:
    columns = {}
    for number, (_, values) in enumerate(frame.items()):
        array = values.to_numpy()
        if array.dtype.kind not in "biuf":
            text = _MARK + values.astype(object).where(values.notna(), "").astype(str)
            array = text.where(values.notna(), "").to_numpy(object)
        columns[f"column_{number}"] = ("run", array)
    return xr.Dataset(columns)


def _dataset_to_frame(dataset: xr.Dataset, names: list[str]) -> pd.DataFrame:
    columns = {}
    for number, name in enumerate(names):
        array = dataset[f"column_{number}"].values
        if array.dtype.kind not in "biuf":
            array = np.array([text[1:] if text else np.nan for text in array], object)
        columns[name] = array
    return pd.DataFrame(columns)
