"""Tighten: rounds of plan, train and refit until a target's band is narrow enough or the budget is spent.

The folder is the state, and holds nothing that cannot be made again from what was made before it:

    ladder-0.toml, ladder-1.toml, ...   all runs up to each round; each holds those of the one before
    runs.jsonl, runs.csv, runs.toml     the trainer's records of them
    rounds.jsonl                        a line per round: its band, what was predicted, what is planned next
    check/                              the target run, trained at the end, its cost apart; check.json

A round trains its ladder (finished runs are not trained again), fits all its runs, plans, writes its line,
and then the next ladder. Stopped anywhere, the last ladder says which round to take up, and the round ends
as it would have, since training, fit and plan are functions of files and seed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bayescale.candidates import Settle
from bayescale.catalogue import load
from bayescale.counting import Counting
from bayescale.errors import BayescaleError, BudgetError
from bayescale.files import made_folder
from bayescale.fitting import Fit, fit
from bayescale.forecasts import SIZES, complete_inputs
from bayescale.ladders import read_ladder, run_groups, save_ladder
from bayescale.laws import Law, Prior, find_law
from bayescale.model.model import SCALE_PRIORS
from bayescale.plans import Plan, plan
from bayescale.proposals import positive_budget
from bayescale.rounds import LOG, Tightening, inside, read_rounds, write_check, write_rounds
from bayescale.runs import RunTable, TableMeta
from bayescale.targets import Target, band, joint_draws, parse_target

# A round spends at most this share of the budget: what it teaches makes the next plan better.
_ROUND_SHARE = 0.25

_INTERRUPTED = 130
# Trains a ladder's runs into a folder; returns the trainer's exit status.
Train = Callable[[Path, Path], int]


def tighten(
    ladder: str | Path,
    target: str | Target,
    budget: float,
    width: float,
    folder: str | Path,
    *,
    train: Train,
    settle: Settle | None = None,
    law: str = "chinchilla",
    priors: Mapping[str, Prior | str] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Tightening:
    """Plan, train and refit until the target's 90% band is narrow enough or the budget is spent.

    Parameters
    ----------
    ladder : path
        The ladder to begin with; its source, model and recipe serve every round.
    target : str or Target
        As in `bayescale.plan`.
    budget : float
        FLOP for runs beyond the ladder's own.
    width : float
        Of the 90% band, in the target's unit.
    folder : path
        State and results; made if need be. If it holds some of this target, they are taken up.
    train : callable
        Trains a ladder's runs into a folder and returns 0, 1 if some blew up, or 130 if interrupted:
        ``lambda ladder, folder: bayescale_trainer.cli.main([str(ladder), "-o", str(folder)])``. That starts
        processes, so a script must call it under ``if __name__ == "__main__":``.
    settle : callable, optional
        As in `bayescale.plan`: what the trainer makes of sizes.
    law, priors
        As in `bayescale.fit`.
    seed : int
        Of fits and plans.
    progress : callable, optional
        Told what is being done.

    Raises
    ------
    BayescaleError
        If the ladder, law or a prior cannot be used, the folder holds rounds of other ones, of another target
        or seed, or training fails.
    """
    target = parse_target(target) if isinstance(target, str) else target
    if not width > 0:
        raise BayescaleError(f"width is {width:g}; expected a positive number, in the target's unit")
    # Before anything is trained, not after.
    budget = positive_budget(budget)
    found = find_law(law, priors={n: p for n, p in (priors or {}).items() if n not in SCALE_PRIORS})
    _require_target(target, found)
    folder = Path(folder)
    asked: dict[str, Any] = {"target": str(target), "law": law, "seed": seed}
    asked |= {"priors": {name: str(prior) for name, prior in sorted((priors or {}).items())}}
    rounds = _begin(Path(ladder), asked, folder)
    number = _last_ladder(folder)
    rounds = rounds[:number]  # a line of the round itself is written anew
    while True:
        progress(f"round {number}: training")
        _train_all(train, folder / f"ladder-{number}.toml", folder)
        fitted = fit(_table(folder), law, priors=priors, method="fast", seed=seed)
        entry = asked | _entry(fitted, target, number, rounds, seed)
        progress(f"round {number}: {entry['runs']} runs, 90% band {entry['width']:.4g} {entry['unit']} wide")
        proposed = None
        if number and entry["runs"] == rounds[-1]["runs"]:
            entry["stop"] = "no run of this round came to its end; runs.jsonl says what became of them"
        elif entry["width"] <= width:
            entry["stop"] = f"the band is narrower than {width:g} {entry['unit']}"
        else:
            proposed = _plan(fitted, target, budget, entry["spent"], settle, seed)
            if proposed is None or not len(proposed.runs):
                entry["stop"] = "no run that would help can be afforded with what is left of the budget"
            else:
                entry["plan"] = {
                    "runs": len(proposed.runs),
                    "cost": proposed.cost,
                    "predicted_width": proposed.predicted_width,
                }
        rounds.append(entry)
        write_rounds(folder, rounds)
        if "stop" in entry:
            return Tightening(rounds, _check(fitted, target, train, folder))
        assert proposed is not None
        following = read_ladder(folder / f"ladder-{number}.toml", folder)
        following["runs"] += run_groups(proposed.runs)
        number += 1
        save_ladder(following, folder / f"ladder-{number}.toml")


def _require_target(target: Target, law: Law) -> None:
    """Raise if fits of a law will not have a target's parameter or inputs."""
    if other := sorted(set(law.columns) - set(SIZES)):
        raise BayescaleError(
            f"law {law.name!r} needs {other[0]}, which no ladder states run by run; expected a law in params "
            "and tokens"
        )
    if target.count > 1:
        raise BayescaleError(f"target: found {target.count} runs; expected one, an allocation or a parameter")
    if not target.parameter:
        if not target.is_allocation(law):
            complete_inputs(law, Counting(TableMeta().flops_per_param_token), target.inputs)
        return
    names = [p.name for p in law.parameters]
    known = {*names, *(f"{n}_centre" for n in names), *SCALE_PRIORS}
    if target.parameter not in known:
        raise BayescaleError(
            f"target {target.parameter!r} is no parameter of law {law.name!r}; it has {', '.join(names)}"
        )


def _begin(ladder: Path, asked: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Write the first ladder, or make sure that the folder holds what is asked; return its rounds."""
    given = read_ladder(ladder, folder)
    if not given.get("runs"):
        raise BayescaleError(f"{ladder}: no [[runs]]; the first fit needs some, such as 3 params x 3 tokens")
    first = folder / "ladder-0.toml"
    rounds = read_rounds(folder)
    # Of a ladder that the trainer refused, to be mended, no run was trained.
    begun = first.is_file() and (rounds or (folder / "runs.jsonl").is_file() or _last_ladder(folder))
    if not begun:
        save_ladder(given, made_folder(folder) / first.name)
        return []
    other = ["ladder"] if _trained(read_ladder(first, folder)) != _trained(given) else []
    other += [name for name in asked if rounds and rounds[0].get(name, asked[name]) != asked[name]]
    if other:
        raise BayescaleError(
            f"{folder}: holds rounds of another {other[0]}; give another folder with -o, or the options it "
            "was begun with"
        )
    if len(rounds) < _last_ladder(folder):
        raise BayescaleError(
            f"{folder}: has ladders of {_last_ladder(folder) + 1} rounds, and {LOG} tells of {len(rounds)}; "
            "it was changed by other hands: begin in another folder"
        )
    last = folder / f"ladder-{_last_ladder(folder)}.toml"
    going_on = read_ladder(last, folder)
    if going_on.get("engine") != given.get("engine"):
        save_ladder(going_on | {"engine": given.get("engine", {})}, last)
    return rounds


def _trained(ladder: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the results of a ladder: of its engine, the precision alone."""
    engine = ladder.get("engine", {})
    return ladder | {"engine": engine.get("precision") if isinstance(engine, dict) else engine}


def _last_ladder(folder: Path) -> int:
    numbers = (p.stem.removeprefix("ladder-") for p in folder.glob("ladder-*.toml"))
    return max(int(n) for n in numbers if n.isdecimal())


def _train_all(train: Train, ladder: Path, folder: Path) -> bool:
    """Train a ladder into a folder; return whether all runs came to their end."""
    status = train(ladder, folder)
    if status == _INTERRUPTED:
        raise KeyboardInterrupt
    if status not in (0, 1):
        raise BayescaleError(
            f"{ladder}: training failed; mend what the trainer said, then run the same again"
        )
    return status == 0


def _table(folder: Path) -> RunTable:
    return load(str(folder / "runs.csv"), outliers=True).without_outliers()


def _entry(
    fitted: Fit, target: Target, number: int, before: list[dict[str, Any]], seed: int
) -> dict[str, Any]:
    draws, _ = joint_draws(fitted, target, {c: np.array([]) for c in fitted.law.columns}, seed)
    low, high = band(draws)
    floor = fitted.law.floor
    compute = float(fitted.table.column("compute").sum())
    # Runs that blew up are not in the table, but were paid for.
    planned = sum(entry["plan"]["cost"] for entry in before)
    return {
        "round": number,
        "runs": len(fitted.table),
        "compute": compute,
        "spent": max(planned, compute - before[0]["compute"]) if before else 0.0,
        "unit": target.describe(fitted)[1],
        "band": [low, high],
        "width": high - low,
        "predicted_width": before[-1]["plan"]["predicted_width"] if before else None,
        "floor_band": list(band(fitted.parameters[floor])) if floor else None,
        "entropy_rate": fitted.table.meta.entropy_rate,
        "failures": fitted.diagnostics.failures,
    }


def _plan(
    fitted: Fit, target: Target, budget: float, spent: float, settle: Settle | None, seed: int
) -> Plan | None:
    left = min(budget - spent, _ROUND_SHARE * budget)
    if left < 0.02 * budget:  # what rounding of sizes leaves over is no round
        return None
    try:
        return plan(fitted, target, left, settle=settle, seed=seed)
    except BudgetError:
        return None


def _check(fitted: Fit, target: Target, train: Train, folder: Path) -> dict[str, Any] | None:
    """Train the target run itself, and compare; the size trained is the nearest there is."""
    given = target.sizes(fitted.table.counting)
    if target.is_allocation(fitted.law) or not given.keys() >= {"params", "tokens"}:
        return None
    sizes = {name: float(np.squeeze(given[name])) for name in ("params", "tokens")}
    place = folder / "check"
    place.mkdir(exist_ok=True)
    ladder = read_ladder(folder / "ladder-0.toml", place)
    ladder["runs"] = [sizes | {"seeds": [0]}]
    save_ladder(ladder, place / "ladder.toml")
    ended = _train_all(train, place / "ladder.toml", place)
    found = _compared(fitted, _table(place)) if ended else sizes | {"loss": None}
    write_check(folder, found)
    return found


def _compared(fitted: Fit, run: RunTable) -> dict[str, Any]:
    """Compare the one run of a table with the band of a new run of its size."""
    inputs = {c: run.column(c)[:1] for c in fitted.law.columns}
    drawn = fitted.forecast(**inputs).draws["loss"].values
    ends, loss = band(drawn), float(run.column("loss")[0])
    sizes = {c: float(run.column(c)[0]) for c in ("params", "tokens", "compute")}
    return sizes | {"loss": loss, "band": list(ends), "inside": inside(loss, ends)}
