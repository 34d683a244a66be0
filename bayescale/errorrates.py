"""Error rates: on how many examples they were counted, and what sampling error that leaves.

A rate of n examples is a whole multiple of 1/n, and the mean of k such rates one of 1/(k n): smoothed curves
still show n by those of their points that are no means.
"""

import numpy as np

# Numbers of examples that are looked for, and of rates that a mean is taken of.
_FEWEST, _MOST, _MEANS = 50, 200_000, 24
# Rates that it takes, that are looked at, and the share of them that are no means, at least.
_LEAST_RATES, _MOST_RATES, _LEAST_SHARE = 8, 200, 0.1
# Relative error of a rate in 32-bit storage.
_STORED = 6e-8
# In so few tables without such an n chance finds one.
_LUCK = 1e-4
# Numbers whose likelihood is less than so many nats below the best are told apart by nothing.
_LEVEL = 2.0
_CHUNK, _STEPS = 20_000, 60


def counted_examples(rate: np.ndarray) -> int | None:
    """Return the number of examples that error rates were counted on, None if they do not show one.

    Of several that explain the rates as well the largest is returned, which leaves the least sampling error.

    Parameters
    ----------
    rate : array, shape (run,)
        Error rates, shares of one; some may be means of several.

    Examples
    --------
    >>> wrong = np.array([812, 755, 703.5, 691, 654, 633, 613, 601, 596.5, 590, 581, 577, 570, 569])
    >>> counted_examples(wrong / 5792)
    5792
    >>> counted_examples(np.array([0.21, 0.2, 0.17, 0.14, 0.13, 0.125, 0.12, 0.118])) is None
    True
    """
    rate = np.unique(np.asarray(rate, float))
    rate = rate[:: -(-len(rate) // _MOST_RATES)]
    if len(rate) < _LEAST_RATES or not np.all((rate > 0) & (rate < 1)) or _is_decimal(rate):
        return None
    chunks = [np.arange(n, min(n + _CHUNK, _MOST + 1)) for n in range(_FEWEST, _MOST + 1, _CHUNK)]
    numbers = np.concatenate([chunk[_surprising(rate, chunk)] for chunk in chunks])
    if not numbers.size:
        return None
    log_likelihood, share = _as_means(rate, numbers)
    log_likelihood[share < _LEAST_SHARE] = -np.inf
    best = log_likelihood.max()
    return int(numbers[log_likelihood > best - _LEVEL].max()) if np.isfinite(best) else None


def sampling_error(rate: np.ndarray, examples: float) -> np.ndarray:
    """Return the relative standard error of error rates on so many examples, sqrt((1 - p) / (p n)).

    What forecasts of raw rates take as `known_noise`.

    Parameters
    ----------
    rate : array
        Error rates, shares of one.
    examples : float
        On how many examples each is counted.

    Examples
    --------
    >>> float(sampling_error(np.array(0.2), 10_000))
    0.02
    """
    rate = np.asarray(rate, float)
    return np.sqrt((1 - rate) / (rate * examples))


def _is_decimal(rate: np.ndarray) -> bool:
    """Whether rates are rounded to decimals, which are multiples of 1/n for another reason."""
    return any(np.all(np.abs(np.round(rate, k) - rate) <= _STORED * rate) for k in range(7))


def _multiples(rate: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which rates are whole multiples of 1 / each number, and how far from one storage leaves them."""
    counts = numbers[..., None] * rate
    off = _STORED * counts
    return np.abs(counts - np.rint(counts)) <= off, off


def _surprising(rate: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Whether more rates are multiples of 1/n than chance lets be (a Chernoff bound), by number."""
    multiple, off = _multiples(rate, numbers)
    share, chance = multiple.mean(axis=1), np.clip(2 * off.mean(axis=1), 1e-12, 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = share * np.log(share / chance), (1 - share) * np.log((1 - share) / (1 - chance))
    divergence = sum(np.nan_to_num(term, nan=0.0) for term in terms)
    return (share > chance) & (len(rate) * divergence > np.log((_MOST - _FEWEST) / _LUCK))


def _as_means(rate: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by number the log likelihood that rates are means of up to so many, and the share that are none.

    The shares of means of 1, 2, ..., and of anything else, are those that make the rates most likely.
    """
    multiple, off = _multiples(rate, np.multiply.outer(numbers, np.arange(1, _MEANS + 1)))
    density = multiple / (2 * off)  # where anything else has a density of 1
    density = np.concatenate([density, np.ones((len(numbers), 1, len(rate)))], axis=1)
    share = np.full(density.shape[:2], 1 / density.shape[1])
    for _ in range(_STEPS):
        owned = share[..., None] * density
        share = (owned / owned.sum(axis=1, keepdims=True)).mean(axis=2)
    return np.log((share[..., None] * density).sum(axis=1)).sum(axis=1), share[:, 0]
