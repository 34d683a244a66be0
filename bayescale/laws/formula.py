"""Read a formula written by a person (or found in a saved fit) as a SymPy expression, evaluating nothing.

SymPy's own parser runs `eval`; a fit is a file that people pass to each other, so its formula must
not be able to run code. Names, numbers, ``+ - * / **`` and a few functions are all a law needs.
"""

import ast

import sympy as sp

from bayescale.errors import LawError

FUNCTIONS = {f.__name__: f for f in (sp.exp, sp.log, sp.sqrt, sp.tanh)}


def _power(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    # Exact integer powers of numbers could take all memory (9**9**9); a float overflows at once.
    if base.is_Number and exponent.is_Number:
        return sp.Float(float(base) ** float(exponent))
    return base**exponent


_OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: _power,
}


def parse_formula(formula: str, real: frozenset[str] = frozenset()) -> sp.Expr:
    """Parse `formula` into a SymPy expression over positive symbols.

    Parameters
    ----------
    formula : str
        For example ``"E + A*N**-alpha"``; ``^`` is read as ``**``.
    real : set of str
        Names that may also be negative; all others are positive, which lets powers simplify.

    Raises
    ------
    LawError
        If the text holds anything but names, numbers, arithmetic and the functions of `FUNCTIONS`.
    """
    try:
        tree = ast.parse(formula.replace("^", "**").strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise LawError(f"formula {formula!r} is not an expression: {error}") from error
    if sum(1 for _ in ast.walk(tree)) > 500:
        raise LawError(f"formula {formula[:60]!r}... has over 500 parts; expected a law")

    def convert(node: ast.expr) -> sp.Expr:
        match node:
            case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
                return _OPERATORS[type(operator)](convert(left), convert(right))
            case ast.UnaryOp(ast.USub(), operand):
                return -convert(operand)
            case ast.UnaryOp(ast.UAdd(), operand):
                return convert(operand)
            case ast.Constant(int() | float() as value) if type(value) is not bool and abs(value) < 1e300:
                return sp.Integer(value) if type(value) is int else sp.Float(value)
            case ast.Name(name):
                return sp.Symbol(name, real=True) if name in real else sp.Symbol(name, positive=True)
            case ast.Call(ast.Name(name), [argument], []) if name in FUNCTIONS:
                return FUNCTIONS[name](convert(argument))
        raise LawError(
            f"formula {formula!r}: {ast.unparse(node)!r} is not allowed; a law is made of names, "
            f"numbers, + - * / ** and {', '.join(FUNCTIONS)}"
        )

    try:
        return convert(tree.body)
    except (OverflowError, ZeroDivisionError, ValueError, TypeError) as error:
        raise LawError(f"formula {formula!r}: {error}") from error
