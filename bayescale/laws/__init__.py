"""Scaling laws as data: formulas, parameters, priors and citations. Knows nothing of PyMC."""

from collections.abc import Iterable, Mapping
from typing import Any

from bayescale.errors import LawError, did_you_mean
from bayescale.laws.builtin import BUILTIN
from bayescale.laws.centred import CentredLaw
from bayescale.laws.formula import bases_in, names_in
from bayescale.laws.law import AT_MOST, INPUT_COLUMNS, Law, Parameter, as_used, law_from_formula
from bayescale.laws.priors import (
    Either,
    Gamma,
    LogNormal,
    Normal,
    Prior,
    parse_prior,
    parse_priors,
    sample_priors,
)

__all__ = [
    "AT_MOST",
    "BUILTIN",
    "INPUT_COLUMNS",
    "CentredLaw",
    "Either",
    "Gamma",
    "Law",
    "LogNormal",
    "Normal",
    "Parameter",
    "Prior",
    "as_used",
    "find_law",
    "law_details",
    "law_from_formula",
    "parse_prior",
    "parse_priors",
    "sample_priors",
]


def law_details(name: str) -> dict[str, Any]:
    """Return all that is known of a built-in law, as plain data.

    Raises
    ------
    LawError
        If the name is unknown.
    """
    from bayescale.catalogue import columns_of, tables
    from bayescale.publishedfits import published_fits

    if name not in BUILTIN:
        raise LawError(f"law {name!r} is unknown; `bayescale laws` lists names")
    law = BUILTIN[name]
    return {
        "name": law.name,
        "title": law.title,
        "formula": law.formula,
        "latex": law.latex,
        "citation": law.citation,
        "inputs": dict(zip(law.inputs, law.columns, strict=True)),
        "nests": list(law.nests),
        "published_fits": [
            p.name for p in published_fits().values() if p.law == name or p.formula == law.formula
        ],
        "tables": [e.name for e in tables() if set(law.columns) <= columns_of(e.name)],
        "parameters": [
            {
                "name": p.name,
                "prior": str(p.prior),
                "prior_of": p.at_centre or "",
                "unit": p.unit,
                "meaning": p.meaning,
            }
            for p in law.parameters
        ],
    }


def find_law(
    law: str | Law,
    *,
    columns: Iterable[str] = (),
    shares: Iterable[str] = (),
    priors: Mapping[str, Prior | str] | None = None,
) -> Law:
    """Return the law meant by a name, a formula or a `Law`, with some priors replaced.

    Parameters
    ----------
    law : str or Law
        A built-in law's name, a formula such as ``"E + A*N**-a"``, or a law.
    columns : iterable of str
        Columns of the run table, whose names a formula may use as inputs.
    shares : iterable of str
        Those of them that are at most one in every run.
    priors : mapping, optional
        Parameter to prior.

    Raises
    ------
    LawError
        If the name is unknown, the formula cannot be read, or a symbol of it is a column and the name of some
        built-in law's parameter.
    """
    if isinstance(law, Law):
        return law.with_priors(priors or {})
    if not isinstance(law, str):
        raise LawError(
            f"law: found a {type(law).__name__}; expected a built-in law's name, a formula or a Law"
        )
    if law in BUILTIN:
        return BUILTIN[law].with_priors(priors or {})
    if not any(mark in law for mark in "+*/("):
        one_of = f'expected one of {", ".join(BUILTIN)}, or a formula such as "E + A*N**-a"'
        known = f"{did_you_mean(law, BUILTIN)} {one_of}"
        raise LawError(f"law {law!r} is unknown; {known.lstrip()}")
    columns = set(columns)
    by_custom = {p.name for other in BUILTIN.values() for p in other.parameters}
    # What is raised to a power that is a parameter is an input.
    if both := sorted(columns & names_in(law) & by_custom - bases_in(law)):
        raise LawError(
            f"law {law!r}: {both[0]!r} is a column of the table, and by custom a parameter; which is meant "
            f"cannot be told. Call the parameter {both[0]}0, say, or the column otherwise (--columns "
            f"'other_name={both[0]}')"
        )
    return law_from_formula(law, columns=columns, shares=shares, priors=priors)
