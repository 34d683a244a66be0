"""Counting: what a run costs as its table counts compute, FLOP, and what a compute buys as it counts.

Compute is k N D. Where it was counted run by run, attention and embeddings included, k depends on the params:
it is taken for a power of them among the table's sizes, and beyond these for what it is at the nearest.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

# Tables whose k varies by no more than this factor have one.
_ONE = 1.1
# A power of params beyond this is no matter of attention and embeddings, and would make large runs cheap.
_STEEPEST = 0.5


@dataclass(frozen=True)
class Counting:
    """How compute is counted from params and tokens.

    Attributes
    ----------
    k : float
        In C = k N D, at the least of `sizes`.
    slope : float
        Of log k over log N, between them.
    sizes : (float, float)
        Least and largest params that it was told from.
    told : (float, float, float), optional
        Least, median and largest k of the runs that it was told from, where that varies.
    """

    k: float
    slope: float = 0.0
    sizes: tuple[float, float] = (1.0, 1.0)
    told: tuple[float, float, float] | None = None

    def __str__(self) -> str:
        if not self.slope:
            return f"{self.k:.3g} x params x tokens"
        (least, largest), (first, last) = self.sizes, self.per_param_token(np.array(self.sizes))
        return f"{first:.3g} to {last:.3g} x params x tokens, from {least:.3g} to {largest:.3g} params"

    @property
    def warnings(self) -> list[str]:
        """What to know where compute was counted rather than given."""
        if self.told is None:
            return []
        least, median, most = self.told
        return [
            f"compute is {least:.3g} to {most:.3g} times params x tokens in the table's runs (median "
            f"{median:.3g}); it is counted as {self}{', and beyond as there' if self.slope else ''}"
        ]

    def per_param_token(self, params: Any) -> Any:
        """Return k at params."""
        return self.k * (np.clip(params, *self.sizes) / self.sizes[0]) ** self.slope

    def compute(self, params: Any, tokens: Any) -> Any:
        """Return what runs cost."""
        return self.per_param_token(params) * params * tokens

    def tokens(self, compute: Any, params: Any) -> Any:
        """Return the tokens that a compute buys for models of these params."""
        return compute / (self.per_param_token(params) * params)

    def params(self, compute: Any, *, tokens: Any = 1.0, tokens_per_param: Any = None) -> Any:
        """Return the params that a compute buys at given tokens, or at given tokens per parameter."""
        power, fixed = (1, tokens) if tokens_per_param is None else (2, tokens_per_param)
        least, largest = self.sizes
        # log C / fixed = log k + power log N, with log N from the least size up.
        total = np.log(compute / fixed) - np.log(self.k) - power * np.log(least)
        among = np.clip(total / (power + self.slope), 0, np.log(largest / least))
        return least * np.exp((total - self.slope * among) / power)


def counting_of(params: np.ndarray, tokens: np.ndarray, compute: np.ndarray) -> Counting:
    """Return how compute was counted in runs, arrays of shape (run,)."""
    k = compute / (params * tokens)
    median = float(np.median(k))
    if k.max() <= _ONE * k.min():
        return Counting(median)
    told = (float(k.min()), median, float(k.max()))
    log_n, log_k = np.log(params), np.log(k)
    spread = log_n.var()
    slope = np.mean((log_n - log_n.mean()) * (log_k - log_k.mean())) / spread if spread else 0.0
    slope = float(np.clip(slope, -_STEEPEST, _STEEPEST))
    at_least = float(np.exp(log_k.mean() + slope * (log_n.min() - log_n.mean())))
    return Counting(at_least, slope, (float(params.min()), float(params.max())), told)
