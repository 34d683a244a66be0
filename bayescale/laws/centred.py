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

from bayescale.laws.derived import Derived, derive
from bayescale.laws.formula import IMPLICIT, compile_formula, names_in, parse_formula
from bayescale.laws.implicit import saturated
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
    def derived(self) -> Derived:
        """What SymPy found about the law."""
        return derive(self.law)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Sampled parameters, in the law's order; ``A_centre`` stands for an amplitude ``A``."""
        return tuple(self.derived.centred[p.name] for p in self.law.parameters)

    @cached_property
    def priors(self) -> dict[str, Prior]:
        """Prior of each sampled parameter."""
        centred = self.derived.centred
        return {centred[p.name]: _renamed(p.prior, centred) for p in self.law.parameters}

    @cached_property
    def units(self) -> dict[str, str]:
        """Unit of each sampled parameter; empty where it has none.

        A term that the formula adds is a loss. Of any other value at the centre the law tells.
        """
        own = {p.name: p.unit for p in self.law.parameters}
        loss = own[self.floor] if self.floor else "nats/token"
        return {
            name: loss if name != p.name and p.at_centre is None else p.centre_unit or p.unit
            for name, p in zip(self.names, self.law.parameters, strict=True)
        }

    @property
    def floor(self) -> str | None:
        """Name of the irreducible loss, which is its own centred parameter."""
        return self.derived.floor

    @property
    def held_floor(self) -> float:
        """An irreducible loss held at a number; 0 where there is none."""
        return self.derived.held_floor

    @property
    def power_terms(self) -> dict[str, str] | None:
        """For ``E + sum a_k exp(-p_k g_k(x))``: each a_k's exponent p_k; None for any other structure."""
        return self.derived.power_terms

    @property
    def single_input_terms(self) -> dict[str, tuple[str, str]] | None:
        """For E plus one ``a exp(-p x)`` per input: input to (a, p); None for any other structure."""
        found = self.derived.single_input_terms
        return None if found is None else {i: (a, p) for i, (a, p) in found.items()}

    def function(self, centre: Mapping[str, float], namespace: Any = np) -> Callable[..., Any]:
        """Compile ``f(*sampled parameters, *log-ratios) -> loss`` for NumPy or ``pytensor.tensor``.

        Most laws forget the centre's numbers; a sum of inputs, as in ``(D + k*N)**-b``, keeps them.
        """
        arguments = [*self.names, *(f"x_{i}" for i in self.law.inputs)]
        return compile_formula(self.derived.formula, arguments, namespace, _at(centre))

    def gradient(self, centre: Mapping[str, float]) -> Callable[..., list[np.ndarray]]:
        """Compile the loss and its derivatives in the sampled parameters, in NumPy."""
        import sympy as sp

        arguments = [*self.names, *(f"x_{i}" for i in self.law.inputs)]
        ratios = {f"x_{i}" for i in self.law.inputs}
        real = ratios | {name for name, prior in self.priors.items() if not prior.positive}
        expression = parse_formula(self.derived.formula, frozenset(real))
        symbols = {s.name: s for s in expression.free_symbols}
        expression = expression.subs({symbols[n]: v for n, v in _at(centre).items() if n in symbols})
        outputs = [expression, *(expression.diff(symbols[n]) for n in self.names)]
        modules = [{IMPLICIT: saturated}, "numpy"]
        return sp.lambdify([symbols[a] for a in arguments], outputs, modules=modules, cse=True)

    def published_parameters(
        self, sampled: Mapping[str, np.ndarray], centre: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """Return amplitudes as papers print them (A, not A_centre), from sampled parameters."""
        values = {**sampled, **_at(centre)}
        published = {}
        for name, formula in self.derived.published.items():
            arguments = sorted(names_in(formula))
            published[name] = compile_formula(formula, arguments, np)(*(values[a] for a in arguments))
        return published


def _renamed(prior: Prior, names: Mapping[str, str]) -> Prior:
    # The other's place in a prior about another is taken by the name under which that one is sampled.
    return prior.given(names)


def _at(centre: Mapping[str, float]) -> dict[str, float]:
    # PyTensor would hold a Python float in single precision where that is exact, and then take its log so.
    return {f"{name}_0": np.float64(value) for name, value in centre.items()}
