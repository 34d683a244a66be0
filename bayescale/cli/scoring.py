"""`bayescale backtest` and `scoreboard`: how often bands would have held."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bayescale.cli.options import (
    PEERS,
    AgainstOption,
    GroupOption,
    JsonOption,
    LawOption,
    NoiseOption,
    PriorOption,
    SeedOption,
    TableOptions,
    TableSource,
    names,
    number,
    priors_given,
)
from bayescale.cli.output import exit_by, json_text, print_data, print_frame, print_warnings, say


def backtest(
    source: TableSource,
    *,
    law: LawOption = "chinchilla",
    prior: PriorOption = None,
    noise: NoiseOption = "student-t",
    group_effect: GroupOption = None,
    splits: Annotated[str, typer.Option(help="Train on runs up to C_max/3, /10, /30.")] = "3,10,30",
    against: AgainstOption = PEERS,
    seed: SeedOption = 0,
    reading: TableOptions,
    as_json: JsonOption = False,
) -> None:
    """How often would these bands have held? Hide the expensive runs, fit the cheap ones, score."""
    from bayescale.backtesting import backtest as run
    from bayescale.files import cache_folder

    how: dict[str, Any] = {"priors": priors_given(prior, noise=noise), "noise": noise}
    table = reading.load(source)
    result = run(
        table,
        law,
        **how,
        group_effect=group_effect,
        factors=[number(f, "--splits") for f in splits.split(",")],
        methods=["discrepancy", *names(against)],
        seed=seed,
        folder=cache_folder() / "backtests",
        progress=say,
    )
    by_split = result.summary(("factor", "method")).reset_index()
    overall = result.summary().reset_index()
    failures = result.failures
    if as_json:
        data = {"table": table.name, **result.options, "overall": overall.to_dict("records")}
        data |= {"splits": by_split.to_dict("records"), "failed_diagnostics": failures}
        print_data(data)
    else:
        print_frame(by_split, f"{table.name}, split by split (scores in % of loss)")
        print_frame(overall, "mean over splits")
        print(f"fits: {_as_words(result.options)}")
        print_warnings(result.warnings)
    exit_by(not failures)


def _as_words(options: Mapping[str, Any]) -> str:
    said = [options["law"], f"{options['noise']} noise"]
    said += [f"prior {name}={prior}" for name, prior in options["priors"].items()]
    said += [f"offsets by {options['group_effect']}"] if options["group_effect"] not in (None, "none") else []
    return ", ".join(said)


def scoreboard(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save every score (.json).")] = None,
    law: LawOption = "chinchilla",
    against: AgainstOption = PEERS,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Backtest on every table at hand, bundled and pulled, and show whose bands hold."""
    from bayescale.files import cache_folder, require_writable, written_aside
    from bayescale.scoreboards import scoreboard as run

    if output:
        require_writable(output)
    methods = ["discrepancy", *names(against)]
    board = run(law, methods=methods, seed=seed, folder=cache_folder() / "backtests", progress=say)
    overall = board.backtest.summary().reset_index()
    by_table = board.backtest.summary(("table", "method")).reset_index()
    data = {
        "law": law,
        "overall": overall.to_dict("records"),
        "tables": by_table.to_dict("records"),
        "left_out": board.left_out,
        "failed_diagnostics": board.backtest.failures,
    }
    if output:
        with written_aside(output) as aside:
            runs = board.backtest.scores.to_dict("records")
            aside.write_text(json_text(data | {"runs": runs}, indent=1), "utf-8")
    if as_json:
        print_data(data)
    else:
        print_frame(by_table, "table by table (scores in % of loss, log density in nats)")
        print_frame(overall, "mean over splits")
        for name, reason in board.left_out.items():
            print(f"{name} left out: {reason}")
        if output:
            print(f"saved to {output}")
        print_warnings(board.backtest.warnings)
    exit_by(not data["failed_diagnostics"])
