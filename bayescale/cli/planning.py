"""`bayescale plan` and `tighten`: the runs worth training next, and the loop that trains them."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayescale.cli.fitting import fit_of
from bayescale.cli.options import FitOptions, JsonOption, LawOption, SeedOption, Source, TableOptions
from bayescale.cli.output import exit_by, print_frame, print_json, print_warnings, say
from bayescale.cli.training import train_ladder

if TYPE_CHECKING:
    from bayescale.fitting import Fit
    from bayescale.plans import Plan


def plan(
    source: Source,
    *,
    budget: Annotated[float, typer.Option(help="What the runs may cost, FLOP.")],
    target: Annotated[
        str | None, typer.Option(help="params=1e9,tokens=2e10 (a loss), compute=1e21 (an allocation), or E.")
    ] = None,
    target_table: Annotated[
        Path | None, typer.Option(help="Or runs whose losses are all to be forecast: inputs (.csv ...).")
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="Runs to choose from: inputs and compute, each row once (.csv ...).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the runs as a ladder (.toml); needs --ladder."),
    ] = None,
    ladder: Annotated[
        Path | None, typer.Option(help="Ladder whose source, model and recipe the written one takes.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the plan here (.svg, .png).")] = None,
    how: FitOptions,
    reading: TableOptions,
    as_json: JsonOption = False,
) -> None:
    """Choose the runs worth training next for a target, within a budget."""
    from bayescale.errors import BayescaleError
    from bayescale.files import require_writable
    from bayescale.ladders import write_ladder
    from bayescale.plans import plan as choose
    from bayescale.runs import read_frame

    if (output is None) != (ladder is None):
        raise BayescaleError(
            "-o/--output and --ladder belong together: the runs are written to -o, on the source of --ladder"
        )
    if (target is None) == (target_table is None):
        raise BayescaleError(
            "a plan needs one of --target (a loss, allocation or parameter) and --target-table"
        )
    if output:
        require_writable(output)
    pool = read_frame(candidates) if candidates else None
    aim: Any = read_frame(target_table) if target_table else target
    fitted = fit_of(source, reading, how)
    result = choose(fitted, aim, budget, candidates=pool, seed=how.seed)
    if plot:
        from bayescale.plots import plot_plan, save_figure

        save_figure(plot_plan(fitted, result), plot)
    if output and ladder:
        write_ladder(result.runs, ladder, output)
    if as_json:
        data: dict[str, Any] = {"target": result.description, "unit": result.unit, "band_90%": result.band}
        data |= {"width": result.width, "predicted_width": result.predicted_width}
        data |= {"cost": result.cost, "budget": budget, "saved": result.saved}
        data["runs"] = result.runs.to_dict("records")
        print_json(fitted, data, result.warnings)
    else:
        _print_plan(result, budget, fitted)
        if output:
            print(f"ladder written to {output}: bayescale train {output}")
    exit_by(fitted.diagnostics.passed)


def _print_plan(result: "Plan", budget: float, fitted: "Fit") -> None:
    shown = result.grouped().rename(
        columns={"compute": "FLOP_each", "gain": "variance_removed", "gain_per_flop": "removed_per_FLOP"}
    )
    print_frame(shown, f"Runs for {result.description} ({fitted.law.name} on {fitted.table.name})")
    low, high = result.band
    band = "mean 90% band" if result.target.count > 1 else "90% band"
    print(
        f"{band} now {low:.4f} - {high:.4f} {result.unit}, {result.width:.3g} wide; expected after the "
        f"plan: {result.predicted_width:.3g} wide, for {result.cost:.3g} of {budget:.3g} FLOP"
    )
    if result.saved is not None:
        of = result.target.inputs["compute"]
        print(f"expected to save {result.saved:.3g} FLOP of the {of:.3g} FLOP run, by allocating it better")
    print_warnings(result.warnings)


def tighten(
    ladder: Annotated[Path, typer.Argument(help="The ladder (.toml) to begin with.")],
    target: Annotated[
        str, typer.Option(help="params=131e3,tokens=4e6 (a loss), compute=1e13 (an allocation), or E.")
    ],
    budget: Annotated[float, typer.Option(help="What runs beyond the ladder's own may cost, FLOP.")],
    width: Annotated[float, typer.Option(help="Stop when the target's 90% band is narrower, in its unit.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of records and round log.")],
    law: LawOption = "chinchilla",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Plan, train and refit until the target's band is narrow enough or the budget is spent.

    Stopped at any point, the same command goes on where it ended.
    """
    from bayescale.tightening import tighten as run

    result = run(
        ladder, target, budget, width, output, train=_train_quietly, law=law, seed=seed, progress=say
    )
    failed = [f"do not rely on round {r['round']}: {f}" for r in result.rounds for f in r["failures"]]
    if as_json:
        print(json.dumps({"rounds": result.rounds, "check": result.check, "warnings": failed}, indent=2))
    else:
        print_frame(
            result.summary(), f"{result.rounds[-1]['target']}, 90% bands in {result.rounds[-1]['unit']}"
        )
        print(result.verdict())
        print_warnings(failed)
    exit_by(not failed)


def _train_quietly(ladder: Path, folder: Path) -> int:
    from contextlib import redirect_stdout

    # The report goes to stdout; what the trainer says on the way does not belong in it.
    with redirect_stdout(sys.stderr):
        return train_ladder([str(ladder), "-o", str(folder)])
