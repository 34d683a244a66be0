"""Read a formula written by a person (or found in a file): check it, compile it, or hand it to SymPy.

SymPy's own parser runs `eval`; a fit is a file that people pass to each other, so its formula must
not be able to run code. Names, numbers, ``+ - * / **`` and a few functions are all a law needs.
"""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from types import CodeType
from typing import TYPE_CHECKING, Any

from bayescale.errors import LawError
from bayescale.laws.implicit import saturated, symbolic_saturated

if TYPE_CHECKING:
    import sympy as sp

FUNCTIONS = ("exp", "log", "sqrt", "tanh")
IMPLICIT = "saturated"  # of two arguments: `bayescale.laws.implicit`
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)


def read_formula(formula: str) -> ast.expr:
    """Return the syntax tree of a formula, having made sure that it is one.

    Parameters
    ----------
    formula : str
        For example ``"E + A*N**-alpha"``; ``^`` is read as ``**``.

    Raises
    ------
    LawError
        If the text holds anything but names, numbers, arithmetic and the functions of `FUNCTIONS`.
    """
    try:
        tree = ast.parse(formula.replace("^", "**").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise LawError(f"formula {formula!r} is not an expression: {error}") from error
    if sum(1 for _ in ast.walk(tree)) > 1500:
        raise LawError(f"formula {formula[:60]!r}... has over 1500 parts; expected a law")
    _require_allowed(tree, formula)
    return tree


@lru_cache(maxsize=1024)
def names_in(formula: str) -> frozenset[str]:
    """Return the names of a formula's symbols."""
    tree = read_formula(formula)
    return frozenset(n.id for n in ast.walk(tree) if isinstance(n, ast.Name)) - {*FUNCTIONS, IMPLICIT}


def bases_in(formula: str) -> frozenset[str]:
    """Return the names that a formula raises to powers which are no numbers.

    >>> sorted(bases_in("E + A*params**-a + B*(D/d)**-b + c**2"))
    ['params']
    """
    powers = (n for n in ast.walk(read_formula(formula)) if isinstance(n, ast.BinOp))
    return frozenset(
        n.left.id for n in powers
        if isinstance(n.op, ast.Pow) and isinstance(n.left, ast.Name) and names_in(ast.unparse(n.right))
    )  # fmt: skip


def compile_formula(
    formula: str,
    arguments: Iterable[str],
    namespace: Any,
    constants: Mapping[str, float] | None = None,
) -> Callable[..., Any]:
    """Compile a formula into a function of `arguments`, for NumPy or ``pytensor.tensor``.

    Other names that it holds are `constants`.

    Raises
    ------
    LawError
        If the text is no formula.
    """
    functions = {name: getattr(namespace, name) for name in FUNCTIONS}
    functions[IMPLICIT] = partial(saturated, xp=namespace)
    code = _compiled(formula, tuple(arguments))
    # What `read_formula` lets through can only do arithmetic.
    return eval(code, {"__builtins__": {}} | dict(constants or {}) | functions)


@lru_cache(maxsize=1024)
def _compiled(formula: str, arguments: tuple[str, ...]) -> CodeType:
    tree = _Floats().visit(read_formula(formula))
    names = [ast.arg(name) for name in arguments]
    signature = ast.arguments(posonlyargs=[], args=names, kwonlyargs=[], kw_defaults=[], defaults=[])
    body = ast.fix_missing_locations(ast.Expression(ast.Lambda(signature, tree)))
    return compile(body, "<formula>", "eval")


def with_numbers(formula: str, numbers: Mapping[str, float]) -> str:
    """Return a formula with some of its names replaced by numbers.

    Raises
    ------
    LawError
        If the text is no formula.

    Examples
    --------
    >>> with_numbers("E + A*N**-alpha", {"alpha": 0.35})
    'E + A * N ** (-0.35)'
    """
    return ast.unparse(_Numbers(numbers).visit(read_formula(formula)))


def with_names(formula: str, names: Mapping[str, str]) -> str:
    """Return a formula with some of its names written as others.

    Raises
    ------
    LawError
        If the text is no formula.

    Examples
    --------
    >>> with_names("E + A*params**-a", {"params": "N"})
    'E + A*N**-a'
    """
    read_formula(formula)  # of a formula every word is a name or part of a number
    return re.sub(r"\b[^\W\d]\w*", lambda word: names.get(word[0], word[0]), formula)


def parse_formula(formula: str, real: frozenset[str] = frozenset()) -> "sp.Expr":
    """Return a formula as a SymPy expression over positive symbols.

    Parameters
    ----------
    formula : str
        As in `read_formula`.
    real : set of str
        Names that may also be negative; all others are positive, which lets powers simplify.

    Raises
    ------
    LawError
        If the text is no formula.
    """
    import sympy as sp

    def convert(node: ast.expr) -> sp.Expr:
        match node:
            case ast.BinOp(left, operator, right):
                return _apply(operator, convert(left), convert(right))
            case ast.UnaryOp(ast.USub(), operand):
                return -convert(operand)
            case ast.UnaryOp(_, operand):
                return convert(operand)
            case ast.Constant(value):
                return sp.Integer(value) if type(value) is int else sp.Float(value)
            case ast.Name(name):
                return sp.Symbol(name, real=True) if name in real else sp.Symbol(name, positive=True)
            case ast.Call(ast.Name(name), [argument], []):
                return getattr(sp, name)(convert(argument))
            case ast.Call(_, [first, second], []):
                return symbolic_saturated()(convert(first), convert(second))
        raise AssertionError(ast.dump(node))  # read_formula lets nothing else through

    try:
        expression = convert(read_formula(formula))
        if expression.has(sp.I, sp.nan, sp.zoo, sp.oo, -sp.oo):
            raise LawError(f"formula {formula!r} is no real number: SymPy makes {expression} of it")
        return expression
    except (OverflowError, ZeroDivisionError, ValueError, TypeError) as error:
        raise LawError(f"formula {formula!r}: {error}") from error


def _require_allowed(node: ast.expr, formula: str) -> None:
    match node:
        case ast.BinOp(left, operator, right) if isinstance(operator, _OPERATORS):
            _require_allowed(left, formula)
            _require_allowed(right, formula)
        case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
            _require_allowed(operand, formula)
        case ast.Constant(int() | float() as value) if type(value) is not bool and abs(value) < 1e300:
            pass
        case ast.Name():
            pass
        case ast.Call(ast.Name(name), [argument], []) if name in FUNCTIONS:
            _require_allowed(argument, formula)
        case ast.Call(ast.Name(name), [first, second], []) if name == IMPLICIT:
            _require_allowed(first, formula)
            _require_allowed(second, formula)
        case _:
            raise LawError(
                f"formula {formula!r}: {ast.unparse(node)!r} is not allowed; a law is made of names, "
                f"numbers, + - * / **, {', '.join(FUNCTIONS)} and {IMPLICIT}(k, a)"
            )


class _Floats(ast.NodeTransformer):
    """Integers as floats: an integer power could take all memory (9**9**9), a float overflows at once."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant(float(node.value))  # type: ignore[arg-type]  # numbers only


class _Numbers(ast.NodeTransformer):
    def __init__(self, numbers: Mapping[str, float]) -> None:
        self.numbers = numbers

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.numbers:
            return node
        # A sign is an operation of its own, so that a power of it is written with brackets.
        value = ast.Constant(abs(float(self.numbers[node.id])))
        return ast.UnaryOp(ast.USub(), value) if self.numbers[node.id] < 0 else value


def _apply(operator: ast.operator, left: "sp.Expr", right: "sp.Expr") -> "sp.Expr":
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
        case ast.Pow() if left.is_Number and right.is_Number:
            return type(left + 0.5)(float(left) ** float(right))
    return left**right
