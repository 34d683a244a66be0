"""Forecasts: draws of the loss of runs not yet trained, their bands, and how far they lie from the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayescale.counting import Counting
from bayescale.errors import FitError
from bayescale.fitting import require_fit
from bayescale.laws import Law, as_used
from bayescale.model.discrepancy import axes_of
from bayescale.model.making import MOST_DECADES
from bayescale.runs import complete_compute

if TYPE_CHECKING:
    import xarray as xr

    from bayescale.fitting import Fit

INTERVALS = (0.5, 0.8, 0.9)
# Jointly drawn targets share one discrepancy. Up to this many, its covariance is factorised for every draw;
# more are drawn as functions, whose cost is linear in targets.
_FEW = 64
# Decades outside the table's range that are worth a word.
FAR = 0.05
# Nobody forecasts so many decades away but by mistake.
_OTHER_UNIT = 5.0
# Targets that a forecast shows when printed.
_PRINTED = 10
# Two of these give the third: they are told of any target, whatever the law takes.
SIZES = ("params", "tokens", "compute")


@dataclass(frozen=True, eq=False)
class Forecast:
    """Draws of loss at inputs not yet run.

    Attributes
    ----------
    inputs : mapping
        Input columns at each target, arrays of shape (target,).
    expected_loss : array, shape (chain, draw, target)
        Expected loss of the training recipe, nats/token.
    loss : array, shape (chain, draw, target)
        Loss of one new run, with noise and, of models with a group effect, the offset of a new group (or of
        the one asked for, which the expected loss has, too), nats/token.
    law, table : str
        What was fitted to what.
    outside : mapping
        Decades by which each target lies outside the table's range: by input, and of D/N.
    warnings : list of str
        Failed diagnostics of the fit, and far extrapolation, in words.
    group : str or None
        Whose losses these are; None for no group in particular.
    """

    inputs: Mapping[str, np.ndarray]
    expected_loss: np.ndarray
    loss: np.ndarray
    law: str
    table: str
    outside: Mapping[str, np.ndarray]
    warnings: list[str]
    group: str | None = None

    def __repr__(self) -> str:
        targets = self.loss.shape[-1]
        flat = self.loss.reshape(-1, targets)[:, :_PRINTED]
        whose = f", group {self.group}" if self.group else ""
        lines = [
            f"<Forecast by {self.law} on {self.table}{whose}, nats/token: median and 90% band of a new run"
        ]
        for i, (low, middle, high) in enumerate(np.quantile(flat, [0.05, 0.5, 0.95], axis=0).T):
            where = ", ".join(f"{name} {values[i]:.4g}" for name, values in self.inputs.items())
            lines.append(f"  {where}: {middle:.4f} ({low:.4f} - {high:.4f})")
        lines += [f"  and {targets - _PRINTED} more targets"] if targets > _PRINTED else []
        return "\n".join(lines + [f"  ! {warning}" for warning in self.warnings]) + ">"

    @cached_property
    def draws(self) -> "xr.Dataset":
        """``expected_loss`` and ``loss`` with dimensions (chain, draw, target), inputs as coordinates."""
        import xarray as xr

        dims = ("chain", "draw", "target")
        coords = {name: ("target", values) for name, values in self.inputs.items()}
        index = {d: np.arange(n) for d, n in zip(dims[:2], self.loss.shape[:2], strict=True)}
        attributes = {"unit": "nats/token", "law": self.law, "table": self.table}
        attributes |= {"group": self.group} if self.group else {}
        variables = {"expected_loss": (dims, self.expected_loss), "loss": (dims, self.loss)}
        return xr.Dataset(variables, index | coords, attributes)

    def summary(self) -> pd.DataFrame:
        """Return one row per target: inputs, then median and 50/80/90% intervals, nats/token."""
        table = pd.DataFrame(dict(self.inputs))
        for name in ("expected_loss", "loss"):
            draws = getattr(self, name)
            flat = draws.reshape(-1, draws.shape[-1])
            table[name] = np.median(flat, axis=0)
            for width in INTERVALS:
                ends = np.quantile(flat, [(1 - width) / 2, (1 + width) / 2], axis=0)
                table[f"{name}_{width:.0%}_low"], table[f"{name}_{width:.0%}_high"] = ends
        return table


def forecast(
    fit: "Fit", *, seed: int = 0, known_noise: Any = 0.0, group: Any = None, **inputs: Any
) -> Forecast:
    """Forecast the loss at given inputs.

    Parameters
    ----------
    fit : Fit
        The fit.
    seed : int
        Of the discrepancy away from the table and of the new run's noise.
    known_noise : float or array, shape (target,)
        Known relative standard deviation of each new loss, beside the noise that the runs show: of an
        evaluation on few examples, or of rounding, as `RunTable.known_noise` has it for runs of a table.
    group : str, optional
        Of a fit with a group effect: the group, a value of its column, whose losses are to be forecast.
        Without it the expected loss is that of the fit's own (`Fit.for_group`) or, where it has none, of no
        group in particular, and a new run is of a new group.
    **inputs : float or sequence of float
        By column: ``params``, ``tokens``, ``compute``, ...; broadcast against each other. Where the law
        needs one of params, tokens, compute that is not given, it is found as the table counts compute.

    Raises
    ------
    FitError
        If an input that the law needs is missing, unknown or not positive, or the group is none of the fit's.
    """
    require_fit(fit)
    fit = fit.for_group(group)
    targets = complete_inputs(fit.law, fit.table.counting, inputs)
    ratios = fit.model.ratios_at(
        {s: targets[c] for s, c in zip(fit.law.inputs, fit.law.columns, strict=True)}
    )
    try:
        known = np.asarray(known_noise, float)
    except (TypeError, ValueError) as error:
        raise FitError(f"known_noise: found {known_noise!r}; expected one or more numbers") from error
    if known.shape not in ((), (1,), ratios.shape[1:]) or not np.all((known >= 0) & (known < np.inf)):
        raise FitError(
            f"known_noise is {known.tolist()}; expected a relative standard deviation, 0 or more, for all "
            f"{ratios.shape[1]} targets or for each"
        )
    rng = np.random.default_rng(seed)
    expected = expected_loss(fit, ratios, rng)
    new = expected * np.exp(_noise(fit, expected.shape, known, rng) + _offset(fit, expected.shape, rng))
    shape = (*fit.z.shape[:2], ratios.shape[1])
    outside = decades_outside(fit, targets)
    warnings = fit.warnings + told_far(outside)
    if any(inputs.get(column) is None for column in fit.law.columns):
        warnings += fit.table.counting.warnings
    return Forecast(
        targets,
        expected.reshape(shape),
        new.reshape(shape),
        fit.law.name,
        fit.table.name,
        outside,
        warnings,
        fit.group,
    )


def expected_loss(fit: "Fit", ratios: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the expected loss at log-ratios of shape (input, target); shape (draws, target).

    Includes the discrepancy, with the part that the runs leave unknown drawn jointly over all targets.
    Offsets of groups are no part of it, of two new groups neither is expected to do better, but for that of
    the group that the fit is for.
    """
    model, draws = fit.model, fit.parameters
    loss = np.array(model.law_loss(draws, ratios)) * np.ones((1, ratios.shape[1]))
    if model.discrepancy is not None:
        loss = model.with_misfit(loss, draws, _misfit(fit, ratios, rng))
    return loss * group_factor(fit)


def group_factor(fit: "Fit") -> np.ndarray:
    """Return what the losses of the fit's group are multiplied by, shape (draw, 1); 1 if it is for none."""
    if fit.group is None:
        return np.ones((1, 1))
    offsets = fit.parameters["group_offsets"][:, fit.model.group_names.index(fit.group)]
    return np.exp(fit.parameters["group_sd"] * offsets)[:, None]


def complete_inputs(law: Law, counting: Counting, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return every input column of a law at each target, and params, tokens and compute where known.

    Raises
    ------
    FitError
        If an input that the law needs is missing, unknown or not positive.
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    known = {*SIZES, *law.columns}
    if unknown := given.keys() - known:
        raise FitError(
            f"input {sorted(unknown)[0]!r} has no place in law {law.name!r}; expected some of {sorted(known)}"
        )
    if not given:
        raise FitError(f"no inputs given; law {law.name!r} needs {', '.join(law.columns)}")
    arrays = {}
    for name, value in given.items():
        try:
            values = arrays[name] = np.atleast_1d(np.asarray(value, float))
        except (TypeError, ValueError) as error:
            raise FitError(f"input {name!r}: found {value!r}; expected one or more numbers") from error
        if values.ndim > 1 or not values.size:
            raise FitError(
                f"input {name!r}: found an array of shape {values.shape}; expected one or more numbers"
            )
        if not np.all((values > 0) & np.isfinite(values)):
            raise FitError(f"input {name!r}: found {values.tolist()}; expected positive numbers")
    try:
        broadcast = np.broadcast_arrays(*arrays.values())
    except ValueError as error:
        sizes = {name: len(values) for name, values in arrays.items()}
        raise FitError(f"inputs have unequal numbers of targets: {sizes}") from error
    targets = dict(zip(arrays, broadcast, strict=True))
    _require_consistent(targets, counting)
    complete_compute(targets, counting)
    if missing := [c for c in law.columns if c not in targets]:
        raise FitError(
            f"law {law.name!r} needs {', '.join(law.columns)}; {missing[0]!r} is not given and "
            f"cannot be found from {', '.join(given)}"
        )
    used = as_used({s: targets[c] for s, c in zip(law.inputs, law.columns, strict=True)})
    return targets | dict(zip(law.columns, used.values(), strict=True))


def _require_consistent(targets: Mapping[str, np.ndarray], counting: Counting) -> None:
    """Raise if params, tokens and compute are all given, and compute is not about what it is counted as."""
    if not {"params", "tokens", "compute"} <= targets.keys():
        return
    ratio = targets["compute"] / counting.compute(targets["params"], targets["tokens"])
    # Runs are counted in ways of their own: off by this much it is another run.
    if np.any((ratio > 3) | (ratio < 1 / 3)):
        worst = ratio[np.argmax(np.abs(np.log(ratio)))]
        raise FitError(f"compute is {worst:.3g} times {counting}; give two of the three, or all of one run")


def decades_outside(fit: "Fit", targets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return decades by which targets lie outside the table's range of each input and of D/N.

    Raises
    ------
    FitError
        If they lie absurdly far.
    """
    columns = dict(zip(fit.law.inputs, fit.law.columns, strict=True))
    seen = as_used({symbol: fit.table.column(column) for symbol, column in columns.items()})
    quantities = {column: (seen[symbol], targets[column]) for symbol, column in columns.items()}
    if {"params", "tokens"} <= quantities.keys():
        (params, new_params), (tokens, new_tokens) = quantities["params"], quantities["tokens"]
        quantities["tokens per parameter"] = (tokens / params, new_tokens / new_params)
    return {name: outside_range(name, *values) for name, values in quantities.items()}


def outside_range(name: str, seen: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return decades by which each value asked of a quantity lies outside the range of those seen.

    Raises
    ------
    FitError
        If one lies absurdly far.
    """
    decades = decades_beyond(seen, asked)
    if (farthest := decades.max()) > MOST_DECADES:
        raise FitError(
            f"{name}: found {asked[decades.argmax()]:g}, {farthest:.0f} decades outside the table's "
            f"{seen.min():.3g} to {seen.max():.3g}; expected at most {MOST_DECADES:g}"
        )
    return decades


def decades_beyond(seen: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return decades by which each value asked of a quantity lies outside the range of those seen, or 0."""
    return np.maximum(0.0, np.maximum(np.log10(asked / seen.max()), np.log10(seen.min() / asked)))


def _misfit(fit: "Fit", ratios: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    discrepancy, draws = fit.model.discrepancy, fit.parameters
    assert discrepancy is not None
    axes = axes_of(fit.law.inputs, ratios)
    lengths, weights = fit.model.lengths(draws), draws["discrepancy_weights"]
    known = np.concatenate(
        [  # in chunks of draws: the bases of all together would not fit the memory
            (discrepancy.basis(axes, lengths[i : i + 500], np) @ weights[i : i + 500, :, None])[..., 0]
            for i in range(0, len(lengths), 500)
        ]
    )
    if axes.shape[1] <= _FEW:
        rest = discrepancy.unexplained(axes, lengths)
        unknown = (rest @ rng.standard_normal((len(lengths), axes.shape[1], 1)))[..., 0]
    else:
        unknown = discrepancy.draw_unexplained(axes, lengths, rng)
    return draws["discrepancy_sd"][:, None] * (known + unknown)


def _noise(fit: "Fit", shape: tuple[int, ...], known: Any, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(shape)
    if fit.model.noise == "student-t":
        # Below 2 the variance is infinite: that describes contamination of the table, not the next run.
        df = np.maximum(fit.parameters["noise_df"][:, None], 2.0)
        noise = noise / np.sqrt(rng.chisquare(np.broadcast_to(df, shape)) / df)
    return noise * np.hypot(fit.parameters["noise_sd"][:, None], known)


def _offset(fit: "Fit", shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw the offset of log loss of a new group for every target; that of a known one is expected."""
    if fit.model.group is None or fit.group is not None:
        return np.zeros(shape)
    return rng.standard_normal(shape) * fit.parameters["group_sd"][:, None]


def told_far(outside: Mapping[str, np.ndarray]) -> list[str]:
    """Return a warning for each quantity whose farthest value lies far outside the table, in decades."""
    far = {name: decades.max() for name, decades in outside.items() if decades.max() >= FAR}
    unit = "; is it, or the table's column, in another unit (millions, billions)?"
    return [
        f"{decades:.1f} decades outside the table's range: {name}{unit if decades >= _OTHER_UNIT else ''}"
        for name, decades in far.items()
    ]
