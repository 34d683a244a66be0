"""Targets: what a plan is to make certain; draws of it, jointly with the losses of candidate runs.

A target is the loss at given inputs, the optimal params at a compute, or a parameter such as E. All are drawn
together with the candidates' expected losses in one call, since they share one discrepancy.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayescale.allocations import optimal_params, ratio_grid
from bayescale.errors import FitError
from bayescale.forecasts import complete_inputs, expected_loss

if TYPE_CHECKING:
    from bayescale.fitting import Fit


@dataclass(frozen=True)
class Target:
    """What a plan is to make certain.

    Attributes
    ----------
    inputs : dict of str to float
        Of the run whose expected loss is the target; or ``compute`` alone, whose optimal allocation is.
    parameter : str, optional
        The parameter that is the target.
    """

    inputs: dict[str, float]
    parameter: str | None = None

    def __str__(self) -> str:
        return self.parameter or ",".join(f"{k}={v:.6g}" for k, v in self.inputs.items())

    def is_allocation(self, fit: "Fit") -> bool:
        """Whether the target is the optimal split of a compute."""
        return self.inputs.keys() == {"compute"} and fit.law.inputs == ("N", "D")

    def describe(self, fit: "Fit") -> tuple[str, str]:
        """Return what the target is, in words, and its unit."""
        if self.parameter:
            units = {p.name: p.unit for p in fit.law.parameters}
            return self.parameter, units.get(self.parameter, "")
        if self.is_allocation(fit):
            return f"optimal params at {self.inputs['compute']:.4g} FLOP", "decades"
        return f"expected loss at {self}", "nats/token"


def parse_target(text: str) -> Target:
    """Read ``params=1e9,tokens=2e10``, ``compute=1e21`` or a parameter's name.

    Raises
    ------
    FitError
        If an input has no positive number.
    """
    if "=" not in text:
        return Target({}, text.strip())
    inputs = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            inputs[name.strip()] = float(value)
        except ValueError as error:
            raise FitError(
                f"target {text!r}: found {part!r}; expected inputs such as params=1e9,tokens=2e10, a compute "
                "such as compute=1e21, or a parameter such as E"
            ) from error
    return Target(inputs)


def joint_draws(
    fit: "Fit", target: Target, candidates: dict[str, np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the target and the expected loss of candidate runs together.

    Parameters
    ----------
    fit : Fit
        The posterior.
    target : Target
        The target.
    candidates : dict of str to array, shape (candidate,)
        Inputs by column.
    seed : int
        Of the discrepancy away from the table.

    Returns
    -------
    target : array, shape (draw,)
        In the unit that `Target.describe` names.
    losses : array, shape (draw, candidate)
        Expected losses, nats/token.

    Raises
    ------
    FitError
        If the law lacks the parameter or an input of the target.
    """
    rng = np.random.default_rng(seed)
    here = _ratios(fit, candidates)
    if target.parameter:
        draws = fit.parameters.get(target.parameter)
        if draws is None or draws.ndim != 1:
            have = ", ".join(n for n, d in fit.parameters.items() if d.ndim == 1)
            raise FitError(f"target {target.parameter!r} is no parameter of this fit; it has {have}")
        return draws, expected_loss(fit, here, rng)
    if target.is_allocation(fit):
        there = ratio_grid(fit, np.log(target.inputs["compute"]))
    else:
        there = _ratios(fit, {k: np.array([v]) for k, v in target.inputs.items()})
    losses = expected_loss(fit, np.concatenate([there, here], axis=1), rng)
    count = there.shape[1]
    if target.is_allocation(fit):
        params = optimal_params(fit, np.log(target.inputs["compute"]), losses[:, :count])
        return np.log10(params), losses[:, count:]
    return losses[:, 0], losses[:, count:]


def band(draws: np.ndarray) -> tuple[float, float]:
    """Return the ends of the 90% interval."""
    low, high = np.quantile(draws, [0.05, 0.95])
    return float(low), float(high)


def _ratios(fit: "Fit", inputs: dict[str, np.ndarray]) -> np.ndarray:
    if inputs and not len(next(iter(inputs.values()))):
        return np.empty((len(fit.law.inputs), 0))
    complete = complete_inputs(fit, inputs)
    return fit.model.ratios_at({s: complete[c] for s, c in zip(fit.law.inputs, fit.law.columns, strict=True)})
