"""`bayescale tables` and `bayescale check`: the run tables at hand, and their pitfalls."""

from pathlib import Path
from typing import Annotated

import typer

from bayescale.cli.options import FileOptions, JsonOption, TableSource
from bayescale.cli.output import plain, print_data, print_rows
from bayescale.cli.training import train_ladder
from bayescale.errors import BayescaleError

tables_app = typer.Typer(help="Run tables: bundled ones, and published ones to pull.")


@tables_app.callback()
def list_tables(context: typer.Context, as_json: JsonOption = False) -> None:
    """List run tables."""
    if context.invoked_subcommand:
        if as_json:
            raise BayescaleError(
                "--json: expected after the subcommand, as in `bayescale tables show NAME --json`"
            )
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
    print_rows(rows, as_json, wrap=("title", "citation"))


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
        print_data(details)
        return
    for key, value in details.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {plain(v)}" for k, v in value.items())
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


def check(
    source: TableSource,
    *,
    file: FileOptions,
    as_json: JsonOption = False,
) -> None:
    """Report pitfalls in a run table or a ladder (.toml), each with a code, a sentence and a citation."""
    from bayescale.checks import check as find

    if source.endswith(".toml"):
        if as_json:
            raise BayescaleError(f"--json is for run tables; {source} is a ladder, which is reported as text")
        if file != FileOptions():
            raise BayescaleError(f"options for files of runs cannot apply to {source}, which is a ladder")
        raise typer.Exit(train_ladder([source, "--check"]))
    table = file.load_all(source)
    findings = [vars(f) for f in find(table)]
    if as_json:
        print_data({"table": table.name, "runs": len(table), "findings": findings})
    elif not findings:
        print(f"{table.name}: {len(table)} runs, no pitfalls found")
    else:
        print_rows(findings, as_json, wrap=("message",))
