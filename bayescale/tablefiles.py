"""Files of run tables: CSV, TSV, JSON lines or Parquet with a TOML beside them, read and written.

`read_runs` maps a file's columns (`bayescale.columns`) and hands them to `bayescale.runs.make_table`.
"""

import csv
import gzip
import tomllib
import zlib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic

from bayescale.columns import refuse_other_unit, renamed, split_factor, suggested_mapping
from bayescale.errors import TableError
from bayescale.files import written_aside
from bayescale.runs import (
    RunTable,
    TableMeta,
    are_missing_words,
    as_numbers,
    detect_step,
    make_table,
    require_table,
    rounding_error,
)
from bayescale.units import check_unit, error_to_nats_per_token, from_nats_per_token

# A run table has a row per trained model. More rows than this is a training log, or the wrong file.
MAX_ROWS = 100_000


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
        The file. A TOML of the same name beside it (``runs.toml`` of ``runs.csv`` and ``runs.csv.gz``) gives
        the metadata (`TableMeta`) and may hold a ``[columns]`` section; arguments here take precedence.
    columns : mapping, optional
        Our column name to the file's, e.g. ``{"params": "N", "loss": "val_loss"}``; a factor may follow,
        as in ``{"tokens": "Tokens (B) * 1e9"}`` where its values have no K, M, B or T of their own.
    loss_unit : str, optional
        Unit of the file's losses, one of `bayescale.units.LOSS_UNITS`; nats/token unless told.
    tokens_per_byte : float, optional
        Needed by losses per byte, and an error with any other unit.
    drop_missing : bool
        Leave out rows in which params, tokens, compute or the loss is missing, or the loss infinite, instead
        of refusing the file.

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
    try:
        check_unit(meta.loss_unit, meta.tokens_per_byte)
    except TableError as error:
        raise TableError(f"{path}: {error}") from error
    if tokens_per_byte is not None and not meta.loss_unit.endswith("/byte"):
        raise TableError(
            f"{path}: found tokens_per_byte (--tokens-per-byte) with losses in {meta.loss_unit}, which do "
            "not take it; expected losses per byte. Add --loss-unit bits/byte (or nats/byte), or leave it out"
        )
    raw = renamed(numbered, mapping, path)
    if "loss" not in raw:
        have = list(raw.columns)
        raise TableError(f"{path}: no column 'loss'; found {', '.join(have)}. {suggested_mapping(have)}")
    if loss_unit is None and "loss_unit" not in about:
        refuse_other_unit(mapping.get("loss", "loss"), path)
    _, factor = split_factor(mapping.get("loss", "loss"), list(map(str, numbered.columns)))
    if factor != 1 and meta.loss_step is None:  # what was rounded is what the file holds
        step = detect_step(raw["loss"].to_numpy(float)[np.isfinite(raw["loss"])] / factor)
        meta = meta.model_copy(update={"loss_step": step * abs(factor)})
    return make_table(raw, meta, where=str(path), drop_missing=drop_missing, rows=list(raw.index))


def read_frame(path: Path) -> pd.DataFrame:
    """Read a file of a type we know as it stands, refusing training logs; see `read_runs`."""
    return _read_numbered(path).reset_index(drop=True)


def read_inputs(path: Path) -> pd.DataFrame:
    """Read a file of runs to come; sizes may be written as people do, 70B.

    Raises
    ------
    TableError
        Naming file, row and column.
    """
    frame = _read_numbered(path)
    for name in (c for c in ("params", "tokens", "unique_tokens", "compute") if c in frame):
        frame[name] = as_numbers(frame[name], name, str(path))
    return frame.reset_index(drop=True)


def write_runs(table: RunTable, path: str | Path) -> None:
    """Write a run table as CSV with its metadata as TOML beside it, in the table's published unit.

    Raises
    ------
    BayescaleError
        If the files cannot be written; none is left half-written.
    """
    import tomli_w

    require_table(table)
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise TableError(f"{path}: tables are written as .csv; found a name that ends in {path.suffix!r}")
    meta = table.meta
    frame = table.frame.copy()
    nats = frame["loss"].to_numpy(float)
    frame["loss"] = from_nats_per_token(nats, meta.loss_unit, meta.tokens_per_byte)
    if meta.loss_step:
        frame["loss"] = (frame["loss"] / meta.loss_step).round() * meta.loss_step
    unit_in_nats = error_to_nats_per_token(
        np.ones(len(frame)), frame["loss"].to_numpy(float), meta.loss_unit, meta.tokens_per_byte
    )
    for name in (n for n in ("loss_se", "loss_rounding") if n in frame):
        frame[name] = frame[name] / unit_in_nats
    # What the step tells anyway is found again when the file is read.
    if "loss_rounding" in frame and np.allclose(frame["loss_rounding"], rounding_error(meta.loss_step)):
        frame = frame.drop(columns="loss_rounding")
    written = tomli_w.dumps(meta.model_dump(exclude_none=True, exclude_defaults=True))
    with written_aside(path.with_suffix(".toml")) as meta_aside, written_aside(path) as aside:
        meta_aside.write_text(written, "utf-8")
        frame.to_csv(aside, index=False, float_format="%.10g")


def _read_meta(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    beside = _meta_path(path)
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


def _meta_path(path: Path) -> Path:
    """Return where a file's metadata stand: of runs.csv.gz in runs.csv.toml if there is one, or runs.toml."""
    beside = path.with_suffix(".toml")
    zipped = path.suffix.lower() == ".gz"
    return path.with_suffix("").with_suffix(".toml") if zipped and not beside.is_file() else beside


def _explain(error: pydantic.ValidationError, path: Path) -> str:
    first = error.errors()[0]
    option = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = ", ".join(TableMeta.model_fields)
        return f"{_meta_path(path)}: {option!r} is not known; expected some of {known}"
    return f"{path}: {option} is {first['input']!r}: {first['msg']}"


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
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: no UTF-8 text ({error.reason}); save it as UTF-8") from error
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
        written = ((reader.line_num, row) for row in reader if row not in ([], [""]))  # as pandas has it
        rows = dict(islice(written, MAX_ROWS + 2))
    if not rows or not any(next(iter(rows.values()))):
        raise TableError(f"{path}: the file is empty; expected a header line and a row per run")
    first, *lines = rows
    header = [name.strip() for name in rows[first]]
    if len(header) == 1 and (others := [mark for mark in ";|\t," if mark in header[0]]):
        raise TableError(
            f"{path}, line {first}: the file looks separated by {others[0]!r}; save it with decimal points "
            "(3.1, not 3,1) and with commas (.csv) or tabs (.tsv) between columns"
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
        path, sep=separator, nrows=MAX_ROWS + 1, encoding="utf-8-sig", index_col=False, skipinitialspace=True,
        keep_default_na=False, na_values=[""],
    ).rename(columns=str.strip).apply(_with_words_missing)  # fmt: skip
    return frame.set_axis(lines if len(lines) == len(frame) else range(2, len(frame) + 2), axis=0)


def _with_words_missing(column: pd.Series) -> pd.Series:
    """Return a column of numbers with NaN for words such as "NA"; among labels None is one of them."""
    if not (pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)):
        return column
    words = are_missing_words(column)
    numbers = pd.to_numeric(column.mask(words), errors="coerce")
    told = numbers.notna() | column.isna() | words
    return numbers if told.all() and numbers.notna().any() else column


def _read_json_lines(path: Path) -> pd.DataFrame:
    frame = pd.read_json(path, lines=True, nrows=MAX_ROWS + 1, dtype=False, encoding="utf-8-sig")
    # JSON knows no NaN, and trackers write it as text.
    return frame.mask(frame.isin(["NaN", "nan"]))


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    if (rows := pq.read_metadata(path).num_rows) > MAX_ROWS:
        return pd.DataFrame(index=range(rows))  # refused by the caller, unread
    frame = pd.read_parquet(path)
    return frame.reset_index() if any(name is not None for name in frame.index.names) else frame


def _suffix(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]
