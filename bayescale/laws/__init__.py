"""Scaling laws as data: formulas, parameters, priors and citations. Knows nothing of PyMC."""

from collections.abc import Iterable, Mapping

from bayescale.errors import LawError
from bayescale.laws.builtin import BUILTIN
from bayescale.laws.centred import CentredLaw
from bayescale.laws.law import INPUT_COLUMNS, Law, Parameter, law_from_formula
from bayescale.laws.priors import Gamma, LogNormal, Normal, Prior, parse_prior

__all__ = [
    "BUILTIN",
    "INPUT_COLUMNS",
    "CentredLaw",
    "Gamma",
    "Law",
    "LogNormal",
    "Normal",
    "Parameter",
    "Prior",
    "find_law",
    "law_from_formula",
    "parse_prior",
]


def find_law(
    law: str | Law,
    *,
    columns: Iterable[str] = (),
    priors: Mapping[str, Prior | str] | None = None,
) -> Law:
    """Return the law meant by a name, a formula or a `Law`, with some priors replaced.

    Parameters
    ----------
    law : str or Law
        A built-in law's name, a formula such as ``"E + A*N**-a"``, or a law.
    columns : iterable of str
        Columns of the run table, whose names a formula may use as inputs.
    priors : mapping, optional
        Parameter to prior.

    Raises
    ------
    LawError
        If the name is unknown or the formula cannot be read.
    """
    if isinstance(law, Law):
        return law.with_priors(priors or {})
    if law in BUILTIN:
        return BUILTIN[law].with_priors(priors or {})
    if not any(mark in law for mark in "+*/("):
        raise LawError(
            f"law {law!r} is unknown; expected one of {', '.join(BUILTIN)}, or a formula such as "
            '"E + A*N**-a"'
        )
    return law_from_formula(law, columns=columns, priors=priors)
