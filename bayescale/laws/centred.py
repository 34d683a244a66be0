"""A law about the centre of a table: the form in which it is sampled.

With x_N = log(N/N0) for each input and each amplitude replaced by the value of its term at the centre,
the Chinchilla law reads ``E + A_centre*exp(-alpha*x_N) + B_centre*exp(-beta*x_D)``. The centre's numbers
leave the formula; they are needed only to report the published amplitudes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp

from bayescale.errors import LawError
from bayescale.laws.formula import parse_formula
from bayescale.laws.law import Law
from bayescale.laws.priors import Prior


@dataclass(frozen=True)
class CentredLaw:
    """A law rewritten in log-ratios of its inputs to the centre.

    Attributes
    ----------
    law : Law
        The law as published.
    """

    law: Law

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Sampled parameters, in the law's order; ``A_centre`` stands for an amplitude ``A``."""
        return tuple(self._centred_name(p.name) for p in self.law.parameters)

    @cached_property
    def priors(self) -> dict[str, Prior]:
        """Prior of each sampled parameter."""
        return {self._centred_name(p.name): p.prior for p in self.law.parameters}

    @cached_property
    def floor(self) -> str | None:
        """Name of the irreducible loss, which is its own centred parameter."""
        return self.law.floor

    @cached_property
    def expression(self) -> sp.Expr:
        """Loss as a function of sampled parameters and log-ratios ``x_N``, ..."""
        expression = self.law.expression
        for name, solved in self._solved.items():
            expression = expression.subs(self.law.symbol(name), solved)
        ratios = {
            self.law.symbol(i): self._centre_symbol(i) * sp.exp(self.ratio_symbol(i)) for i in self.law.inputs
        }
        expression = sp.expand_power_base(expression.subs(ratios), force=True)
        return sp.powsimp(sp.powdenest(expression, force=True), force=True)

    @cached_property
    def power_terms(self) -> dict[str, str] | None:
        """For ``E + sum a_k exp(-p_k g_k(x))``: each a_k's exponent p_k; None for any other structure."""
        if self.floor is None:
            return None
        terms: dict[str, str] = {}
        ratios = set(map(self.ratio_symbol, self.law.inputs))
        rest = sp.expand(self.expression) - self.symbol(self.floor)
        for name in (n for n in self.names if n.endswith("_centre")):
            coefficient = rest.coeff(self.symbol(name))
            rest = sp.expand(rest - self.symbol(name) * coefficient)
            power = sp.log(coefficient).expand(force=True) if coefficient != 0 else sp.Integer(0)
            exponents = power.free_symbols - ratios
            if len(exponents) != 1 or sp.expand(power - sum(e * power.diff(e) for e in exponents)) != 0:
                return None
            terms[name] = exponents.pop().name
        everything = {self.floor, *terms, *terms.values()}
        return terms if rest == 0 and terms and everything == set(self.names) else None

    @cached_property
    def single_input_terms(self) -> dict[str, tuple[str, str]] | None:
        """For E plus one ``a exp(-p x)`` per input: input to (a, p); None for any other structure."""
        if self.power_terms is None:
            return None
        found = {}
        for amplitude, exponent in self.power_terms.items():
            coefficient = sp.expand(self.expression).coeff(self.symbol(amplitude))
            for i in self.law.inputs:
                if coefficient == sp.exp(-self.symbol(exponent) * self.ratio_symbol(i)):
                    found[i] = (amplitude, exponent)
        one_each = len(found) == len(self.power_terms) == len(self.law.inputs)
        return found if one_each else None

    def function(self, namespace: Any = np) -> Callable[..., Any]:
        """Compile ``f(*sampled parameters, *log-ratios) -> loss`` for NumPy or ``pytensor.tensor``."""
        arguments = [self.symbol(n) for n in self.names]
        arguments += [self.ratio_symbol(i) for i in self.law.inputs]
        functions = {n: getattr(namespace, n) for n in ("exp", "log", "sqrt", "tanh")}
        return sp.lambdify(arguments, self.expression, modules=[functions], cse=True)

    def gradient(self) -> Callable[..., list[np.ndarray]]:
        """Compile the loss and its derivatives in the sampled parameters, in NumPy."""
        arguments = [self.symbol(n) for n in self.names]
        outputs = [self.expression, *(self.expression.diff(a) for a in arguments)]
        arguments += [self.ratio_symbol(i) for i in self.law.inputs]
        return sp.lambdify(arguments, outputs, modules="numpy", cse=True)

    def published_parameters(
        self, sampled: Mapping[str, np.ndarray], centre: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """Return amplitudes as papers print them (A, not A_centre), from sampled parameters."""
        published = {}
        for name, solved in self._solved.items():
            published[name] = self._call(solved, sampled, centre)
        return published

    def centred_parameters(
        self, published: Mapping[str, float], centre: Mapping[str, float]
    ) -> dict[str, float]:
        """Return sampled parameters from constants as papers print them."""
        values = {}
        for parameter in self.law.parameters:
            term = self._terms.get(parameter.name)
            if term is None:
                values[parameter.name] = float(published[parameter.name])
            else:
                at = {self.law.symbol(k): v for k, v in {**published, **centre}.items()}
                values[self._centred_name(parameter.name)] = float(term.evalf(17, subs=at))
        return values

    def symbol(self, name: str) -> sp.Symbol:
        """Return the SymPy symbol of a sampled parameter."""
        return sp.Symbol(name, positive=True) if self.priors[name].positive else sp.Symbol(name, real=True)

    @staticmethod
    def ratio_symbol(name: str) -> sp.Symbol:
        """Return the SymPy symbol of an input's log-ratio to the centre."""
        return sp.Symbol(f"x_{name}", real=True)

    @cached_property
    def _terms(self) -> dict[str, sp.Expr]:
        """For each parameter replaced by its value at the centre: the expression evaluated there."""
        terms = {}
        for parameter in self.law.parameters:
            if parameter.at_centre is not None:
                terms[parameter.name] = parse_formula(parameter.at_centre)
            elif parameter.name in self.law.linear_parameters and parameter.name != self.law.floor:
                symbol = self.law.symbol(parameter.name)
                coefficient = self.law.expression.diff(symbol)
                if coefficient.free_symbols & {self.law.symbol(i) for i in self.law.inputs}:
                    terms[parameter.name] = symbol * coefficient
        return terms

    @cached_property
    def _solved(self) -> dict[str, sp.Expr]:
        """Published parameter as a function of its value at the centre, other parameters, centre."""
        at_centre = {self.law.symbol(i): self._centre_symbol(i) for i in self.law.inputs}
        solved = {}
        for name, term in self._terms.items():
            value = sp.Symbol(self._centred_name(name), positive=True)
            solutions = sp.solve(sp.Eq(term.subs(at_centre), value), self.law.symbol(name))
            if len(solutions) != 1:
                raise LawError(
                    f"law {self.law.name!r}: {name} cannot be found from its term {term} at the "
                    f"centre; give parameter {name} another at_centre"
                )
            solved[name] = solutions[0]
        return solved

    def _call(
        self, expression: sp.Expr, sampled: Mapping[str, np.ndarray], centre: Mapping[str, float]
    ) -> np.ndarray:
        centres = {self._centre_symbol(i): centre[i] for i in self.law.inputs}
        symbols = [s for s in expression.free_symbols if s not in centres]
        function = sp.lambdify(symbols, expression.subs(centres), modules="numpy")
        return function(*(sampled[s.name] for s in symbols))

    def _centred_name(self, name: str) -> str:
        return f"{name}_centre" if name in self._terms else name

    @staticmethod
    def _centre_symbol(name: str) -> sp.Symbol:
        return sp.Symbol(f"{name}_0", positive=True)
