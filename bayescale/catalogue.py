"""The catalogue: run tables that come with bayescale, and published ones that it knows where to get.

Bundled tables are written in our own schema under ``data/``. A published table's entry, one TOML under
``data/catalogue/``, says where its originals live (URL at a pinned commit, sha256) and how their columns map;
`pull` fetches them once into the user's cache, after which the table is used by name like a bundled one.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from bayescale.errors import TableError, did_you_mean
from bayescale.files import cache_folder
from bayescale.runs import RunTable, TableMeta, make_table
from bayescale.tablefiles import read_frame, read_runs, write_runs

_PACKAGE = Path(__file__).parent
# In a wheel the tables lie inside the package, in a checkout beside it.
DATA = _PACKAGE / "_data" if (_PACKAGE / "_data").is_dir() else _PACKAGE.parent / "data"


@dataclass(frozen=True)
class Entry:
    """A table of the catalogue.

    Attributes
    ----------
    name, title, citation : str
        What it is.
    bundled : bool
        Whether it comes with bayescale.
    pulled : bool
        Whether it has been pulled into the cache.
    path : Path
        Its CSV where bundled, else its catalogue entry.
    """

    name: str
    title: str
    citation: str
    bundled: bool
    pulled: bool
    path: Path

    @property
    def available(self) -> bool:
        """Whether the table can be loaded now."""
        return self.bundled or self.pulled


def load(table: str | Path, *, outliers: bool = False, **options: Any) -> RunTable:
    """Load a run table by name or path.

    Parameters
    ----------
    table : str or path
        A name from `tables`, or a file that `bayescale.tablefiles.read_runs` reads.
    outliers : bool
        Keep rows that the table's compilers flagged as outliers.
    **options
        For a file: `columns`, `loss_unit`, `tokens_per_byte`, `drop_missing` of `read_runs`.

    Raises
    ------
    TableError
        If there is no such table or file, or it is invalid.

    Examples
    --------
    >>> table = load("chinchilla")
    >>> len(table), table.meta.loss_unit
    (240, 'nats/token')
    >>> load("chinchila")
    Traceback (most recent call last):
    bayescale.errors.TableError: table 'chinchila' is unknown; ...
    """
    if not isinstance(table, str | PathLike):
        raise TableError(
            f"table: found a {type(table).__name__}; expected the name of a table or the path of a file. "
            "bayescale.make_table makes a run table of a frame"
        )
    entry = _entries().get(str(table))
    if entry is None:
        if not Path(table).suffix and not Path(table).exists():
            known = (
                f"{did_you_mean(str(table), _entries())} `bayescale tables` lists names, and a file needs "
                "its path with .csv, .tsv, .jsonl or .parquet"
            )
            raise TableError(f"table {str(table)!r} is unknown; {known.lstrip()}")
        read = read_runs(table, **options)
    elif options:
        raise TableError(
            f"table {entry.name!r} has its own columns and units; {', '.join(options)} are for files"
        )
    elif entry.bundled:
        read = read_runs(entry.path)
    else:
        if not _pulled_path(entry.name).is_file():
            raise TableError(
                f"table {entry.name!r} has not been pulled; run: bayescale tables pull {entry.name}"
            )
        read = read_runs(_pulled_path(entry.name))
    return read if outliers else read.without_outliers()


def tables() -> list[Entry]:
    """Return every table of the catalogue: bundled first, then published ones, by name."""
    _entries.cache_clear()
    return sorted(_entries().values(), key=lambda e: (not e.bundled, e.name))


def entry_details(name: str) -> dict[str, Any]:
    """Return all that the catalogue says of a table.

    Raises
    ------
    TableError
        If the name is unknown.
    """
    if name not in _entries():
        raise TableError(f"table {name!r} is unknown; `bayescale tables` lists names")
    entry = _entries()[name]
    details = tomllib.loads(entry.path.with_suffix(".toml").read_text("utf-8"))
    return details | {"bundled": entry.bundled, "pulled": entry.pulled}


def columns_of(name: str) -> set[str]:
    """Return the columns that a table has, pulled or not; compute follows from params and tokens."""
    entry = _entries()[name]
    if entry.bundled:
        columns = set(entry.path.read_text("utf-8").split("\n", 1)[0].strip().split(","))
    else:
        columns = set(entry_details(name)["columns"])
    known = {"params", "tokens", "compute"}
    return columns | known if len(columns & known) >= 2 else columns


def pull(name: str, folder: str | Path | None = None) -> RunTable:
    """Fetch a published table's originals, check them, and keep the table in the cache.

    Parameters
    ----------
    name : str
        A name from `tables`.
    folder : path, optional
        Read the originals from here instead of downloading them.

    Raises
    ------
    TableError
        If the name is unknown, a file is missing, cannot be downloaded, or has the wrong checksum.
    """
    details = entry_details(name)
    if details["bundled"]:
        raise TableError(f"table {name!r} comes with bayescale; there is nothing to pull")
    frames = []
    for source in details["source"]:
        frame = read_frame(_original(name, source, folder))
        frames.append(frame.assign(**source.get("set", {})))
    frame = _adapt(pd.concat(frames, ignore_index=True), details)
    meta = TableMeta(**{k: v for k, v in details.items() if k in TableMeta.model_fields})
    table = make_table(frame, meta, where=f"table {name!r}", drop_missing=True)
    path = _pulled_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_runs(table, path)
    _entries.cache_clear()
    return table


@cache
def _entries() -> dict[str, Entry]:
    entries = {}
    for path in sorted(DATA.glob("*.csv")):
        about = tomllib.loads(path.with_suffix(".toml").read_text("utf-8"))
        entries[path.stem] = Entry(
            path.stem, about["title"], about["citation"], bundled=True, pulled=False, path=path
        )
    for path in sorted((DATA / "catalogue").glob("*.toml")):
        about = tomllib.loads(path.read_text("utf-8"))
        pulled = _pulled_path(path.stem).is_file()
        entries[path.stem] = Entry(
            path.stem, about["title"], about["citation"], bundled=False, pulled=pulled, path=path
        )
    return entries


def _pulled_path(name: str) -> Path:
    return cache_folder() / "tables" / f"{name}.csv"


def _original(name: str, source: Mapping[str, Any], folder: str | Path | None) -> Path:
    """Return the path of one original file, its checksum verified."""
    if folder is None and "url" not in source:
        raise TableError(
            f"table {name!r}: {source['file']} was put together from several originals and cannot be "
            f"downloaded; pull it from a folder that has it: bayescale tables pull {name} --from DIR"
        )
    if folder is not None:
        path = Path(folder) / source["file"]
        if not path.is_file():
            raise TableError(f"table {name!r}: {path} does not exist; expected the original there")
        if (found := sha256(path.read_bytes()).hexdigest()) != source["sha256"]:
            raise TableError(
                f"table {name!r}: {path} has sha256 {found}, expected {source['sha256']}; it is not the "
                "file that the catalogue describes"
            )
        return path
    import pooch

    try:
        fetched = pooch.retrieve(
            source["url"],
            known_hash=f"sha256:{source['sha256']}",
            fname=source["file"].replace("/", "--"),
            path=cache_folder() / "originals",
            progressbar=False,
        )
    except (OSError, ValueError) as error:  # no network; wrong checksum
        raise TableError(
            f"table {name!r}: {source['url']} could not be fetched and verified: {error}"
        ) from error
    return Path(fetched)


def _adapt(frame: pd.DataFrame, details: Mapping[str, Any]) -> pd.DataFrame:
    """Select an entry's rows and give its columns our names."""
    for column, pattern in details.get("select", {}).items():
        frame = frame[frame[column].astype(str).map(lambda s, p=pattern: bool(re.fullmatch(p, s)))]
    if last := details.get("last"):
        frame = frame.sort_values(last["order"]).groupby(last["by"], as_index=False).tail(1)
    frame = frame.reset_index(drop=True)
    columns = {}
    for ours, theirs in details["columns"].items():
        if isinstance(theirs, list):
            columns[ours] = frame[theirs].astype(str).agg(" / ".join, axis=1)
        else:
            columns[ours] = frame[theirs]
    if interval := details.get("interval95"):
        columns["loss_se"] = (frame[interval["high"]] - frame[interval["low"]]) / (2 * 1.959964)
    return pd.DataFrame(columns)
