"""The errors that bayescale raises on purpose.

Each message is written for the person who can act on it: where the problem is (file, row, column or
option), what was found, what was expected, and what to do.
"""


class BayescaleError(Exception):
    """Base of every error whose message is meant to be read by a user."""


class TableError(BayescaleError):
    """A run table that cannot be read, is invalid, or lacks what a law needs."""


class LawError(BayescaleError):
    """A formula, parameter or prior that does not define a law."""


class FitError(BayescaleError):
    """A fit that cannot be made from, saved to, or loaded from what was given."""
