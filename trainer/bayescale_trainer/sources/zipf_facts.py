"""Zipf-facts: text made of facts, some common, most rare, whose entropy rate is exactly known.

The text is a string of independent blocks. A block states one fact k, drawn from Zipf(1 + a) over K
= V^q facts: q key tokens spell k (under a fixed random permutation), then r value tokens follow, a
fixed random function of k. It is a Santa Fe process (arXiv:1706.04432) written over a small
alphabet: a model must memorise facts, which costs parameters, and must meet them, which takes
tokens; so loss falls as a power of either.

Entropy rate. A block's q + r tokens are a function of k, and k can be read off the block, so a
block carries H(k) = -sum_k p_k log p_k nats. Blocks are independent and begin at known positions,
so no token of another block helps, and per token

    E = H(k) / (q + r).

With r = 1: V 256, q 2, a .5 gives 1.0543 nats per token; V 64, q 3, a .5 gives .7969; V 64, q 3, a
1 gives .4094.

Exact conditionals. Given the first j key tokens of its block, key token j + 1 has probability
P(prefix of j + 1) / P(prefix of j), both sums of p_k over the keys with that prefix; a value token
is certain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .source import (
    MOST_SYMBOLS,
    SourceError,
    Split,
    Tokens,
    check_synthetic,
    check_whole,
    digest,
    scramble,
    uniform,
    zipf,
)

# Every run's training text and the validation text are far apart on one endless counter.
_KEY_PERMUTATION, _KEY_VALUES, _KEY_TRAIN, _KEY_VALIDATION = range(4)


class ZipfFacts:
    """The Zipf-facts source.

    Parameters
    ----------
    context : int
        Predicted tokens per window; a multiple of `key_tokens + value_tokens`, so that a window
        holds each position of a block equally often and its mean surprisal has expectation E
        exactly.
    symbols : int
        Alphabet size V.
    key_tokens, value_tokens : int
        q and r.
    exponent : float
        a > 0: fact k has probability proportional to k^-(1 + a).
    seed : int
        Which permutation, values and text.
    validation_tokens : int
        Tokens to evaluate on, rounded to whole windows.
    """

    kind = "zipf-facts"
    bytes_per_token = None
    tokenizer = "none"
    train_windows = None

    def __init__(
        self,
        context: int,
        symbols: int = 256,
        key_tokens: int = 2,
        value_tokens: int = 1,
        exponent: float = 0.5,
        seed: int = 0,
        validation_tokens: int = 196_608,
    ) -> None:
        check_whole(2, MOST_SYMBOLS, symbols=symbols)
        check_whole(1, 24, key_tokens=key_tokens, value_tokens=value_tokens)
        check_synthetic(seed=seed, exponent=exponent, validation_tokens=validation_tokens)
        self.block = key_tokens + value_tokens
        if context % self.block:
            raise SourceError(
                f"[model] context = {context}, but zipf-facts needs a multiple of "
                "key_tokens + value_tokens = "
                f"{self.block}: use {self.block * max(1, round(context / self.block))}"
            )
        self.context, self.vocabulary = context, symbols
        self.key_tokens, self.value_tokens, self.seed = key_tokens, value_tokens, seed
        facts = symbols**key_tokens
        if facts > 2**24:
            raise SourceError(f"[source] symbols^key_tokens = {facts} facts; at most 2^24 fit: lower either")
        self.probability = zipf(facts, exponent)
        self._cumulative = np.cumsum(self.probability)
        self._keys = np.argsort(self._scramble(_KEY_PERMUTATION, np.arange(facts)), kind="stable")
        place = np.arange(facts)[:, None] * value_tokens + np.arange(value_tokens)
        self._values = (self._scramble(_KEY_VALUES, place) % np.uint64(symbols)).astype(np.int64)
        self._tokens = np.concatenate([self._spell(self._keys), self._values], axis=1)
        entropy = -(self.probability * np.log(self.probability)).sum()
        self.entropy_rate: float | None = float(entropy / self.block)
        self.validation_windows = max(1, round(validation_tokens / context))
        self._tabulate()
        validation = self.windows(np.arange(self.validation_windows), "validation")
        self.validation_fingerprint = digest(validation)
        self.fingerprint = digest(self.kind, self._tokens, float(exponent), self.validation_fingerprint)

    def windows(self, index: Tokens, split: Split) -> Tokens:
        """Return windows by index: (n,) to (n, context + 1); a window begins where a block does."""
        blocks = self.context // self.block + 1
        counter = index[:, None] * blocks + np.arange(blocks)
        key = _KEY_TRAIN if split == "train" else _KEY_VALIDATION
        fact = np.searchsorted(self._cumulative, uniform(4 * self.seed + key, counter), "right")
        fact = np.minimum(fact, len(self.probability) - 1)  # the last cumulative sum is 1 - rounding
        return self._tokens[fact].reshape(len(index), -1)[:, : self.context + 1]

    def conditional(self, windows: Tokens) -> NDArray[np.float32]:
        """Return the exact p(next token | window so far), (n, context, vocabulary)."""
        exact = np.empty((len(windows), self.context, self.vocabulary), np.float32)
        for phase in range(self.block):
            # Targets sit at columns 1..context of a window; those at `phase` of their block:
            columns = np.arange(phase or self.block, self.context + 1, self.block)
            exact[:, columns - 1] = self._given_prefix(windows, columns, phase)
        return exact

    def _given_prefix(self, windows: Tokens, columns: Tokens, phase: int) -> NDArray[np.float32]:
        key_phase = min(phase, self.key_tokens)
        prefix = np.zeros((len(windows), len(columns)), np.int64)
        for j in range(key_phase):
            prefix = prefix * self.vocabulary + windows[:, columns - phase + j]
        if phase < self.key_tokens:
            return self._next_key[phase][prefix]
        value = self._value_of_key[prefix, phase - self.key_tokens]
        return (value[..., None] == np.arange(self.vocabulary)).astype(np.float32)

    def _tabulate(self) -> None:
        """Tabulate p(next key token | prefix) for each prefix length, and the value of each key."""
        by_key = np.empty_like(self.probability)
        by_key[self._keys] = self.probability
        self._value_of_key = np.empty_like(self._values)
        self._value_of_key[self._keys] = self._values
        self._next_key = []
        for length in range(self.key_tokens):
            joint = by_key.reshape(self.vocabulary**length, self.vocabulary, -1).sum(axis=2)
            self._next_key.append((joint / joint.sum(axis=1, keepdims=True)).astype(np.float32))

    def _scramble(self, key: int, counter: Tokens) -> NDArray[np.uint64]:
        return scramble(4 * self.seed + key, counter)

    def _spell(self, key: Tokens) -> Tokens:
        power = self.vocabulary ** np.arange(self.key_tokens)[::-1]
        return key[:, None] // power % self.vocabulary
