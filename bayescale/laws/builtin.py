"""The built-in laws, each a few lines of data: formula, parameters with units and priors, citation.

Priors of amplitudes are on the loss their term adds at the table's centre, in nats/token.
"""

from bayescale.laws.law import (
    BARE_EXPONENT_PRIOR,
    BARE_TERM_PRIOR,
    EXPONENT_PRIOR,
    FLOOR_PRIOR,
    TERM_PRIOR,
    Law,
    Parameter,
)

_E = Parameter("E", FLOOR_PRIOR, "nats/token", "irreducible loss: the entropy of the text as tokenised")
_ALPHA = Parameter("alpha", EXPONENT_PRIOR, "", "exponent in params")
_BETA = Parameter("beta", EXPONENT_PRIOR, "", "exponent in tokens")
_A = Parameter("A", TERM_PRIOR, "nats/token", "loss from finite params at N = 1")
_B = Parameter("B", TERM_PRIOR, "nats/token", "loss from finite tokens at D = 1")

CHINCHILLA = Law(
    name="chinchilla",
    title="Chinchilla: additive in params and tokens",
    formula="E + A*N**-alpha + B*D**-beta",
    parameters=(_E, _A, _B, _ALPHA, _BETA),
    citation="Hoffmann et al. 2022, arXiv:2203.15556, equation 2",
    nests=("chinchilla-shared", "power-params-floor", "power-tokens-floor"),
)

CHINCHILLA_SHARED = Law(
    name="chinchilla-shared",
    title="Chinchilla with one exponent for params and tokens",
    formula="E + A*N**-alpha + B*D**-alpha",
    parameters=(
        _E,
        _A,
        _B,
        Parameter("alpha", EXPONENT_PRIOR, "", "exponent in params and in tokens"),
    ),
    citation="Muennighoff et al. 2023, arXiv:2305.16264, appendix A",
    nests=(),
)

KAPLAN = Law(
    name="kaplan",
    title="Kaplan L(N, D), without a floor",
    formula="((N_c/N)**(alpha/beta) + D_c/D)**beta",
    parameters=(
        Parameter("alpha", BARE_EXPONENT_PRIOR, "", "exponent in params at unlimited tokens"),
        Parameter("beta", BARE_EXPONENT_PRIOR, "", "exponent in tokens at unlimited params"),
        Parameter("N_c", BARE_TERM_PRIOR, "params", "scale of params", at_centre="(N_c/N)**alpha"),
        Parameter("D_c", BARE_TERM_PRIOR, "tokens", "scale of tokens", at_centre="(D_c/D)**beta"),
    ),
    citation="Kaplan et al. 2020, arXiv:2001.08361, equation 1.5",
    nests=(),
)

KAPLAN_FLOOR = Law(
    name="kaplan-floor",
    title="Kaplan L(N, D) + E",
    formula="E + ((N_c/N)**(alpha/beta) + D_c/D)**beta",
    parameters=(
        _E,
        Parameter("alpha", EXPONENT_PRIOR, "", "exponent in params at unlimited tokens"),
        Parameter("beta", EXPONENT_PRIOR, "", "exponent in tokens at unlimited params"),
        Parameter("N_c", TERM_PRIOR, "params", "scale of params", at_centre="(N_c/N)**alpha"),
        Parameter("D_c", TERM_PRIOR, "tokens", "scale of tokens", at_centre="(D_c/D)**beta"),
    ),
    citation="Kaplan et al. 2020, arXiv:2001.08361, equation 1.5, with a floor as in arXiv:2010.14701",
    nests=("kaplan",),
)


def _power(name: str, title: str, symbol: str, floor: bool, citation: str) -> Law:
    what = {"N": "params", "D": "tokens", "C": "FLOP"}[symbol]
    return Law(
        name=name,
        title=title,
        formula=("E + " if floor else "") + f"A*{symbol}**-alpha",
        parameters=(
            *((_E,) if floor else ()),
            Parameter("A", TERM_PRIOR if floor else BARE_TERM_PRIOR, "nats/token", f"loss at {symbol} = 1"),
            Parameter("alpha", EXPONENT_PRIOR if floor else BARE_EXPONENT_PRIOR, "", f"exponent in {what}"),
        ),
        citation=citation,
        nests=(name.removesuffix("-floor"),) if floor else (),
    )


_KAPLAN_1D = "Kaplan et al. 2020, arXiv:2001.08361, equations 1.1 to 1.3"
_HESTNESS = "Hestness et al. 2017, arXiv:1712.00409; Henighan et al. 2020, arXiv:2010.14701"

BUILTIN: dict[str, Law] = {
    law.name: law
    for law in (
        CHINCHILLA,
        CHINCHILLA_SHARED,
        KAPLAN,
        KAPLAN_FLOOR,
        _power("power-params", "Power law in params", "N", False, _KAPLAN_1D),
        _power("power-params-floor", "Power law in params with a floor", "N", True, _HESTNESS),
        _power("power-tokens", "Power law in tokens", "D", False, _KAPLAN_1D),
        _power("power-tokens-floor", "Power law in tokens with a floor", "D", True, _HESTNESS),
        _power("power-compute", "Power law in compute", "C", False, _KAPLAN_1D),
        _power("power-compute-floor", "Power law in compute with a floor", "C", True, _HESTNESS),
    )
}
