"""Published fits and rules: the constants that papers print, to be evaluated and compared with ours.

A fit gives a loss. A rule gives something else: an optimal size, a batch size, a learning rate.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bayescale.catalogue import DATA
from bayescale.errors import LawError
from bayescale.laws import INPUT_COLUMNS, as_used
from bayescale.laws.formula import compile_formula, names_in

if TYPE_CHECKING:
    from bayescale.runs import RunTable


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
    law : str
        The law that the formula is, where its parameters are not the law's own: a scale where the law has
        an amplitude, say.
    loss_unit : str
        Of the loss it gives.
    """

    name: str
    formula: str
    constants: Mapping[str, float]
    citation: str
    corpus: str = ""
    notes: str = ""
    table: str = ""
    params_convention: str = "total"
    law: str = ""
    loss_unit: str = "nats/token"
    standard_errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        """Input symbol to run-table column."""
        return _columns(self.formula, self.constants)

    def loss(self, **inputs: Any) -> np.ndarray:
        """Evaluate the loss, in `loss_unit`, at inputs by column (``params=``, ``tokens=``, ...).

        Raises
        ------
        LawError
            If an input is missing or unknown.

        Examples
        --------
        >>> float(published_fits()["besiroglu"].loss(params=70e9, tokens=1.4e12).round(3))
        1.974
        """
        return _evaluate(f"published fit {self.name!r}", self.formula, self.constants, inputs)


@dataclass(frozen=True)
class PublishedRule:
    """A formula with printed constants for something other than a loss.

    Attributes
    ----------
    name, citation, notes : str
        For people.
    gives, unit : str
        What it is a rule for, and its unit.
    formula : str
        In the notation of laws; C in FLOP.
    constants : mapping
        Parameter to printed value.
    """

    name: str
    gives: str
    unit: str
    formula: str
    citation: str
    notes: str = ""
    constants: Mapping[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        """Input symbol to run-table column, or to itself."""
        return _columns(self.formula, self.constants)

    def value(self, **inputs: Any) -> np.ndarray:
        """Evaluate the rule, in `unit`, at inputs by column (``params=``, ``tokens=``, ...).

        Raises
        ------
        LawError
            If an input is missing or unknown.

        Examples
        --------
        >>> float(published_rules()["kaplan-optimal-params"].value(compute=8.64e19))
        1300000000.0
        """
        return _evaluate(f"published rule {self.name!r}", self.formula, self.constants, inputs)


@cache
def published_fits() -> dict[str, PublishedFit]:
    """Return all published fits by name."""
    data = tomllib.loads((DATA / "published_fits.toml").read_text("utf-8"))
    return {entry["name"]: PublishedFit(**entry) for entry in data["fit"]}


@cache
def published_rules() -> dict[str, PublishedRule]:
    """Return all published rules by name."""
    data = tomllib.loads((DATA / "published_rules.toml").read_text("utf-8"))
    return {entry["name"]: PublishedRule(**entry) for entry in data["rule"]}


def published_fits_of(table: "RunTable", formula: str) -> list[PublishedFit]:
    """Return the published fits of a law's formula to a table, which a file of its name is not."""
    if not table.meta.citation:
        return []
    return [p for p in published_fits().values() if (p.table, p.formula) == (table.name, formula)]


def _columns(formula: str, constants: Mapping[str, float]) -> dict[str, str]:
    return {s: INPUT_COLUMNS.get(s, s) for s in sorted(names_in(formula) - set(constants))}


def _evaluate(
    what: str, formula: str, constants: Mapping[str, float], inputs: Mapping[str, Any]
) -> np.ndarray:
    columns = _columns(formula, constants)
    if inputs.keys() != set(columns.values()):
        raise LawError(f"{what} needs {sorted(columns.values())}; found {sorted(inputs)}")
    function = compile_formula(formula, columns, np, constants)
    used = as_used({symbol: np.asarray(inputs[column], float) for symbol, column in columns.items()})
    return np.asarray(function(*used.values()))
