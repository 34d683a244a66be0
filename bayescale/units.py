"""Units of loss, and their conversion to nats/token, the unit that everything inside works in."""

import re
from typing import Literal, get_args

import numpy as np

from bayescale.errors import TableError

LossUnit = Literal["nats/token", "bits/token", "nats/byte", "bits/byte", "perplexity", "other"]
LOSS_UNITS: tuple[LossUnit, ...] = get_args(LossUnit)

# A trained model that does worse than a uniform guess over 256k tokens (or over bytes) is a wrong
# unit, most often a perplexity labelled as a cross-entropy, or a wrong number.
_WORST_PLAUSIBLE: dict[str, float] = {
    "nats/token": float(np.log(256_000)),
    "bits/token": float(np.log2(256_000)),
    "nats/byte": float(np.log(256)),
    "bits/byte": 8.0,
    "perplexity": 256_000.0,
}
# A tokenizer of bytes has one, and a few to begin and end texts with.
_MOST_PER_BYTE = 1.2


# "21,000,000", "410M", "7b" and "1.4T" are how people and trackers write counts.
_WRITTEN_NUMBER = re.compile(r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*([KMBTkmbt]?)")
_MAGNITUDES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def written_number(text: str, *, magnitudes: bool = True) -> float:
    """Return a number as people write it, NaN where it is none.

    >>> written_number("70B"), written_number("1.4T"), written_number("21,000,000"), written_number("7e10")
    (70000000000.0, 1400000000000.0, 21000000.0, 70000000000.0)

    Parameters
    ----------
    text : str
        The number.
    magnitudes : bool
        Whether K, M, B or T (or small letters) may end it, as in counts of params and tokens.
    """
    match = _WRITTEN_NUMBER.fullmatch(text.strip())
    if not match or not any(c.isdigit() for c in match[1]) or (match[2] and not magnitudes):
        return float("nan")
    return float(match[1].replace(",", "")) * _MAGNITUDES[match[2].upper()]


def check_unit(unit: str, tokens_per_byte: float | None) -> None:
    """Raise unless losses in `unit` can be converted to nats/token.

    Raises
    ------
    TableError
        If the unit is unknown, or is per byte and tokens per byte is missing or not positive.
    """
    if unit not in LOSS_UNITS:
        raise TableError(f"loss unit {unit!r} is unknown; expected one of {', '.join(LOSS_UNITS)}")
    if unit.endswith("/byte") and tokens_per_byte is None:
        raise TableError(
            f"losses in {unit} need the tokenizer's tokens per byte to become nats/token; "
            "give tokens_per_byte (--tokens-per-byte), about 0.2 to 0.3 for English and BPE"
        )
    if tokens_per_byte is not None and not 0 < tokens_per_byte <= _MOST_PER_BYTE:
        raise TableError(
            f"tokens_per_byte is {tokens_per_byte:g}; expected between 0 and {_MOST_PER_BYTE:g} "
            "(it is tokens divided by bytes, not bytes per token: 1 for bytes themselves)"
        )


def worst_plausible(unit: str) -> float:
    """Largest loss, in `unit`, that a trained language model can have (inf where none is known)."""
    return _WORST_PLAUSIBLE.get(unit, float("inf"))


def to_nats_per_token(loss: np.ndarray, unit: LossUnit, tokens_per_byte: float | None = None) -> np.ndarray:
    """Convert losses to nats/token; a loss of unit ``other`` stays as it is.

    Parameters
    ----------
    loss : array
        Losses in `unit`.
    unit : str
        One of `LOSS_UNITS`.
    tokens_per_byte : float, optional
        Tokens per byte of the evaluation text, needed by units per byte.

    Examples
    --------
    >>> to_nats_per_token(np.array([1.0, 0.9]), "bits/byte", tokens_per_byte=0.25).round(4)
    array([2.7726, 2.4953])
    >>> to_nats_per_token(np.array([20.0]), "perplexity").round(4)
    array([2.9957])
    """
    check_unit(unit, tokens_per_byte)
    if unit == "perplexity":
        return np.log(loss)
    return np.asarray(loss, float) * _nats_per_token(unit, tokens_per_byte)


def error_to_nats_per_token(
    error: np.ndarray, loss: np.ndarray, unit: LossUnit, tokens_per_byte: float | None = None
) -> np.ndarray:
    """Convert standard errors of `loss` (both in `unit`) to nats/token, to first order."""
    check_unit(unit, tokens_per_byte)
    if unit == "perplexity":
        return np.asarray(error, float) / loss
    return np.asarray(error, float) * _nats_per_token(unit, tokens_per_byte)


def from_nats_per_token(loss: np.ndarray, unit: LossUnit, tokens_per_byte: float | None = None) -> np.ndarray:
    """Inverse of `to_nats_per_token`."""
    check_unit(unit, tokens_per_byte)
    if unit == "perplexity":
        return np.exp(loss)
    return np.asarray(loss, float) / _nats_per_token(unit, tokens_per_byte)


def _nats_per_token(unit: str, tokens_per_byte: float | None) -> float:
    factor = float(np.log(2)) if unit.startswith("bits") else 1.0
    return factor / tokens_per_byte if unit.endswith("/byte") and tokens_per_byte else factor
