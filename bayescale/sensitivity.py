"""How the evidence of a law changes with what nobody knows: prior widths, noise model, discrepancy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bayescale.errors import FitError
from bayescale.inference.evidence import Evidence
from bayescale.laws import Either, Gamma, LogNormal, Normal, Prior

if TYPE_CHECKING:
    from bayescale.fitting import Fit


@dataclass(frozen=True, eq=False)
class Setting:
    """One change to a fit.

    Attributes
    ----------
    name : str
        Such as ``prior widths x2``; reads on from "with".
    concerns : str
        What a verdict that changes with it hangs on.
    widths : float
        Factor on the widths of all priors of the law.
    options : mapping
        Options of `bayescale.fit` that change.
    """

    name: str
    concerns: str
    widths: float
    options: Mapping[str, Any]


def settings_beside(noise: str, discrepancy: bool) -> tuple[Setting, ...]:
    """Return the settings in which a fit with this noise and discrepancy is made again."""
    other_noise = "normal" if noise == "student-t" else "student-t"
    smooth = "no discrepancy" if discrepancy else "a discrepancy"
    return (
        Setting("prior widths x1/2", "the prior widths", 0.5, {}),
        Setting("prior widths x2", "the prior widths", 2.0, {}),
        Setting(f"{other_noise} noise", "the noise model", 1.0, {"noise": other_noise}),
        Setting(
            smooth, "whether laws may be smoothly wrong (discrepancy)", 1.0, {"discrepancy": not discrepancy}
        ),
    )


def refit(fit: "Fit", setting: Setting, *, method: str = "fast") -> "Fit":
    """Fit the law of a fit to its table again, in another setting.

    By the fast path unless `method` is ``nuts``: where its weights are poor the number is marked rather than
    waited for.
    """
    from bayescale.fitting import fit as make

    kept = ("noise", "discrepancy", "group_effect", "draws", "tune", "chains", "seed")
    how = {name: fit.options[name] for name in kept} | dict(setting.options)
    priors = fit.priors | {p.name: widened(p.prior, setting.widths) for p in fit.law.parameters}
    return make(fit.table, fit.law, priors=priors, method="nuts" if method == "nuts" else "fast", **how)


def widened(prior: Prior, factor: float) -> Prior:
    """Return a prior of the same centre, `factor` times as wide.

    Width is sigma of a log-normal, the standard deviation of a normal, and the relative standard deviation of
    a gamma, whose mean stays.
    """
    match prior:
        case LogNormal(median, sigma):
            return LogNormal(median, sigma * factor)
        case Normal(mean, sd):
            return Normal(mean, sd * factor)
        case Gamma(shape, rate):
            return Gamma(shape / factor**2, rate / factor**2)
        case Either(first, second):
            return Either(widened(first, factor), widened(second, factor))
    raise FitError(f"prior {prior} has no width that is known here; expected LogNormal, Normal or Gamma")


def evidence_of(fit: "Fit") -> Evidence:
    """Return the evidence of a fit: the fast path's own, or bridge sampling from its draws."""
    if fit.evidence is not None:
        return fit.evidence
    from bayescale.inference.bridge import log_evidence

    return log_evidence(fit.model, fit.z)
