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
        NumPy or ``pytensor.tensor``, which differentiates the steps.
    """
    target = xp.log(k)
    y = xp.where(a > 1, xp.minimum(target, target / a), xp.maximum(target, target / a))
    for _ in range(_STEPS):
        w = 1 / (1 + xp.exp(-y))
        y = y - (y + (a - 1) * xp.logaddexp(0.0, y) - target) / (1 + (a - 1) * w)
    return 1 / (1 + xp.exp(-y))


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
