import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayescale.errors import TableError
from bayescale.units import (
    LOSS_UNITS,
    error_to_nats_per_token,
    from_nats_per_token,
    to_nats_per_token,
    worst_plausible,
    written_number,
)


@given(
    loss=st.lists(st.floats(0.1, 12), min_size=1, max_size=5),
    unit=st.sampled_from(LOSS_UNITS),
    tokens_per_byte=st.floats(0.05, 1.2),
)
def test_units_invert(loss, unit, tokens_per_byte):
    there = from_nats_per_token(np.array(loss), unit, tokens_per_byte)
    np.testing.assert_allclose(to_nats_per_token(there, unit, tokens_per_byte), loss, rtol=1e-12)


@given(loss=st.floats(0.5, 8), unit=st.sampled_from(LOSS_UNITS), share=st.floats(1e-6, 1e-4))
def test_standard_errors_follow_the_conversion_to_first_order(loss, unit, share):
    value = from_nats_per_token(np.array([loss]), unit, 0.25)
    error = share * value
    moved = to_nats_per_token(value + error, unit, 0.25) - loss
    np.testing.assert_allclose(error_to_nats_per_token(error, value, unit, 0.25), moved, rtol=1e-3)


def test_bits_per_byte_uses_tokens_per_byte():
    # A tokenizer of 4 bytes a token: 1 bit/byte is 4 bits/token, 2.77 nats/token.
    assert to_nats_per_token(np.array([1.0]), "bits/byte", 0.25)[0] == pytest.approx(4 * np.log(2))


@pytest.mark.parametrize("unit", LOSS_UNITS)
def test_the_worst_plausible_loss_is_a_uniform_guess(unit):
    """Over 256,000 tokens, or over the 256 bytes of which a token has four."""
    worst = to_nats_per_token(np.array([worst_plausible(unit)]), unit, 0.25)[0]
    known = {"other": np.inf, "nats/byte": 4 * np.log(256), "bits/byte": 4 * np.log(256)}
    assert worst == pytest.approx(known.get(unit, np.log(256_000)))


@pytest.mark.parametrize(
    ("unit", "tokens_per_byte", "match"),
    [
        ("nats", None, "'nats' is unknown; expected one of nats/token"),
        ("bits/byte", None, "need the tokenizer's tokens per byte"),
        ("bits/byte", -1.0, "tokens_per_byte is -1"),
        ("bits/byte", 3.7, "not bytes per token"),
        ("bits/byte", 5.0, "not bytes per token"),
    ],
)
def test_impossible_units_are_errors(unit, tokens_per_byte, match):
    with pytest.raises(TableError, match=match):
        to_nats_per_token(np.ones(1), unit, tokens_per_byte)


def test_numbers_as_people_write_them():
    for letters in ("KMBT", "kmbt"):
        assert [written_number(f"2.5{m}") for m in letters] == [2.5e3, 2.5e6, 2.5e9, 2.5e12]
    assert np.isnan(written_number("2.5B", magnitudes=False))  # a billion of what, where it is no count
    assert written_number("2.5e9", magnitudes=False) == 2.5e9
