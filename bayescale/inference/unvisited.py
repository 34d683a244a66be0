"""Modes of a posterior that no draw is near: draws of NUTS may pass every gate of their own in one of two."""

import numpy as np

from bayescale.inference.climbing import MIN_SHARE, shares
from bayescale.inference.modes import find_all_modes
from bayescale.inference.proposal import StudentT
from bayescale.model.model import Model

# A mode is visited if it is the nearest to this share of the draws that its mass promises: that is rough.
_VISITED = 0.05


def unvisited_modes(model: Model, z: np.ndarray, *, seed: int = 0) -> int:
    """Count the modes with a share of the mass that next to no draw is near.

    Parameters
    ----------
    model : Model
        Of any kind; discrepancy weights and group offsets are integrated out.
    z : array, shape (draw, size)
        Draws, in the model's layout.
    seed : int
        Of the climbs to the modes.
    """
    latent, modes = find_all_modes(model, np.random.default_rng(seed), seed=seed)
    if latent is not None:
        z = latent.standardised(z[:, : latent.size])
    mass = shares(modes)
    kept = [i for i in range(len(modes)) if mass[i] > MIN_SHARE]
    logs = [np.log(mass[i]) + StudentT(modes[i].point, modes[i].covariance).logpdf(z) for i in kept]
    nearest = np.argmax(logs, axis=0)
    return sum(bool(np.mean(nearest == number) < _VISITED * mass[i]) for number, i in enumerate(kept))
