"""Making a model of a law and a run table: what it needs of the table is read and checked here."""

from collections.abc import Mapping
from typing import get_args

import numpy as np
import pandas as pd

from bayescale.columns import likely_column
from bayescale.errors import FitError, TableError
from bayescale.laws import BUILTIN, CentredLaw, Law, Prior, as_used
from bayescale.model.coordinates import natural_coordinates
from bayescale.model.discrepancy import Discrepancy, axes_of, knots_over
from bayescale.model.model import SCALE_PRIORS, Model
from bayescale.model.noise import Noise
from bayescale.runs import COLUMNS, RunTable

# Names that a law's parameters cannot have.
_TAKEN = {*SCALE_PRIORS, "discrepancy_weights", "group_offsets", "chain", "draw"}
# Laws that an error suggests.
_FEW_LAWS = 5
# No study's runs span more; knots over them would not fit the memory.
MOST_DECADES = 30


def make_model(
    table: RunTable,
    law: Law,
    *,
    noise: Noise = "student-t",
    discrepancy: bool = True,
    group_effect: str | None = None,
    scale_priors: Mapping[str, Prior] | None = None,
) -> Model:
    """Join a law and a run table into a model.

    Parameters
    ----------
    table : RunTable
        The runs.
    law : Law
        The law.
    noise : str
        ``student-t`` (default: outliers do not drag the fit) or ``normal``.
    discrepancy : bool
        Whether the law may be smoothly wrong. Without it, bands ignore misfit and are too narrow.
    group_effect : str, optional
        A column whose values share a common offset of log loss, e.g. ``params`` or ``trunk``.
    scale_priors : mapping, optional
        Replaces some of `SCALE_PRIORS`.

    Raises
    ------
    TableError
        If a column is missing, or an input is not positive.
    FitError
        If there are fewer than three runs, or an option is unknown.
    """
    if noise not in get_args(Noise):
        raise FitError(f"noise {noise!r} is unknown; expected one of {', '.join(get_args(Noise))}")
    if len(table) < 3:
        raise FitError(
            f"table {table.name!r} has {len(table)} run(s); a law needs at least 3, and a useful fit more "
            f"than the {len(law.parameters)} parameters of {law.name!r}"
        )
    if taken := sorted({p.name for p in law.parameters} & _TAKEN):
        raise FitError(
            f"law {law.name!r} has a parameter {taken[0]!r}, which is the model's own; give it another name"
        )
    inputs = _inputs_of(table, law)
    centre = {s: float(np.exp(np.mean(np.log(v)))) for s, v in inputs.items()}
    ratios = np.stack([np.log(v / centre[s]) for s, v in inputs.items()])
    group, names = _groups(table, group_effect)
    priors = SCALE_PRIORS | dict(scale_priors or {})
    length = min(priors["discrepancy_length"].middles())
    knots = knots_over(axes_of(law.inputs, ratios), length) if discrepancy else None
    return Model(
        law=law,
        centre=centre,
        ratios=ratios,
        log_loss=np.log(table.column("loss")),
        known_noise=table.known_noise(),
        noise=noise,
        discrepancy=None if knots is None else Discrepancy(knots),
        group=group,
        group_names=names,
        all_scale_priors=priors,
        coordinates=natural_coordinates(CentredLaw(law), centre),
    )


def _inputs_of(table: RunTable, law: Law) -> dict[str, np.ndarray]:
    """Return what the law takes, by symbol: positive columns of the table, within reason."""
    if missing := [column for column in law.columns if column not in table.frame]:
        have = ", ".join(map(str, table.frame.columns))
        of_these = [name for name, other in BUILTIN.items() if set(other.columns) <= set(table.frame)]
        raise TableError(
            f"table {table.name!r} has no column {missing[0]!r}, which law {law.name!r} needs; it has "
            f"{have}. {_suggestion(missing[0], list(map(str, table.frame.columns)))}"
            + (f"Laws of these: {', '.join(of_these[:_FEW_LAWS])}" if of_these else "No law here is of these")
        )
    inputs = {}
    for symbol, column in zip(law.inputs, law.columns, strict=True):
        values = table.column(column)
        if np.any(values <= 0):
            row = int(np.flatnonzero(values <= 0)[0])
            raise TableError(
                f"table {table.name!r}, column {column!r}, run {row + 1}: found {values[row]:g}; law "
                f"{law.name!r} needs positive inputs"
            )
        if (decades := np.log10(values.max() / values.min())) > MOST_DECADES:
            raise TableError(
                f"table {table.name!r}, column {column!r}: runs span {decades:.0f} decades, {values.min():g} "
                f"to {values.max():g}; expected at most {MOST_DECADES}. Is a row in another unit?"
            )
        inputs[symbol] = values
    return as_used(inputs)


def _suggestion(ours: str, have: list[str]) -> str:
    theirs = likely_column(ours, have) if ours in ("params", "tokens", "compute") else None
    # What has a meaning of its own is no other column by another name.
    if theirs is None or theirs in COLUMNS:
        return ""
    return f'Is it {theirs!r}? Then say so: --columns "{ours}={theirs}". '


def _groups(table: RunTable, column: str | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if column is None or column == "none":
        return None, ()
    if column not in table.frame:
        have = ", ".join(map(str, table.frame.columns))
        raise TableError(f"table {table.name!r} has no column {column!r} to group by; it has {have}")
    if column in ("loss", "loss_se", "loss_rounding"):
        raise TableError(
            f"column {column!r} cannot group runs: the loss is what their offset is of; expected such as "
            "trunk or group"
        )
    labels = table.frame[column]
    # A run without a label shares its offset with no other.
    missing = labels.isna()
    if missing.any() and pd.api.types.is_float_dtype(labels) and (labels.dropna() % 1 == 0).all():
        labels = labels.astype("Int64")  # whole numbers, which what is missing made floats
    text = [f"run {row}" if missing.iloc[row - 1] else str(v) for row, v in enumerate(labels, start=1)]
    names, group = np.unique(text, return_inverse=True)
    return group, tuple(names.tolist())


def shared_trunks(table: RunTable) -> str | None:
    """Return the column of training trunks if some runs of the table share one: their noise is shared too."""
    if "trunk" not in table.frame:
        return None
    return "trunk" if table.frame["trunk"].dropna().duplicated().any() else None
