"""Zipf bigram: a Markov chain of order one whose rows are all Zipf laws, each in its own order.

Every row of the transition matrix holds the same probabilities, permuted, so the entropy of the
next token is the same whatever the present one: the entropy rate is the entropy of one row,
exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .source import Split, Tokens, check_synthetic, check_whole, digest, scramble, uniform, zipf

_KEY_ORDER, _KEY_TRAIN, _KEY_VALIDATION = range(3)


class ZipfBigram:
    """The Zipf bigram source; each window is a fresh chain from a uniform first token.

    Parameters
    ----------
    context : int
        Predicted tokens per window.
    symbols : int
        Alphabet size V.
    exponent : float
        a > 0: the j-th likeliest successor has probability proportional to j^-(1 + a).
    seed : int
        Which permutations and text.
    validation_tokens : int
        Tokens to evaluate on, rounded to whole windows.
    """

    kind = "zipf-bigram"
    bytes_per_token = None
    tokenizer = "none"
    train_windows = None

    def __init__(
        self,
        context: int,
        symbols: int = 256,
        exponent: float = 0.5,
        seed: int = 0,
        validation_tokens: int = 196_608,
    ) -> None:
        check_whole(2, 4096, symbols=symbols)  # the table of transitions is symbols^2
        check_synthetic(seed=seed, exponent=exponent, validation_tokens=validation_tokens)
        self.context, self.vocabulary, self.seed = context, symbols, seed
        row = zipf(symbols, exponent)
        self._cumulative = np.cumsum(row)
        draws = scramble(4 * seed + _KEY_ORDER, np.arange(symbols**2)).reshape(symbols, symbols)
        self._successor = np.argsort(draws, axis=1, kind="stable")
        self._transition = np.empty((symbols, symbols), np.float32)
        np.put_along_axis(self._transition, self._successor, row[None].astype(np.float32), axis=1)
        self.entropy_rate: float | None = float(-(row * np.log(row)).sum())
        self.validation_windows = max(1, round(validation_tokens / context))
        validation = self.windows(np.arange(self.validation_windows), "validation")
        self.validation_fingerprint = digest(validation)
        self.fingerprint = digest(self.kind, self._successor, float(exponent), self.validation_fingerprint)

    def windows(self, index: Tokens, split: Split) -> Tokens:
        """Return windows by index: (n,) to (n, context + 1)."""
        counter = index[:, None] * (self.context + 1) + np.arange(self.context + 1)
        key = _KEY_TRAIN if split == "train" else _KEY_VALIDATION
        u = uniform(4 * self.seed + key, counter)
        rank = np.searchsorted(self._cumulative, u, "right").clip(max=self.vocabulary - 1)
        found = np.empty_like(counter)
        found[:, 0] = u[:, 0] * self.vocabulary
        for t in range(1, self.context + 1):
            found[:, t] = self._successor[found[:, t - 1], rank[:, t]]
        return found

    def conditional(self, windows: Tokens) -> NDArray[np.float32]:
        """Return the exact p(next token | window so far), (n, context, vocabulary)."""
        return self._transition[windows[:, :-1]]
