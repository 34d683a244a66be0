"""Published fits: the constants that papers print, to be evaluated and compared with our posteriors."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import sympy as sp

from bayescale.catalogue import DATA
from bayescale.errors import LawError
from bayescale.laws import INPUT_COLUMNS
from bayescale.laws.formula import parse_formula


@dataclass(frozen=True)
class PublishedFit:
    """A law with the constants a paper prints.

    Attributes
    ----------
    name, citation, corpus, notes : str
        For people.
    formula : str
        In the notation of laws; loss in nats/token, C in FLOP.
    constants : mapping
        Parameter to printed value.
    standard_errors : mapping
        Printed standard errors, where there are any.
    table : str
        The bundled table it was fitted to, where there is one.
    params_convention : str
        What N counts.
    """

    name: str
    formula: str
    constants: Mapping[str, float]
    citation: str
    corpus: str = ""
    notes: str = ""
    table: str = ""
    params_convention: str = "total"
    standard_errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        """Input symbol to run-table column."""
        free = {s.name for s in parse_formula(self.formula).free_symbols} - set(self.constants)
        return {s: INPUT_COLUMNS[s] for s in sorted(free)}

    def loss(self, **inputs: Any) -> np.ndarray:
        """Evaluate the loss, nats/token, at inputs by column (``params=``, ``tokens=``, ...).

        Raises
        ------
        LawError
            If an input is missing or unknown.

        Examples
        --------
        >>> float(published_fits()["besiroglu"].loss(params=70e9, tokens=1.4e12).round(3))
        1.974
        """
        columns = self.columns
        if inputs.keys() != set(columns.values()):
            raise LawError(
                f"published fit {self.name!r} needs {sorted(columns.values())}; found {sorted(inputs)}"
            )
        expression = parse_formula(self.formula)
        symbols = {s.name: s for s in expression.free_symbols}
        numbers = {symbols[k]: v for k, v in self.constants.items()}
        function = sp.lambdify([symbols[s] for s in columns], expression.subs(numbers), "numpy")
        return np.asarray(function(*(np.asarray(inputs[c], float) for c in columns.values())))


@cache
def published_fits() -> dict[str, PublishedFit]:
    """Return all published fits by name."""
    data = tomllib.loads((DATA / "published_fits.toml").read_text("utf-8"))
    return {entry["name"]: PublishedFit(**entry) for entry in data["fit"]}


def published_fits_of(table: str, formula: str) -> list[PublishedFit]:
    """Return the published fits of a law's formula to a bundled table."""
    return [p for p in published_fits().values() if (p.table, p.formula) == (table, formula)]
