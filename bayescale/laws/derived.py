"""What SymPy finds out about a law, once: its structure, and its form about the centre, as text.

Deriving takes seconds, most of it SymPy's import, so the result is kept in the user's cache: runs that follow
need no SymPy. The texts are formulas like a user's own and are checked as such when compiled.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bayescale.errors import BayescaleError, LawError
from bayescale.files import cache_folder, written_aside
from bayescale.laws.formula import parse_formula

if TYPE_CHECKING:
    import sympy as sp

    from bayescale.laws.law import Law


# Raised when what is derived of a formula changes: what was kept before is then derived anew.
_FORMAT = 4


@dataclass(frozen=True)
class Derived:
    """What is derived from a law's formula.

    Attributes
    ----------
    linear : tuple of str
        Parameters in which the loss is jointly linear.
    floor : str or None
        The irreducible loss: the linear parameter that stands alone; with a prior on the whole line, only
        where all else is positive, whatever the parameters.
    held_floor : float
        An irreducible loss held at a number: what stands alone where all else is positive.
    centred : dict
        Parameter to the sampled parameter that takes its place; ``A_centre`` for an amplitude ``A``.
    formula : str
        Loss as a function of sampled parameters and log-ratios ``x_N``, ... to the centre.
    published : dict
        Each replaced parameter as a formula of sampled ones and of the centre's inputs ``N_0``, ...
    power_terms : dict or None
        For ``E + sum a_k exp(-p_k g_k(x))``: each a_k's exponent p_k.
    single_input_terms : dict or None
        For E plus one ``a exp(-p x)`` per input: input to [a, p].
    """

    linear: tuple[str, ...]
    floor: str | None
    held_floor: float
    centred: dict[str, str]
    formula: str
    published: dict[str, str]
    power_terms: dict[str, str] | None
    single_input_terms: dict[str, list[str]] | None


def derive(law: "Law") -> Derived:
    """Return what SymPy finds about a law, from the cache where it is known.

    Raises
    ------
    LawError
        If an amplitude cannot be found from the value of its term at the centre.
    """
    parameters = tuple((p.name, p.prior.positive, p.at_centre) for p in law.parameters)
    return _kept(law.formula, parameters, law.inputs, law.shares)


@cache
def _kept(
    formula: str,
    parameters: tuple[tuple[str, bool, str | None], ...],
    inputs: tuple[str, ...],
    shares: tuple[str, ...],
) -> Derived:
    what = json.dumps([formula, parameters, inputs, shares, _FORMAT, version("sympy")])
    path = cache_folder() / "laws" / f"{sha256(what.encode()).hexdigest()[:32]}.json"
    try:
        data = json.loads(path.read_text("utf-8"))
        return Derived(**(data | {"linear": tuple(data["linear"])}))
    except (OSError, ValueError, TypeError, KeyError):
        derived = _Derivation(formula, parameters, inputs, shares).result()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as aside:
            aside.write_text(json.dumps(asdict(derived)), "utf-8")
    except (OSError, BayescaleError):  # a cache that cannot be written costs time, nothing else
        pass
    return derived


def find_linear(expression: "sp.Expr", names: Iterable[str]) -> tuple[str, ...]:
    """Return those of `names`, in order, in which `expression` is jointly linear."""
    import sympy as sp

    symbols = {s.name: s for s in expression.free_symbols}
    linear: list[str] = []
    slopes: list[sp.Expr] = []
    for name in sorted(names):
        symbol = symbols[name]
        slope = expression.diff(symbol)
        if _bends(slope.diff(symbol)):  # a number tells at once what simplifying takes seconds to find
            continue
        slope = sp.simplify(slope)
        if symbol in slope.free_symbols or any(symbol in s.free_symbols for s in slopes):
            continue
        linear.append(name)
        slopes.append(slope)
    return tuple(linear)


def is_taken_away(slope: "sp.Expr", inputs: Collection[str], shares: Collection[str] = ()) -> bool:
    """Whether what a parameter is multiplied by is negative, whatever the size of the inputs: -log(N), say.

    Where SymPy cannot tell, numbers do: of repeated data, 1 - exp(-(D/U - 1)/R) is never negative, for a run
    has no more unique tokens than tokens; of a share, 1 - share is not, either.
    """
    if slope.is_positive:
        return False
    symbols = sorted(slope.free_symbols, key=str)
    for size, part in ((1e4, 0.1), (1e7, 0.5), (1e10, 0.9)):
        # U, the last of N, D, C, U by name, is the least.
        at = {s: size / (1 + i) if s.name in inputs else 0.4 + 0.1 * i for i, s in enumerate(symbols)}
        at |= {s: part for s in symbols if s.name in shares}
        value = slope.subs(at).evalf()
        if not (value.is_real and value < 0):
            return False
    return True


def find_floor(
    expression: "sp.Expr",
    linear: Iterable[str],
    inputs: Collection[str],
    real: Collection[str],
    told: Collection[str] = (),
    shares: Collection[str] = (),
) -> str | None:
    """Return the linear parameter that stands alone, and that all else adds to; None where there is none.

    Parameters
    ----------
    expression : sympy.Expr
        The loss.
    linear : iterable of str
        Parameters in which it is jointly linear.
    inputs : collection of str
        Symbols of the inputs.
    real : collection of str
        Parameters that may be negative. One that stands alone is a floor only where all else is positive,
        whatever the other parameters.
    told : collection of str
        Parameters whose terms are stated, and so known to add to the loss.
    shares : collection of str
        Inputs that are at most one.
    """
    symbols = {s.name: s for s in expression.free_symbols}
    slopes = {name: expression.diff(symbols[name]) for name in linear}
    if any(is_taken_away(slope, inputs, shares) for name, slope in slopes.items() if name not in told):
        return None
    alone = [name for name, slope in slopes.items() if slope == 1]
    floors = [n for n in alone if n not in real]
    floors = floors or [n for n in alone if (expression - symbols[n]).is_positive]
    return next(iter(floors), None)


def held_floor(expression: "sp.Expr") -> float:
    """Return the number that stands alone in a loss of which all else is positive, else 0."""
    number, rest = expression.as_coeff_Add()
    return float(number) if number > 0 and rest.is_positive else 0.0


class _Derivation:
    """The steps of `derive`."""

    def __init__(
        self,
        formula: str,
        parameters: tuple[tuple[str, bool, str | None], ...],
        inputs: tuple[str, ...],
        shares: tuple[str, ...],
    ) -> None:
        self.parameters, self.inputs, self.shares, self.text = parameters, inputs, shares, formula
        self.real = frozenset(name for name, positive, _ in parameters if not positive)
        self.expression = parse_formula(formula, self.real)
        self.symbols = {s.name: s for s in self.expression.free_symbols}
        self.linear = find_linear(self.expression, [name for name, _, _ in parameters])
        told = {name for name, _, at_centre in parameters if at_centre is not None}
        self.floor = find_floor(self.expression, self.linear, inputs, self.real, told, shares)

    def result(self) -> Derived:
        terms = self._terms()
        solved = {name: self._solved(name, term) for name, term in terms.items()}
        centred = {name: f"{name}_centre" if name in terms else name for name, _, _ in self.parameters}
        expression = self._about_the_centre(solved)
        power_terms = self._power_terms(expression, list(centred.values()))
        return Derived(
            self.linear,
            self.floor,
            held_floor(self.expression),
            centred,
            _text(expression),
            {name: _text(value) for name, value in solved.items()},
            power_terms,
            self._single_input_terms(expression, power_terms),
        )

    def _terms(self) -> "dict[str, sp.Expr]":
        """For each parameter replaced by its value at the centre: the expression evaluated there."""
        terms = {}
        for name, _, at_centre in self.parameters:
            if at_centre is not None:
                terms[name] = parse_formula(at_centre, self.real)
            elif name in self.linear and name != self.floor:
                coefficient = self.expression.diff(self.symbols[name])
                if not {s.name for s in coefficient.free_symbols} & set(self.inputs):
                    continue
                # What is taken away, as by -a*log(N), has no value at the centre for a positive prior.
                if not is_taken_away(coefficient, self.inputs, self.shares):
                    terms[name] = self.symbols[name] * coefficient
        return terms

    def _solved(self, name: str, term: "sp.Expr") -> "sp.Expr":
        """Return a parameter as a function of its value at the centre, other parameters, centre."""
        import sympy as sp

        value = sp.Symbol(f"{name}_centre", positive=True)
        at_centre = {self.symbols[i]: _centre(i) for i in self.inputs}
        solutions = sp.solve(sp.Eq(term.subs(at_centre), value), self.symbols[name])
        if len(solutions) != 1:
            raise LawError(
                f"law {self.text!r}: {name} cannot be found from its term {term} at the centre; give "
                f"parameter {name} another at_centre"
            )
        return solutions[0]

    def _about_the_centre(self, solved: "Mapping[str, sp.Expr]") -> "sp.Expr":
        import sympy as sp

        expression = self.expression
        for name, value in solved.items():
            expression = expression.subs(self.symbols[name], value)
        ratios = {self.symbols[i]: _centre(i) * sp.exp(_ratio(i)) for i in self.inputs}
        expression = sp.expand_power_base(expression.subs(ratios), force=True)
        return sp.powsimp(sp.powdenest(expression, force=True), force=True)

    def _power_terms(self, expression: "sp.Expr", names: list[str]) -> dict[str, str] | None:
        import sympy as sp

        if self.floor is None or self.real:  # levels and slopes are sampled as logarithms
            return None
        terms: dict[str, str] = {}
        ratios = set(map(_ratio, self.inputs))
        rest = sp.expand(expression) - self.symbols[self.floor]
        for name in (n for n in names if n.endswith("_centre")):
            symbol = sp.Symbol(name, positive=True)
            coefficient = rest.coeff(symbol)
            rest = sp.expand(rest - symbol * coefficient)
            power = sp.log(coefficient).expand(force=True) if coefficient != 0 else sp.Integer(0)
            exponents = power.free_symbols - ratios
            if len(exponents) != 1 or sp.expand(power - sum(e * power.diff(e) for e in exponents)) != 0:
                return None
            terms[name] = exponents.pop().name
        everything = {self.floor, *terms, *terms.values()}
        return terms if rest == 0 and terms and everything == set(names) else None

    def _single_input_terms(
        self, expression: "sp.Expr", power_terms: dict[str, str] | None
    ) -> dict[str, list[str]] | None:
        import sympy as sp

        found: dict[str, list[str]] = {}
        for amplitude, exponent in (power_terms or {}).items():
            coefficient = sp.expand(expression).coeff(sp.Symbol(amplitude, positive=True))
            for i in self.inputs:
                if coefficient == sp.exp(-self.symbols[exponent] * _ratio(i)):
                    found[i] = [amplitude, exponent]
        one_each = len(found) == len(power_terms or {}) == len(self.inputs)
        return found if one_each else None


def _bends(second_derivative: "sp.Expr") -> bool:
    """Whether a second derivative is surely not zero, at one point that no law has reason to favour."""
    symbols = sorted(second_derivative.free_symbols, key=str)
    value = second_derivative.subs({s: 1.1 + 0.137 * i for i, s in enumerate(symbols)}).evalf()
    return bool(value.is_number and value.is_finite and abs(value) > 1e-6)


def _text(expression: "sp.Expr") -> str:
    """Return a formula as text; SymPy would write Euler's number as E, which is a floor's name."""
    import sympy as sp

    return sp.sstr(expression.xreplace({sp.E: sp.Float(math.e, 17)}), full_prec=True)


def _centre(name: str) -> Any:
    import sympy as sp

    return sp.Symbol(f"{name}_0", positive=True)


def _ratio(name: str) -> Any:
    import sympy as sp

    return sp.Symbol(f"x_{name}", real=True)
