"""Whether draws may be believed: R-hat, effective sample size, divergences, other modes.

A fit that fails a gate is marked in every output made from it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr

MAX_RHAT = 1.01
MIN_ESS = 400.0
# A mode with a larger share of the Laplace mass than this must have been visited.
OTHER_MODE_SHARE = 0.01


@dataclass(frozen=True)
class Diagnostics:
    """Numbers that decide whether draws stand, and the reasons where they do not.

    Attributes
    ----------
    max_rhat : float
        Largest rank-normalised split R-hat, and `worst_rhat`, whose it is (arXiv:1903.08008).
    min_ess : float
        Smallest of bulk and tail effective sample sizes, and `worst_ess`, whose it is.
    divergences : int
        Divergent transitions after warm-up.
    unvisited_modes : int
        Modes of at least 1% of the mass that no chain visited.
    seconds : dict
        Wall-clock seconds by stage.
    """

    max_rhat: float
    worst_rhat: str
    min_ess: float
    worst_ess: str
    divergences: int
    unvisited_modes: int
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """One sentence for each gate that failed."""
        reasons = []
        if not self.max_rhat < MAX_RHAT:
            reasons.append(f"R-hat of {self.worst_rhat} is {self.max_rhat:.3f}, not below {MAX_RHAT}")
        if not self.min_ess > MIN_ESS:
            reasons.append(
                f"effective sample size of {self.worst_ess} is {self.min_ess:.0f}, not above {MIN_ESS:.0f}"
            )
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
    posterior: xr.Dataset,
    sample_stats: xr.Dataset,
    *,
    unvisited_modes: int = 0,
    seconds: Mapping[str, float] | None = None,
) -> Diagnostics:
    """Compute the gates' numbers from draws with dimensions (chain, draw, ...)."""
    rhat = _worst(posterior, "rhat", np.max)
    bulk, tail = (_worst(posterior, f"ess_{kind}", np.min) for kind in ("bulk", "tail"))
    ess = min(bulk, tail, key=lambda pair: pair[0])
    diverging = sample_stats["diverging"] if "diverging" in sample_stats else np.zeros(1)
    return Diagnostics(
        max_rhat=rhat[0],
        worst_rhat=rhat[1],
        min_ess=ess[0],
        worst_ess=ess[1],
        divergences=int(np.sum(np.asarray(diverging))),
        unvisited_modes=unvisited_modes,
        seconds=dict(seconds or {}),
    )


def _worst(posterior: xr.Dataset, measure: str, worst: Any) -> tuple[float, str]:
    from arviz_stats.base import array_stats

    values: dict[str, float] = {}
    kinds: dict[str, dict[str, Any]] = {
        "ess_bulk": {"method": "bulk"},
        "ess_tail": {"method": "tail", "prob": 0.9},
    }
    function = array_stats.rhat if measure == "rhat" else array_stats.ess
    for name, variable in posterior.data_vars.items():
        draws = variable.transpose("chain", "draw", ...).values
        flat = draws.reshape(*draws.shape[:2], -1)
        found = np.asarray(function(flat, chain_axis=0, draw_axis=1, **kinds.get(measure, {})))
        values[str(name)] = float(worst(np.where(np.isfinite(found), found, np.nan)))
    # A constant or NaN diagnostic is the worst there is.
    name = max(values, key=lambda n: (np.isnan(values[n]), values[n] if worst is np.max else -values[n]))
    return values[name], name
