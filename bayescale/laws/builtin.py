"""The built-in laws: data, one TOML file per family under ``families/``; a new file is found by itself.

An entry gives name, title, formula, citation, the names of laws it nests, and for every parameter its prior,
unit, meaning and, for a scale that the loss is not linear in, the term at the table's centre that carries the
prior (`bayescale.laws.Parameter`).
"""

import tomllib
from pathlib import Path

from bayescale.errors import LawError
from bayescale.laws.law import Law, Parameter
from bayescale.laws.priors import parse_prior

FAMILIES = Path(__file__).parent / "families"


def read_laws(folder: Path) -> dict[str, Law]:
    """Return the laws of a folder's TOML files by name.

    Raises
    ------
    LawError
        If an entry is incomplete or wrong, or two laws share a name.
    """
    laws: dict[str, Law] = {}
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text("utf-8"))["law"]:
            try:
                law = _read(entry)
            except (KeyError, TypeError, LawError) as error:
                name = entry.get("name", "without a name")
                raise LawError(f"{path.name}, law {name!r}: {error}; see the other families") from error
            if law.name in laws:
                raise LawError(f"{path.name}: a law called {law.name!r} exists already")
            laws[law.name] = law
    return laws


def _read(entry: dict) -> Law:
    parameters = tuple(
        Parameter(name, **(given | {"prior": parse_prior(given["prior"])}))
        for name, given in entry["parameters"].items()
    )
    rest = {key: entry[key] for key in ("name", "formula", "title", "citation")}
    return Law(**rest, parameters=parameters, nests=tuple(entry.get("nests", ())))


BUILTIN: dict[str, Law] = read_laws(FAMILIES)
