"""Targets: what a plan is to make certain; draws of it, jointly with the losses of candidate runs.

A target is the loss at given inputs, of one run or of a table of them, the optimal params at a compute, or a
parameter such as E. All are drawn together with the candidates' expected losses in one call, since they share
one discrepancy.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayescale.counting import Counting
from bayescale.errors import FitError
from bayescale.forecasts import SIZES, complete_inputs, expected_loss
from bayescale.laws import Law
from bayescale.optimum import optimal_params, ratio_grid
from bayescale.runs import complete_compute
from bayescale.units import written_number

if TYPE_CHECKING:
    from bayescale.fitting import Fit

# Draws used; thousands of candidates times all draws would not fit the memory.
MAX_DRAWS = 4000


@dataclass(frozen=True)
class Target:
    """What a plan is to make certain.

    Attributes
    ----------
    inputs : dict of str to float or array, shape (target,)
        Of the run whose expected loss is the target, or of several; or ``compute`` alone, whose optimal
        allocation is.
    parameter : str, optional
        The parameter that is the target.
    """

    inputs: dict[str, Any]
    parameter: str | None = None

    def __str__(self) -> str:
        if self.count > 1:
            return f"{self.count} runs"
        return self.parameter or ",".join(f"{k}={np.ravel(v)[0]:.6g}" for k, v in self.inputs.items())

    @property
    def count(self) -> int:
        """Of the runs whose losses are the target; 1 for any other target."""
        return max((np.size(v) for v in self.inputs.values()), default=1)

    def sizes(self, counting: Counting) -> dict[str, np.ndarray]:
        """Return the params, tokens and compute that are given, and the third of them where two are."""
        found = {name: np.asarray(v, float) for name, v in self.inputs.items() if name in SIZES}
        complete_compute(found, counting)
        return found

    def is_allocation(self, law: Law) -> bool:
        """Whether the target is the optimal split of a compute."""
        return self.inputs.keys() == {"compute"} and law.inputs == ("N", "D")

    def describe(self, fit: "Fit") -> tuple[str, str]:
        """Return what the target is, in words, and its unit."""
        if self.parameter:
            return self.parameter, fit.unit(self.parameter)
        if self.is_allocation(fit.law):
            return f"optimal params at {self.inputs['compute']:.4g} FLOP", "decades"
        return f"expected loss at {self}", "nats/token"


def parse_target(text: str) -> Target:
    """Read ``params=1e9,tokens=2e10`` (or ``params=1B,tokens=20B``), ``compute=1e21`` or a parameter's name.

    Raises
    ------
    FitError
        If an input has no positive number.
    """
    if "=" not in text:
        return Target({}, text.strip())
    inputs: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        number = written_number(value)
        if name.strip() in inputs:
            raise FitError(f"target {text!r}: {name.strip()!r} stands twice; expected each input once")
        if not 0 < number < np.inf:
            raise FitError(
                f"target {text!r}: found {part!r}; expected inputs such as params=1B,tokens=2e10, a compute "
                "such as compute=1e21, or a parameter such as E"
            )
        inputs[name.strip()] = number
    return Target(inputs)


def table_target(law: Law, rows: pd.DataFrame, counting: Counting) -> Target:
    """Return the losses at every row of a table as a target; of params, tokens and compute two will do.

    Raises
    ------
    FitError
        If there is no row, or a row has no positive number for an input of the law.
    """
    if rows.empty:
        raise FitError("targets have no row; expected a row per run whose loss is to be forecast")
    here = set(law.columns) <= set(rows)
    read = [c for c in (law.columns if here else dict.fromkeys((*law.columns, *SIZES))) if c in rows]
    inputs = {c: positive(rows[c], f"targets, column {c!r}") for c in read}
    complete_compute(inputs, counting)
    if missing := [c for c in law.columns if c not in inputs]:
        raise FitError(
            f"targets have no column {missing[0]!r}; law {law.name!r} needs {', '.join(law.columns)}"
        )
    return Target({c: inputs[c] for c in law.columns})


def positive(column: pd.Series, where: str) -> np.ndarray:
    """Return a column of positive numbers.

    Raises
    ------
    FitError
        If one is none; `where` and its row are named.
    """
    values = pd.to_numeric(column, errors="coerce").to_numpy(float)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(bad):
        raise FitError(
            f"{where}, row {bad[0] + 1}: found {column.iloc[bad[0]]!r}; expected a positive number"
        )
    return values


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
    target : array, shape (draw,) or, of several runs, (draw, target)
        In the unit that `Target.describe` names.
    losses : array, shape (draw, candidate)
        Expected losses, nats/token.

    Raises
    ------
    FitError
        If the law lacks the parameter or an input of the target.
    """
    rng = np.random.default_rng(seed)
    here = ratios_of(fit, candidates)
    if target.parameter:
        draws = fit.parameters.get(target.parameter)
        if draws is None or draws.ndim != 1:
            have = ", ".join(n for n, d in fit.parameters.items() if d.ndim == 1)
            raise FitError(f"target {target.parameter!r} is no parameter of this fit; it has {have}")
        return draws, expected_loss(fit, here, rng) if here.shape[1] else np.empty((len(draws), 0))
    if target.is_allocation(fit.law):
        there = ratio_grid(fit, np.log(target.inputs["compute"]))
    else:
        there = ratios_of(fit, {k: np.atleast_1d(v) for k, v in target.inputs.items()})
    losses = expected_loss(fit, np.concatenate([there, here], axis=1), rng)
    count = there.shape[1]
    if target.is_allocation(fit.law):
        params = optimal_params(fit, np.log(target.inputs["compute"]), losses[:, :count])
        return np.log10(params), losses[:, count:]
    return losses[:, 0] if count == 1 else losses[:, :count], losses[:, count:]


def band(draws: np.ndarray) -> tuple[float, float]:
    """Return the ends of the 90% interval; of several targets, their means."""
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return float(low.mean()), float(high.mean())


def ratios_of(fit: "Fit", inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Return log-ratios of inputs by column to the table's centre, shape (input, point)."""
    if inputs and not len(next(iter(inputs.values()))):
        return np.empty((len(fit.law.inputs), 0))
    complete = complete_inputs(fit.law, fit.table.counting, inputs)
    return fit.model.ratios_at({s: complete[c] for s, c in zip(fit.law.inputs, fit.law.columns, strict=True)})
