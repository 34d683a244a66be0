"""The run table: validated runs of one study, in one loss unit, with what is known of them.

`make_table` is the only door in: it checks every number, converts losses to nats/token, completes
params/tokens/compute, and detects the precision that losses were printed with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypedDict

import numpy as np
import pandas as pd
import pydantic

from bayescale.counting import Counting, counting_of
from bayescale.errors import TableError
from bayescale.units import (
    LossUnit,
    error_to_nats_per_token,
    to_nats_per_token,
    worst_plausible,
    written_number,
)

# Columns with a meaning of their own; any further column is carried along for laws that want it.
COLUMNS: dict[str, str] = {
    "params": "parameters N, by the table's convention",
    "tokens": "training tokens D",
    "unique_tokens": "distinct training tokens U",
    "compute": "training compute C, FLOP",
    "loss": "final loss, nats/token",
    "loss_se": "standard error of the loss, nats/token",
    "loss_rounding": "standard deviation of the rounding error of the loss, nats/token",
    "seed": "random seed of the run",
    "group": "study, corpus or family that shares an offset",
    "outlier": "true where the compilers of the table advise to leave the row out",
}
_POSITIVE = ("params", "tokens", "unique_tokens", "compute", "loss", "loss_se", "loss_rounding")
_COUNTS = ("params", "tokens", "unique_tokens")
# Fewer params or tokens than this, in the largest run, are in another unit.
_LEAST_COUNT = 1000.0
# Beside counts like these, those are in another unit.
_MIXED = 1e6
# Least and most FLOP of training a parameter on a token, by any count of either.
_FLOP_PER_PARAM_TOKEN = 0.1, 1000.0
# What seeds the bundled trainer takes lie below.
_MOST_SEEDS = 2**20
# What a missing number may be called, in small letters.
_MISSING_WORDS = ("nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "none", "-", "#value!")


class TableMeta(pydantic.BaseModel):
    """What a run table is and where it came from; the TOML beside its file.

    Attributes
    ----------
    loss_unit : str
        The unit losses were published in; inside a `RunTable` they are nats/token (or ``other``).
    tokens_per_byte : float, optional
        Of the evaluation text under the table's tokenizer.
    params_convention : str
        What params counts: ``total``, ``non-embedding`` or ``unknown``.
    flops_per_param_token : float
        k in C = k N D, by which one of params, tokens, compute is found from the other two where the table
        lacks it; how runs that have all three count compute, `RunTable.counting` tells.
    loss_step : float, optional
        The step losses were rounded to, in `loss_unit`; detected when the table is read.
    floor_prior : str, optional
        Prior of the irreducible loss where the evaluation set tells more than the law's own prior.
    priors : dict
        Parameter to prior, for laws with a floor that have a parameter of this name, where the source is not
        the language that the laws' own priors are about.
    shared_evaluation : bool
        All runs were evaluated on the same text, so that ``loss_se`` is an error common to them (the
        choice of the text) and no noise between runs.
    entropy_rate : float, optional
        The exact irreducible loss in nats/token, for synthetic sources.
    seeds_taken : int
        Seeds below this one may be those of runs left out of the table, flagged or without a loss: new runs
        take others.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str = "table"
    title: str = ""
    citation: str = ""
    licence: str = ""
    obtained: str = ""
    corpus: str = ""
    tokenizer: str = ""
    loss_unit: LossUnit = "nats/token"
    tokens_per_byte: float | None = pydantic.Field(default=None, gt=0, allow_inf_nan=False)
    params_convention: Literal["total", "non-embedding", "unknown"] = "unknown"
    flops_per_param_token: float = pydantic.Field(default=6.0, gt=0, allow_inf_nan=False)
    loss_step: float | None = pydantic.Field(default=None, ge=0, allow_inf_nan=False)
    floor_prior: str | None = None
    priors: dict[str, str] = {}
    shared_evaluation: bool = False
    entropy_rate: float | None = None
    seeds_taken: int = pydantic.Field(default=0, ge=0)
    notes: str = ""


class NamesForLaws(TypedDict):
    """Columns whose names a formula may use, and those of them that are at most one in every run."""

    columns: list[str]
    shares: list[str]


@dataclass(frozen=True)
class RunTable:
    """Validated runs of one study.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row per run; columns as in `COLUMNS`, losses in nats/token.
    meta : TableMeta
        What the table is.
    rows : tuple of int, optional
        The numbers that the rows had where they were read, such as the lines of a file.
    """

    frame: pd.DataFrame
    meta: TableMeta
    rows: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"<RunTable {self.name}: {len(self)} runs of {', '.join(map(str, self.frame.columns))}>"

    @property
    def name(self) -> str:
        """The table's name."""
        return self.meta.name

    @cached_property
    def counting(self) -> Counting:
        """How compute is counted: as in the table's runs, or without it by ``flops_per_param_token``."""
        names = ("params", "tokens", "compute")
        if not set(names) <= set(self.frame):
            return Counting(self.meta.flops_per_param_token)
        return counting_of(*map(self.column, names))

    def without_outliers(self) -> "RunTable":
        """Return the table without the rows that its compilers flagged."""
        if "outlier" not in self.frame:
            return self
        left = self.where(~self.frame["outlier"].to_numpy(bool))
        taken = self.meta.model_copy(update={"seeds_taken": self.first_new_seed()})
        return RunTable(left.frame, taken, left.rows)

    def first_new_seed(self) -> int:
        """Return the least seed from which on none is that of a run, be it in the table or left out.

        Seeds that the bundled trainer does not take, dates for example, are none that a plan may repeat.
        """
        seeds = pd.to_numeric(self.frame.get("seed", pd.Series(dtype=float)), errors="coerce").dropna()
        seeds = seeds[seeds < _MOST_SEEDS]
        return max(self.meta.seeds_taken, int(seeds.max()) + 1 if len(seeds) else 0)

    def where(self, keep: np.ndarray) -> "RunTable":
        """Return the rows where the boolean array `keep`, shape (rows,), is true."""
        keep = np.asarray(keep, bool)
        # A frame that was put in the place of the one read has rows of its own.
        known = () if self.rows is None or len(self.rows) != len(self) else self.rows
        rows = tuple(np.compress(keep, known).tolist()) if known else None
        return RunTable(self.frame[keep].reset_index(drop=True), self.meta, rows)

    def row(self, place: int) -> str:
        """Return how to call the run at a place from 0: its row where it was read, or its number."""
        # A frame that was put in the place of the one read has rows of its own.
        if self.rows is None or len(self.rows) != len(self):
            return f"run {place + 1}"
        return f"row {self.rows[place]}"

    def column(self, name: str) -> np.ndarray:
        """Return a numeric column as floats, shape (rows,).

        Raises
        ------
        TableError
            If the table has no such column, or it is not numeric.
        """
        if name not in self.frame:
            have = ", ".join(map(str, self.frame.columns))
            raise TableError(f"table {self.name!r} has no column {name!r}; it has {have}")
        values = pd.to_numeric(self.frame[name], errors="coerce").to_numpy(float)
        if not np.all(np.isfinite(values)):
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            found = self.frame[name].iloc[place]
            raise TableError(
                f"table {self.name!r}, {self.row(place)}, column {name!r}: "
                f"{'the value is missing' if pd.isna(found) else f'found {str(found)!r}'}; expected a number "
                "in each row: mend or remove it"
            )
        return values

    def names_for_laws(self) -> "NamesForLaws":
        """Return the names that a formula may use, as `bayescale.laws.find_law` takes them."""
        most = self.frame.select_dtypes("number").max()
        return {
            "columns": list(map(str, self.frame.columns)),
            "shares": [str(name) for name, value in most.items() if value <= 1],
        }

    def known_noise(self) -> np.ndarray:
        """Return each run's known relative standard deviation of loss, shape (rows,).

        Rounding and published standard errors (unless common to all runs), added in quadrature and
        divided by the loss.
        """
        variance = np.zeros(len(self))
        names = ("loss_rounding",) if self.meta.shared_evaluation else ("loss_se", "loss_rounding")
        for name in names:
            if name in self.frame:
                variance += np.nan_to_num(self.frame[name].to_numpy(float)) ** 2
        return np.sqrt(variance) / self.column("loss")


def require_table(table: Any) -> None:
    """Make sure that an argument `table` is a run table.

    Raises
    ------
    TableError
        If it is anything else.
    """
    if not isinstance(table, RunTable):
        raise TableError(
            f"table: found a {type(table).__name__}; expected a RunTable, as bayescale.load, read_runs and "
            "make_table return"
        )


def make_table(
    raw: pd.DataFrame,
    meta: TableMeta | None = None,
    *,
    where: str = "table",
    drop_missing: bool = False,
    rows: Sequence[int] | None = None,
) -> RunTable:
    """Validate a frame whose columns have our names and whose losses are in ``meta.loss_unit``.

    Parameters
    ----------
    raw : pandas.DataFrame
        One row per run.
    meta : TableMeta, optional
        What the table is; where it does not say otherwise, losses are in nats/token, as in a file.
    where : str
        How errors call it.
    drop_missing : bool
        Leave out rows in which params, tokens, compute or the loss is missing, or the loss infinite: runs
        that crashed.
    rows : sequence of int, optional
        The numbers that errors give to the rows; 1, 2, ... unless given.

    Raises
    ------
    TableError
        Naming row and column, what was found and what was expected.
    """
    if not isinstance(raw, pd.DataFrame):
        raise TableError(
            f"raw: found a {type(raw).__name__}; expected a pandas DataFrame with a row per run and columns "
            "such as params, tokens and loss"
        )
    meta = TableMeta() if meta is None else meta
    if not isinstance(meta, TableMeta):
        raise TableError(f"meta: found a {type(meta).__name__}; expected a TableMeta")
    if "loss" not in raw:
        raise TableError(f"{where}: no column 'loss'; found {', '.join(map(str, raw.columns))}")
    if twice := list(raw.columns[raw.columns.duplicated()]):
        raise TableError(f"{where}: column {str(twice[0])!r} stands twice; rename or remove one")
    numbers = range(1, len(raw) + 1) if rows is None else rows
    frame = _numbers(raw.set_axis(list(numbers), axis=0), where)
    needed = [c for c in ("params", "tokens", "compute", "loss") if c in frame]
    if drop_missing:
        whole = RunTable(frame, meta)
        frame = frame[frame[needed].notna().all(axis=1) & ~np.isposinf(frame["loss"].to_numpy())]
        if len(frame) < len(whole):
            meta = meta.model_copy(update={"seeds_taken": whole.first_new_seed()})
    if frame.empty:
        raise TableError(f"{where}: no runs; expected a row per trained model")
    if "outlier" in frame:
        frame["outlier"] = _flags(frame["outlier"], where)
    _validate(frame, needed, meta, where)
    _require_units(frame, where)
    kept = tuple(map(int, frame.index))
    frame = frame.reset_index(drop=True)
    given = set(frame)
    complete_compute(frame, Counting(meta.flops_per_param_token))
    for name in {"params", "tokens"} & (set(frame) - given):
        if (largest := frame[name].max()) < _LEAST_COUNT:
            raise TableError(
                f"{where}, column 'compute': by it the largest number of {name} is {largest:.3g}; expected "
                'compute in FLOP. If it is in PF-days, say so: --columns "compute=NAME * 8.64e19"'
            )
    step = detect_step(frame["loss"].to_numpy(float)) if meta.loss_step is None else meta.loss_step
    losses = frame["loss"].to_numpy(float)
    unit, per_byte = meta.loss_unit, meta.tokens_per_byte
    for name, known in (("loss_se", 0.0), ("loss_rounding", rounding_error(step))):
        error = frame[name].to_numpy(float) if name in frame else np.full(losses.shape, known)
        if np.any(error):
            frame[name] = error_to_nats_per_token(error, losses, unit, per_byte)
    frame["loss"] = to_nats_per_token(losses, unit, per_byte)
    return RunTable(frame, meta.model_copy(update={"loss_step": step}), kept)


def _require_units(frame: pd.DataFrame, where: str) -> None:
    """Raise for sizes and compute that cannot be counts and FLOP, or are some of them and some not."""
    for name in (c for c in _COUNTS if c in frame):
        smallest, largest = frame[name].min(), frame[name].max()
        if largest < _LEAST_COUNT:
            raise TableError(
                f"{where}, column {name!r}: the largest value is {largest:g}; expected a count. If it is in "
                f'millions or billions, say so: --columns "{name}=NAME * 1e6" (or 1e9)'
            )
        if smallest < _LEAST_COUNT and largest >= _MIXED:
            raise TableError(
                f"{where}, row {frame[name].idxmin()}, column {name!r}: found {smallest:g}, and up to "
                f"{largest:g} elsewhere; expected all in one unit: write out those that are in millions or "
                "billions"
            )
    if {"params", "tokens", "compute"} <= set(frame):
        factor = float((frame["compute"] / frame["params"] / frame["tokens"]).median())
        least, most = _FLOP_PER_PARAM_TOKEN
        if not least <= factor <= most:
            raise TableError(
                f"{where}, column 'compute': mostly {factor:.2g} times params x tokens; expected FLOP, about "
                '6 times them. If a column is in another unit, say so: --columns "compute=NAME * 1e18" '
                "(EFLOP; 8.64e19 for PF-days)"
            )


def complete_compute(columns: Any, counting: Counting) -> None:
    """Add to `columns` (a frame or a dict) the third of params, tokens, compute."""
    have = {"params", "tokens", "compute"} & set(columns)
    if have == {"params", "tokens"}:
        with np.errstate(over="ignore"):  # what lies so far out is refused where ranges are looked at
            columns["compute"] = counting.compute(columns["params"], columns["tokens"])
    elif have == {"params", "compute"}:
        columns["tokens"] = counting.tokens(columns["compute"], columns["params"])
    elif have == {"tokens", "compute"}:
        columns["params"] = counting.params(columns["compute"], tokens=columns["tokens"])


def rounding_error(step: float | None) -> float:
    """Return the standard deviation of what rounding to a step, 0 or None for none, adds."""
    return (step or 0.0) / math.sqrt(12)


def detect_step(loss: np.ndarray) -> float:
    """Return the decimal step that all of `loss` are rounded to, 0 where none coarser than 1e-5 is.

    Three rows do not show a pattern: fewer have step 0.

    >>> detect_step(np.array([2.31, 2.4, 2.57]))
    0.01
    >>> detect_step(np.array([2.3127381, 2.4, 2.57]))
    0.0
    """
    if len(loss) < 3:
        return 0.0
    for decimals in range(6):
        # Half of a unit in the last place of 32 bits, in which files may have stored a decimal.
        if np.all(np.abs(np.round(loss, decimals) - loss) <= 6e-8 * np.abs(loss)):
            return float(10.0**-decimals)
    return 0.0


def _flags(values: pd.Series, where: str) -> np.ndarray:
    """Return a column of yes and no as booleans; what is missing is no."""
    text = values.astype(object).where(values.notna(), "").astype(str).str.strip().str.lower()
    no = text.isin(["false", "0", "0.0", "no", "", *_MISSING_WORDS])
    yes = text.isin(["true", "1", "1.0", "yes"])
    if not (yes | no).all():
        row = int(np.flatnonzero(~(yes | no))[0])
        raise TableError(
            f"{where}, row {values.index[row]}, column {str(values.name)!r}: found {values.iloc[row]!r}; "
            "expected true or false"
        )
    return yes.to_numpy(bool)


def _numbers(raw: pd.DataFrame, where: str) -> pd.DataFrame:
    frame = raw.copy()
    for name in (c for c in _POSITIVE if c in frame):
        frame[name] = as_numbers(frame[name], name, where).astype(float)
    return frame


def as_numbers(values: pd.Series, name: str, where: str, *, factor: float = 1.0) -> pd.Series:
    """Return a column of numbers times a factor, NaN where a value is missing.

    Sizes may be written as people do (`bayescale.units.written_number`).

    Parameters
    ----------
    values : pandas.Series
        The column, its index the numbers of its rows.
    name : str
        Its name of ours.
    where : str
        How errors call the table.
    factor : float
        What each value is multiplied by.

    Raises
    ------
    TableError
        If a value is no number.
    """
    values = values.mask(are_missing_words(values))
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        values = values.astype(str)  # which pandas would count as 0 and 1, and nanoseconds
    numbers = pd.to_numeric(values, errors="coerce")
    unread = numbers.isna() & values.notna()
    if unread.any() and name in (*_COUNTS, "compute"):
        # A column that takes a factor is in thousands, millions or billions already.
        magnitudes = name in _COUNTS and factor == 1
        written = values[unread].map(lambda text: written_number(str(text), magnitudes=magnitudes))
        numbers = numbers.astype(float).fillna(written)
        unread = numbers.isna() & values.notna()
    if unread.any():
        row = int(np.flatnonzero(unread)[0])
        found = values.iloc[row]
        raise TableError(
            f"{where}, row {values.index[row]}, column {name!r}: found {found!r}; expected a number"
            f"{_why_no_number(str(found), factor)}"
        )
    return numbers * factor


def are_missing_words(values: pd.Series) -> pd.Series:
    """Return whether each value is a word such as "NA", by which files call a missing number."""
    return values.astype(str).str.strip().str.lower().isin(_MISSING_WORDS)


def _why_no_number(text: str, factor: float) -> str:
    """Say what to change in a text that people would read as a number, empty for any other."""
    if factor != 1 and text.strip()[-1:].upper() in "KMBT" and not np.isnan(written_number(text)):
        return f" without K, M, B or T, to multiply by {factor:g}; leave out the letters or the factor"
    # A comma in a loss may be the decimal one: 218,123 is no six-figure perplexity.
    if "," in text:
        return " with a decimal point and without commas"
    return " such as 1.5 or 2e9, and nothing where there is none"


def _validate(frame: pd.DataFrame, needed: list[str], meta: TableMeta, where: str) -> None:
    """Raise for the first row with a number that is missing, out of range or implausible."""
    worst = worst_plausible(meta.loss_unit)
    problems = []
    for name in (n for n in _POSITIVE if n in frame):
        values = frame[name].to_numpy(float)
        least = 1.0 if name == "loss" and meta.loss_unit == "perplexity" else 0.0
        below = values < least if name in ("loss_se", "loss_rounding") else values <= least
        kinds = {"range": below | np.isinf(values)}
        if name in needed:
            kinds["missing"] = np.isnan(values)
        if name == "loss_se" and not np.isnan(values).all():
            kinds["missing error"] = np.isnan(values)
        if name == "loss_se":
            kinds["error above its loss"] = values >= frame["loss"].to_numpy(float)
        if name == "loss":
            flagged = frame["outlier"].to_numpy(bool) if "outlier" in frame else False  # of runs that blew up
            kinds["implausible"] = (values > worst) & np.isfinite(values) & ~np.asarray(flagged)
        for kind, wrong in kinds.items():
            if wrong.any():
                row = int(np.argmax(wrong))
                problems.append((row, kind, name, values[row], least))
    if not problems:
        return
    row, kind, name, value, least = min(problems)
    place = f"{where}, row {frame.index[row]}, column {name!r}"
    if kind == "missing error":
        raise TableError(
            f"{place}: the value is missing, and others are not; fill it in (0 for no error), or leave the "
            "column out"
        )
    if kind == "missing":
        missing = frame[needed].isna().any(axis=1).sum()
        raise TableError(
            f"{place}: the value is missing ({missing} such rows); remove them, or pass "
            "--drop-missing (drop_missing=True) to leave them out"
        )
    if kind == "error above its loss":
        raise TableError(
            f"{place}: found {value:g}, no less than the loss itself; expected a standard error in the "
            "loss's unit. Is it in per cent, or of another column?"
        )
    if kind == "implausible":
        hint = (
            "is a decimal point missing, or did the run diverge? Correct the value, or remove the row"
            if meta.loss_unit == "perplexity"
            else "is this perplexity? State the unit: --loss-unit perplexity. A row of totals? Remove it"
        )
        guess = f"{round(worst, 1):,g}"
        raise TableError(
            f"{place}: found {value:g} {meta.loss_unit}, worse than a uniform guess ({guess}); {hint}"
        )
    expected = f"above {least:g}" if name == "loss" else "positive"
    crashed = int(np.isposinf(frame[name]).sum()) if name == "loss" and np.isposinf(value) else 0
    remedy = (
        f" ({crashed} such rows). Did the run crash? Remove such rows, or pass --drop-missing "
        "(drop_missing=True) to leave them out"
    )
    raise TableError(
        f"{place}: found {value:g}; expected a finite number {expected}{remedy if crashed else ''}"
    )
