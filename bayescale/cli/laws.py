"""`bayescale laws`: the catalogue of laws."""

import typer

from bayescale.cli.options import JsonOption
from bayescale.cli.output import print_data, print_rows
from bayescale.errors import BayescaleError

laws_app = typer.Typer(help="The laws that a fit can be asked for by name.")


@laws_app.callback()
def listnames(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the built-in laws."""
    if context.invoked_subcommand:
        if as_json:
            raise BayescaleError(
                "--json: expected after the subcommand, as in `bayescale laws show NAME --json`"
            )
        return
    from bayescale.laws import BUILTIN

    rows = [
        {"name": law.name, "inputs": ", ".join(law.columns), "title": law.title, "formula": law.formula}
        for law in BUILTIN.values()
    ]
    if not as_json:  # four columns would leave a terminal's width to none of them
        texts = [f"{r['title']}\n{r['formula']}\nof {r['inputs']}" for r in rows]
        rows = [{"name": r["name"], "law": text} for r, text in zip(rows, texts, strict=True)]
    print_rows(rows, as_json, wrap=("law",))


@laws_app.command("show")
def show_law(name: str, as_json: JsonOption = False) -> None:
    """Show a law: formula, parameters with priors, what it nests, published fits, tables that feed it."""
    from bayescale.laws import law_details

    details = law_details(name)
    if as_json:
        print_data(details)
        return
    for key in ("name", "title", "formula", "latex", "citation", "nests", "published_fits", "tables"):
        value = details[key]
        print(f"{key.replace('_', ' '):15} {', '.join(value) if isinstance(value, list) else value}")
    print()
    print_rows(details["parameters"], as_json, wrap=("meaning",))
