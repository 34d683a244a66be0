"""Ladders as files: the TOML that the trainer takes, with the runs of a plan in it."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd

from bayescale.errors import BayescaleError
from bayescale.files import written_aside


def write_ladder(runs: pd.DataFrame, template: str | Path, path: str | Path) -> None:
    """Write runs as a ladder that trains on what a template does.

    Parameters
    ----------
    runs : pandas.DataFrame
        Columns params, tokens, seed, and unique_tokens where there is one.
    template : path
        A ladder; its source, model, recipe and engine are taken, its own runs are not.
    path : path
        Of the ladder to write.

    Raises
    ------
    BayescaleError
        If the template is no ladder, the runs lack params or tokens, or the file cannot be written.
    """
    ladder = read_ladder(template, Path(path).parent)
    ladder["runs"] = run_groups(runs)
    save_ladder(ladder, path)


def read_ladder(path: str | Path, folder: str | Path) -> dict[str, Any]:
    """Read a ladder's TOML as it stands, its source's paths made to start at `folder`.

    Raises
    ------
    BayescaleError
        If the file is missing or no TOML with a [source].
    """
    path = Path(path)
    try:
        ladder = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BayescaleError(f"{path}: cannot be read as a ladder (TOML): {error}") from error
    if not isinstance(ladder.get("source"), dict):
        raise BayescaleError(f"{path}: no [source]; expected a ladder such as those in ladders/")
    for option in ("paths", "validation_paths"):
        found = ladder["source"].get(option)
        if isinstance(found, list) and all(isinstance(p, str) for p in found):  # others the trainer refuses
            # Of folders that are links, ".." leads out of what they point to.
            beside, start = path.resolve().parent, Path(folder).resolve()
            ladder["source"][option] = [os.path.relpath(beside / p, start) for p in found]
    return ladder


def run_groups(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return runs as the [[runs]] of a ladder, one group for each pair of params and tokens.

    Where a run has no number of unique tokens, all of the source's are meant.

    Raises
    ------
    BayescaleError
        If the runs lack params or tokens.
    """
    if missing := [c for c in ("params", "tokens") if c not in runs]:
        raise BayescaleError(f"a ladder needs runs with params and tokens; these have no {missing[0]}")
    keys = ["params", "tokens", *(["unique_tokens"] if "unique_tokens" in runs else [])]
    groups: list[dict[str, Any]] = []
    for _, rows in runs.groupby(keys, sort=True, dropna=False):
        size = {key: float(rows[key].iloc[0]) for key in keys if pd.notna(rows[key].iloc[0])}
        groups.append(size | {"seeds": sorted(int(s) for s in rows["seed"])})
    return groups


def save_ladder(ladder: dict[str, Any], path: str | Path) -> None:
    """Write a ladder as TOML, aside and then renamed."""
    import tomli_w

    with written_aside(path) as aside:
        aside.write_text(tomli_w.dumps(ladder), "utf-8")
