"""Latents drawn at noise larger than the model's, which then cools: where they have more modes than one.

Where noise is small and heavy-tailed, each choice of which runs are outliers has a mode of its own, and a
Gaussian about one of them misses the others. At larger noise there is one mode. Draws of the Gaussian about
it move on by Hamiltonian steps while the noise cools; what each step does to their weights is known exactly,
so that estimates stay unbiased however rough the steps (uncorrected Hamiltonian annealing, arXiv:2107.04150).
"""

import math
from itertools import pairwise

import numpy as np

from bayescale.inference.conditional import Conditional, Latents, one_of_each

# At first noise is so many times the model's; it cools in so many steps of equal ratio.
_HEAT, _STEPS = 3.0, 40
# Length of a step in sds of each latent given the others, and the share of momentum that the next one keeps.
_LENGTH, _KEPT = 0.5, 0.9
# From one noise to the next draws are taken this share of the way that a Gaussian would go, and move on by
# themselves. All the way would lead them off other modes; without it weights are twice as noisy.
_LED = 0.3


def anneal(conditional: Conditional, rng: np.random.Generator) -> tuple[np.ndarray, Latents, np.ndarray]:
    """Return unbiased log estimates of p(losses, theta), a draw of the latents each, relative variances.

    As `Conditional.integrate`, from an antithetic pair of draws that cool apart from each other.
    """
    pair = conditional.heated(_HEAT).gaussian_pairs(1, rng)
    mode = (pair[0][0] + pair[1][0]).times(0.5)
    drawn, log_estimates = list[Latents](), list[np.ndarray]()
    for start, log_q in pair:
        cooled, log_ratio = _cooled(conditional, start, mode, rng)
        log_estimates.append(conditional.log_joint(cooled) - log_q + log_ratio)
        drawn.append(cooled)
    return one_of_each(drawn, log_estimates, rng)


def _cooled(
    conditional: Conditional, at: Latents, mode: Latents, rng: np.random.Generator
) -> tuple[Latents, np.ndarray]:
    """Return where draws end, and the log of what the way there adds to their weights.

    That is the log-determinant of every map and, as each is undone with momenta drawn afresh, the log density
    of momenta after a step over that before.
    """
    information = conditional.information()
    momentum, log_ratio = conditional.standard_normal(rng), np.zeros(len(conditional.theta))
    for hotter, heat in pairwise(_HEAT ** (1 - np.arange(_STEPS + 1) / _STEPS)):
        colder = conditional.heated(heat)
        # Of latents that are Gaussian and independent, which these almost are:
        precision = Latents(*(1 + i / heat**2 for i in information))
        narrower = Latents(
            *((1 + i / hotter**2) / p for i, p in zip(information, precision, strict=True))
        ).power(_LED / 2)
        nearer = mode.scaled(narrower.power(2)).times((hotter / heat) ** (2 * _LED))
        at, mode = nearer + (at + mode.times(-1.0)).scaled(narrower), nearer
        log_ratio += narrower.log_product()
        step = precision.power(-0.5).times(_LENGTH)
        momentum = momentum.times(_KEPT) + conditional.standard_normal(rng).times(math.sqrt(1 - _KEPT**2))
        log_ratio -= momentum.log_normal()
        at = at + momentum.scaled(step).times(0.5)
        momentum = momentum + colder.gradient(at).scaled(step)
        at = at + momentum.scaled(step).times(0.5)
        log_ratio += momentum.log_normal()
    return at, log_ratio
