"""Plan: the runs worth training next for a target, their cost, and what they are expected to tell."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayescale.design import choose_runs, gains, joint_covariance
from bayescale.errors import BayescaleError, FitError
from bayescale.files import written_aside
from bayescale.targets import Target, band, joint_draws, parse_target, positive, table_target

if TYPE_CHECKING:
    from bayescale.fitting import Fit
    from bayescale.runs import RunTable

# No run of a plan is cheaper than this share of the budget: a plan has at most so many runs.
_MOST_RUNS = 50
# Seeds of one candidate: noise is partly common to a size, and more seeds do not average that part away.
_MOST_SEEDS = 4
# Sizes of a table offered again, and the factor between larger ones and between tokens: small enough that some
# run takes nearly all of the budget (with steps of 2 plans left a fifth of it to runs that tell little).
_MOST_SIZES = 12
_FACTOR = 2**0.25
# Joint draws used; thousands of candidates times all draws would not fit the memory.
_MAX_DRAWS = 4000


@dataclass(frozen=True, eq=False)
class Plan:
    """Runs proposed to be trained next.

    Attributes
    ----------
    runs : pandas.DataFrame
        A row per run in the order chosen, its index the candidate's: inputs, ``compute`` (FLOP), ``seed``,
        ``correlation`` (of its expected loss with the target, given the runs before it), ``gain`` (share of
        the target's present variance that it removes), ``gain_per_flop``, ``width`` (of the target's 90%
        band after it).
    candidates : pandas.DataFrame
        All runs considered: inputs, ``compute``, ``gain`` and ``gain_per_flop`` as a first run, and
        ``chosen`` (times).
    target : Target
        What is to be made certain.
    description, unit : str
        The target in words, and the unit of its band.
    band : (float, float)
        Ends of the target's present 90% band; where the target is several runs, this band and all widths are
        means over them.
    saved : float or None
        For the optimal params at a compute: FLOP of that budget which the plan is expected to save, by
        making the allocation better.
    warnings : list of str
        What to know before acting on it.
    """

    runs: pd.DataFrame
    candidates: pd.DataFrame
    target: Target
    description: str
    unit: str
    band: tuple[float, float]
    saved: float | None
    warnings: list[str]

    @property
    def cost(self) -> float:
        """Of all runs, FLOP."""
        return float(self.runs["compute"].sum())

    @property
    def width(self) -> float:
        """Of the target's present 90% band."""
        return self.band[1] - self.band[0]

    def grouped(self) -> pd.DataFrame:
        """Return a row per candidate chosen, most gain per FLOP first, with the number of its seeds."""
        inputs = [c for c in self.candidates if c not in ("compute", "gain", "gain_per_flop", "chosen")]
        rows = self.runs.groupby([*inputs, "compute"], sort=False)
        sums = rows.agg(runs=("seed", "size"), correlation=("correlation", "first"), gain=("gain", "sum"))
        table = sums.reset_index()
        table["gain_per_flop"] = table["gain"] / (table["compute"] * table["runs"])
        return table.sort_values("gain_per_flop", ascending=False, ignore_index=True)

    @property
    def predicted_width(self) -> float:
        """Of the target's 90% band once the runs are trained."""
        return float(self.runs["width"].iloc[-1]) if len(self.runs) else self.width


def plan(
    fit: "Fit",
    target: "str | Target | RunTable | pd.DataFrame",
    budget: float,
    *,
    candidates: "RunTable | pd.DataFrame | None" = None,
    seed: int = 0,
) -> Plan:
    """Choose the runs that tell most about a target per FLOP.

    Parameters
    ----------
    fit : Fit
        The posterior.
    target : str, Target, RunTable or DataFrame
        ``params=1e9,tokens=2e10`` (the loss there), ``compute=1e21`` (the optimal params there), a parameter
        such as ``E``, or a table: the losses at all its rows, whose variances are added up.
    budget : float
        FLOP to spend.
    candidates : RunTable or DataFrame, optional
        Runs that could be trained: the law's inputs and ``compute``, each row at most once. Without it, a
        grid of params and tokens cheaper than the target, where a run may be repeated with another seed.
    seed : int
        Of the discrepancy away from the table.

    Raises
    ------
    FitError
        If the target does not suit the law, or no candidate is affordable.
    """
    target = _target(fit, target)
    if not (np.isfinite(budget) and budget > 0):
        raise FitError(f"budget is {budget:g} FLOP; expected a positive number")
    pool = _grid(fit, target, budget) if candidates is None else _pool(fit, candidates)
    thinned = _thin(fit)
    draws, losses = joint_draws(thinned, target, {c: pool[c].to_numpy(float) for c in fit.law.columns}, seed)
    covariance = joint_covariance([np.log(losses), draws])
    noise = np.full(len(pool), noise_variance(thinned))
    cost, present = pool["compute"].to_numpy(float), np.diag(covariance)[len(pool) :]
    # A covariance from n draws is off by 1 / sqrt(n): gains below 1 / n may be nothing but that.
    least = present.sum() / len(draws)
    steps = choose_runs(
        covariance, noise, cost, budget, times=_MOST_SEEDS if candidates is None else 1, least_gain=least
    )
    chosen = [s.candidate for s in steps]
    runs = pool.iloc[chosen].copy()
    first = _next_seed(fit)
    runs["seed"] = np.arange(first, first + len(runs))
    runs["correlation"] = [s.correlation for s in steps]
    runs["gain"] = [s.gain / present.sum() for s in steps]
    runs["gain_per_flop"] = runs["gain"].to_numpy() / runs["compute"].to_numpy()
    widths = np.subtract(*np.quantile(draws, [0.95, 0.05], axis=0))
    runs["width"] = [float(np.mean(widths * np.sqrt(np.maximum(s.variance, 0) / present))) for s in steps]
    pool["gain"] = gains(covariance, noise) / present.sum()
    pool["gain_per_flop"] = pool["gain"] / cost
    pool["chosen"] = np.bincount(chosen, minlength=len(pool))
    saved = None
    if target.is_allocation(fit) and len(runs):
        saved = _saved(thinned, target, draws, float(steps[-1].variance[0] / present[0]), seed)
    warnings = [f"do not rely on this plan: {reason}" for reason in fit.diagnostics.failures]
    if fit.model.discrepancy is None:
        warnings.append("no discrepancy: the fit is too sure of its law, and the plan with it")
    if not len(runs):
        warnings.append("no affordable run tells anything about the target that can be told from chance")
    return Plan(runs, pool, target, *target.describe(fit), band(draws), saved, warnings)


def _target(fit: "Fit", target: "str | Target | RunTable | pd.DataFrame") -> Target:
    if isinstance(target, str):
        return parse_target(target)
    if isinstance(target, Target):
        return target
    return table_target(fit.law, target if isinstance(target, pd.DataFrame) else target.frame)


def noise_variance(fit: "Fit") -> float:
    """Return the variance of a Normal that tells as much about an expected log loss as one run does."""
    variance = fit.parameters["noise_sd"] ** 2
    if fit.model.noise == "student-t":
        # The Fisher information of a Student-t about its location is (df + 1) / (df + 3) / scale^2.
        df = fit.parameters["noise_df"]
        variance = variance * (df + 3) / (df + 1)
    return float(variance.mean())


def write_ladder(runs: pd.DataFrame, template: str | Path, path: str | Path) -> None:
    """Write runs as a ladder that trains on what a template does.

    Parameters
    ----------
    runs : pandas.DataFrame
        Columns params, tokens, seed, and unique_tokens where there is one.
    template : path
        A ladder; its source, model, recipe and engine are taken, its own runs are not.
    path : path
        Of the ladder to write.

    Raises
    ------
    BayescaleError
        If the template is no ladder, the runs lack params or tokens, or the file cannot be written.
    """
    ladder = read_ladder(template, Path(path).parent)
    ladder["runs"] = run_groups(runs)
    save_ladder(ladder, path)


def read_ladder(path: str | Path, folder: str | Path) -> dict[str, Any]:
    """Read a ladder's TOML as it stands, its source's paths made to start at `folder`.

    Raises
    ------
    BayescaleError
        If the file is missing or no TOML with a [source].
    """
    path = Path(path)
    try:
        ladder = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BayescaleError(f"{path}: cannot be read as a ladder (TOML): {error}") from error
    if not isinstance(ladder.get("source"), dict):
        raise BayescaleError(f"{path}: no [source]; expected a ladder such as those in ladders/")
    for option in ("paths", "validation_paths"):
        if option in ladder["source"]:
            found = (path.parent / p for p in ladder["source"][option])
            ladder["source"][option] = [os.path.relpath(p, folder) for p in found]
    return ladder


def run_groups(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return runs as the [[runs]] of a ladder, one group for each pair of params and tokens.

    Raises
    ------
    BayescaleError
        If the runs lack params or tokens.
    """
    if missing := [c for c in ("params", "tokens") if c not in runs]:
        raise BayescaleError(f"a ladder needs runs with params and tokens; these have no {missing[0]}")
    keys = ["params", "tokens", *(["unique_tokens"] if "unique_tokens" in runs else [])]
    groups: list[dict[str, Any]] = []
    for _, rows in runs.groupby(keys, sort=True):
        size = {key: float(rows[key].iloc[0]) for key in keys}
        groups.append(size | {"seeds": sorted(int(s) for s in rows["seed"])})
    return groups


def save_ladder(ladder: dict[str, Any], path: str | Path) -> None:
    """Write a ladder as TOML, aside and then renamed."""
    import tomli_w

    with written_aside(path) as aside:
        aside.write_text(tomli_w.dumps(ladder), "utf-8")


def _grid(fit: "Fit", target: Target, budget: float) -> pd.DataFrame:
    """Return runs of the table's sizes and larger, at tokens from its least up, that can be afforded."""
    columns = set(fit.law.columns)
    if not columns <= {"params", "tokens", "compute"} or not {"params", "tokens"} <= set(fit.table.frame):
        raise FitError(
            f"law {fit.law.name!r} on table {fit.table.name!r} has inputs {', '.join(fit.law.columns)}; only "
            "for params and tokens can candidates be made up: give a file of candidates with compute"
        )
    params, tokens = fit.table.column("params"), fit.table.column("tokens")
    sizes = np.unique(params)
    if len(sizes) > _MOST_SIZES:
        sizes = np.geomspace(sizes[0], sizes[-1], _MOST_SIZES)
    most = {n: np.max(target.inputs.get(n, v.max())) for n, v in (("params", params), ("tokens", tokens))}
    sizes = np.concatenate([sizes, _up_to(sizes[-1], most["params"])])
    lengths = np.concatenate([[tokens.min()], _up_to(tokens.min(), max(tokens.max(), most["tokens"]))])
    n, d = (g.ravel() for g in np.meshgrid(sizes, lengths, indexing="ij"))
    pool = pd.DataFrame({"params": n, "tokens": d, "compute": _cost(fit, n, d)})
    dearest = min(budget, _target_cost(fit, target))
    pool = pool[(pool["compute"] >= budget / _MOST_RUNS) & (pool["compute"] <= dearest)]
    if pool.empty:
        raise FitError(
            f"no run cheaper than the target costs between {budget / _MOST_RUNS:.3g} and {budget:.3g} FLOP "
            f"({1 / _MOST_RUNS:.0%} and all of the budget); change the budget"
        )
    return pool.reset_index(drop=True)


def _up_to(start: float, end: float) -> np.ndarray:
    """Return start times powers of the grid's factor, not above end (rounding apart)."""
    count = int(np.floor(np.log(max(end / start, 1)) / np.log(_FACTOR) + 1e-6))
    return start * _FACTOR ** np.arange(1, count + 1)


def _target_cost(fit: "Fit", target: Target) -> float:
    if target.inputs.keys() >= {"params", "tokens"}:
        return float(np.max(_cost(fit, target.inputs["params"], target.inputs["tokens"]))) * 0.999
    return target.inputs.get("compute", np.inf)


def _cost(fit: "Fit", params: Any, tokens: Any) -> Any:
    """Return training compute as the table counts it: a power law of params and tokens through its rows."""
    frame = fit.table.frame
    if "compute" not in frame:
        return fit.table.meta.flops_per_param_token * params * tokens
    log_n, log_d, log_c = (np.log(fit.table.column(c)) for c in ("params", "tokens", "compute"))
    # Compute is linear in tokens; what it is per token depends on size (attention, embeddings).
    design = np.stack([np.ones_like(log_n), log_n], axis=1)
    per_token, *_ = np.linalg.lstsq(design, log_c - log_d, rcond=None)
    return np.exp(per_token[0] + per_token[1] * np.log(params)) * tokens


def _pool(fit: "Fit", candidates: "RunTable | pd.DataFrame") -> pd.DataFrame:
    frame = candidates if isinstance(candidates, pd.DataFrame) else candidates.frame
    needed = [*fit.law.columns, "compute"]
    if missing := [c for c in needed if c not in frame]:
        raise FitError(f"candidates have no column {missing[0]!r}; expected {', '.join(needed)}")
    extra = [c for c in ("params", "tokens", "unique_tokens") if c in frame and c not in needed]
    if frame.empty:
        raise FitError("candidates have no row; expected a row per run that could be trained")
    pool = frame[list(dict.fromkeys([*needed, *extra]))].reset_index(drop=True)
    for column in pool:
        if column in needed:
            pool[column] = positive(pool[column], f"candidates, column {column!r}")
    return pool


def _next_seed(fit: "Fit") -> int:
    # A seed that no run of the table has: rounding may make two sizes one, but never two runs one.
    if "seed" not in fit.table.frame:
        return 0
    seeds = pd.to_numeric(fit.table.frame["seed"], errors="coerce").dropna()
    return int(seeds.max()) + 1 if len(seeds) else 0


def _saved(fit: "Fit", target: Target, draws: np.ndarray, left: float, seed: int) -> float:
    """Return the FLOP saved if the optimum's variance falls to the share `left`; the waste goes with it."""
    from bayescale.deadweight import deadweight

    compute = target.inputs["compute"]
    wasted = deadweight(fit, compute, float(10 ** np.median(draws)), seed=seed)
    return float(wasted.mean() * (1 - left))


def _thin(fit: "Fit") -> "Fit":
    from dataclasses import replace

    z = fit.z.reshape(1, -1, fit.model.size)
    step = int(np.ceil(z.shape[1] / _MAX_DRAWS))
    return replace(fit, z=z[:, ::step], sample_stats=None)
