"""Nested laws: the parameter that separates a law from a special case of it, and its posterior.

>>> from bayescale.laws import BUILTIN
>>> str(separation(BUILTIN["chinchilla"], BUILTIN["chinchilla-shared"]))
'alpha - beta'
>>> str(separation(BUILTIN["kaplan-floor"], BUILTIN["kaplan"]))
'E'
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import sympy as sp

from bayescale.laws import Law

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Regions of practical equivalence (Kruschke 2018, doi:10.1177/2515245918771304). Exponents .02 apart move the
# compute-optimal split of params and tokens by some 1.5% of log compute; a term below .01 nats/token is
# within the scatter of digitised losses.
ROPE_EXPONENT = 0.02
ROPE_LOSS = 0.01


@dataclass(frozen=True)
class Separation:
    """Posterior of the parameter that separates a law from a special case.

    Attributes
    ----------
    law, special_case : str
        The wider law and the one it contains.
    parameter : str
        Such as ``alpha - beta``: zero where the special case holds.
    median, low, high : float
        Posterior median and 90% interval, in `unit`.
    rope : float or None
        Half-width of the region of practical equivalence, in `unit`; known of losses and exponents alone.
    inside : float or None
        Posterior probability that the parameter lies in the region.
    unit : str
        The parameter's; empty for exponents.
    """

    law: str
    special_case: str
    parameter: str
    median: float
    low: float
    high: float
    rope: float | None
    inside: float | None
    unit: str

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        band = f"{self.low:.3g} to {self.high:.3g}, 90%"
        found = f"{self.parameter} in {self.law} is {self.median:.3g} ({band}){unit}; "
        if self.rope is None:
            return f"{found}at 0 {self.special_case} holds"
        near = f"within {self.rope:g} of 0, where {self.special_case} holds, with probability "
        return f"{found}{near}{self.inside:.2g}"


def separation(law: Law, special_case: Law) -> sp.Expr | None:
    """Return the parameter, or difference of two, whose vanishing makes `law` its special case.

    None where no single one does.
    """
    names = [p.name for p in special_case.parameters]
    extra = [p.name for p in law.parameters if p.name not in names]
    target = _plain(special_case.expression)
    expression = _plain(law.expression)
    for name in extra:
        # A term goes when its amplitude does; its exponent then means nothing.
        if sp.expand(expression.subs(sp.Symbol(name), 0)) == target:
            return sp.Symbol(name)
    if len(extra) == 1:
        for name in names:
            if sp.expand(expression.subs(sp.Symbol(extra[0]), sp.Symbol(name))) == target:
                return sp.Symbol(name) - sp.Symbol(extra[0])
    return None


def separate(fit: "Fit", special_case: Law) -> Separation | None:
    """Summarise the posterior of what separates a fit's law from a special case of it."""
    found = separation(fit.law, special_case)
    if found is None:
        return None
    draws, parameter = fit.parameters, str(found)
    if found.is_Symbol:
        # A term is judged by what it adds at the table's centre, not at one parameter or one token.
        centred = f"{parameter}_centre"
        rope, unit = _scale_of(fit.law, parameter, centred in draws)
        parameter = centred if centred in draws else parameter
        values = draws[parameter]
    else:
        one, other = parameter.split(" - ")
        values, rope, unit = draws[one] - draws[other], ROPE_EXPONENT, ""
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    inside = None if rope is None else float((np.abs(values) < rope).mean())
    return Separation(
        fit.law.name, special_case.name, parameter, float(median), float(low), float(high), rope, inside, unit
    )


def _scale_of(law: Law, name: str, is_amplitude: bool) -> tuple[float | None, str]:
    """Return what of a parameter is next to nothing, if that is known, and its unit."""
    unit = next(p.unit for p in law.parameters if p.name == name)
    if name == law.floor or is_amplitude:
        return ROPE_LOSS, "nats/token"
    return (None if unit else ROPE_EXPONENT), unit


def _plain(expression: sp.Expr) -> sp.Expr:
    # Positive symbols of one formula and real ones of another are not the same to SymPy.
    return sp.expand(expression.xreplace({s: sp.Symbol(s.name) for s in expression.free_symbols}))
