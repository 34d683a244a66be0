"""What a law is: a formula from inputs to loss, with named parameters and priors. A law is data.

>>> from bayescale.laws import law_from_formula
>>> law = law_from_formula("E + A*N**-a")
>>> law.inputs, law.floor, law.linear_parameters
(('N',), 'E', ('A', 'E'))
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bayescale.errors import LawError
from bayescale.laws.formula import names_in, parse_formula, with_names, with_numbers
from bayescale.laws.priors import LogNormal, Prior, parse_prior, parse_priors

if TYPE_CHECKING:
    import sympy as sp

# Symbols that always mean an input, and the run-table column each is read from. A symbol that is the
# name of a column means that column.
INPUT_COLUMNS = {"N": "params", "D": "tokens", "C": "compute", "U": "unique_tokens"}
# What a run cannot have more of than of another: of a larger pool it sees as many tokens as it trains on.
AT_MOST = {"U": "D", "unique_params": "N"}

# Priors for parameters that a user's formula leaves without one; DESIGN of the built-in families:
# 138 published refits have exponents with median .40 (5-95%: .13-.61), floors from .17 to 4.3 nats.
FLOOR_PRIOR = LogNormal(1.5, 0.5)
TERM_PRIOR = LogNormal(0.5, 0.7)
EXPONENT_PRIOR = LogNormal(0.4, 0.35)
# Without a floor a power law bends to fit the whole loss: large amplitude, small exponent.
BARE_TERM_PRIOR = LogNormal(2.0, 0.7)
BARE_EXPONENT_PRIOR = LogNormal(0.1, 0.7)


@dataclass(frozen=True)
class Parameter:
    """One named parameter of a law.

    Attributes
    ----------
    name : str
        As in the formula.
    prior : Prior
        On the parameter, or on `at_centre` where that is given.
    unit, meaning : str
        For people.
    at_centre : str, optional
        An expression holding this parameter whose value at the table's centre carries the prior and is
        sampled in the parameter's place, as ``name_centre``. Amplitudes get one by themselves (their
        term in the formula): published amplitudes extrapolate to one parameter and one token, where
        nobody has prior knowledge.
    centre_unit : str, optional
        Unit of the value at the centre, where `at_centre` has another than the parameter.
    """

    name: str
    prior: Prior
    unit: str = ""
    meaning: str = ""
    at_centre: str | None = None
    centre_unit: str | None = None


@dataclass(frozen=True)
class Law:
    """A formula from inputs (params N, tokens D, ...) to loss, with named parameters and priors.

    Attributes
    ----------
    name : str
        One word.
    formula : str
        In the notation of `bayescale.laws.formula.parse_formula`.
    parameters : tuple of Parameter
        Every symbol of the formula that is no input.
    title, citation : str
        For people; the citation holds the arXiv id.
    nests : tuple of str
        Names of laws that this one contains as special cases.
    shares : tuple of str
        Inputs that are at most one: a term times 1 - share adds to the loss.
    """

    name: str
    formula: str
    parameters: tuple[Parameter, ...]
    title: str = ""
    citation: str = ""
    nests: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [p.name for p in self.parameters]
        if len(set(names)) < len(names):
            raise LawError(f"law {self.name!r}: a parameter is given twice among {names}")
        free = names_in(self.formula)
        if unused := set(names) - free:
            raise LawError(f"law {self.name!r}: {sorted(unused)} do not occur in {self.formula!r}")
        _require_inputs(self.formula, self.inputs)
        self._require_own_names(names)
        self._require_priors()

    def _require_own_names(self, names: Iterable[str]) -> None:
        # Symbols that the law's form about the table's centre is written with.
        taken = {f"{i}_0" for i in self.inputs} | {f"x_{i}" for i in self.inputs}
        taken |= {f"{name}_centre" for name in names}
        if used := sorted(taken & {*names, *self.inputs}):
            raise LawError(
                f"law {self.name!r}: the name {used[0]!r} is used within; give the parameter another name"
            )

    def _require_priors(self) -> None:
        priors = {p.name: p.prior for p in self.parameters}
        for name, prior in priors.items():
            if prior.about and not isinstance(getattr(priors.get(prior.about), "median", None), int | float):
                raise LawError(
                    f"law {self.name!r}: the prior {prior} of {name} lies about {prior.about!r}; expected a "
                    "parameter of the law with a log-normal prior of its own, about a number. Or give "
                    f"{name} a prior about a number, too, such as LogNormal(0.4, 0.35)"
                )

    @cached_property
    def expression(self) -> "sp.Expr":
        """The formula as SymPy sees it."""
        real = frozenset(p.name for p in self.parameters if not p.prior.positive)
        return parse_formula(self.formula, real)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Symbols of the formula that are no parameters; N, D, C, U first."""
        names = {p.name for p in self.parameters}
        found = names_in(self.formula) - names
        return tuple(sorted(found, key=lambda s: ("NDCU".find(s) % 9, s)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Run-table columns that the inputs are read from."""
        return tuple(INPUT_COLUMNS.get(name, name) for name in self.inputs)

    @cached_property
    def linear_parameters(self) -> tuple[str, ...]:
        """Parameters in which the loss is jointly linear, found from the formula."""
        from bayescale.laws.derived import derive

        return derive(self).linear

    @cached_property
    def floor(self) -> str | None:
        """The parameter that is the irreducible loss: linear, and alone."""
        from bayescale.laws.derived import derive

        return derive(self).floor

    @property
    def has_floor(self) -> bool:
        """Whether the loss has an irreducible part, be it a parameter or held at a number."""
        from bayescale.laws.derived import derive

        return self.floor is not None or derive(self).held_floor > 0

    @property
    def latex(self) -> str:
        """The formula typeset."""
        import sympy as sp

        return "L = " + sp.latex(self.expression)

    def symbol(self, name: str) -> "sp.Symbol":
        """Return the SymPy symbol of a parameter or input."""
        for symbol in self.expression.free_symbols:
            if symbol.name == name:
                return symbol
        raise LawError(f"law {self.name!r} has no symbol {name!r}; it has {self.formula!r}")

    def parameter(self, name: str) -> Parameter:
        """Return a parameter by name.

        Raises
        ------
        LawError
            If the law has no such parameter.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        names = ", ".join(p.name for p in self.parameters)
        raise LawError(f"law {self.name!r} has no parameter {name!r}; it has {names}")

    def with_priors(self, priors: Mapping[str, Prior | str]) -> "Law":
        """Return the same law with some priors replaced (of a term at the centre, for an amplitude)."""
        parsed = parse_priors(priors)
        for name in parsed:
            self.parameter(name)
        parameters = tuple(
            replace(p, prior=parsed[p.name]) if p.name in parsed else p for p in self.parameters
        )
        return replace(self, parameters=parameters)

    def with_constants(self, constants: Mapping[str, float]) -> "Law":
        """Return the law with some parameters held at numbers, by their names in the formula.

        Raises
        ------
        LawError
            If the law has no such parameter, or no parameter is left.

        Examples
        --------
        >>> law_from_formula("E + A*N**-a").with_constants({"a": 0.35}).formula
        'E + A * N ** (-0.35)'
        """
        for name in constants:
            self.parameter(name)
        parameters = tuple(
            replace(
                p,
                at_centre=with_numbers(p.at_centre, constants) if p.at_centre else None,
                prior=p.prior.given(constants) if p.prior.about in constants else p.prior,
            )
            for p in self.parameters
            if p.name not in constants
        )
        if not parameters:
            raise LawError(f"law {self.name!r}: every parameter is held; expected at least one to be free")
        return replace(self, formula=with_numbers(self.formula, constants), parameters=parameters)

    def to_dict(self) -> dict:
        """Return plain data that `from_dict` reads back; no code travels with it."""
        parameters = [
            {"name": p.name, "prior": str(p.prior), "unit": p.unit, "meaning": p.meaning}
            | ({"at_centre": p.at_centre} if p.at_centre else {})
            | ({"centre_unit": p.centre_unit} if p.centre_unit else {})
            for p in self.parameters
        ]
        return {
            "name": self.name,
            "formula": self.formula,
            "parameters": parameters,
            "title": self.title,
            "citation": self.citation,
            "nests": list(self.nests),
            "shares": list(self.shares),
        }

    @classmethod
    def from_dict(cls, data: Mapping) -> "Law":
        """Inverse of `to_dict`."""
        parameters = tuple(Parameter(**(p | {"prior": parse_prior(p["prior"])})) for p in data["parameters"])
        names = {key: tuple(data[key]) for key in ("nests", "shares")}
        return cls(**(dict(data) | {"parameters": parameters} | names))


def as_used(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs by symbol, with no more unique tokens than tokens.

    >>> print(as_used({"D": 2e10, "U": 1e12})["U"])
    20000000000.0
    """
    most = {name: inputs[of] for name, of in AT_MOST.items() if of in inputs}
    return {
        name: np.minimum(value, most[name])[()] if name in most else value for name, value in inputs.items()
    }


def law_from_formula(
    formula: str,
    *,
    columns: Iterable[str] = (),
    shares: Iterable[str] = (),
    priors: Mapping[str, Prior | str] | None = None,
) -> Law:
    """Make a law of a user's own formula, with default priors where its structure tells them.

    Parameters
    ----------
    formula : str
        For example ``"E + A*N**-a"``; ``params``, ``tokens``, ``compute`` and ``unique_tokens`` are read as
        N, D, C and U.
    columns : iterable of str
        Names that mean a column of the run table, beside these.
    shares : iterable of str
        Those of them that are at most one in every run.
    priors : mapping, optional
        Parameter to prior, as `Prior` or as text (``"LogNormal(0.4, 0.35)"``).

    Raises
    ------
    LawError
        If the formula cannot be read, a parameter needs a prior that was not given, or the loss grows
        with every input.
    """
    from bayescale.laws.derived import find_floor, find_linear, held_floor, is_taken_away

    given = parse_priors(priors)
    real = frozenset(k for k, v in given.items() if not v.positive)
    # Whatever asks for params and tokens, an allocation among it, asks for N and D.
    formula = with_names(formula, {column: symbol for symbol, column in INPUT_COLUMNS.items()})
    expression = parse_formula(formula, real)
    symbols = {s.name: s for s in expression.free_symbols}
    inputs = {n for n in symbols if n in INPUT_COLUMNS or n in set(columns)}
    _require_inputs(formula, inputs)
    names = sorted(symbols.keys() - inputs)
    if unknown := given.keys() - set(names):
        raise LawError(f"prior given for {sorted(unknown)}, but {formula!r} has {', '.join(names)}")
    parts = tuple(sorted(inputs & set(shares)))
    linear = find_linear(expression, names)
    floor = find_floor(expression, linear, inputs, real, shares=parts)
    has_floor = floor is not None or held_floor(expression) > 0
    parameters = []
    for parameter in names:
        if parameter == floor:
            prior, meaning = given.get(parameter, FLOOR_PRIOR), "irreducible loss"
        elif parameter in given:
            prior, meaning = given[parameter], ""
        elif parameter in linear and not is_taken_away(expression.diff(symbols[parameter]), inputs, parts):
            prior, meaning = (TERM_PRIOR if has_floor else BARE_TERM_PRIOR), "amplitude"
        elif _only_in_exponents(expression, symbols[parameter], {symbols[i] for i in inputs}):
            prior, meaning = (EXPONENT_PRIOR if has_floor else BARE_EXPONENT_PRIOR), "exponent"
        else:
            raise LawError(
                f"formula {formula!r}: no default prior fits {parameter!r}, which is neither the amplitude "
                "of a term that adds to the loss nor an exponent; give one (--prior "
                f"'{parameter}=LogNormal(1, 1)')"
            )
        unit = "nats/token" if parameter == floor else ""
        parameters.append(Parameter(parameter, prior, unit, meaning))
    law = Law("custom", formula, tuple(parameters), title="user's formula", shares=parts)
    _refuse_growth(law, given)
    return law


def _require_inputs(formula: str, inputs: Iterable[str]) -> None:
    if result := sorted({"loss", "loss_se", "loss_rounding"} & set(inputs)):
        raise LawError(f"formula {formula!r} explains the loss by {result[0]!r}; expected inputs of a run")
    if not tuple(inputs):
        raise LawError(
            f"formula {formula!r} has no input; write N (params), D (tokens), C (compute), U (unique tokens) "
            "or a column's name"
        )


def _only_in_exponents(expression: "sp.Expr", parameter: "sp.Symbol", inputs: "set[sp.Symbol]") -> bool:
    marked = expression.replace(
        lambda e: e.is_Pow and bool(e.base.free_symbols & inputs) and e.exp.has(parameter),
        lambda e: e.base,
    )
    return parameter not in marked.free_symbols


def _refuse_growth(law: Law, given: Mapping[str, Prior]) -> None:
    import sympy as sp

    # "E + A*N**a" reads naturally when a is negative; here exponents are positive and carry a minus.
    if given:
        return
    defaults = {p.name: sp.Float(p.prior.median) for p in law.parameters if isinstance(p.prior, LogNormal)}
    if len(defaults) < len(law.parameters):
        return
    at = {law.symbol(n): v for n, v in defaults.items()} | {law.symbol(i): 10 for i in law.inputs}
    if all(law.expression.diff(law.symbol(i)).subs(at).evalf().is_positive for i in law.inputs):
        raise LawError(
            f"formula {law.formula!r}: the loss grows with every input when exponents are positive, "
            "as they are here; write N**-a where the loss falls with N"
        )
