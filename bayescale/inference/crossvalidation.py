"""Leave-one-out cross-validation from a fit's draws (PSIS-LOO, Vehtari et al. 2017, arXiv:1507.04544)."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from bayescale.model.model import Model

if TYPE_CHECKING:
    from bayescale.fitting import Fit


def pointwise_log_likelihood(model: Model, z: np.ndarray) -> np.ndarray:
    """Return log p(log loss of each run given a draw), nats, shape (chain, draw, run).

    Parameters
    ----------
    model : Model
        The model.
    z : array, shape (chain, draw, size)
        Draws in unconstrained coordinates; discrepancy and group offsets are held at each draw's own.
    """
    # Draws by importance sampling repeat.
    distinct, where = np.unique(z.reshape(-1, z.shape[-1]), axis=0, return_inverse=True)
    return model.log_likelihood_at(distinct)[where].reshape(*z.shape[:2], -1)


def loo(fit: "Fit") -> Any:
    """Estimate the log predictive density of each run given all others: ArviZ's `loo` of `Fit.posterior`.

    Returns
    -------
    arviz_stats.ELPDData
        ``elpd``, ``se``, pointwise ``elpd_i`` and ``pareto_k`` (reliable below ``good_k``), nats of log loss.
    """
    from arviz_stats import loo as arviz_loo

    with warnings.catch_warnings():  # high Pareto k is told by those who use the result, run counts and all
        warnings.filterwarnings("ignore", message="Estimated shape parameter", category=UserWarning)
        return arviz_loo(fit.posterior, pointwise=True)
