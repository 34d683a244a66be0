"""Backtest: hide the expensive runs of a table, fit the cheap ones, and score the forecasts.

How often would these bands have held? A split at factor f trains on runs with C <= C_max / f and scores every
more expensive run. Each split's scores are kept when made, so that an interrupted backtest goes on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayescale.errors import FitError
from bayescale.files import made_folder, require_writable, written_aside
from bayescale.laws import Law, Prior, find_law
from bayescale.model.making import shared_trunks
from bayescale.model.noise import Noise
from bayescale.runs import RunTable, require_table

LEVELS = (0.5, 0.8, 0.9, 0.95)
FACTORS = (3.0, 10.0, 30.0)
# Fewer runs than this to train on say more about priors than about forecasts.
MIN_TRAIN = 12


@dataclass(frozen=True, eq=False)
class Backtest:
    """Scores of forecasts of held-out expensive runs.

    Attributes
    ----------
    scores : pandas.DataFrame
        A row per held-out run and method: table, factor, method, passed (diagnostics), loss, median,
        pit (share of draws below the loss), crps and interval_score_90 (nats/token), log_density (nats),
        low_90, high_90.
    options : mapping
        How the fits were made: law, noise, priors given, group effect, seed.
    """

    scores: pd.DataFrame
    options: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        tables, methods = (", ".join(map(str, self.scores[c].unique())) for c in ("table", "method"))
        splits = len(self.scores[["table", "factor"]].drop_duplicates())
        line = f"<Backtest on {tables}: {splits} split(s), {len(self.scores)} forecasts by {methods}"
        return line + (f"; do not rely on {len(self.failures)} of the fits>" if self.failures else ">")

    def summary(self, by: Sequence[str] = ("method",)) -> pd.DataFrame:
        """Return coverage, errors and widths averaged over held-out runs, split by split, then overall.

        Every split counts alike, whatever its number of runs; scores are in per cent of the loss, the log
        density in nats.
        """
        rows = self.scores.copy()
        for level in LEVELS:
            rows[f"coverage_{level:.0%}"] = (rows["pit"] - 0.5).abs() <= level / 2
        percent = 100 / rows["loss"]
        rows["crps_%"] = rows["crps"] * percent
        rows["interval_score_%"] = rows["interval_score_90"] * percent
        rows["abs_error_%"] = (rows["median"] - rows["loss"]).abs() * percent
        rows["bias_%"] = (rows["median"] - rows["loss"]) * percent
        rows["half_width_%"] = (rows["high_90"] - rows["low_90"]) / 2 * percent
        measures = [c for c in rows if str(c).startswith("coverage") or str(c).endswith("_%")]
        measures.append("log_density")
        keys = list(dict.fromkeys((*by, "method", "table", "factor")))
        splits = rows.groupby(keys)[measures].mean()
        out = splits.groupby(list(by)).mean()
        out.insert(0, "splits", splits.groupby(list(by)).size())
        return out

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Table, factor and method of every fit whose diagnostics failed."""
        failed = self.scores.loc[~self.scores["passed"].astype(bool), ["table", "factor", "method"]]
        return [{str(k): v for k, v in row.items()} for row in failed.drop_duplicates().to_dict("records")]

    @property
    def warnings(self) -> list[str]:
        """Which splits' scores are not to be relied on."""
        return [
            f"do not rely on {split['method']} at factor {split['factor']:g} of {split['table']}: its "
            "diagnostics failed"
            for split in self.failures
        ]


def backtest(
    table: RunTable,
    law: str | Law = "chinchilla",
    *,
    priors: Mapping[str, Prior | str] | None = None,
    noise: Noise = "student-t",
    group_effect: str | None = None,
    factors: Sequence[float] = FACTORS,
    methods: Sequence[str] = ("discrepancy", "law-only", "huber-bootstrap"),
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Backtest:
    """Score forecasts of a table's expensive runs made from its cheap ones.

    Parameters
    ----------
    table : RunTable
        The runs; needs compute.
    law : str or Law
        The law.
    priors, noise, group_effect
        As in `bayescale.fit`; of the Bayesian methods, each as far as it applies. A hidden run has the offset
        of a new group, whichever group it is of.
    factors : sequence of float
        Train on runs with C <= C_max / factor. Factors that leave under 12 runs, or no run to score, are
        passed over.
    methods : sequence of str
        Among ``discrepancy`` (the default model), ``law-only`` and ``huber-bootstrap``.
    seed : int
        Of fits and forecasts.
    folder : path, optional
        Where each split's scores are kept and looked for.
    progress : callable, optional
        Told what is being done.

    Raises
    ------
    FitError
        If a method is unknown or no factor leaves a split.
    """
    require_table(table)
    if unknown := set(methods) - _METHODS.keys():
        raise FitError(f"method {sorted(unknown)[0]!r} is unknown; expected some of {', '.join(_METHODS)}")
    found = find_law(law, **table.names_for_laws())
    seed = int(seed)
    how: dict[str, Any] = {"priors": dict(priors or {}), "noise": noise, "group_effect": group_effect}
    written = how | {"priors": {name: str(prior) for name, prior in how["priors"].items()}}
    parts = []
    for factor, train, test in splits_of(table, factors):
        for method in methods:
            runs = f"{len(train)} runs up to C_max/{factor:g}, {len(test)} to score"
            progress(f"{table.name}: {method} on {runs}")
            make = partial(_score, method, train, test, found, how, seed)
            # A point fit has neither priors nor noise: its scores stay those that were kept.
            of_method = {} if method == "huber-bootstrap" else written
            part = _kept(folder, train, test, [found.to_dict(), of_method, method, seed], make)
            parts.append(part.assign(table=table.name, factor=factor, method=method))
    options = {
        "law": found.name,
        **written,
        "group_effect": group_effect or shared_trunks(table),
        "seed": seed,
    }
    return Backtest(pd.concat(parts, ignore_index=True), options)


def splits_of(table: RunTable, factors: Sequence[float] = FACTORS) -> list[tuple[float, RunTable, RunTable]]:
    """Return (factor, cheap runs to train on, expensive runs to score) for every factor that leaves enough.

    Raises
    ------
    FitError
        If no factor does.
    """
    if wrong := [factor for factor in factors if not 1 < factor < np.inf]:
        raise FitError(f"factors: found {wrong[0]:g}; expected numbers above 1, such as 3, 10, 30")
    compute = table.column("compute")
    splits = []
    for factor in factors:
        cheap = compute <= compute.max() / factor
        if cheap.sum() >= MIN_TRAIN and not cheap.all():
            splits.append((factor, table.where(cheap), table.where(~cheap)))
    if not splits:
        raise FitError(
            f"table {table.name!r}: no factor of {list(factors)} leaves {MIN_TRAIN} cheaper runs to train on "
            "and a run to score; a backtest needs more runs or another factor"
        )
    return splits


def scored(draws: np.ndarray, loss: np.ndarray, passed: bool) -> pd.DataFrame:
    """Return the scores of forecast draws, shape (draw, target), of losses: rows of `Backtest.scores`."""
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    missed = np.maximum(0, low - loss) + np.maximum(0, loss - high)
    return pd.DataFrame(
        {
            "passed": passed,
            "loss": loss,
            "median": np.median(draws, axis=0),
            "pit": (draws < loss).mean(axis=0),
            "crps": crps(draws, loss),
            "log_density": log_density(draws, loss),
            "low_90": low,
            "high_90": high,
            "interval_score_90": high - low + 2 / 0.1 * missed,
        }
    )


def crps(draws: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the continuous ranked probability score of draws, shape (draw, target), per target.

    E|X - y| - E|X - X'|/2 (Gneiting & Raftery 2007), the second term from sorted draws.
    """
    ordered = np.sort(draws, axis=0)
    count = len(ordered)
    weights = (2 * np.arange(1, count + 1) - count - 1) / count**2
    return np.abs(draws - value).mean(axis=0) - weights @ ordered


def log_density(draws: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the log density of draws, shape (draw, target), at a value per target.

    By a Gaussian kernel of Silverman's width: the same measure for methods that have draws and nothing else.
    """
    spread = np.minimum(draws.std(axis=0), np.subtract(*np.quantile(draws, [0.75, 0.25], axis=0)) / 1.349)
    width = 0.9 * spread * len(draws) ** -0.2
    kernels = -0.5 * ((draws - value) / width) ** 2
    return np.logaddexp.reduce(kernels, axis=0) - np.log(len(draws) * width * np.sqrt(2 * np.pi))


def _score(
    method: str, train: RunTable, test: RunTable, law: Law, how: dict[str, Any], seed: int
) -> pd.DataFrame:
    draws, passed = _METHODS[method](train, test, law, how, seed)
    return scored(draws, test.column("loss"), passed)


def _bayesian(
    train: RunTable, test: RunTable, law: Law, how: dict[str, Any], seed: int, *, discrepancy: bool
) -> tuple[np.ndarray, bool]:
    from bayescale.fitting import fit

    fitted = fit(train, law, discrepancy=discrepancy, seed=seed, **how)
    draws = fitted.forecast(seed=seed, known_noise=test.known_noise(), **_inputs(test, law)).loss
    return draws.reshape(-1, draws.shape[-1]), fitted.diagnostics.passed


def _huber_bootstrap(
    train: RunTable, test: RunTable, law: Law, how: dict[str, Any], seed: int
) -> tuple[np.ndarray, bool]:
    from bayescale.pointfit import point_fit

    fitted = point_fit(train, law, starts=20, bootstrap=400, seed=seed)
    return fitted.forecast(seed=seed, **_inputs(test, law))["loss"].values, True


def _inputs(table: RunTable, law: Law) -> dict[str, np.ndarray]:
    return {c: table.column(c) for c in law.columns}


_METHODS: dict[str, Callable[..., tuple[np.ndarray, bool]]] = {
    "discrepancy": partial(_bayesian, discrepancy=True),
    "law-only": partial(_bayesian, discrepancy=False),
    "huber-bootstrap": _huber_bootstrap,
}


def _kept(
    folder: str | Path | None,
    train: RunTable,
    test: RunTable,
    how: list[Any],
    make: Callable[[], pd.DataFrame],
) -> pd.DataFrame:
    """Return the scores kept in `folder` for this split, or make and keep them."""
    if folder is None:
        return make()
    digest = sha256((train.frame.to_csv() + test.frame.to_csv()).encode())
    digest.update(json.dumps([how, train.meta.model_dump(), version("bayescale")]).encode())
    path = made_folder(folder) / f"{digest.hexdigest()[:32]}.json"
    if path.is_file():
        try:
            return pd.read_json(path, orient="table").reset_index(drop=True)
        except (ValueError, KeyError, TypeError):
            path.unlink()  # damaged: made anew
    require_writable(path)
    scores = make()
    with written_aside(path) as aside:
        scores.to_json(aside, orient="table", index=False, double_precision=15)
    return scores
