"""The command line. Heavy imports happen inside commands, so that ``--help`` answers at once.

Exit codes: 0 done; 1 done, but the fit's diagnostics failed and every output says so; 2 bad input or usage,
or output that cannot be written; 130 interrupted; 141 nobody reads the output any more.
"""

import gc
import os
import sys

import typer

from bayescale.cli.comparing import compare
from bayescale.cli.fitting import allocate, fit, forecast
from bayescale.cli.interrupts import came_of, end_interrupted, end_unread, resend_lost_interrupts
from bayescale.cli.laws import laws_app
from bayescale.cli.options import with_groups
from bayescale.cli.planning import plan, tighten
from bayescale.cli.reporting import report
from bayescale.cli.scoring import backtest, scoreboard
from bayescale.cli.tables import check, tables_app
from bayescale.cli.training import train

app = typer.Typer(
    help="Bayesian scaling laws: forecasts of training loss whose bands hold as often as they claim.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(tables_app, name="tables", invoke_without_command=True)
app.add_typer(laws_app, name="laws", invoke_without_command=True)
for command in (check, fit, forecast, allocate, plan, tighten, report, backtest, scoreboard, compare):
    app.command()(with_groups(command))
app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)(train)


def main() -> None:
    """Run the command line; turn our errors into one message and an exit code."""
    from bayescale.errors import BayescaleError

    resend_lost_interrupts()
    gc.set_threshold(50_000)  # imports and fits make hardly any cycles; to look for them takes a twentieth
    try:
        try:
            app()
        finally:
            print(end="", flush=True)
    except BayescaleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        end_interrupted()
    except (SystemExit, BrokenPipeError) as end:
        if came_of(end, KeyboardInterrupt):
            end_interrupted()
        if came_of(end, BrokenPipeError):  # whoever reads the output has read enough
            end_unread()
        raise
    except OSError as error:
        if error.filename is not None:
            print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
            sys.exit(2)
        # What is left to print would fail once more when Python ends, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: {error}; what was printed is incomplete", file=sys.stderr)
        sys.exit(2)
