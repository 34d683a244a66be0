"""Whether draws may be believed: k-hat, R-hat, memory, drift, effective sample size, divergences, modes.

A fit that fails a gate is marked in every output made from it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

MAX_RHAT = 1.01
MIN_ESS = 400.0
# Draws of importance sampling are independent: fewer of them do.
MIN_ESS_FAST = 200.0
MAX_K_HAT = 0.7
# Chains of the fast path go on until they remember less, and drift far less.
MAX_MEMORY, MAX_DRIFT = 0.3, 0.1
# Over more decades, down towards a floor of zero, importance misses mass, and its weights do not tell: there
# the level of the loss, which is what is sampled, hardly changes.
MAX_FLOOR_DECADES = 2.0


@dataclass(frozen=True)
class Diagnostics:
    """Numbers that decide whether draws stand, and the reasons where they do not.

    Attributes
    ----------
    method : str
        ``nuts`` or ``fast``.
    min_ess : float
        Smallest of bulk and tail effective sample sizes, and `worst_ess`, whose it is; the number of
        effective draws of importance sampling.
    max_rhat : float or None
        Largest rank-normalised split R-hat, and `worst_rhat`, whose it is (arXiv:1903.08008); of NUTS.
    divergences : int
        Divergent transitions after warm-up.
    unvisited_modes : int
        Modes of at least 1% of the mass that next to no draw of NUTS is near.
    k_hat : float or None
        Tail of the importance weights (arXiv:1507.02646); of draws by importance.
    memory : float or None
        Largest rank correlation of a parameter with where its chain started; of the fast path, where chains
        moved its draws on.
    drift : float or None
        By how many sds a parameter's mean or spread over those chains still moved, at most, beyond three
        standard errors.
    latent_variance : float or None
        Relative variance of the importance weights that integrate discrepancy and offsets out; of the fast
        path, which moves its draws on where it is large.
    floor_decades : float or None
        Between the 5% and the 95% quantile of a positive floor; of the fast path.
    seconds : dict
        Wall-clock seconds by stage.
    """

    method: str
    min_ess: float
    worst_ess: str = ""
    max_rhat: float | None = None
    worst_rhat: str = ""
    divergences: int = 0
    unvisited_modes: int = 0
    k_hat: float | None = None
    memory: float | None = None
    drift: float | None = None
    latent_variance: float | None = None
    floor_decades: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """One sentence for each gate that failed."""
        reasons = []
        if self.k_hat is not None and not self.k_hat < MAX_K_HAT:
            reasons.append(f"k-hat of the importance weights is {self.k_hat:.2f}, not below {MAX_K_HAT}")
        if self.memory is not None and not self.memory < MAX_MEMORY:
            reasons.append(
                f"chains have not forgotten where they started: a correlation of {self.memory:.2f} is left, "
                f"not below {MAX_MEMORY}"
            )
        if self.drift is not None and not self.drift < MAX_DRIFT:
            reasons.append(
                f"chains still drift: a mean or spread moved by {self.drift:.2f} sd beyond its error, "
                f"not below {MAX_DRIFT}"
            )
        if self.floor_decades is not None and not self.floor_decades < MAX_FLOOR_DECADES:
            reasons.append(
                f"the floor spreads over {self.floor_decades:.1f} decades towards zero, not under "
                f"{MAX_FLOOR_DECADES:g}: fit a law without one, or give it a prior with less mass there"
            )
        if self.max_rhat is not None and not self.max_rhat < MAX_RHAT:
            reasons.append(f"R-hat of {self.worst_rhat} is {self.max_rhat:.3f}, not below {MAX_RHAT}")
        least = MIN_ESS if self.method == "nuts" else MIN_ESS_FAST
        if not self.min_ess > least:
            whose = f" of {self.worst_ess}" if self.worst_ess else ""
            reasons.append(f"effective sample size{whose} is {self.min_ess:.0f}, not above {least:.0f}")
        if self.divergences:
            reasons.append(f"{self.divergences} divergent transitions")
        if self.unvisited_modes:
            reasons.append(f"{self.unvisited_modes} other mode(s) that no chain visited")
        return reasons

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that the constructor takes."""
        return asdict(self)


def diagnose(
    parameters: Mapping[str, np.ndarray],
    diverging: np.ndarray,
    *,
    unvisited_modes: int = 0,
    seconds: Mapping[str, float] | None = None,
) -> Diagnostics:
    """Compute the gates' numbers of NUTS draws, arrays of shape (chain, draw, ...)."""
    rhat = _worst(parameters, "rhat", np.max)
    bulk, tail = (_worst(parameters, f"ess_{kind}", np.min) for kind in ("bulk", "tail"))
    ess = min(bulk, tail, key=lambda pair: pair[0])
    return Diagnostics(
        method="nuts",
        max_rhat=rhat[0],
        worst_rhat=rhat[1],
        min_ess=ess[0],
        worst_ess=ess[1],
        divergences=int(np.sum(diverging)),
        unvisited_modes=unvisited_modes,
        seconds=dict(seconds or {}),
    )


def _worst(parameters: Mapping[str, np.ndarray], measure: str, worst: Any) -> tuple[float, str]:
    from arviz_stats.base import array_stats

    values: dict[str, float] = {}
    kinds: dict[str, dict[str, Any]] = {
        "ess_bulk": {"method": "bulk"},
        "ess_tail": {"method": "tail", "prob": 0.9},
    }
    function = array_stats.rhat if measure == "rhat" else array_stats.ess
    for name, draws in parameters.items():
        flat = draws.reshape(*draws.shape[:2], -1)
        found = np.asarray(function(flat, chain_axis=0, draw_axis=1, **kinds.get(measure, {})))
        values[name] = float(worst(np.where(np.isfinite(found), found, np.nan)))
    # A constant or NaN diagnostic is the worst there is.
    name = max(values, key=lambda n: (np.isnan(values[n]), values[n] if worst is np.max else -values[n]))
    return values[name], name
