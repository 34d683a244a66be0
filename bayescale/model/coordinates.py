"""Coordinates in which a law is sampled: what the data determine, not what papers print.

corr(alpha, log A) is .999 and more in every published table, so amplitudes and exponents make poor
coordinates. Each class here maps a vector z to the law's sampled parameters, their logarithms, and the
logarithm of the map's Jacobian, in NumPy (any leading shape) or ``pytensor.tensor``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from bayescale.laws import CentredLaw
from bayescale.laws.priors import marginal

# Where a positive floor has hardly any prior mass, between these shares of the level, log E continues along
# its tangent, and the density falls by so many nats whenever E falls by what it is there: a leapfrog step
# that overshoots E = 0 meets a steep finite slope instead of NaN, and a vague prior of E, whose density grows
# towards 0 and on, has no mass beyond. The default prior is 1e-30 and less there.
_MOST_SHARE, _LEAST_SHARE, _WALL = 1e-3, 1e-9, 10.0


class Sampled(NamedTuple):
    """Sampled parameters at a point: values, logarithms (of positive ones), log-Jacobian."""

    values: dict[str, Any]
    logs: dict[str, Any]
    log_jacobian: Any


class Coordinates(Protocol):
    """A map from unconstrained coordinates to a law's sampled parameters."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""

    def to_sampled(self, z: Any, xp: Any) -> Sampled:
        """Map coordinates, last axis `len(names)`, to parameters."""

    def from_sampled(self, values: Mapping[str, Any]) -> np.ndarray:
        """Inverse map, in NumPy; the last axis of the result runs over `names`."""


@dataclass(frozen=True)
class LevelSlope:
    """Level and local slopes of ``E + sum a_k exp(-p_k x)`` at the centre, and log exponents.

    z = (log L0, log s_1, ..., log p_1, ...) with L0 = E + sum a_k the loss at the centre and
    s_k = a_k p_k the local slope in log input; so a_k = s_k / p_k and E = L0 - sum a_k.
    """

    floor: str
    power_terms: Mapping[str, str]
    least_floor: float

    @property
    def exponents(self) -> tuple[str, ...]:
        """Distinct exponents; terms may share one."""
        return tuple(dict.fromkeys(self.power_terms.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        slopes = [f"log_slope_{a.removesuffix('_centre')}" for a in self.power_terms]
        return ("log_level", *slopes, *(f"log_{p}" for p in self.exponents))

    def to_sampled(self, z: Any, xp: Any) -> Sampled:
        first_exponent = 1 + len(self.power_terms)
        logs = {p: z[..., first_exponent + i] for i, p in enumerate(self.exponents)}
        for k, (amplitude, exponent) in enumerate(self.power_terms.items()):
            logs[amplitude] = z[..., 1 + k] - logs[exponent]
        values = {name: xp.exp(log) for name, log in logs.items()}
        level = xp.exp(z[..., 0])
        floor = level - sum(values[a] for a in self.power_terms)
        # |d(E, a, p)/dz| = L0 prod a_k prod p_k
        log_jacobian = z[..., 0] + sum(logs.values())
        values[self.floor] = floor
        logs[self.floor], below = _log_floor(floor, level, self.least_floor, xp)
        return Sampled(values, logs, log_jacobian + _WALL * below)

    def from_sampled(self, values: Mapping[str, Any]) -> np.ndarray:
        level = values[self.floor] + sum(values[a] for a in self.power_terms)
        slopes = [values[a] * values[p] for a, p in self.power_terms.items()]
        columns = [level, *slopes, *(values[p] for p in self.exponents)]
        return np.log(np.stack(np.broadcast_arrays(*columns), axis=-1))


@dataclass(frozen=True)
class LogParameters:
    """Logarithms of positive parameters, others as they are."""

    positive: Mapping[str, bool]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(f"log_{n}" if positive else n for n, positive in self.positive.items())

    def to_sampled(self, z: Any, xp: Any) -> Sampled:
        values, logs = {}, {}
        for i, (name, positive) in enumerate(self.positive.items()):
            if positive:
                logs[name] = z[..., i]
                values[name] = xp.exp(z[..., i])
            else:
                values[name] = z[..., i]
        return Sampled(values, logs, sum(logs.values()))

    def from_sampled(self, values: Mapping[str, Any]) -> np.ndarray:
        columns = [np.log(values[n]) if p else values[n] for n, p in self.positive.items()]
        return np.stack(np.broadcast_arrays(*columns), axis=-1)


@dataclass(frozen=True)
class Level:
    """Log L0, the loss at the centre, in place of the floor: E = L0 minus what the law adds there.

    What data leave open is how L0 divides into the floor and the rest: in log E and log amplitudes a ridge
    that bends, in log L0 a straight one. The other parameters are as in `LogParameters`.
    """

    floor: str
    law: CentredLaw
    centre: Mapping[str, float]

    @property
    def rest(self) -> LogParameters:
        """The other parameters."""
        return LogParameters({n: p.positive for n, p in self.law.priors.items() if n != self.floor})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return ("log_level", *self.rest.names)

    def to_sampled(self, z: Any, xp: Any) -> Sampled:
        rest = self.rest.to_sampled(z[..., 1:], xp)
        level = xp.exp(z[..., 0])
        floor = level - self._reducible(rest.values, xp)
        logs, log_jacobian = dict(rest.logs), rest.log_jacobian + z[..., 0]
        if self.law.priors[self.floor].positive:
            least = marginal(self.law.priors, self.floor).least()
            logs[self.floor], below = _log_floor(floor, level, least, xp)
            log_jacobian = log_jacobian + _WALL * below
        return Sampled({self.floor: floor, **rest.values}, logs, log_jacobian)

    def from_sampled(self, values: Mapping[str, Any]) -> np.ndarray:
        level = values[self.floor] + self._reducible(values, np)
        rest = self.rest.from_sampled(values)
        columns = np.broadcast_arrays(np.log(level), *np.moveaxis(rest, -1, 0))
        return np.stack(columns, axis=-1)

    def _reducible(self, values: Mapping[str, Any], xp: Any) -> Any:
        return loss_at_centre(self.law, self.centre, {**values, self.floor: 0.0}, xp)


@dataclass(frozen=True)
class LevelRatios:
    """Log L0, the loss at the centre, and log ratios of amplitudes that scale it: for laws without a floor.

    Of ``(a**(1/p) + b**(1/p))**p`` data know L0 well, but hardly which term it is made of: in log a and log b
    a ridge that bends into both axes. With a = L0 / R(1, r), b = r a it is straight. The other parameters are
    as in `LogParameters`.
    """

    amplitudes: tuple[str, ...]
    law: CentredLaw
    centre: Mapping[str, float]

    @property
    def rest(self) -> LogParameters:
        """The other parameters."""
        return LogParameters({n: p.positive for n, p in self.law.priors.items() if n not in self.amplitudes})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return ("log_level", *(f"log_ratio_{a}" for a in self.amplitudes[1:]), *self.rest.names)

    def to_sampled(self, z: Any, xp: Any) -> Sampled:
        first, *others = self.amplitudes
        rest = self.rest.to_sampled(z[..., len(self.amplitudes) :], xp)
        ratios = {a: z[..., 1 + k] for k, a in enumerate(others)}
        relative = {first: 1.0, **{a: xp.exp(ratio) for a, ratio in ratios.items()}}
        log_scale = z[..., 0] - xp.log(loss_at_centre(self.law, self.centre, {**rest.values, **relative}, xp))
        logs = {first: log_scale, **{a: log_scale + ratio for a, ratio in ratios.items()}}
        values = {a: xp.exp(log) for a, log in logs.items()}
        # Ratios move no volume: the log-Jacobian is that of the logarithms.
        return Sampled(
            {**values, **rest.values}, {**logs, **rest.logs}, rest.log_jacobian + sum(logs.values())
        )

    def from_sampled(self, values: Mapping[str, Any]) -> np.ndarray:
        first, *others = self.amplitudes
        level = loss_at_centre(self.law, self.centre, values, np)
        rest = np.moveaxis(self.rest.from_sampled(values), -1, 0)
        ratios = [np.log(values[a]) - np.log(values[first]) for a in others]
        return np.stack(np.broadcast_arrays(np.log(level), *ratios, *rest), axis=-1)


@dataclass(frozen=True)
class Whitened:
    """Standardised coordinates: ``u = mode + scale @ z`` with scale from the curvature there."""

    base: Level | LevelRatios | LogParameters
    mode: tuple[float, ...]
    scale: tuple[tuple[float, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(f"white_{i}" for i in range(len(self.mode)))

    def to_sampled(self, z: Any, xp: Any) -> Sampled:
        scale = np.asarray(self.scale)
        sampled = self.base.to_sampled(np.asarray(self.mode) + xp.dot(z, scale.T), xp)
        log_scale = float(np.linalg.slogdet(scale)[1])
        return sampled._replace(log_jacobian=sampled.log_jacobian + log_scale)

    def from_sampled(self, values: Mapping[str, Any]) -> np.ndarray:
        centred = self.base.from_sampled(values) - np.asarray(self.mode)
        return np.linalg.solve(np.asarray(self.scale), centred[..., None])[..., 0]


# Coordinates whose spreads differ by orders of magnitude, as NUTS does not like.
NEEDS_WHITENING = (Level, LevelRatios, LogParameters)


def loss_at_centre(law: CentredLaw, centre: Mapping[str, float], values: Mapping[str, Any], xp: Any) -> Any:
    """Return the law's loss at the centre, of sampled parameters."""
    at_centre = np.zeros(len(law.law.inputs))
    with np.errstate(all="ignore"):  # of far draws from wide priors a loss overflows; none has a density
        return law.function(centre, xp)(*(values[n] for n in law.names), *at_centre)


def natural_coordinates(
    law: CentredLaw, centre: Mapping[str, float]
) -> LevelSlope | Level | LevelRatios | LogParameters:
    """Return level/slope coordinates where the law's terms allow them, else the level, else logarithms."""
    if law.power_terms is not None and law.floor is not None:
        return LevelSlope(law.floor, law.power_terms, marginal(law.priors, law.floor).least())
    if law.floor is not None:
        return Level(law.floor, law, centre)
    if len(amplitudes := _amplitudes(law, centre)) > 1:
        return LevelRatios(amplitudes, law, centre)
    return LogParameters({n: prior.positive for n, prior in law.priors.items()})


def _amplitudes(law: CentredLaw, centre: Mapping[str, float]) -> tuple[str, ...]:
    """Return the amplitudes that scale the loss: all of them twice as large double it, whatever the rest."""
    at_centre = [n for name, n in law.derived.centred.items() if n != name]
    found = tuple(n for n in at_centre if law.priors[n].positive and law.units[n] == "nats/token")
    rng = np.random.default_rng(0)
    values = {n: rng.uniform(0.3, 0.9, 5) for n in law.names}
    once = loss_at_centre(law, centre, values, np)
    twice = loss_at_centre(law, centre, values | {n: 2 * values[n] for n in found}, np)
    return found if np.allclose(twice, 2 * once, rtol=1e-9) else ()


def _log_floor(floor: Any, level: Any, least: float, xp: Any) -> tuple[Any, Any]:
    """Return log E, continued along its tangent, and by how many times its start E lies below: negative."""
    start = xp.maximum(xp.minimum(_MOST_SHARE * level, least), _LEAST_SHARE * level)
    below = xp.minimum(floor / start - 1.0, 0.0)
    return xp.log(xp.maximum(floor, start)) + below, below
