"""The model of `bayescale.model.model` as a PyMC model, the reference that NUTS samples."""

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayescale.laws import Either, Gamma, LogNormal, Normal, Prior
from bayescale.laws.priors import in_order
from bayescale.model.model import Model


def build_pymc_model(model: Model, *, naive: bool = False) -> pm.Model:
    """Build the PyMC model.

    Parameters
    ----------
    model : Model
        What to build.
    naive : bool
        Sample the law's own parameters under their priors, as a textbook would, instead of the model's
        coordinates. Used for prior predictive draws, and as the peer in benchmarks.

    Returns
    -------
    pymc.Model
        `pymc.Data` ``log_loss_data`` holds log losses, so that others can be set. The naive model observes
        them as ``log_loss``; in the other their log density is the potential ``log_likelihood``.
    """
    coords = {"run": np.arange(len(model.log_loss)), "coordinate": list(model.coordinates.names)}
    with pm.Model(coords=coords) as built:
        scales = {name: _variable(name, prior) for name, prior in model.scale_priors.items()}
        data = pm.Data("log_loss_data", model.log_loss, dims="run")
        loss = _naive_loss(model, scales) if naive else _loss(model, scales, data)
        log_mean = pt.log(loss)
        if model.group is not None:
            offsets = pm.Normal("group_offsets", shape=len(model.group_names))
            log_mean = log_mean + scales["group_sd"] * offsets[model.group]
        scale = pt.sqrt(scales["noise_sd"] ** 2 + model.known_noise**2)
        if model.noise == "normal":
            noisy, about = pm.Normal, {"mu": log_mean, "sigma": scale}
        else:
            noisy, about = pm.StudentT, {"nu": scales["noise_df"], "mu": log_mean, "sigma": scale}
        if naive:
            noisy("log_loss", **about, observed=data, dims="run")
        else:
            # PyMC rewrites what an observed variable depends on before gradients are taken; PyTensor then no
            # longer sees that the prior of the weights needs the same factors, and all is done twice.
            pm.Potential("log_likelihood", pm.logp(noisy.dist(**about), data).sum())
    return built


def _loss(model: Model, scales: dict[str, Any], log_loss: Any) -> Any:
    # Flat coordinates, with the priors of what they stand for and the Jacobian as a potential.
    z = pm.Flat("law_coordinates", dims="coordinate", initval=model.start)
    size = model.discrepancy.size if model.discrepancy else 0
    weights = pm.Flat("discrepancy_coordinates", shape=size) if model.discrepancy else None
    point = model.point(z, scales, weights, log_loss, pt)
    log_prior = model.law_log_prior(point.values, point.logs, pt) + point.log_jacobian
    if model.discrepancy:
        log_prior = log_prior - 0.5 * (point.weights**2).sum() - 0.5 * size * np.log(2 * np.pi)
    pm.Potential("prior", log_prior)
    return point.loss


def _naive_loss(model: Model, scales: dict[str, Any]) -> Any:
    priors = model.centred.priors
    values: dict[str, Any] = {}
    for name in in_order(priors):
        values[name] = _variable(name, priors[name].given(values))
    loss = model.law_loss(values, model.ratios, pt)
    if model.discrepancy is None:
        return loss
    weights = pm.Normal("discrepancy_weights", shape=model.discrepancy.size)
    basis = model.discrepancy.basis(model.axes, model.lengths(scales), pt)
    return model.with_misfit(loss, values, scales["discrepancy_sd"] * (basis @ weights), pt)


def _variable(name: str, prior: Prior) -> Any:
    kind, numbers = _in_pymc(prior)
    return kind(name, *numbers)


def _in_pymc(prior: Prior) -> tuple[Any, tuple]:
    """Return the distribution and what it takes."""
    match prior:
        case LogNormal(median, sigma):
            log_median = np.log(median) if isinstance(median, int | float) else pt.log(median)
            return pm.LogNormal, (log_median, sigma)
        case Gamma(shape, rate):
            return pm.Gamma, (shape, rate)
        case Normal(mean, sd):
            return pm.Normal, (mean, sd)
        case Either(first, second):
            parts = [kind.dist(*numbers) for kind, numbers in map(_in_pymc, (first, second))]
            return pm.Mixture, ([0.5, 0.5], parts)
    raise TypeError(f"prior {prior} has no PyMC counterpart")
