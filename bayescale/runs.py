"""The run table: validated runs of one study, in one loss unit, with where they came from.

`read_runs` is the only door in: it maps columns, checks every number, converts losses to nats/token,
completes params/tokens/compute, and detects the precision that losses were printed with.
"""

import csv
import gzip
import re
import tomllib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydantic

from bayescale.errors import TableError, did_you_mean
from bayescale.files import written_aside
from bayescale.units import (
    LossUnit,
    check_unit,
    error_to_nats_per_token,
    from_nats_per_token,
    to_nats_per_token,
    worst_plausible,
    written_number,
)

# A run table has a row per trained model. More rows than this is a training log, or the wrong file.
MAX_ROWS = 100_000

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
_ALIASES = {
    "params": ("n", "n_params", "num_params", "parameters", "model_size", "size", "nparams"),
    "tokens": ("d", "n_tokens", "num_tokens", "train_tokens", "data", "dataset_size", "t"),
    "compute": ("c", "flops", "flop", "training_flop", "train_flops", "total_flops", "budget"),
    "loss": (
        "val_loss",
        "eval_loss",
        "validation_loss",
        "test_loss",
        "final_loss",
        "ce",
        "bpb",
        "ppl",
    ),
}
# What else tells a column of an experiment tracker's export: words found in its name.
_WORDS = {
    "params": ("param", "model size"),
    "tokens": ("token",),
    "compute": ("flop",),
    "loss": ("loss", "bits per byte", "bpb", "perplexity", "ppl", "cross entropy", "nll"),
}
_UNIT_SIGNS = {
    "bits per byte": "bits/byte",
    "bpb": "bits/byte",
    "bits per token": "bits/token",
    "nats per byte": "nats/byte",
    "perplexity": "perplexity",
    "ppl": "perplexity",
}
_COUNTS = ("params", "tokens", "unique_tokens")


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
        k in C = k N D, by which one of params, tokens, compute is found from the other two.
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


@dataclass(frozen=True)
class RunTable:
    """Validated runs of one study.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row per run; columns as in `COLUMNS`, losses in nats/token.
    meta : TableMeta
        What the table is.
    """

    frame: pd.DataFrame
    meta: TableMeta

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"<RunTable {self.name}: {len(self)} runs of {', '.join(map(str, self.frame.columns))}>"

    @property
    def name(self) -> str:
        """The table's name."""
        return self.meta.name

    def without_outliers(self) -> "RunTable":
        """Return the table without the rows that its compilers flagged."""
        if "outlier" not in self.frame:
            return self
        left = self.where(~self.frame["outlier"].to_numpy(bool))
        taken = self.meta.model_copy(update={"seeds_taken": self.first_new_seed()})
        return RunTable(left.frame, taken)

    def first_new_seed(self) -> int:
        """Return the least seed from which on none is that of a run, be it in the table or left out."""
        seeds = pd.to_numeric(self.frame.get("seed", pd.Series(dtype=float)), errors="coerce").dropna()
        return max(self.meta.seeds_taken, int(seeds.max()) + 1 if len(seeds) else 0)

    def where(self, keep: np.ndarray) -> "RunTable":
        """Return the rows where the boolean array `keep`, shape (rows,), is true."""
        return RunTable(self.frame[np.asarray(keep, bool)].reset_index(drop=True), self.meta)

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
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise TableError(
                f"table {self.name!r}, column {name!r}, run {row + 1}: found "
                f"{self.frame[name].iloc[row]!r}; expected a number"
            )
        return values

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


def read_runs(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    loss_unit: str | None = None,
    tokens_per_byte: float | None = None,
    drop_missing: bool = False,
) -> RunTable:
    """Read a run table from CSV, TSV, JSON lines or Parquet.

    Parameters
    ----------
    path : path
        The file. A TOML of the same name beside it gives the metadata (`TableMeta`) and may hold a
        ``[columns]`` section; arguments here take precedence.
    columns : mapping, optional
        Our column name to the file's, e.g. ``{"params": "N", "loss": "val_loss"}``; a factor may follow,
        as in ``{"tokens": "Tokens (B) * 1e9"}`` where its values have no K, M, B or T of their own.
    loss_unit : str, optional
        Unit of the file's losses, one of `bayescale.units.LOSS_UNITS`; nats/token unless told.
    tokens_per_byte : float, optional
        Needed by losses per byte, and an error with any other unit.
    drop_missing : bool
        Leave out rows in which an input or the loss is missing, instead of refusing the file.

    Raises
    ------
    TableError
        Naming file, row and column, what was found and what was expected.
    """
    path = Path(path)
    numbered = _read_numbered(path)
    about, mapping = _read_meta(path)
    mapping = {**mapping, **(columns or {})}
    told = {"loss_unit": loss_unit, "tokens_per_byte": tokens_per_byte}
    try:
        meta = TableMeta(**{**about, **{k: v for k, v in told.items() if v is not None}})
    except pydantic.ValidationError as error:
        raise TableError(_explain(error, path)) from error
    check_unit(meta.loss_unit, meta.tokens_per_byte)
    if tokens_per_byte is not None and not meta.loss_unit.endswith("/byte"):
        raise TableError(
            f"{path}: found tokens_per_byte (--tokens-per-byte) with losses in {meta.loss_unit}, which do "
            "not take it; expected losses per byte. Add --loss-unit bits/byte (or nats/byte), or leave it out"
        )
    raw = _rename(numbered, mapping, path)
    if "loss" not in raw:
        have = list(raw.columns)
        raise TableError(f"{path}: no column 'loss'; found {', '.join(have)}. {_suggest(have)}")
    if loss_unit is None and "loss_unit" not in about:
        _refuse_other_unit(mapping.get("loss", "loss"), path)
    return make_table(raw, meta, where=str(path), drop_missing=drop_missing, rows=list(raw.index))


def make_table(
    raw: pd.DataFrame,
    meta: TableMeta,
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
    meta : TableMeta
        What the table is.
    where : str
        How errors call it.
    drop_missing : bool
        Leave out rows in which an input or the loss is missing.
    rows : sequence of int, optional
        The numbers that errors give to the rows; 1, 2, ... unless given.

    Raises
    ------
    TableError
        Naming row and column, what was found and what was expected.
    """
    if "loss" not in raw:
        raise TableError(f"{where}: no column 'loss'; found {', '.join(map(str, raw.columns))}")
    numbers = range(1, len(raw) + 1) if rows is None else rows
    frame = _numbers(raw.set_axis(list(numbers), axis=0), where)
    needed = [c for c in ("params", "tokens", "compute", "loss") if c in frame]
    if drop_missing:
        frame = frame[frame[needed].notna().all(axis=1)]
    if frame.empty:
        raise TableError(f"{where}: no runs; expected a row per trained model")
    _validate(frame, needed, meta, where)
    for name in (c for c in ("params", "tokens") if c in frame):
        if (largest := frame[name].max()) < 1000:
            raise TableError(
                f"{where}, column {name!r}: the largest value is {largest:g}; expected a count. If it is in "
                f'millions or billions, say so: --columns "{name}=NAME * 1e6" (or 1e9)'
            )
    if "outlier" in frame:
        frame["outlier"] = _flags(frame["outlier"], where)
    frame = frame.reset_index(drop=True)
    complete_compute(frame, meta.flops_per_param_token)
    step = detect_step(frame["loss"].to_numpy(float)) if meta.loss_step is None else meta.loss_step
    losses = frame["loss"].to_numpy(float)
    unit, per_byte = meta.loss_unit, meta.tokens_per_byte
    for name, error in (("loss_se", None), ("loss_rounding", step / np.sqrt(12))):
        if name in frame:
            error = frame[name].to_numpy(float)
        if error is not None and np.any(error):
            error = np.broadcast_to(error, losses.shape)
            frame[name] = error_to_nats_per_token(error, losses, unit, per_byte)
    frame["loss"] = to_nats_per_token(losses, unit, per_byte)
    return RunTable(frame, meta.model_copy(update={"loss_step": step}))


def write_runs(table: RunTable, path: str | Path) -> None:
    """Write a run table as CSV with its metadata as TOML beside it, in the table's published unit.

    Raises
    ------
    BayescaleError
        If the files cannot be written; none is left half-written.
    """
    import tomli_w

    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise TableError(f"{path}: tables are written as .csv; found a name that ends in {path.suffix!r}")
    meta = table.meta
    frame = table.frame.drop(columns=["loss_rounding"], errors="ignore").copy()
    nats = frame["loss"].to_numpy(float)
    frame["loss"] = from_nats_per_token(nats, meta.loss_unit, meta.tokens_per_byte)
    if meta.loss_step:
        frame["loss"] = (frame["loss"] / meta.loss_step).round() * meta.loss_step
    if "loss_se" in frame:
        unit_in_nats = error_to_nats_per_token(
            np.ones(len(frame)), frame["loss"].to_numpy(float), meta.loss_unit, meta.tokens_per_byte
        )
        frame["loss_se"] = frame["loss_se"] / unit_in_nats
    with written_aside(path.with_suffix(".toml")) as aside:
        aside.write_text(tomli_w.dumps(meta.model_dump(exclude_none=True, exclude_defaults=True)), "utf-8")
    with written_aside(path) as aside:
        frame.to_csv(aside, index=False, float_format="%.10g")


def complete_compute(columns: Any, k: float) -> None:
    """Add to `columns` (a frame or a dict) the third of params, tokens, compute, by C = k N D."""
    have = {"params", "tokens", "compute"} & set(columns)
    if have == {"params", "tokens"}:
        columns["compute"] = k * columns["params"] * columns["tokens"]
    elif have == {"params", "compute"}:
        columns["tokens"] = columns["compute"] / (k * columns["params"])
    elif have == {"tokens", "compute"}:
        columns["params"] = columns["compute"] / (k * columns["tokens"])


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
        # Half of a unit in the eighth digit: what a decimal survives in 32-bit storage.
        if np.all(np.abs(np.round(loss, decimals) - loss) <= 5e-8 * np.abs(loss)):
            return float(10.0**-decimals)
    return 0.0


def _suffix(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]


def _read_meta(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    beside = path.with_suffix(".toml")
    meta: dict[str, Any] = {}
    if beside.is_file():
        try:
            meta = tomllib.loads(beside.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TableError(f"{beside}: not a TOML file: {error}") from error
    mapping = meta.pop("columns", {})
    if not (isinstance(mapping, dict) and all(isinstance(theirs, str) for theirs in mapping.values())):
        raise TableError(f"{beside}: [columns] must map our names to the file's, e.g. params = 'N'")
    return {"name": path.name.split(".")[0], **meta}, mapping


def read_frame(path: Path) -> pd.DataFrame:
    """Read a file of a type we know as it stands, refusing training logs; see `read_runs`."""
    return _read_numbered(path).reset_index(drop=True)


def _read_numbered(path: Path) -> pd.DataFrame:
    """Read a file as it stands, its index the lines that rows stand in, or 1, 2, ... where there are none."""
    suffix = _suffix(path)
    readers = {
        ".csv": lambda: _read_delimited(path, ","),
        ".tsv": lambda: _read_delimited(path, "\t"),
        ".jsonl": lambda: _read_json_lines(path),
        ".parquet": lambda: _read_parquet(path),
    }
    if not _is_file(path):
        raise TableError(f"{path}: no such file; expected a run table, or a name from `bayescale tables`")
    if suffix not in readers:
        raise TableError(
            f"{path}: a file of type {suffix or 'unknown'!r} cannot be read; expected .csv, .tsv, "
            ".jsonl or .parquet"
        )
    try:
        frame = readers[suffix]()
    except TableError:
        raise
    except (OSError, ValueError, ArithmeticError, EOFError, zlib.error, csv.Error) as error:
        # errors of pandas and pyarrow are the first three; the others, of damaged .gz and .csv files
        raise TableError(f"{path}: cannot be read as {suffix}: {error}") from error
    if len(frame) > MAX_ROWS:
        raise TableError(
            f"{path}: over {MAX_ROWS:,} rows; a run table has one row per trained model with its final "
            "loss. Is this a training log? Keep the last row of each run"
        )
    return frame if suffix in (".csv", ".tsv") else frame.set_axis(range(1, len(frame) + 1), axis=0)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _read_delimited(path: Path, separator: str) -> pd.DataFrame:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        rows = dict(islice(((reader.line_num, row) for row in reader if row), MAX_ROWS + 2))
    if not rows or not any(next(iter(rows.values()))):
        raise TableError(f"{path}: the file is empty; expected a header line and a row per run")
    first, *lines = rows
    header = [name.strip() for name in rows[first]]
    if len(header) == 1 and ";" in header[0]:
        raise TableError(
            f"{path}, line {first}: the file looks separated by ';'; save it with commas and decimal "
            "points, or as .tsv"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise TableError(f"{path}, line {first}: column {twice[0]!r} stands twice; rename or remove one")
    for line in lines:
        # pandas would take the fields before the last ones for an index.
        if len(rows[line]) > len(header):
            raise TableError(
                f"{path}, line {line}: found {len(rows[line])} fields, expected at most the header's "
                f"{len(header)}; is a name missing in the header, or a comma too many in the line?"
            )
    frame = pd.read_csv(
        path, sep=separator, nrows=MAX_ROWS + 1, encoding="utf-8-sig", index_col=False, skipinitialspace=True
    ).rename(columns=str.strip)
    return frame.set_axis(lines if len(lines) == len(frame) else range(2, len(frame) + 2), axis=0)


def _read_json_lines(path: Path) -> pd.DataFrame:
    frame = pd.read_json(path, lines=True, nrows=MAX_ROWS + 1, dtype=False)
    # JSON knows no NaN, and trackers write it as text.
    return frame.mask(frame.isin(["NaN", "nan"]))


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    if (rows := pq.read_metadata(path).num_rows) > MAX_ROWS:
        return pd.DataFrame(index=range(rows))  # refused by the caller, unread
    frame = pd.read_parquet(path)
    return frame.reset_index() if any(name is not None for name in frame.index.names) else frame


def _rename(frame: pd.DataFrame, mapping: Mapping[str, str], path: Path) -> pd.DataFrame:
    have = list(map(str, frame.columns))
    split = {ours: _split_factor(theirs, have) for ours, theirs in mapping.items()}
    mapping = {ours: theirs for ours, (theirs, _) in split.items()}
    for ours, theirs in mapping.items():
        if theirs not in have:
            hint = did_you_mean(theirs, have)
            raise TableError(
                f"{path}: no column {theirs!r} to read {ours} from{f' ({hint})' if hint else ''}; "
                f"found {', '.join(have)}"
            )
        if ours not in COLUMNS and (hint := did_you_mean(ours, COLUMNS, cutoff=0.8)):
            raise TableError(
                f"{path}: {ours!r}, to be read from column {theirs!r}, is no column of ours ({hint})"
            )
    frame = frame.set_axis(have, axis=1)
    found = {
        ours: frame[theirs] if factor == 1 else _as_numbers(frame[theirs], ours, str(path), factor=factor)
        for ours, (theirs, factor) in split.items()
    }
    # A mapped column replaces one that already has our name.
    return frame.drop(columns=[c for c in have if c in mapping or c in mapping.values()]).assign(**found)


def _refuse_other_unit(column: str, path: Path) -> None:
    """Raise if a column's name says that its losses are no nats/token, which they would be taken for."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", column)  # evalPPL and eval_ppl are two words each
    words = f" {apart.lower()} "
    for sign, unit in _UNIT_SIGNS.items():
        if f" {sign} " in words:
            raise TableError(
                f"{path}, column {column!r}: its name says {unit}, and no unit is stated; say which: "
                f"--loss-unit {unit}, or --loss-unit nats/token"
            )


def _split_factor(theirs: str, have: Sequence[str]) -> tuple[str, float]:
    """Split ``"Tokens (B) * 1e9"`` into a column's name and a factor; a name that exists is left alone."""
    name, star, factor = theirs.rpartition("*")
    if theirs in have or not star:
        return theirs, 1.0
    try:
        return name.strip(), float(factor)
    except ValueError:
        return theirs, 1.0


def _suggest(have: Sequence[str]) -> str:
    """Return the mapping that column names suggest, as it is typed on the command line."""
    found: dict[str, str] = {}
    for ours in ("params", "tokens", "compute", "loss"):
        if ours not in have and (theirs := _likely(ours, [h for h in have if h not in found.values()])):
            found[ours] = theirs
    found.setdefault("loss", "NAME")
    pairs = ",".join(f"{ours}={theirs}" for ours, theirs in found.items())
    return f'Say which column is which: --columns "{pairs}"'


def _likely(ours: str, have: Sequence[str]) -> str | None:
    plain = {re.sub(r"[^a-z0-9]+", " ", name.lower()).strip(): name for name in have}
    for alias in _ALIASES.get(ours, ()):
        if (spaced := alias.replace("_", " ")) in plain:
            return plain[spaced]
    if holding := [name for word in _WORDS[ours] for text, name in plain.items() if word in text]:
        # A validation loss before a training loss.
        return next((h for h in holding if re.search("val|eval|test", h.lower())), holding[0])
    close = get_close_matches(ours, have, n=1, cutoff=0.5)
    return close[0] if close else None


def _flags(values: pd.Series, where: str) -> np.ndarray:
    """Return a column of yes and no as booleans; what is missing is no."""
    text = values.astype(object).where(values.notna(), "").astype(str).str.strip().str.lower()
    yes, no = text.isin(["true", "1", "1.0", "yes"]), text.isin(["false", "0", "0.0", "no", ""])
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
        frame[name] = _as_numbers(frame[name], name, where).astype(float)
    return frame


def _as_numbers(values: pd.Series, name: str, where: str, *, factor: float = 1.0) -> pd.Series:
    """Return a column times a factor, NaN where a value is missing; sizes may be written as people do."""
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


def _why_no_number(text: str, factor: float) -> str:
    """Say what to change in a text that people would read as a number, empty for any other."""
    if factor != 1 and text.strip()[-1:] in "KMBT" and not np.isnan(written_number(text)):
        return f" without K, M, B or T, to multiply by {factor:g}; leave out the letters or the factor"
    # A comma in a loss may be the decimal one: 218,123 is no six-figure perplexity.
    return " with a decimal point and without commas" if "," in text else ""


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
        if name == "loss":
            kinds["implausible"] = (values > worst) & np.isfinite(values)
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
    if kind == "implausible":
        hint = (
            "is a decimal point missing, or did the run diverge? Correct the value, or remove the row"
            if meta.loss_unit == "perplexity"
            else "is this perplexity? State the unit: --loss-unit perplexity"
        )
        guess = f"{round(worst, 1):,g}"
        raise TableError(
            f"{place}: found {value:g} {meta.loss_unit}, worse than a uniform guess ({guess}); {hint}"
        )
    expected = f"above {least:g}" if name == "loss" else "positive"
    raise TableError(f"{place}: found {value:g}; expected a finite number {expected}")


def _explain(error: pydantic.ValidationError, path: Path) -> str:
    first = error.errors()[0]
    option = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = ", ".join(TableMeta.model_fields)
        return f"{path.with_suffix('.toml')}: {option!r} is not known; expected some of {known}"
    return f"{path}: {option} is {first['input']!r}: {first['msg']}"
