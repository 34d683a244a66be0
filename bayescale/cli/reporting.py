"""`bayescale report`: one page with all of it."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from bayescale.cli.fitting import fit_of
from bayescale.cli.options import (
    AtOption,
    FitOptions,
    ParamsOption,
    Source,
    TableOptions,
    TokensOption,
    names,
    size,
    target_inputs,
)
from bayescale.cli.output import exit_by, print_warnings, say


def report(
    source: Source,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the page (.html).")],
    params: ParamsOption = None,
    tokens: TokensOption = None,
    at: AtOption = None,
    compute: Annotated[
        list[float] | None, typer.Option(parser=size, metavar="C", help="Allocate: budget, FLOP. Repeatable.")
    ] = None,
    with_backtest: Annotated[
        bool, typer.Option("--backtest", help="Score the bands on hidden runs; kept scores are used.")
    ] = False,
    laws: Annotated[
        str | None, typer.Option(help="Compare these laws alone, comma-separated, on the same runs.")
    ] = None,
    tightened: Annotated[
        Path | None, typer.Option("--tighten", help="Show the rounds in this folder of `bayescale tighten`.")
    ] = None,
    how: FitOptions,
    reading: TableOptions,
) -> None:
    """Write one self-contained page: the answers asked for, figures, diagnostics, how to make it again."""
    from bayescale.backtesting import backtest as run
    from bayescale.comparison import compare as compare_laws
    from bayescale.files import cache_folder, require_writable, written_aside
    from bayescale.reports import report as make
    from bayescale.rounds import read_tightening

    require_writable(output, suffix=".html", source=source)
    rounds = read_tightening(tightened) if tightened else None
    asked = target_inputs(at, params=params, tokens=tokens)
    fitted = fit_of(source, reading, how)
    folder = cache_folder() / "backtests"
    held = {name: value for name, value in asked.items() if name not in ("params", "tokens", "compute")}
    # What is held alone is no run to forecast.
    asked = {} if compute and asked.keys() == held.keys() else asked
    # What was asked for wrongly is told before what takes long.
    forecast = fitted.forecast(seed=how.seed, **asked) if asked else None
    allocation = fitted.allocate(compute=compute, held=held, seed=how.seed) if compute else None
    same = {name: fitted.options[name] for name in ("noise", "group_effect")}
    backtested = (
        run(
            fitted.table, fitted.law, priors=fitted.priors, **same, seed=how.seed, folder=folder, progress=say
        )
        if with_backtest
        else None
    )  # fmt: skip
    compared = (
        compare_laws(
            fitted.table, names(laws), priors=fitted.options["priors"], **same, method=how.method,
            draws=how.draws, seed=how.seed, progress=say,
        )
        if laws
        else None
    )  # fmt: skip
    page = make(
        fitted,
        forecast=forecast,
        allocation=allocation,
        backtest=backtested,
        comparison=compared,
        tightening=rounds,
        command=shlex.join(["bayescale", *sys.argv[1:]]),
    )
    with written_aside(output) as aside:
        aside.write_text(page, "utf-8")
    print(f"report written to {output}")
    print_warnings(fitted.warnings)
    print_warnings(backtested.warnings if backtested else [])
    print_warnings(compared.warnings if compared else [])
    made = [fitted, *(compared.fits.values() if compared else ())]
    passed = all(fit.diagnostics.passed for fit in made)
    exit_by(passed and not (backtested and backtested.failures))
