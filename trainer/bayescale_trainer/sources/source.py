"""Text that can be read at any place, by index, and is the same on every machine.

A source hands out windows: `context + 1` tokens, of which the last `context` are predicted. Window
i is always the same tokens, so a batch is a function of (source, seed, step) and a resumed run
needs no data state.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "validation"]
Tokens = NDArray[np.int64]

# Bounds of what a ladder may ask of a source.
MOST_TOKENS, MOST_SYMBOLS = 1e9, 65_536


class SourceError(ValueError):
    """A source that cannot be opened or used; the message says what to do."""


class Source(Protocol):
    """Text with a fixed vocabulary, cut into windows.

    Attributes
    ----------
    kind : str
        Name of the source's family.
    vocabulary : int
        Tokens that occur: 0 to vocabulary - 1.
    entropy_rate : float or None
        Exact nats per token of the targets given everything before them; None where nobody knows.
    bytes_per_token : float or None
        UTF-8 bytes per token of the validation text; None where tokens are not text.
    tokenizer : str
        What made tokens of the text, with a hash where its merges were learned.
    fingerprint : str
        Hash of what the source says, not of where it lies.
    validation_fingerprint : str
        Hash of the validation tokens.
    train_windows, validation_windows : int or None
        Distinct windows in each split; None where they never end.
    """

    kind: str
    vocabulary: int
    entropy_rate: float | None
    bytes_per_token: float | None
    tokenizer: str
    fingerprint: str
    validation_fingerprint: str
    train_windows: int | None
    validation_windows: int

    def windows(self, index: Tokens, split: Split) -> Tokens:
        """Return windows by index: (n,) to (n, context + 1)."""
        ...

    def conditional(self, windows: Tokens) -> NDArray[np.float32] | None:
        """Return the exact p(next token | window so far), (n, context, vocabulary), or None."""
        ...


def check_numbers(least: float, most: float, **options: float) -> None:
    """Refuse options of a source that are not numbers from `least` to `most`."""
    for option, value in options.items():
        if type(value) not in (int, float) or not least <= value <= most:
            raise SourceError(f"[source] {option} = {value!r}: expected a number from {least:g} to {most:g}")


def check_whole(least: int, most: int, **options: int) -> None:
    """Refuse options of a source that are not whole numbers from `least` to `most`."""
    for option, value in options.items():
        if type(value) is not int or not least <= value <= most:
            raise SourceError(
                f"[source] {option} = {value!r}: expected a whole number from {least} to {most}"
            )


def check_synthetic(*, seed: int, exponent: float, validation_tokens: float) -> None:
    """Refuse what options that synthetic sources share cannot be."""
    check_whole(0, 2**31 - 1, seed=seed)
    check_numbers(1, MOST_TOKENS, validation_tokens=validation_tokens)
    check_numbers(0, 8, exponent=exponent)  # beyond it the first few ranks have all the mass


def digest(*parts: Any) -> str:
    """Hash plain values and arrays, 16 hexadecimal digits."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(np.ascontiguousarray(part).tobytes())
        else:
            state.update(json.dumps(part, sort_keys=True).encode())
    return state.hexdigest()[:16]


def scramble(key: int, counter: Tokens) -> NDArray[np.uint64]:
    """Turn counters into 64 random bits each (splitmix64, doi:10.1145/2714064.2660195).

    A function of (key, counter) and nothing else: unlike a generator it can be read at any place,
    and unlike NumPy's streams its numbers are the same in every version.
    """
    mask = (1 << 64) - 1
    offset = np.uint64((key * 0xD1342543DE82EF95 + 0x632BE59BD9B4E019) & mask)
    z = (counter.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + offset
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(key: int, counter: Tokens) -> NDArray[np.float64]:
    """Turn counters into uniform numbers in [0, 1)."""
    return (scramble(key, counter) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def zipf(count: int, exponent: float) -> NDArray[np.float64]:
    """Return the probabilities of ranks 1..count, proportional to rank^-(1 + exponent)."""
    weight = np.arange(1, count + 1, dtype=np.float64) ** -(1 + exponent)
    return weight / weight.sum()
