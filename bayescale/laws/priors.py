"""Priors as small comparable values, apart from any backend.

A prior prints as it is written (``LogNormal(0.4, 0.35)``) and `parse_prior` reads that back, so that
priors travel through command lines, TOML and saved fits as text. `logpdf` takes the array namespace to
work in (NumPy or ``pytensor.tensor``): one definition serves every engine.

A log-normal prior may lie about another parameter of its law: ``beta = LogNormal(alpha, 0.2)``. `Prior.given`
turns it into one about a number, or an array of them. Two of positive parameters may be joined, at even odds:
``LogNormal(0.05, 0.7) or LogNormal(0.003, 1)``.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np

from bayescale.errors import LawError

_LOG_2PI = math.log(2 * math.pi)
# The mass of a prior that is hardly any.
_HARDLY = 1e-4


@dataclass(frozen=True)
class Prior:
    """Base of all priors; `positive` says whether the support is (0, inf) or the real line."""

    positive: ClassVar[bool] = True

    def __str__(self) -> str:
        numbers = (getattr(self, f.name) for f in fields(self))
        return f"{type(self).__name__}({', '.join(x if isinstance(x, str) else _exact(x) for x in numbers)})"

    @property
    def about(self) -> str | None:
        """Name of the parameter that is the prior's median, if one is."""
        return None

    def given(self, values: Mapping[str, Any]) -> "Prior":
        """Return the prior once other parameters have values, of any shape."""
        return self

    def logpdf(self, x: Any, log_x: Any, xp: Any) -> Any:
        """Log density at `x`; `log_x` is its logarithm, which callers mostly have already."""
        raise NotImplementedError

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw `size` values."""
        raise NotImplementedError

    def sds_from_middle(self, x: float) -> float:
        """Return how many standard deviations `x` lies from the median, where the prior is made Normal."""
        raise NotImplementedError

    def middles(self) -> tuple[float, ...]:
        """Return the median, of each of the priors that are joined."""
        raise NotImplementedError

    def least(self) -> float:
        """Return a value, of a positive parameter, below which the prior has hardly any mass."""
        raise NotImplementedError


def _exact(number: float) -> str:
    """Write a number in full: what is written is read back, from saved fits among others."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


@dataclass(frozen=True)
class LogNormal(Prior):
    """Log-normal: `median` in the parameter's unit, or another parameter's name; `sigma` of its logarithm."""

    median: Any
    sigma: float

    @property
    def about(self) -> str | None:
        return self.median if isinstance(self.median, str) else None

    def given(self, values: Mapping[str, Any]) -> Prior:
        return replace(self, median=values[self.median]) if self.about else self

    def logpdf(self, x: Any, log_x: Any, xp: Any) -> Any:
        log_median = math.log(self.median) if isinstance(self.median, int | float) else xp.log(self.median)
        z = (log_x - log_median) / self.sigma
        return -0.5 * z**2 - log_x - math.log(self.sigma) - 0.5 * _LOG_2PI

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return self.median * np.exp(self.sigma * rng.standard_normal(size))

    def sds_from_middle(self, x: float) -> float:
        return math.log(x / self.median) / self.sigma

    def middles(self) -> tuple[float, ...]:
        return (self.median,)

    def least(self) -> float:
        return self.median * math.exp(NormalDist().inv_cdf(_HARDLY) * self.sigma)


@dataclass(frozen=True)
class Gamma(Prior):
    """Gamma with `shape` and `rate`; mean shape/rate."""

    shape: float
    rate: float

    def logpdf(self, x: Any, log_x: Any, xp: Any) -> Any:
        constant = self.shape * math.log(self.rate) - math.lgamma(self.shape)
        return constant + (self.shape - 1) * log_x - self.rate * x

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.gamma(self.shape, 1 / self.rate, size)

    # The cube root of a gamma variable is nearly Normal (Wilson & Hilferty 1931).
    def sds_from_middle(self, x: float) -> float:
        spread = 1 / (9 * self.shape)
        return (math.cbrt(x * self.rate / self.shape) - (1 - spread)) / math.sqrt(spread)

    def middles(self) -> tuple[float, ...]:
        return (self.shape / self.rate * max(1 - 1 / (9 * self.shape), 0.1) ** 3,)

    def least(self) -> float:
        # Below its quantile, and near it where that is small: the density is at most x^(shape - 1) there.
        log_mass = math.log(_HARDLY) + math.lgamma(self.shape + 1)
        return math.exp(log_mass / self.shape) / self.rate


@dataclass(frozen=True)
class Normal(Prior):
    """Normal with `mean` and `sd`, for parameters of either sign."""

    positive: ClassVar[bool] = False
    mean: float
    sd: float

    def logpdf(self, x: Any, log_x: Any, xp: Any) -> Any:
        return -0.5 * ((x - self.mean) / self.sd) ** 2 - math.log(self.sd) - 0.5 * _LOG_2PI

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return self.mean + self.sd * rng.standard_normal(size)

    def sds_from_middle(self, x: float) -> float:
        return (x - self.mean) / self.sd

    def middles(self) -> tuple[float, ...]:
        return (self.mean,)


@dataclass(frozen=True)
class Either(Prior):
    """One of two priors of a positive parameter, at even odds."""

    first: Prior
    second: Prior

    def __str__(self) -> str:
        return f"{self.first} or {self.second}"

    def logpdf(self, x: Any, log_x: Any, xp: Any) -> Any:
        both = xp.logaddexp(self.first.logpdf(x, log_x, xp), self.second.logpdf(x, log_x, xp))
        return both - math.log(2)

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return np.where(rng.random(size) < 0.5, self.first.sample(rng, size), self.second.sample(rng, size))

    def sds_from_middle(self, x: float) -> float:
        normal = NormalDist()
        sds = self.first.sds_from_middle(x), self.second.sds_from_middle(x)
        below, above = (sum(normal.cdf(sign * z) for z in sds) / 2 for sign in (1, -1))
        # From the nearer tail: in the other a share of one is all that is left of it.
        return normal.inv_cdf(max(below, 1e-300)) if below < above else -normal.inv_cdf(max(above, 1e-300))

    def middles(self) -> tuple[float, ...]:
        return self.first.middles() + self.second.middles()

    def least(self) -> float:
        return min(self.first.least(), self.second.least())


def sample_priors(priors: Mapping[str, Prior], rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    """Draw `size` values of each parameter, in the order of `priors`."""
    values: dict[str, np.ndarray] = {}
    for name in in_order(priors):
        values[name] = priors[name].given(values).sample(rng, size)
    return {name: values[name] for name in priors}


def in_order(priors: Mapping[str, Prior]) -> list[str]:
    """Return names, those first that others' priors lie about."""
    return sorted(priors, key=lambda name: priors[name].about is not None)


def marginal(priors: Mapping[str, Prior], name: str) -> Prior:
    """Return a parameter's prior once the one that it lies about is integrated out."""
    prior = priors[name]
    if not prior.about:
        return prior
    other = priors[prior.about]
    assert isinstance(prior, LogNormal)
    assert isinstance(other, LogNormal)
    return LogNormal(other.median, math.hypot(other.sigma, prior.sigma))


_FAMILIES: dict[str, type[Prior]] = {c.__name__: c for c in (LogNormal, Gamma, Normal)}
_WRITTEN = re.compile(r"^\s*(\w+)\s*\(\s*([^,()]+)\s*,\s*([^,()]+)\s*\)\s*$")


def parse_prior(text: str | Prior) -> Prior:
    """Read a prior such as ``LogNormal(0.4, 0.35)``, or two joined by "or"; what is a prior already stays.

    Raises
    ------
    LawError
        If the text is no known prior, or a number in it is out of range.

    Examples
    --------
    >>> parse_prior("LogNormal(0.4, 0.35)")
    LogNormal(median=0.4, sigma=0.35)
    >>> parse_prior("LogNormal(alpha, 0.2)").about
    'alpha'
    >>> parse_prior("LogNormal(0.05, 0.7) or LogNormal(0.003, 1)").middles()
    (0.05, 0.003)
    """
    if not isinstance(text, str):
        return text
    first, joined, second = text.partition(" or ")
    if not joined:
        return _parse_one(text)
    both = Either(_parse_one(first), _parse_one(second))
    if not all(part.positive and not part.about for part in (both.first, both.second)):
        raise LawError(
            f"prior {text!r}: only two priors of a positive parameter about numbers can be joined; expected "
            "such as LogNormal(0.05, 0.7) or LogNormal(0.003, 1)"
        )
    return both


def parse_priors(priors: Mapping[str, Prior | str] | None) -> dict[str, Prior]:
    """Read the priors of an argument `priors`.

    Raises
    ------
    LawError
        If it is no mapping, or one of them is neither a prior nor the text of one.
    """
    expected = 'a Prior or its text, as in {"E": "LogNormal(1.8, 0.2)"}'
    if priors is not None and not isinstance(priors, Mapping):
        raise LawError(f"priors: found {priors!r}; expected a mapping of parameters, each to {expected}")
    found = {}
    for name, prior in (priors or {}).items():
        if not isinstance(prior, Prior | str):
            raise LawError(f"priors: found {prior!r} for {name!r}; expected {expected}")
        try:
            found[name] = parse_prior(prior)
        except LawError as error:
            raise LawError(f"{error} (of {name!r})") from error
    return found


def _parse_one(text: str) -> Prior:
    match = _WRITTEN.match(text)
    if not match or match[1] not in _FAMILIES:
        raise LawError(
            f"prior {text!r} cannot be read; expected LogNormal(median, sigma), Gamma(shape, rate) "
            "or Normal(mean, sd), or two of the former joined by 'or'"
        )
    other = match[2].strip()
    about = match[1] == "LogNormal" and other.isidentifier() and other.lower() not in ("inf", "nan")
    try:
        first, second = 1.0 if about else float(other), float(match[3])
    except ValueError as error:
        raise LawError(f"prior {text!r}: {error}; expected two numbers") from error
    in_range = second > 0 and (match[1] == "Normal" or first > 0)
    if not (in_range and math.isfinite(first) and math.isfinite(second)):
        raise LawError(f"prior {text!r}: scales must be positive and finite")
    return _FAMILIES[match[1]](other if about else first, second)  # type: ignore[call-arg]
