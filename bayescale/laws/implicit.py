"""Functions of a law that are given by an equation they solve, in NumPy, ``pytensor.tensor`` and SymPy.

>>> float(saturated(3.0, 1.0))  # k / (1 + k)
0.75
"""

from functools import cache
from typing import Any

import numpy as np

# From the start below each step doubles the digits; the tests hold exponents from .003 to 50 to 1e-14.
_STEPS = 8


def saturated(k: Any, a: Any, xp: Any = np) -> Any:
    """Return the w between 0 and 1 that solves ``w = k*(1 - w)**a``: about k when small, never above 1.

    Newton's method on ``log w - a*log(1 - w) = log k`` in y = log(w/(1 - w)), in which the left side goes
    from slope 1 to slope a and bends one way only: from a line that bounds it, steps never overshoot.

    Parameters
    ----------
    k, a : array
        Both positive.
    xp : module
        NumPy or ``pytensor.tensor``.
    """
    target = xp.log(k)
    y = xp.where(a > 1, xp.minimum(target, target / a), xp.maximum(target, target / a))
    for _ in range(_STEPS):
        y = _newton_step(y, target, a, xp)
    # At the solution a step's own slopes are the solution's: no need to go through all.
    return 1 / (1 + xp.exp(-_newton_step(_constant(y, xp), target, a, xp)))


def _newton_step(y: Any, target: Any, a: Any, xp: Any) -> Any:
    w = 1 / (1 + xp.exp(-y))
    return y - (y + (a - 1) * xp.logaddexp(0.0, y) - target) / (1 + (a - 1) * w)


def _constant(y: Any, xp: Any) -> Any:
    """Return `y` as something that is not differentiated."""
    if xp is np:
        return y
    from pytensor.gradient import disconnected_grad

    return disconnected_grad(y)


@cache
def symbolic_saturated() -> Any:
    """Return `saturated` as a SymPy function that knows its derivatives."""
    import sympy as sp

    class saturated(sp.Function):  # SymPy prints the name of the class
        nargs = 2
        is_positive = True

        def fdiff(self, argindex: int = 1) -> Any:
            k, a = self.args
            slope = self * (1 - self) / (1 - self + a * self)
            return slope / k if argindex == 1 else slope * sp.log(1 - self)

    return saturated
