"""Forecasts averaged over laws: how much of a band is doubt within laws, and how much between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayescale.errors import FitError
from bayescale.forecasts import SIZES, Forecast, forecast

if TYPE_CHECKING:
    from bayescale.fitting import Fit
    from bayescale.laws import Law

# Laws with less weight than this change no quantile that is printed.
_MIN_WEIGHT = 1e-4


@dataclass(frozen=True, eq=False)
class AveragedForecast:
    """A mixture of the forecasts of several laws.

    Attributes
    ----------
    mixture : Forecast
        Draws of the mixture.
    law : array of str, shape (sample,)
        Whose law each of the mixture's draws is.
    parts : mapping
        Label to that law's own forecast.
    weights : mapping
        Label to weight; they sum to one.
    """

    mixture: Forecast
    law: np.ndarray
    parts: Mapping[str, Forecast]
    weights: Mapping[str, float]

    def __repr__(self) -> str:
        return repr(self.mixture)

    @property
    def warnings(self) -> list[str]:
        """What is not to be relied on, in words."""
        return self.mixture.warnings

    def summary(self) -> pd.DataFrame:
        """Return the mixture's medians and intervals, with the spread within and between laws.

        ``within_sd`` and ``between_sd`` are of the expected loss, nats/token: their squares add up to the
        mixture's variance.
        """
        table = self.mixture.summary()
        flat = {n: _flat(part) for n, part in self.parts.items()}
        weights = np.array([self.weights[n] for n in flat])[:, None]
        means = np.stack([draws.mean(axis=0) for draws in flat.values()])
        variances = np.stack([draws.var(axis=0) for draws in flat.values()])
        mean = (weights * means).sum(axis=0)
        table["within_sd"] = np.sqrt((weights * variances).sum(axis=0))
        table["between_sd"] = np.sqrt((weights * (means - mean) ** 2).sum(axis=0))
        return table

    def by_law(self) -> pd.DataFrame:
        """Return each law's weight, and its own median and 90% band of the expected loss, nats/token."""
        parts = []
        for name, part in self.parts.items():
            rows = part.summary()[["expected_loss", "expected_loss_90%_low", "expected_loss_90%_high"]]
            rows.insert(0, "weight", self.weights[name])
            rows.insert(0, "law", name)
            parts.append(rows.rename_axis("target").reset_index())
        return pd.concat(parts, ignore_index=True)


def average(
    fits: "Mapping[str, Fit]", weights: Mapping[str, float], *, seed: int = 0, **inputs: Any
) -> AveragedForecast:
    """Mix the forecasts of several fits.

    Parameters
    ----------
    fits : mapping
        Label to fit.
    weights : mapping
        Label to weight, not negative; scaled to sum to one. Laws that then weigh under a ten-thousandth are
        left out.
    seed : int
        Of the forecasts and of which draws are taken.
    **inputs
        As in `bayescale.forecast`: every input that some law with a weight needs.

    Raises
    ------
    FitError
        If a law has no weight or none of them a positive one, or an input is missing.
    """
    for name in fits:
        if not 0 <= weights.get(name, np.nan) < np.inf:
            raise FitError(f"weight of {name!r}: found {weights.get(name)}; expected a number, 0 or above")
    whole = sum(weights[name] for name in fits)
    kept = {n: float(weights[n]) for n in fits if weights[n] > _MIN_WEIGHT * whole}
    if not kept:
        raise FitError("no law has a positive weight to average by")
    total = sum(kept.values())
    kept = {n: w / total for n, w in kept.items()}
    rng = np.random.default_rng(seed)
    laws = {name: fit.law for name, fit in fits.items()}
    parts = {n: forecast(fits[n], seed=seed, **own_inputs(laws, n, inputs)) for n in kept}
    size = min(_flat(part).shape[0] for part in parts.values())
    # Systematic: the number of draws of each law is its weight's share, to within one.
    owner = np.searchsorted(np.cumsum(list(kept.values())), (np.arange(size) + rng.random()) / size)
    owner = rng.permutation(np.minimum(owner, len(kept) - 1))
    names, shape = list(kept), (1, size, -1)
    picks = [rng.permutation(_flat(part).shape[0])[:size] for part in parts.values()]

    def mixed(quantity: str) -> np.ndarray:
        drawn = [_flat(p, quantity)[pick] for p, pick in zip(parts.values(), picks, strict=True)]
        return np.stack(drawn)[owner, np.arange(size)].reshape(shape)

    inputs_known: dict[str, np.ndarray] = {}
    outside: dict[str, np.ndarray] = {}
    for part in parts.values():
        inputs_known |= part.inputs
        outside |= part.outside
    warnings = [f"{name}: {w}" for name, part in parts.items() for w in part.warnings]
    table = next(iter(parts.values())).table
    mixture = Forecast(
        inputs_known, mixed("expected_loss"), mixed("loss"), " + ".join(names), table, outside, warnings,
        next(iter(parts.values())).group,
    )  # fmt: skip
    return AveragedForecast(mixture, np.array(names)[owner], parts, kept)


def own_inputs(laws: "Mapping[str, Law]", name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs for one of the laws: without those that only others know."""
    others = {column for law in laws.values() for column in law.columns}
    foreign = others - {*laws[name].columns, *SIZES}
    return {column: value for column, value in inputs.items() if column not in foreign}


def _flat(part: Forecast, quantity: str = "expected_loss") -> np.ndarray:
    values: np.ndarray = getattr(part, quantity)
    return values.reshape(-1, values.shape[-1])
