"""A model: a law, the numbers of a run table, noise and discrepancy; all that a log-density needs.

    log loss_i = log( E + (law(x_i) - E) * exp(delta(x_i)) ) + group effect + noise_i

with noise Student-t or Normal of relative scale sqrt(noise_sd^2 + known_i^2), where known_i holds the
published standard error and rounding of run i. `log_density` is the NumPy definition, batched over
points; `bayescale.model.pymc_model` builds the same density as a PyMC model, and a test holds them equal.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from bayescale.laws import CentredLaw, Either, Gamma, Law, LogNormal, Prior, as_used
from bayescale.model.coordinates import Coordinates, Sampled
from bayescale.model.discrepancy import Discrepancy, axes_of, stretch_of
from bayescale.model.noise import Noise, log_density, total_log_density

# Points whose temporaries, each with its own discrepancy basis, fit the cache.
BLOCK = 500
# Points whose densities are found together, for the same reason.
_CHUNK = 250
# Priors of the positive parameters beside a law's own. Those of the discrepancy (relative to the reducible
# loss; decades) were chosen by how forecasts of published tables score: docs/coverage.md. A law is wrong by
# several per cent, or right to within what noise hides: tables of both kinds are common.
SCALE_PRIORS: dict[str, Prior] = {
    "noise_sd": LogNormal(0.01, 1.0),
    "noise_df": Gamma(2.0, 0.1),
    "discrepancy_sd": Either(LogNormal(0.05, 0.7), LogNormal(0.003, 1.0)),
    "discrepancy_length": LogNormal(3.0, 0.5),
    "discrepancy_stretch": LogNormal(1.5, 0.6),
    "group_sd": LogNormal(0.005, 1.0),
}
# Those of them that shape the discrepancy's basis: points that share their values share a basis.
SHAPE_SCALES = ("discrepancy_length", "discrepancy_stretch")


@dataclass(frozen=True, eq=False)
class Model:
    """A law on a table's numbers, with its noise, discrepancy and group effect.

    Attributes
    ----------
    law : Law
        The law.
    centre : mapping
        Input symbol to the value at which the law is centred; geometric means of the table.
    ratios : array, shape (input, run)
        log(input / centre).
    log_loss : array, shape (run,)
        Natural logarithm of the losses.
    known_noise : array, shape (run,)
        Known relative standard deviation of each loss.
    noise : str
        ``student-t`` or ``normal``.
    discrepancy : Discrepancy or None
        Smooth misfit of the law.
    group : array of int, shape (run,), or None
        Index of each run's group in `group_names`.
    group_names : tuple of str
        Labels of the groups.
    all_scale_priors : mapping
        Priors of the positive parameters beside the law's; those that the model has no use for are ignored.
    coordinates : Coordinates
        In which the law's parameters are sampled.
    start : array, optional
        Law coordinates about which chains start.
    standard_weights : bool
        Whether discrepancy weights are sampled in coordinates that the losses leave about standard normal, as
        NUTS needs, or as they are.
    """

    law: Law
    centre: Mapping[str, float]
    ratios: np.ndarray
    log_loss: np.ndarray
    known_noise: np.ndarray
    noise: Noise
    discrepancy: Discrepancy | None
    group: np.ndarray | None
    group_names: tuple[str, ...]
    all_scale_priors: Mapping[str, Prior]
    coordinates: Coordinates
    start: np.ndarray | None = None
    standard_weights: bool = True

    @cached_property
    def centred(self) -> CentredLaw:
        """The law about its centre."""
        return CentredLaw(self.law)

    @cached_property
    def axes(self) -> np.ndarray:
        """The runs on the discrepancy's axes, shape (axis, run), decades from the centre."""
        return axes_of(self.law.inputs, self.ratios)

    @cached_property
    def scale_priors(self) -> dict[str, Prior]:
        """Priors of the positive parameters beside the law's, in the order they are sampled."""
        names = ["noise_sd"]
        if self.noise == "student-t":
            names.append("noise_df")
        if self.discrepancy is not None:
            names += ["discrepancy_sd", "discrepancy_length"]
            if any(stretch_of(self.law.inputs)):
                names.append("discrepancy_stretch")
        if self.group is not None:
            names.append("group_sd")
        return {name: self.all_scale_priors[name] for name in names}

    @cached_property
    def layout(self) -> dict[str, slice]:
        """Where each block of the unconstrained vector lies: law, log scales, standard normals."""
        sizes = {"law_coordinates": len(self.coordinates.names)}
        sizes |= dict.fromkeys(self.scale_priors, 1)
        if self.discrepancy is not None:
            sizes["discrepancy_coordinates"] = self.discrepancy.size
        if self.group is not None:
            sizes["group_offsets"] = len(self.group_names)
        ends = np.cumsum(list(sizes.values())).tolist()
        starts = [0, *ends[:-1]]
        return {n: slice(a, b) for n, a, b in zip(sizes, starts, ends, strict=True)}

    @property
    def shape_axes(self) -> list[int]:
        """Coordinates of the unconstrained vector that shape the discrepancy's basis."""
        return [self.layout[name].start for name in SHAPE_SCALES if name in self.layout]

    @property
    def size(self) -> int:
        """Number of unconstrained coordinates."""
        return sum(s.stop - s.start for s in self.layout.values())

    def law_only(self) -> "Model":
        """Return the same model without discrepancy and group effect."""
        return replace(self, discrepancy=None, group=None, group_names=(), start=None)

    def with_plain_weights(self) -> "Model":
        """Return the same model with discrepancy weights that are sampled as they are."""
        return replace(self, standard_weights=False)

    def ratios_at(self, inputs: Mapping[str, Any]) -> np.ndarray:
        """Return log-ratios to the centre, shape (input, point), of inputs by symbol."""
        used = as_used(inputs)
        columns = [np.log(np.asarray(used[i], float) / self.centre[i]) for i in self.law.inputs]
        return np.stack(np.broadcast_arrays(*columns))

    def law_loss(self, values: Mapping[str, Any], ratios: np.ndarray, xp: Any = np) -> Any:
        """Return the law's loss, shape (..., point), without discrepancy.

        Parameters
        ----------
        values : mapping
            Sampled law parameters, each of shape (...).
        ratios : array, shape (input, point)
            Log-ratios of the inputs to the centre.
        xp : module
            NumPy or ``pytensor.tensor``.
        """
        function = self.centred.function(self.centre, xp) if xp is not np else self._numpy_function
        return function(*(values[n][..., None] for n in self.centred.names), *ratios)

    def with_misfit(self, loss: Any, values: Mapping[str, Any], misfit: Any, xp: Any = np) -> Any:
        """Return losses whose reducible part is multiplied by exp(misfit), (..., point)."""
        floor = self.floor(values)
        return floor + (loss - floor) * xp.exp(misfit)

    def point(
        self,
        law_coordinates: Any,
        scales: Mapping[str, Any],
        discrepancy_coordinates: Any,
        log_loss: Any,
        xp: Any = np,
    ) -> "Point":
        """Map unconstrained coordinates to parameters, discrepancy weights and expected losses.

        Parameters
        ----------
        law_coordinates : array, shape (..., coordinate)
            The law's coordinates.
        scales : mapping
            The parameters of `scale_priors`, each of shape (...).
        discrepancy_coordinates : array, shape (..., weight)
            Of the discrepancy's weights; ignored without a discrepancy.
        log_loss : array, shape (run,)
            Logarithms of the losses, about which coordinates are standardised.
        xp : module
            NumPy or ``pytensor.tensor``.
        """
        sampled = self.coordinates.to_sampled(law_coordinates, xp)
        loss = self.law_loss(sampled.values, self.ratios, xp)
        if self.discrepancy is None:
            return Point(sampled.values, sampled.logs, loss, None, sampled.log_jacobian)
        basis = self.discrepancy.basis(self.axes, self.lengths(scales), xp)
        basis = basis * scales["discrepancy_sd"][..., None, None]
        weights, log_jacobian = discrepancy_coordinates, sampled.log_jacobian
        if self.standard_weights:
            seen = self._seen_misfit(sampled.values, scales, loss, log_loss, xp)
            weights, bend = self.discrepancy.weights(discrepancy_coordinates, basis, *seen, xp)
            log_jacobian = log_jacobian + bend
        loss = self.with_misfit(loss, sampled.values, (basis @ weights[..., None])[..., 0], xp)
        return Point(sampled.values, sampled.logs, loss, weights, log_jacobian)

    def lengths(self, scales: Mapping[str, Any]) -> Any:
        """Return the discrepancy's length on every axis, decades, shape (..., axis)."""
        length, powers = scales["discrepancy_length"][..., None], stretch_of(self.law.inputs)
        if "discrepancy_stretch" not in scales:
            return length * np.ones(len(powers))
        return length * scales["discrepancy_stretch"][..., None] ** powers

    def _seen_misfit(
        self, values: Mapping[str, Any], scales: Mapping[str, Any], loss: Any, log_loss: Any, xp: Any
    ) -> tuple[Any, Any]:
        """Return the discrepancy that each run points to, and how precisely, each (..., run)."""
        floor = self.floor(values)
        target, slope = pointed_misfit(log_loss, floor, xp.maximum(loss - floor, 1e-300), xp)
        variance = scales["noise_sd"][..., None] ** 2 + self.known_noise**2
        return target, slope**2 / variance

    def sharing_lengths(self, z: np.ndarray) -> np.ndarray:
        """Return indices, shape (group, member), of points z whose group shares discrepancy lengths.

        Groups have as many members as points share lengths on average; where there are fewer, the last is
        repeated. Neighbouring groups have similar lengths.
        """
        shapes = z[:, self.shape_axes]
        order = np.lexsort(shapes.T[::-1]) if shapes.size else np.arange(len(z))
        starts = np.flatnonzero(np.append(True, np.diff(shapes[order], axis=0).any(axis=1)))
        ends = np.append(starts[1:], len(z))
        members = min(len(z) // len(starts), BLOCK)
        pieces = -(-(ends - starts) // members)
        nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        first = np.repeat(starts, pieces) + members * nth
        return order[np.minimum(first[:, None] + np.arange(members), np.repeat(ends - 1, pieces)[:, None])]

    def point_at(self, z: np.ndarray) -> "Point":
        """Return `point` at unconstrained points z, shape (point, size), in NumPy."""
        scales = {n: self.scale(z, n) for n in self.scale_priors}
        weights = z[:, self.layout["discrepancy_coordinates"]] if self.discrepancy else None
        if (z[:, self.shape_axes] == z[:1, self.shape_axes]).all():  # one basis for all
            scales |= {n: scales[n][:1] for n in SHAPE_SCALES if n in scales}
        return self.point(z[:, self.layout["law_coordinates"]], scales, weights, self.log_loss)

    def parameters_at(self, z: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Return the law's parameters and the discrepancy's weights (or None) at points z, (point, size)."""
        if self.discrepancy is not None and self.standard_weights:
            point = self.point_at(z)
            return point.values, point.weights
        values = self.coordinates.to_sampled(z[:, self.layout["law_coordinates"]], np).values
        return values, z[:, self.layout["discrepancy_coordinates"]] if self.discrepancy else None

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """Return the log posterior density, up to the evidence, at points z, shape (point, size).

        Includes all constants and Jacobians, so that it integrates to the evidence.
        """
        return _in_chunks(self._log_density, z)

    def _log_density(self, z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            point = self.point_at(z)
            total = self._log_prior(z, point) + point.log_jacobian
            total = total + self.total_log_likelihood(z, self._log_mean(z, point))
        return np.where(np.isfinite(total), total, -np.inf)

    def log_likelihood_at(self, z: np.ndarray) -> np.ndarray:
        """Return the log density of each run's log loss at points z, (point, size), shape (point, run)."""
        return _in_chunks(
            lambda part: self.log_likelihood(part, self._log_mean(part, self.point_at(part))), z
        )

    def log_mean_at(self, z: np.ndarray) -> np.ndarray:
        """Return each run's expected log loss at points z, (point, size), shape (point, run).

        Discrepancy and group effects are in it.
        """
        return _in_chunks(lambda part: self._log_mean(part, self.point_at(part)), z)

    def _log_mean(self, z: np.ndarray, point: "Point") -> np.ndarray:
        """Return expected log losses, group effects and all, shape (point, run)."""
        log_mean = np.log(point.loss)
        if self.group is None:
            return log_mean
        offsets = self.scale(z, "group_sd")[:, None] * z[:, self.layout["group_offsets"]]
        return log_mean + offsets[:, self.group]

    def law_log_prior(self, values: Mapping[str, Any], logs: Mapping[str, Any], xp: Any = np) -> Any:
        """Return the log prior density of the law's sampled parameters."""
        priors = self.centred.priors.items()
        return sum(prior.given(values).logpdf(values[name], logs.get(name), xp) for name, prior in priors)

    def theta_log_prior(self, z: np.ndarray, sampled: Sampled) -> np.ndarray:
        """Return the log prior density of law coordinates and log scales, shape (point,)."""
        total = self.law_log_prior(sampled.values, sampled.logs) + sampled.log_jacobian
        return total + self.scales_log_prior(z)

    def scales_log_prior(self, z: np.ndarray, names: Iterable[str] | None = None) -> np.ndarray:
        """Return the log prior density of log scales, all or some, shape (point,)."""
        total = np.zeros(len(z))
        for name in self.scale_priors if names is None else names:
            log = z[:, self.layout[name].start]
            total += self.scale_priors[name].logpdf(np.exp(log), log, np) + log
        return total

    def _log_prior(self, z: np.ndarray, point: "Point") -> np.ndarray:
        total = self.law_log_prior(point.values, point.logs) + self.scales_log_prior(z)
        offsets = z[:, self.layout["group_offsets"]] if self.group is not None else None
        for v in (point.weights, offsets):
            if v is not None:
                total = total - 0.5 * (v**2).sum(-1) - 0.5 * v.shape[1] * np.log(2 * np.pi)
        return total

    def noise_variance(self, z: np.ndarray) -> np.ndarray:
        """Return the squared relative noise scale at points z, broadcasting with (point, run)."""
        free = self.scale(z, "noise_sd")[:, None] ** 2
        return free + self.known_noise**2 if np.any(self.known_noise) else free

    def noise_df(self, z: np.ndarray) -> np.ndarray | None:
        """Return the degrees of freedom of Student-t noise at points z, shape (point, 1); of Normal, None."""
        return self.scale(z, "noise_df")[:, None] if self.noise == "student-t" else None

    def log_likelihood(self, z: np.ndarray, log_mean: np.ndarray) -> np.ndarray:
        """Return the log density of each run's log loss about its mean, both (point, run)."""
        return log_density(self.log_loss - log_mean, self.noise_variance(z), self.noise_df(z))

    def total_log_likelihood(self, z: np.ndarray, log_mean: np.ndarray) -> np.ndarray:
        """Return the sum of `log_likelihood` over runs, shape (point,), in half the time."""
        return total_log_density(self.log_loss - log_mean, self.noise_variance(z), self.noise_df(z))

    def scale(self, z: np.ndarray, name: str) -> np.ndarray:
        """Return a positive parameter (``noise_sd``, ...) at points z, shape (point,)."""
        return np.exp(z[:, self.layout[name].start])

    def floor(self, values: Mapping[str, Any]) -> Any:
        """Return the irreducible loss, shape (..., 1); a number where it is held (or there is none)."""
        floor = values[self.centred.floor][..., None] if self.centred.floor else 0.0
        return floor + self.centred.held_floor

    def __getstate__(self) -> dict[str, Any]:
        # What was computed from the fields, a compiled function among it, does not travel.
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @cached_property
    def _numpy_function(self) -> Any:
        return self.centred.function(self.centre)


def _in_chunks(function: Callable[[np.ndarray], np.ndarray], z: np.ndarray) -> np.ndarray:
    return np.concatenate([function(z[i : i + _CHUNK]) for i in range(0, len(z), _CHUNK)])


def pointed_misfit(log_loss: Any, floor: Any, reducible: Any, xp: Any) -> tuple[Any, Any]:
    """Return the misfit that each run points at, and the derivative of its log loss in the misfit there.

    Parameters
    ----------
    log_loss : array, shape (run,)
        Logarithms of the losses.
    floor, reducible : array, shape (..., 1) and (..., run)
        The law's floor, and what it adds for each run.
    xp : module
        NumPy or ``pytensor.tensor``.
    """
    observed = xp.exp(log_loss)
    # A floor above a run's loss has no log; such points are far from the posterior.
    seen = xp.maximum(observed - floor, 0.01 * observed)
    return xp.log(seen / reducible), seen / observed


class Point(NamedTuple):
    """What a point in unconstrained coordinates stands for.

    Sampled law parameters and logarithms of the positive ones, expected loss of each run (before group
    effects), discrepancy weights, and the log-Jacobian of the map to (law parameters, weights).
    """

    values: dict[str, Any]
    logs: dict[str, Any]
    loss: Any
    weights: Any
    log_jacobian: Any
