"""The errors that bayescale raises on purpose.

Each message is written for the person who can act on it: where the problem is (file, row, column or
option), what was found, what was expected, and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Ask for the nearest of the known names, as in "did you mean 'params'?"; empty if none is near."""
    close = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {close[0]!r}?" if close else ""


class BayescaleError(Exception):
    """Base of every error whose message is meant to be read by a user."""


class TableError(BayescaleError):
    """A run table that cannot be read, is invalid, or lacks what a law needs."""


class LawError(BayescaleError):
    """A formula, parameter or prior that does not define a law."""


class FitError(BayescaleError):
    """A fit that cannot be made from, saved to, or loaded from what was given."""


class BudgetError(FitError):
    """A budget that buys none of the runs it may be spent on."""
