"""Pages of the documentation that are made from the code and the data when the site is built."""

from pathlib import Path

import jupytext

from bayescale.catalogue import entry_details, load, tables
from bayescale.laws import BUILTIN, law_details
from bayescale.publishedfits import published_fits, published_rules
from bayescale.units import LOSS_UNITS

ROOT = Path(__file__).parents[1]


def write(folder: Path) -> None:
    """Write every generated page into `folder`, only where it changed, so that builds stay incremental."""
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    pages = {"laws.md": law_page(), "tables.md": table_page(), "fits.md": fit_page(), "rules.md": rule_page()}
    pages |= {"units.inc.md": unit_lines()}
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    for source in sorted((ROOT / "notebooks").glob("*.py")):
        path = folder / "notebooks" / f"{source.stem}.ipynb"
        if not path.is_file() or path.stat().st_mtime < source.stat().st_mtime:
            notebook = jupytext.read(source)
            notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
            jupytext.write(notebook, path)


def law_page() -> str:
    """Return the catalogue of laws, a section each."""
    lines = [
        "# Laws",
        "",
        "The laws that a fit can be asked for by name (`--law NAME`), made from "
        "`bayescale/laws/families/` when these pages were built. Priors of amplitudes are on the loss their "
        "term adds at the table's centre.",
        "",
    ]
    for name, law in BUILTIN.items():
        details = law_details(name)
        facts = {
            "Citation": law.citation,
            "Inputs": ", ".join(f"{s} ({c})" if s != c else c for s, c in details["inputs"].items()),
            "Nests": ", ".join(law.nests),
            "Published fits": ", ".join(details["published_fits"]),
            "Tables that feed it": ", ".join(details["tables"]),
        }
        lines += [f"## {name}", "", law.title, "", f"$$ {law.latex} $$", ""]
        lines += [*(f"- {key}: {value}" for key, value in facts.items() if value), ""]
        lines += ["| parameter | prior | unit | meaning |", "|---|---|---|---|"]
        for p in details["parameters"]:
            of = f" of `{p['prior_of']}`" if p["prior_of"] else ""
            lines.append(f"| `{p['name']}` | {p['prior']}{of} | {p['unit']} | {p['meaning']} |")
        lines.append("")
    return "\n".join(lines)


def table_page() -> str:
    """Return the catalogue of run tables, a section each."""
    lines = [
        "# Run tables",
        "",
        "Bundled tables are there at once; published ones are fetched, verified and kept by "
        "`bayescale tables pull NAME`. Made from `data/` when these pages were built.",
        "",
    ]
    for bundled, title in ((True, "Bundled"), (False, "Published, to pull")):
        lines += [f"## {title}", ""]
        for entry in (e for e in tables() if e.bundled is bundled):
            lines += [f"### {entry.name}", "", entry.title, "", *_facts(entry.name, bundled), ""]
    return "\n".join(lines)


def _facts(name: str, bundled: bool) -> list[str]:
    about = entry_details(name)
    facts = {
        "Citation": about["citation"],
        "Corpus": about.get("corpus", ""),
        "Tokenizer": about.get("tokenizer", ""),
        "Losses published in": about.get("loss_unit", "nats/token"),
        "Params count": about.get("params_convention", "unknown"),
        "Licence": about.get("licence", ""),
        "Obtained": about.get("obtained", ""),
        "Notes": about.get("notes", ""),
    }
    if rate := about.get("entropy_rate"):
        facts["Exact entropy rate"] = f"{rate:.4f} nats/token"
    if bundled:
        table = load(name, outliers=True)
        facts["Runs"] = str(len(table))
        facts["Columns"] = ", ".join(
            f"{c} {v.min():.3g} to {v.max():.3g}"
            for c, v in table.frame.select_dtypes("float").items()
            if c != "loss_rounding"
        )
    return [f"- {key}: {value}" for key, value in facts.items() if value]


def fit_page() -> str:
    """Return the published fits: formula, constants, citation."""
    lines = [
        "# Published fits",
        "",
        "The constants that papers print, as `bayescale.published_fits()` has them.",
        "",
    ]
    for fit in published_fits().values():
        errors = fit.standard_errors
        constants = [
            f"{k} = {v:g}" + (f" ± {errors[k]:g}" if k in errors else "") for k, v in fit.constants.items()
        ]
        lines += [f"## {fit.name}", "", f"`L = {fit.formula}`", "", f"- Constants: {', '.join(constants)}"]
        facts = {"Citation": fit.citation, "Corpus": fit.corpus, "Table": fit.table, "Notes": fit.notes}
        lines += [*(f"- {key}: {value}" for key, value in facts.items() if value), ""]
    return "\n".join(lines)


def rule_page() -> str:
    """Return the published rules: formula, constants, citation."""
    lines = [
        "# Published rules",
        "",
        "What papers print for something other than a loss, as `bayescale.published_rules()` has it.",
        "",
    ]
    for rule in published_rules().values():
        constants = ", ".join(f"{k} = {v:g}" for k, v in rule.constants.items())
        what = f"{rule.gives}, {rule.unit}" if rule.unit else rule.gives
        lines += [f"## {rule.name}", "", f"`{rule.formula}`", "", f"- Gives: {what}"]
        facts = {"Constants": constants, "Citation": rule.citation, "Notes": rule.notes}
        lines += [*(f"- {key}: {value}" for key, value in facts.items() if value), ""]
    return "\n".join(lines)


def unit_lines() -> str:
    """Return the loss units as a list."""
    return "\n".join(f"- `{unit}`" for unit in LOSS_UNITS) + "\n"
