"""Latents drawn at noise larger than the model's, which then cools: where they have more modes than one.

Where noise is small and heavy-tailed, each choice of which runs are outliers has a mode of its own, and a
Gaussian about one of them misses the others. At larger noise there is one mode. Draws of the Gaussian about
it move on by Hamiltonian steps while the noise cools; what each step does to their weights is known exactly,
so that estimates stay unbiased however rough the steps (uncorrected Hamiltonian annealing, arXiv:2107.04150).
"""

import math
from itertools import pairwise

import numpy as np

from bayescale.inference.conditional import Conditional, log_normal, one_of_each

# At first noise is so many times the model's; it cools in so many steps of equal ratio.
_HEAT, _STEPS = 3.0, 40
# Length of a step in sds of each latent given the others, and the share of momentum that the next one keeps.
_LENGTH, _KEPT = 0.5, 0.9
# From one noise to the next draws are taken this share of the way that a Gaussian would go, and move on by
# themselves. All the way would lead them off other modes; without it weights are twice as noisy.
_LED = 0.3


def anneal(conditional: Conditional, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unbiased log estimates of p(losses, theta), a draw of the latents each, relative variances.

    As `Conditional.integrate`, from an antithetic pair of draws that cool apart from each other.
    """
    pair = conditional.heated(_HEAT).gaussian_pairs(1, rng)
    mode = 0.5 * (pair[0][0] + pair[1][0])
    drawn, log_estimates = list[np.ndarray](), list[np.ndarray]()
    for start, log_q in pair:
        cooled, log_ratio = _cooled(conditional, start, mode, rng)
        log_estimates.append(conditional.log_joint(cooled) - log_q + log_ratio)
        drawn.append(cooled)
    return one_of_each(drawn, log_estimates, rng)


def _cooled(
    conditional: Conditional, at: np.ndarray, mode: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return where draws end, and the log of what the way there adds to their weights.

    That is the log-determinant of every map and, as each is undone with momenta drawn afresh, the log density
    of momenta after a step over that before.
    """
    information = conditional.information()
    momentum, log_ratio = rng.standard_normal(at.shape), np.zeros(len(at))
    for hotter, heat in pairwise(_HEAT ** (1 - np.arange(_STEPS + 1) / _STEPS)):
        colder = conditional.heated(heat)
        # Of latents that are Gaussian and independent, which these almost are:
        precision = 1 + information / heat**2
        log_narrower = _LED / 2 * np.log((1 + information / hotter**2) / precision)
        narrower = np.exp(log_narrower)
        nearer = mode * narrower**2 * (hotter / heat) ** (2 * _LED)
        at, mode = nearer + (at - mode) * narrower, nearer
        log_ratio += log_narrower.sum(axis=1)
        step = _LENGTH / np.sqrt(precision)
        momentum = _KEPT * momentum + math.sqrt(1 - _KEPT**2) * rng.standard_normal(at.shape)
        log_ratio -= log_normal(momentum)
        at = at + 0.5 * step * momentum
        momentum = momentum + step * colder.gradient(at)
        at = at + 0.5 * step * momentum
        log_ratio += log_normal(momentum)
    return at, log_ratio
