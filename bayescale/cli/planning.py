"""`bayescale plan` and `tighten`: the runs worth training next, and the loop that trains them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayescale.cli.fitting import fit_of
from bayescale.cli.options import (
    FitOptions,
    JsonOption,
    LawOption,
    OfGroupOption,
    PriorOption,
    SeedOption,
    Source,
    TableOptions,
    names,
    pairs,
    size,
)
from bayescale.cli.output import (
    exit_by,
    print_counted,
    print_data,
    print_frame,
    print_json,
    print_warnings,
    say,
)
from bayescale.cli.training import settle_with, train_ladder
from bayescale.errors import BayescaleError

if TYPE_CHECKING:
    from bayescale.comparison import Comparison
    from bayescale.fitting import Fit
    from bayescale.lawplans import LawPlan
    from bayescale.plans import Plan


def plan(
    source: Source,
    *,
    budget: Annotated[float, typer.Option(parser=size, metavar="C", help="What the runs may cost, FLOP.")],
    target: Annotated[
        str | None,
        typer.Option(
            help="params=1e9,tokens=2e10 (a loss), compute=1e21 (an allocation), E, or law (which of --laws)."
        ),
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
    laws: Annotated[
        str | None,
        typer.Option("--laws", help="Instead of --law: several, comma-separated, weighted by evidence."),
    ] = None,
    group: OfGroupOption = None,
    how: FitOptions,
    reading: TableOptions,
    as_json: JsonOption = False,
) -> None:
    """Choose the runs worth training next for a target, within a budget."""
    from bayescale.comparison import Comparison
    from bayescale.files import require_writable
    from bayescale.ladders import write_ladder
    from bayescale.proposals import positive_budget
    from bayescale.tablefiles import read_inputs
    from bayescale.targets import parse_target

    _require_one_aim(target, target_table, laws)
    if (output is None) != (ladder is None):
        raise BayescaleError(
            "-o/--output and --ladder belong together: the runs are written to -o, on the source of --ladder"
        )
    if output:
        require_writable(output, source=str(ladder or ""))
    if plot:
        from bayescale.plots import require_picture

        require_picture(plot, source=str(ladder or ""))
    if laws and how.law != FitOptions.law:
        raise BayescaleError("--law and --laws: expected one of them")
    positive_budget(budget)
    if target and target != "law":
        parse_target(target)
    pool = read_inputs(candidates) if candidates else None
    aim: Any = read_inputs(target_table) if target_table else target
    posterior = _compared(source, reading, how, laws) if laws else fit_of(source, reading, how)
    fits = dict(posterior.fits) if isinstance(posterior, Comparison) else {posterior.law.name: posterior}
    best = next(iter(fits.values()))
    settle = settle_with(ladder, ladder.with_suffix("") / "cache") if ladder else None
    result = _choose(posterior, aim, budget, candidates=pool, settle=settle, group=group, seed=how.seed)
    best = best.for_group(group)
    if plot:
        from bayescale.plots import plot_plan, save_figure

        save_figure(plot_plan(best, result), plot)
    if output and ladder and len(result.runs):
        write_ladder(result.runs, ladder, output)
    if as_json:
        print_json(best, {"laws": list(fits), "budget": budget} | _as_data(result), result.warnings)
    else:
        whose = f", group {group}" if group else ""
        _print_plan(result, budget, f"{' + '.join(fits)} on {best.table.name}{whose}")
        if pool is None and settle is None:
            print_counted(best)
        print_warnings(result.warnings)
        if output:
            written = f"ladder written to {output}: bayescale train {output}"
            print(written if len(result.runs) else f"no ladder written to {output}: no run was chosen")
    exit_by(not result.failed)


def _require_one_aim(target: str | None, target_table: Path | None, laws: str | None) -> None:
    if (target is None) == (target_table is None):
        raise BayescaleError(
            "a plan needs one of --target (a loss, allocation, parameter or law) and --target-table"
        )
    if target == "law" and not laws:
        raise BayescaleError("--target law asks which of several laws is right: name them, --laws A,B")


def _compared(source: str, reading: TableOptions, how: FitOptions, laws: str) -> "Comparison":
    """Fit several laws to a table."""
    from bayescale.comparison import compare

    if source.lower().endswith(".nc"):
        raise BayescaleError(
            f"--laws fits several laws: give a table or a file of runs, not the fit {source}"
        )
    return compare(
        reading.load(source), names(laws), sensitivity=False, method=how.method, progress=say,
        priors=pairs(how.prior, "--prior"), noise=how.noise, discrepancy=how.discrepancy,
        group_effect=how.group_effect, draws=how.draws, seed=how.seed,
    )  # fmt: skip


def _choose(posterior: "Fit | Comparison", aim: Any, budget: float, **options: Any) -> "Plan | LawPlan":
    from bayescale.comparison import Comparison
    from bayescale.lawplans import plan_between
    from bayescale.plans import plan as choose

    if isinstance(posterior, Comparison) and isinstance(aim, str) and aim == "law":
        return plan_between(posterior, budget, **options)
    return choose(posterior, aim, budget, **options)


def _as_data(result: "Plan | LawPlan") -> dict[str, Any]:
    from bayescale.plans import Plan

    data = {"cost": result.cost, "proposed": result.runs.to_dict("records")}
    if not isinstance(result, Plan):
        doubt = {"uncertainty": result.uncertainty, "information": result.information, "unit": "nats"}
        return data | doubt | {"odds": result.odds.to_dict("index")}
    data |= {"target": result.description, "unit": result.unit, "band_90%": result.band}
    return data | {"width": result.width, "predicted_width": result.predicted_width, "saved": result.saved}


def _print_plan(result: "Plan | LawPlan", budget: float, made_from: str) -> None:
    from bayescale.plans import Plan

    cost = f"for {result.cost:.3g} of {budget:.3g} FLOP"
    shown = result.grouped().rename(columns={"compute": "FLOP_each"})
    if not isinstance(result, Plan):
        print_frame(shown.rename(columns={"gain": "nats"}), f"Runs to tell laws apart ({made_from})")
        print_frame(result.odds.reset_index(), "Log odds over the strongest rival, were the law right (nats)")
        print(f"{result.headline}, {cost}")
        return
    shown = shown.rename(columns={"gain": "share_removed", "gain_per_flop": "share_per_FLOP"})
    print_frame(shown, f"Runs for {result.description} ({made_from})")
    low, high = result.band
    band = "mean 90% band" if result.target.count > 1 else "90% band"
    print(
        f"{band} now {low:.4f} - {high:.4f} {result.unit}, {result.width:.3g} wide; expected after the "
        f"plan: {result.predicted_width:.3g} wide, {cost}"
    )
    if result.saved is not None:
        of = result.target.inputs["compute"]
        print(f"expected to save {result.saved:.3g} FLOP of the {of:.3g} FLOP run, by allocating it better")


def tighten(
    ladder: Annotated[Path, typer.Argument(help="The ladder (.toml) to begin with.")],
    target: Annotated[
        str, typer.Option(help="params=131e3,tokens=4e6 (a loss), compute=1e13 (an allocation), or E.")
    ],
    budget: Annotated[
        float,
        typer.Option(parser=size, metavar="C", help="What runs beyond the ladder's own may cost, FLOP."),
    ],
    width: Annotated[float, typer.Option(help="Stop when the target's 90% band is narrower, in its unit.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of records and round log.")],
    law: LawOption = "chinchilla",
    prior: PriorOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Plan, train and refit until the target's band is narrow enough or the budget is spent.

    Stopped at any point, the same command goes on where it ended.
    """
    from bayescale.tightening import tighten as run

    result = run(
        ladder, target, budget, width, output, train=_train_quietly,
        settle=settle_with(ladder, output / "cache"), law=law, priors=pairs(prior, "--prior"), seed=seed,
        progress=say,
    )  # fmt: skip
    failed = [f"do not rely on round {r['round']}: {f}" for r in result.rounds for f in r["failures"]]
    if as_json:
        print_data({"rounds": result.rounds, "check": result.check, "warnings": failed})
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
