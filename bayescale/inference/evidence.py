"""Evidence: the logarithm of the marginal likelihood p(table given law), with its Monte Carlo error."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Evidence:
    """A log marginal likelihood.

    Attributes
    ----------
    log : float
        log p(losses given law and inputs), nats. Densities are of log loss.
    error : float
        Monte Carlo standard error of `log`, nats.
    method : str
        How it was found: ``importance`` or ``bridge``.
    """

    log: float
    error: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that the constructor takes."""
        return asdict(self)
