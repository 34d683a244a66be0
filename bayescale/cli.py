"""The command line. Heavy imports happen inside commands, so that ``--help`` answers at once.

Exit codes: 0 done; 1 done, but the fit's diagnostics failed and every output says so; 2 bad input or usage;
130 interrupted.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from bayescale.comparison import Comparison
    from bayescale.fitting import Fit
    from bayescale.plans import Plan
    from bayescale.runs import RunTable

app = typer.Typer(
    help="Bayesian scaling laws: forecasts of training loss whose bands hold as often as they claim.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
tables_app = typer.Typer(help="Run tables: bundled ones, and published ones to pull.")
app.add_typer(tables_app, name="tables", invoke_without_command=True)
laws_app = typer.Typer(help="The laws that a fit can be asked for by name.")
app.add_typer(laws_app, name="laws", invoke_without_command=True)

Source = Annotated[str, typer.Argument(help="A table's name, a file of runs, or a fit (.nc).")]
TableSource = Annotated[str, typer.Argument(help="A table's name or a file of runs.")]
LawOption = Annotated[str, typer.Option("--law", help="A law's name, or a formula: 'E + A*N**-a'.")]
PriorOption = Annotated[
    list[str] | None, typer.Option("--prior", help="E.g. 'E=LogNormal(1.6, 0.2)'. Repeatable.")
]
NoiseOption = Annotated[str, typer.Option("--noise", help="student-t or normal.")]
DiscrepancyOption = Annotated[
    bool,
    typer.Option("--discrepancy/--no-discrepancy", help="Whether the law may be smoothly wrong."),
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group-effect",
        help="Column whose values share an offset; by default trunk, where runs share one; none for none.",
    ),
]
MethodOption = Annotated[
    str, typer.Option("--method", help="auto, fast (importance sampling) or nuts (the reference).")
]
DrawsOption = Annotated[int, typer.Option("--draws", help="Draws kept per chain.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the draws.")]
ColumnsOption = Annotated[
    str | None,
    typer.Option("--columns", help="For a file: our names to its, 'params=N,loss=val_loss'."),
]
UnitOption = Annotated[str | None, typer.Option("--loss-unit", help="For a file: nats/token unless told.")]
BytesOption = Annotated[
    float | None, typer.Option("--tokens-per-byte", help="For a file with losses per byte.")
]
DropOption = Annotated[
    bool, typer.Option("--drop-missing", help="For a file: leave out rows with missing values.")
]
OutliersOption = Annotated[
    bool, typer.Option("--keep-outliers", help="Keep runs that the table's compilers flagged.")
]


def _size(text: str) -> float:
    from bayescale.units import written_number

    if (number := written_number(text)) != number:
        raise typer.BadParameter(f"found {text!r}; expected a number such as 70e9 or 70B")
    return number


ParamsOption = Annotated[
    list[float] | None,
    typer.Option("--params", parser=_size, metavar="N", help="Forecast: params, 70e9 or 70B. Repeatable."),
]
TokensOption = Annotated[
    list[float] | None,
    typer.Option("--tokens", parser=_size, metavar="D", help="Forecast: tokens, 1.4e12 or 1.4T. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def main() -> None:
    """Run the command line; turn our errors into one message and an exit code."""
    from bayescale.errors import BayescaleError

    try:
        app()
    except BayescaleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written", file=sys.stderr)
        sys.exit(130)


@tables_app.callback()
def list_tables(context: typer.Context, as_json: JsonOption = False) -> None:
    """List run tables."""
    if context.invoked_subcommand:
        return
    from bayescale.catalogue import tables

    state = {True: "bundled", False: "not pulled"}
    rows = [
        {
            "name": e.name,
            "state": "pulled" if e.pulled else state[e.bundled],
            "title": e.title,
            "citation": e.citation,
        }
        for e in tables()
    ]
    _print_rows(rows, as_json, wrap=("title", "citation"))


@tables_app.command("show")
def show_table(name: str, as_json: JsonOption = False) -> None:
    """Show what the catalogue says of a table, and its range where it is at hand."""
    from bayescale.catalogue import entry_details, load

    details = entry_details(name)
    if details["bundled"] or details["pulled"]:
        table = load(name, outliers=True)
        details["runs"] = len(table)
        details["range"] = {
            c: [float(v.min()), float(v.max())]
            for c, v in table.frame.select_dtypes("float").items()
            if c != "loss_rounding"
        }
    if as_json:
        print(json.dumps(details, indent=2))
        return
    for key, value in details.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
        if isinstance(value, list):
            value = ", ".join(str(v.get("url", v["file"])) for v in value)
        print(f"{key.replace('_', ' '):20} {value}")


@tables_app.command("pull")
def pull_table(
    name: str,
    folder: Annotated[
        Path | None, typer.Option("--from", help="Read the originals from this folder instead.")
    ] = None,
) -> None:
    """Fetch a published table, verify its checksum, and keep it for use by name."""
    from bayescale.catalogue import pull

    table = pull(name, folder)
    print(f"{name}: {len(table)} runs, checksum verified")


@laws_app.callback()
def list_laws(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the built-in laws."""
    if context.invoked_subcommand:
        return
    from bayescale.laws import BUILTIN

    rows = [
        {"name": law.name, "inputs": ", ".join(law.columns), "title": law.title, "formula": law.formula}
        for law in BUILTIN.values()
    ]
    _print_rows(rows, as_json, wrap=("title", "formula"))


@laws_app.command("show")
def show_law(name: str, as_json: JsonOption = False) -> None:
    """Show a law: formula, parameters with priors, what it nests, published fits, tables that feed it."""
    from bayescale.laws import law_details

    details = law_details(name)
    if as_json:
        print(json.dumps(details, indent=2))
        return
    for key in ("name", "title", "formula", "latex", "citation", "nests", "published_fits", "tables"):
        value = details[key]
        print(f"{key.replace('_', ' '):15} {', '.join(value) if isinstance(value, list) else value}")
    print()
    _print_rows(details["parameters"], as_json, wrap=("meaning",))


@app.command()
def check(
    source: TableSource,
    columns: ColumnsOption = None,
    loss_unit: UnitOption = None,
    tokens_per_byte: BytesOption = None,
    drop_missing: DropOption = False,
    as_json: JsonOption = False,
) -> None:
    """Report pitfalls in a run table or a ladder (.toml), each with a code, a sentence and a citation."""
    from bayescale.checks import check as find

    if source.endswith(".toml"):
        raise typer.Exit(_trainer([source, "--check"]))
    table = _table(source, columns, loss_unit, tokens_per_byte, drop_missing, keep_outliers=True)
    findings = [vars(f) for f in find(table)]
    if as_json:
        print(json.dumps({"table": table.name, "runs": len(table), "findings": findings}, indent=2))
    elif not findings:
        print(f"{table.name}: {len(table)} runs, no pitfalls found")
    else:
        _print_rows(findings, as_json, wrap=("message",))


@app.command()
def fit(
    source: TableSource,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the fit (.nc).")] = None,
    law: LawOption = "chinchilla",
    prior: PriorOption = None,
    noise: NoiseOption = "student-t",
    discrepancy: DiscrepancyOption = True,
    group_effect: GroupOption = None,
    method: MethodOption = "auto",
    draws: DrawsOption = 1500,
    seed: SeedOption = 0,
    columns: ColumnsOption = None,
    loss_unit: UnitOption = None,
    tokens_per_byte: BytesOption = None,
    drop_missing: DropOption = False,
    keep_outliers: OutliersOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a scaling law to a run table."""
    from bayescale.replicates import lack_of_fit

    table = _table(source, columns, loss_unit, tokens_per_byte, drop_missing, keep_outliers)
    fitted = _fit(table, law, prior, noise, discrepancy, group_effect, method, draws, seed, output)
    summary = _with_published(fitted)
    if as_json:
        _print_json(fitted, {"parameters": summary.to_dict("index")})
    else:
        _print_frame(summary.reset_index(), f"{fitted.law.name} on {table.name}, {len(table)} runs")
        if found := lack_of_fit(fitted):
            print(found)
        _print_warnings(_fit_warnings(fitted))
        if output:
            print(f"saved to {output}")
    _exit(fitted)


@app.command()
def forecast(
    source: Source,
    params: ParamsOption = None,
    tokens: TokensOption = None,
    compute: Annotated[list[float] | None, typer.Option(help="FLOP. Repeatable.")] = None,
    at: Annotated[list[str] | None, typer.Option(help="Other inputs, e.g. streams=8.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the forecast here (.svg, .png).")] = None,
    law: LawOption = "chinchilla",
    prior: PriorOption = None,
    noise: NoiseOption = "student-t",
    discrepancy: DiscrepancyOption = True,
    group_effect: GroupOption = None,
    method: MethodOption = "auto",
    draws: DrawsOption = 1500,
    seed: SeedOption = 0,
    columns: ColumnsOption = None,
    loss_unit: UnitOption = None,
    tokens_per_byte: BytesOption = None,
    drop_missing: DropOption = False,
    keep_outliers: OutliersOption = False,
    as_json: JsonOption = False,
) -> None:
    """Forecast the loss of runs not yet trained, with bands."""
    inputs: dict[str, Any] = {"params": params, "tokens": tokens, "compute": compute}
    inputs |= {k: float(_number(v, "--at")) for k, v in _pairs(at, "--at").items()}
    given = {k: v for k, v in inputs.items() if v not in (None, [])}
    fitted = _fit_of(
        source, law, prior, noise, discrepancy, group_effect, method, draws, seed,
        (columns, loss_unit, tokens_per_byte, drop_missing, keep_outliers),
    )  # fmt: skip
    result = fitted.forecast(seed=seed, **given)
    if plot:
        from bayescale.plots import plot_forecast, save_figure

        save_figure(plot_forecast(fitted, result), plot)
    summary = result.summary()
    if as_json:
        targets = summary.to_dict("records")
        outside = [
            {name: float(decades[i]) for name, decades in result.outside.items()} for i in range(len(summary))
        ]
        _print_json(
            fitted,
            {"unit": "nats/token", "targets": targets, "decades_outside": outside},
            result.warnings,
        )
    else:
        for _, row in summary.iterrows():
            _print_frame(*_forecast_rows(row, fitted))
        _print_warnings(result.warnings)
    _exit(fitted)


@app.command()
def allocate(
    source: Source,
    compute: Annotated[list[float] | None, typer.Option(help="Budget, FLOP. Repeatable.")] = None,
    loss: Annotated[
        list[float] | None, typer.Option(help="Instead: a loss to reach, nats/token. Repeatable.")
    ] = None,
    served_tokens: Annotated[
        float | None,
        typer.Option(
            parser=_size, metavar="T", help="With --loss: tokens to serve once trained; their compute counts."
        ),
    ] = None,
    law: LawOption = "chinchilla",
    prior: PriorOption = None,
    noise: NoiseOption = "student-t",
    discrepancy: DiscrepancyOption = True,
    group_effect: GroupOption = None,
    method: MethodOption = "auto",
    draws: DrawsOption = 1500,
    seed: SeedOption = 0,
    columns: ColumnsOption = None,
    loss_unit: UnitOption = None,
    tokens_per_byte: BytesOption = None,
    drop_missing: DropOption = False,
    keep_outliers: OutliersOption = False,
    as_json: JsonOption = False,
) -> None:
    """Split compute between params and tokens, or find the compute that a loss takes."""
    fitted = _fit_of(
        source, law, prior, noise, discrepancy, group_effect, method, draws, seed,
        (columns, loss_unit, tokens_per_byte, drop_missing, keep_outliers),
    )  # fmt: skip
    result = fitted.allocate(compute=compute or None, loss=loss or None, served_tokens=served_tokens or 0.0)
    if as_json:
        data: dict[str, Any] = {"allocations": result.summary().to_dict("records")}
        if compute:
            data["expected_deadweight"] = result.expected_deadweight().tolist()
        _print_json(fitted, data, result.warnings)
    else:
        asked = compute or loss or []
        summary = result.summary()
        for number, value in enumerate(asked):
            rows = summary[summary["budget"] == number]
            what = f"{value:.4g} " + ("FLOP" if compute else "nats/token")
            title = f"Compute-optimal run for {what} ({fitted.law.name} on {fitted.table.name})"
            columns_shown = [
                "quantity",
                "median",
                "50%_low",
                "50%_high",
                "90%_low",
                "90%_high",
                "unit",
            ]
            _print_frame(rows[columns_shown], title)
            if compute:
                waste = float(result.expected_deadweight()[number])
                share = f"{waste / value:.2%} of the budget"
                print(f"expected deadweight of acting on the medians: {waste:.3g} FLOP, {share}")
        _print_warnings(result.warnings)
    _exit(fitted)


@app.command()
def plan(
    source: Source,
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
    law: LawOption = "chinchilla",
    prior: PriorOption = None,
    noise: NoiseOption = "student-t",
    discrepancy: DiscrepancyOption = True,
    group_effect: GroupOption = None,
    method: MethodOption = "auto",
    draws: DrawsOption = 1500,
    seed: SeedOption = 0,
    columns: ColumnsOption = None,
    loss_unit: UnitOption = None,
    tokens_per_byte: BytesOption = None,
    drop_missing: DropOption = False,
    keep_outliers: OutliersOption = False,
    as_json: JsonOption = False,
) -> None:
    """Choose the runs worth training next for a target, within a budget."""
    from bayescale.errors import BayescaleError
    from bayescale.files import require_writable
    from bayescale.plans import plan as choose
    from bayescale.plans import write_ladder
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
    fitted = _fit_of(
        source, law, prior, noise, discrepancy, group_effect, method, draws, seed,
        (columns, loss_unit, tokens_per_byte, drop_missing, keep_outliers),
    )  # fmt: skip
    result = choose(fitted, aim, budget, candidates=pool, seed=seed)
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
        _print_json(fitted, data, result.warnings)
    else:
        _print_plan(result, budget, fitted)
        if output:
            print(f"ladder written to {output}: bayescale train {output}")
    _exit(fitted)


def _print_plan(result: "Plan", budget: float, fitted: "Fit") -> None:
    shown = result.grouped().rename(
        columns={"compute": "FLOP_each", "gain": "variance_removed", "gain_per_flop": "removed_per_FLOP"}
    )
    _print_frame(shown, f"Runs for {result.description} ({fitted.law.name} on {fitted.table.name})")
    low, high = result.band
    band = "mean 90% band" if result.target.count > 1 else "90% band"
    print(
        f"{band} now {low:.4f} - {high:.4f} {result.unit}, {result.width:.3g} wide; expected after the "
        f"plan: {result.predicted_width:.3g} wide, for {result.cost:.3g} of {budget:.3g} FLOP"
    )
    if result.saved is not None:
        of = result.target.inputs["compute"]
        print(f"expected to save {result.saved:.3g} FLOP of the {of:.3g} FLOP run, by allocating it better")
    _print_warnings(result.warnings)


@app.command()
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
        ladder, target, budget, width, output, train=_train_quietly, law=law, seed=seed, progress=_say
    )
    failed = [f"do not rely on round {r['round']}: {f}" for r in result.rounds for f in r["failures"]]
    if as_json:
        print(json.dumps({"rounds": result.rounds, "check": result.check, "warnings": failed}, indent=2))
    else:
        _print_frame(
            result.summary(), f"{result.rounds[-1]['target']}, 90% bands in {result.rounds[-1]['unit']}"
        )
        print(result.verdict())
        _print_warnings(failed)
    if failed:
        raise typer.Exit(1)


def _train_quietly(ladder: Path, folder: Path) -> int:
    from contextlib import redirect_stdout

    # The report goes to stdout; what the trainer says on the way does not belong in it.
    with redirect_stdout(sys.stderr):
        return _trainer([str(ladder), "-o", str(folder)])


@app.command()
def report(
    source: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the page (.html).")],
    params: ParamsOption = None,
    tokens: TokensOption = None,
    at: Annotated[list[str] | None, typer.Option(help="Forecast: other inputs, e.g. streams=8.")] = None,
    compute: Annotated[list[float] | None, typer.Option(help="Allocate: budget, FLOP. Repeatable.")] = None,
    with_backtest: Annotated[
        bool, typer.Option("--backtest", help="Score the bands on hidden runs; kept scores are used.")
    ] = False,
    laws: Annotated[
        str | None, typer.Option(help="Compare these laws, comma-separated, on the same runs.")
    ] = None,
    tightened: Annotated[
        Path | None, typer.Option("--tighten", help="Show the rounds in this folder of `bayescale tighten`.")
    ] = None,
    law: LawOption = "chinchilla",
    prior: PriorOption = None,
    noise: NoiseOption = "student-t",
    discrepancy: DiscrepancyOption = True,
    group_effect: GroupOption = None,
    method: MethodOption = "auto",
    draws: DrawsOption = 1500,
    seed: SeedOption = 0,
    columns: ColumnsOption = None,
    loss_unit: UnitOption = None,
    tokens_per_byte: BytesOption = None,
    drop_missing: DropOption = False,
    keep_outliers: OutliersOption = False,
) -> None:
    """Write one self-contained page: the answers asked for, figures, diagnostics, how to make it again."""
    import shlex

    from bayescale.backtesting import backtest as run
    from bayescale.comparison import compare as compare_laws
    from bayescale.files import cache_folder, require_writable, written_aside
    from bayescale.reports import report as make
    from bayescale.rounds import read_tightening

    require_writable(output)
    rounds = read_tightening(tightened) if tightened else None
    inputs: dict[str, Any] = {"params": params, "tokens": tokens}
    inputs |= {k: float(_number(v, "--at")) for k, v in _pairs(at, "--at").items()}
    asked = {k: v for k, v in inputs.items() if v not in (None, [])}
    fitted = _fit_of(
        source, law, prior, noise, discrepancy, group_effect, method, draws, seed,
        (columns, loss_unit, tokens_per_byte, drop_missing, keep_outliers),
    )  # fmt: skip
    folder = cache_folder() / "backtests"
    page = make(
        fitted,
        forecast=fitted.forecast(seed=seed, **asked) if asked else None,
        allocation=fitted.allocate(compute=compute) if compute else None,
        backtest=run(
            fitted.table,
            fitted.law,
            priors=fitted.options["scale_priors"],
            seed=seed,
            folder=folder,
            progress=_say,
        )
        if with_backtest
        else None,
        comparison=compare_laws(fitted.table, _laws(laws), seed=seed, progress=_say) if laws else None,
        tightening=rounds,
        command=shlex.join(["bayescale", *sys.argv[1:]]),
    )
    with written_aside(output) as aside:
        aside.write_text(page, "utf-8")
    print(f"report written to {output}")
    _print_warnings(_fit_warnings(fitted))
    _exit(fitted)


@app.command()
def backtest(
    source: TableSource,
    law: LawOption = "chinchilla",
    splits: Annotated[str, typer.Option(help="Train on runs up to C_max/3, /10, /30.")] = "3,10,30",
    against: Annotated[
        str, typer.Option(help="Peers to score beside the default model.")
    ] = "law-only,huber-bootstrap",
    seed: SeedOption = 0,
    columns: ColumnsOption = None,
    loss_unit: UnitOption = None,
    tokens_per_byte: BytesOption = None,
    drop_missing: DropOption = False,
    keep_outliers: OutliersOption = False,
    as_json: JsonOption = False,
) -> None:
    """How often would these bands have held? Hide the expensive runs, fit the cheap ones, score."""
    from bayescale.backtesting import backtest as run
    from bayescale.files import cache_folder

    table = _table(source, columns, loss_unit, tokens_per_byte, drop_missing, keep_outliers)
    result = run(
        table,
        law,
        factors=[_number(f, "--splits") for f in splits.split(",")],
        methods=["discrepancy", *(m for m in against.split(",") if m)],
        seed=seed,
        folder=cache_folder() / "backtests",
        progress=_say,
    )
    by_split = result.summary(("factor", "method")).reset_index()
    overall = result.summary().reset_index()
    failed = result.scores.loc[~result.scores["passed"].astype(bool), ["factor", "method"]]
    failures = failed.drop_duplicates().to_dict("records")
    if as_json:
        data = {"table": table.name, "overall": overall.to_dict("records")}
        data |= {"splits": by_split.to_dict("records"), "failed_diagnostics": failures}
        print(json.dumps(data, indent=2))
    else:
        _print_frame(by_split, f"{table.name}, split by split (scores in % of loss)")
        _print_frame(overall, "mean over splits")
        for split in failures:
            what = f"{split['method']} at factor {split['factor']:g}"
            _print_warnings([f"do not rely on {what}: its diagnostics failed"])
    if failures:
        raise typer.Exit(1)


@app.command()
def scoreboard(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save every score (.json).")] = None,
    law: LawOption = "chinchilla",
    against: Annotated[
        str, typer.Option(help="Peers to score beside the default model.")
    ] = "law-only,huber-bootstrap",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Backtest on every table at hand, bundled and pulled, and show whose bands hold."""
    from bayescale.files import cache_folder, require_writable, written_aside
    from bayescale.scoreboards import scoreboard as run

    if output:
        require_writable(output)
    methods = ["discrepancy", *(m for m in against.split(",") if m)]
    board = run(law, methods=methods, seed=seed, folder=cache_folder() / "backtests", progress=_say)
    overall = board.backtest.summary().reset_index()
    by_table = board.backtest.summary(("table", "method")).reset_index()
    data = {
        "law": law,
        "overall": overall.to_dict("records"),
        "tables": by_table.to_dict("records"),
        "left_out": board.left_out,
    }
    if output:
        with written_aside(output) as aside:
            runs = board.backtest.scores.to_dict("records")
            aside.write_text(json.dumps(data | {"runs": runs}, indent=1), "utf-8")
    if as_json:
        print(json.dumps(data, indent=2))
        return
    _print_frame(by_table, "table by table (scores in % of loss, log density in nats)")
    _print_frame(overall, "mean over splits")
    for name, reason in board.left_out.items():
        print(f"{name} left out: {reason}")
    if output:
        print(f"saved to {output}")


@app.command()
def compare(
    source: TableSource,
    laws: Annotated[
        str, typer.Option("--laws", help="Names or formulas, comma-separated.")
    ] = "chinchilla,chinchilla-shared,kaplan-floor,kaplan",
    sensitivity: Annotated[
        bool, typer.Option(help="Refit with other prior widths, noise and discrepancy.")
    ] = True,
    heldout: Annotated[bool, typer.Option("--heldout", help="Score hidden expensive runs too.")] = False,
    params: ParamsOption = None,
    tokens: TokensOption = None,
    weights: Annotated[str, typer.Option(help="Average by evidence or stacking.")] = "evidence",
    plot: Annotated[Path | None, typer.Option(help="Draw the comparison here (.svg, .png).")] = None,
    noise: NoiseOption = "student-t",
    discrepancy: DiscrepancyOption = False,
    group_effect: GroupOption = None,
    method: MethodOption = "auto",
    draws: DrawsOption = 1500,
    seed: SeedOption = 0,
    columns: ColumnsOption = None,
    loss_unit: UnitOption = None,
    tokens_per_byte: BytesOption = None,
    drop_missing: DropOption = False,
    keep_outliers: OutliersOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare laws on a table: evidence, prediction, and what the verdict hangs on."""
    from bayescale.comparison import compare as run

    table = _table(source, columns, loss_unit, tokens_per_byte, drop_missing, keep_outliers)
    compared = run(
        table, _laws(laws), sensitivity=sensitivity, heldout=heldout,
        method=method, noise=noise, discrepancy=discrepancy, group_effect=group_effect, draws=draws,
        seed=seed, progress=_say,
    )  # fmt: skip
    inputs = {k: v for k, v in {"params": params, "tokens": tokens}.items() if v}
    averaged = compared.forecast(weights=weights, seed=seed, **inputs) if inputs else None
    if plot:
        from bayescale.plots import plot_comparison, save_figure

        save_figure(plot_comparison(compared), plot)
    warnings = compared.warnings() + (averaged.warnings if averaged else [])
    if as_json:
        data = compared.to_dict() | {"warnings": warnings}
        if averaged:
            data |= {"forecast": averaged.summary().to_dict("records"), "weights": dict(averaged.weights)}
        print(json.dumps(data, indent=2))
    else:
        _print_comparison(compared)
        if averaged:
            _print_frame(
                averaged.summary().T.reset_index(), f"forecast, laws averaged by {weights} (nats/token)"
            )
            _print_frame(averaged.by_law(), "expected loss law by law (nats/token)")
        _print_warnings(warnings)
    if not all(fit.diagnostics.passed for fit in compared.fits.values()):
        raise typer.Exit(1)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train a ladder of small models and write their records; see `bayescale train --help`."""
    raise typer.Exit(_trainer(context.args))


def _trainer(arguments: list[str]) -> int:
    from bayescale_trainer.cli import main as train_main

    return train_main(arguments, prog="bayescale train")


def _table(
    source: str,
    columns: str | None,
    loss_unit: str | None,
    tokens_per_byte: float | None,
    drop_missing: bool,
    keep_outliers: bool,
) -> "RunTable":
    from bayescale.catalogue import load

    options: dict[str, Any] = {
        "columns": _pairs(columns.split(",") if columns else None, "--columns"),
        "loss_unit": loss_unit,
        "tokens_per_byte": tokens_per_byte,
        "drop_missing": drop_missing,
    }
    table = load(source, outliers=True, **{k: v for k, v in options.items() if v})
    kept = table if keep_outliers else table.without_outliers()
    if len(kept) < len(table):
        left = f"{len(table) - len(kept)} of {len(table)} runs"
        _say(f"left out as flagged outliers: {left} (--keep-outliers keeps them)")
    return kept


def _fit_of(
    source: str,
    law: str,
    prior: list[str] | None,
    noise: str,
    discrepancy: bool,
    group_effect: str | None,
    method: str,
    draws: int,
    seed: int,
    table_options: tuple[Any, ...],
) -> "Fit":
    """Load a fit, or make one of a table; those that took NUTS are kept in the cache."""
    from bayescale.files import cache_folder

    if source.endswith(".nc"):
        from bayescale.fitfile import load_fit

        return load_fit(source)

    table = _table(source, *table_options)
    how = [law, prior, noise, discrepancy, group_effect, method, draws, seed]
    kept = cache_folder() / "fits" / f"{_fingerprint(table, how)}.nc"
    if kept.is_file():
        from bayescale.fitfile import load_fit

        return load_fit(kept)
    fitted = _fit(table, law, prior, noise, discrepancy, group_effect, method, draws, seed, None)
    if fitted.options["method"] == "nuts":
        kept.parent.mkdir(parents=True, exist_ok=True)
        fitted.save(kept)
    return fitted


def _fit(
    table: "RunTable",
    law: str,
    prior: list[str] | None,
    noise: str,
    discrepancy: bool,
    group_effect: str | None,
    method: str,
    draws: int,
    seed: int,
    output: Path | None,
) -> "Fit":
    from bayescale.errors import BayescaleError
    from bayescale.files import require_writable
    from bayescale.fitting import fit as make

    if method not in ("auto", "fast", "nuts"):
        raise BayescaleError(f"--method: found {method!r}; expected auto, fast or nuts")
    if output:
        require_writable(output)
    options: dict[str, Any] = {
        "priors": _pairs(prior, "--prior"),
        "noise": noise,
        "discrepancy": discrepancy,
        "group_effect": group_effect,
        "draws": draws,
        "seed": seed,
    }
    if method != "nuts":
        fitted = make(table, law, method="fast", **options)
        if method == "auto" and not fitted.diagnostics.passed:
            _say(f"importance sampling handed over: {fitted.diagnostics.failures[0]}")
            method = "nuts"
    if method == "nuts":
        _say(f"Fitting {law} to the {len(table)} runs of {table.name} by NUTS, a minute or two ...")
        fitted = make(table, law, method="nuts", progress=sys.stderr.isatty(), **options)
    if output:
        fitted.save(output)
    return fitted


def _fingerprint(table: "RunTable", how: list[Any]) -> str:
    from hashlib import sha256
    from importlib.metadata import version

    digest = sha256(table.frame.to_csv().encode())
    digest.update(json.dumps([table.meta.model_dump(), how, version("bayescale")]).encode())
    return digest.hexdigest()[:32]


def _pairs(items: Iterable[str] | None, option: str) -> dict[str, str]:
    from bayescale.errors import BayescaleError

    pairs = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise BayescaleError(f"{option}: found {item!r}; expected NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def _laws(text: str) -> list[str]:
    return [law.strip() for law in text.split(",")]


def _number(text: str, option: str) -> float:
    from bayescale.errors import BayescaleError

    try:
        return float(text)
    except ValueError as error:
        raise BayescaleError(f"{option}: found {text!r}; expected a number") from error


def _with_published(fitted: "Fit") -> "pd.DataFrame":
    """Add the published values of the same law on the same table to a fit's summary."""
    from bayescale.publishedfits import published_fits_of

    summary = fitted.summary()
    for published in published_fits_of(fitted.table.name, fitted.law.formula):
        values = [published.constants.get(str(p), float("nan")) for p in summary.index]
        summary[published.name] = values
    return summary


def _forecast_rows(row: "pd.Series", fitted: "Fit") -> "tuple[pd.DataFrame, str]":
    import pandas as pd

    inputs = ", ".join(
        f"{row[c]:.4g} {'FLOP' if c == 'compute' else c}"
        for c in row.index
        if not c.startswith(("loss", "expected_loss"))
    )
    rows = [
        {"quantity": title}
        | {"median": row[key]}
        | {
            f"{w} band": f"{row[f'{key}_{w}_low']:.4f} - {row[f'{key}_{w}_high']:.4f}"
            for w in ("50%", "80%", "90%")
        }
        | {"unit": "nats/token"}
        for key, title in (("expected_loss", "expected loss"), ("loss", "loss of a new run"))
    ]
    return pd.DataFrame(rows), f"{inputs} ({fitted.law.name} on {fitted.table.name})"


def _print_comparison(compared: "Comparison") -> None:
    summary = compared.summary().reset_index()
    evidence = ["law", "parameters", "log_evidence", "error", "log_bayes_factor", "probability", "reliable"]
    shown = summary[evidence].astype({"log_evidence": object})
    shown["log_evidence"] = [f"{value:.2f}" for value in summary["log_evidence"]]
    title = f"evidence on {compared.table.name}, {len(compared.table)} runs (nats of log loss)"
    _print_frame(shown, title)
    predictive = [c for c in summary if c not in evidence or c == "law"]
    _print_frame(summary[predictive], "\nprediction of left-out runs (PSIS-LOO, nats of log loss)")
    if compared.sensitivity:
        rows = compared.sensitivity_table().reset_index()
        _print_frame(rows, f"\nlog Bayes factors against {compared.labels[0]} (nats)")
    print("\nverdict")
    for sentence in [*compared.verdict(), *map(str, compared.nested())]:
        print(f"- {sentence}")


def _fit_warnings(fitted: "Fit") -> list[str]:
    warnings = [f"do not rely on this fit: {reason}" for reason in fitted.diagnostics.failures]
    if fitted.model.discrepancy is None:
        warnings.append("no discrepancy: bands ignore misfit of the law and are too narrow")
    return warnings


def _print_json(fitted: "Fit", data: dict[str, Any], warnings: list[str] | None = None) -> None:
    header = {
        "table": fitted.table.name,
        "runs": len(fitted.table),
        "law": fitted.law.name,
        "formula": fitted.law.formula,
        "diagnostics": fitted.diagnostics.to_dict() | {"passed": fitted.diagnostics.passed},
        "warnings": _fit_warnings(fitted) if warnings is None else warnings,
    }
    print(json.dumps(header | data, indent=2))


def _print_rows(rows: list[dict[str, Any]], as_json: bool, wrap: tuple[str, ...]) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name not in wrap)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(highlight=False, markup=False).print(table)


def _print_frame(frame: "pd.DataFrame", title: str) -> None:
    # Plain text of any width: a number must never be cropped to fit a terminal.
    cells = [list(map(str, frame.columns)), *([_plain(v) for v in row] for row in frame.to_numpy(object))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(title)
    for row in cells:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    if isinstance(value, list):
        return " - ".join(map(_plain, value))
    return str(value)


def _print_warnings(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"! {warning}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _exit(fitted: "Fit") -> None:
    if not fitted.diagnostics.passed:
        raise typer.Exit(1)
