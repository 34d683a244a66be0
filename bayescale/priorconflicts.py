"""Prior-data conflict: parameters that the data put where their prior hardly expected them.

There the prior pulls at what it should only steady, and at all that trades off with it: an amplitude far
below its prior drags the floor down.

>>> import bayescale as bs
>>> fit = bs.fit(bs.load("zipf-facts-steep"))  # doctest: +SKIP
>>> bs.prior_conflicts(fit)  # doctest: +SKIP
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayescale.laws.priors import Prior

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Of eight parameters whose prior is right, one lies further out in one table of ten.
MAX_SDS = 2.5


@dataclass(frozen=True)
class PriorConflict:
    """A parameter whose posterior lies far out in its prior.

    Attributes
    ----------
    parameter, unit : str
        As sampled: ``A_centre`` for an amplitude ``A``.
    median : float
        Of the posterior.
    sds : float
        How far that is from the prior's median, in the prior's standard deviations.
    prior : Prior
        The prior.
    """

    parameter: str
    unit: str
    median: float
    sds: float
    prior: Prior

    def __str__(self) -> str:
        side = "above" if self.sds > 0 else "below"
        found = f"{self.median:.3g} {self.unit}".rstrip()
        option = f"--prior '{self.parameter.removesuffix('_centre')}=...'"
        return (
            f"{self.parameter} is {found}, {abs(self.sds):.1f} sd {side} the middle of its prior "
            f"{self.prior}, which pulls at it and at what it trades off with: {option} states another"
        )


def prior_conflicts(fit: "Fit") -> list[PriorConflict]:
    """Return the law's parameters whose posterior median lies over 2.5 sd out in their prior.

    Parameters
    ----------
    fit : Fit
        Of any law.
    """
    centred = fit.model.centred
    medians = {name: float(np.median(fit.parameters[name])) for name in centred.names}
    found = []
    for name, prior in centred.priors.items():
        median = medians[name]
        sds = prior.given(medians).sds_from_middle(median)
        if abs(sds) > MAX_SDS:
            found.append(PriorConflict(name, centred.units[name], median, sds, prior))
    return found
