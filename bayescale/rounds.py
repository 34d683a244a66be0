"""Rounds: what became of a target's band, as `bayescale.tightening` logged it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bayescale.errors import BayescaleError
from bayescale.files import written_aside

LOG = "rounds.jsonl"
CHECK = Path("check") / "check.json"


@dataclass(frozen=True, eq=False)
class Tightening:
    """What became of a target's band, round by round.

    Attributes
    ----------
    rounds : list of dict
        As logged: ``round``, ``runs``, ``spent`` (FLOP beyond the ladder's own), ``target``, ``unit``,
        ``band``, ``width``, ``predicted_width`` (by the round before), ``floor_band`` (nats/token) and
        ``entropy_rate`` where known, ``failures`` (of the fit), ``stop`` (why, in the last) or ``plan``.
    check : dict or None
        For a loss: the target run, trained: ``params``, ``tokens``, ``compute``, ``loss``, ``band`` (of a new
        run's loss there, 90%), ``inside``. If it blew up, ``loss`` is None and the sizes are those asked for.
    """

    rounds: list[dict[str, Any]]
    check: dict[str, Any] | None

    def summary(self) -> pd.DataFrame:
        """Return one row per round."""
        rows = []
        for r in self.rounds:
            row = {"round": r["round"], "runs": r["runs"], "spent_FLOP": r["spent"]}
            row |= {"low": r["band"][0], "high": r["band"][1], "width": r["width"]}
            row["predicted_width"] = r["predicted_width"] or float("nan")
            if r["floor_band"]:
                row |= {"floor_low": r["floor_band"][0], "floor_high": r["floor_band"][1]}
            if r["floor_band"] and r["entropy_rate"]:
                row["entropy_rate"] = r["entropy_rate"]
                row["held"] = "yes" if inside(r["entropy_rate"], r["floor_band"]) else "no"
            rows.append(row)
        return pd.DataFrame(rows)

    def verdict(self) -> str:
        """Say why it stopped, and whether the target run ended inside its band."""
        text = f"stopped: {self.rounds[-1].get('stop', 'in between; the same command goes on')}"
        if self.check and self.check["loss"] is None:
            text += (
                f"\ntarget run ({self.check['params']:.4g} params, {self.check['tokens']:.4g} tokens) "
                "blew up: there is no loss to compare with its band; check/runs.jsonl says what became of it"
            )
        elif self.check:
            low, high = self.check["band"]
            where = "inside" if self.check["inside"] else "OUTSIDE"
            text += (
                f"\ntarget run trained ({self.check['params']:.4g} params, {self.check['tokens']:.4g} "
                f"tokens, {self.check['compute']:.3g} FLOP apart): loss {self.check['loss']:.4f} nats/token, "
                f"{where} the 90% band of a new run, {low:.4f} - {high:.4f}"
            )
        return text


def read_tightening(folder: str | Path) -> Tightening:
    """Read what `bayescale.tighten` left in a folder, ended or not.

    Parameters
    ----------
    folder : path
        As given to `bayescale.tighten`.

    Raises
    ------
    BayescaleError
        If the folder holds no rounds, or they cannot be read.
    """
    folder = Path(folder)
    rounds = read_rounds(folder)
    if not rounds:
        raise BayescaleError(f"{folder}: holds no {LOG}; expected a folder that `bayescale tighten` wrote")
    path = folder / CHECK
    check = _parsed(path, path.read_text("utf-8")) if path.is_file() else None
    return Tightening(rounds, check)


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """Return the rounds logged in a folder; none if it has no log."""
    path = folder / LOG
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [_parsed(f"{path}, line {n}", line) for n, line in enumerate(lines, 1)]


def write_rounds(folder: Path, rounds: list[dict[str, Any]]) -> None:
    """Write the log, aside and then renamed."""
    with written_aside(folder / LOG) as aside:
        aside.write_text("".join(json.dumps(r) + "\n" for r in rounds), "utf-8")


def write_check(folder: Path, check: dict[str, Any]) -> None:
    """Write what the target run ended at."""
    with written_aside(folder / CHECK) as aside:
        aside.write_text(json.dumps(check) + "\n", "utf-8")


def inside(value: float, ends: Any) -> bool:
    """Say whether a value lies between two ends."""
    return bool(ends[0] <= value <= ends[1])


def _parsed(where: str | Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BayescaleError(f"{where}: not JSON ({error}); it was changed by other hands") from error
    if not isinstance(found, dict):
        raise BayescaleError(f"{where}: found {text[:40]!r}; expected a JSON object")
    return found
