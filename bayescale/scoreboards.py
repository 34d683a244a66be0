"""Scoreboard: the backtest of every table at hand, ours and the peers' forecasts side by side."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bayescale.backtesting import Backtest, backtest
from bayescale.catalogue import load, tables
from bayescale.errors import BayescaleError, FitError
from bayescale.laws import BUILTIN, INPUT_COLUMNS, Law, find_law
from bayescale.runs import RunTable


@dataclass(frozen=True, eq=False)
class Scoreboard:
    """Backtests of many tables.

    Attributes
    ----------
    backtest : Backtest
        The scores of all tables' splits.
    left_out : dict
        Table to the reason why it has no score.
    """

    backtest: Backtest
    left_out: dict[str, str]


def scoreboard(
    law: str | Law = "chinchilla",
    *,
    names: Iterable[str] | None = None,
    methods: Sequence[str] = ("discrepancy", "law-only", "huber-bootstrap"),
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Scoreboard:
    """Backtest every table that is bundled or pulled and has what the law needs.

    Left out, too, are tables whose runs differ in an input of other laws where they share this one's (a
    learning rate, say): how much of their losses is noise depends on which of them one looks at.

    Parameters
    ----------
    law : str or Law
        The law.
    names : iterable of str, optional
        Tables; all that are at hand unless given.
    methods, seed, folder, progress
        As in `bayescale.backtest`.

    Raises
    ------
    FitError
        If no table can be scored.
    """
    parts, left_out = [], {}
    for name in names or [entry.name for entry in tables() if entry.available]:
        try:
            table = load(name)
            _require_scorable(table, law)
            found = backtest(table, law, methods=methods, seed=seed, folder=folder, progress=progress)
        except BayescaleError as error:
            left_out[name] = str(error)
            continue
        parts.append(found.scores)
    if not parts:
        raise FitError(f"no table can be scored: {left_out}")
    return Scoreboard(Backtest(pd.concat(parts, ignore_index=True)), left_out)


def _require_scorable(table: RunTable, law: str | Law) -> None:
    if table.meta.loss_unit == "other":
        raise FitError("its losses have no unit that a scaling law's priors know")
    law = find_law(law, **table.names_for_laws())
    if not set(law.columns) <= set(table.frame):
        return  # `backtest` says which is missing
    known = {column for other in BUILTIN.values() for column in other.columns}
    unseen = sorted(known & set(table.frame) - {INPUT_COLUMNS[n] for n in "NDC"})
    alike = table.frame.groupby(list(law.columns))
    if varied := [column for column in unseen if (alike[column].nunique() > 1).any()]:
        raise FitError(f"runs that {law.name} takes for alike differ in {', '.join(varied)}")
