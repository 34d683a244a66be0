"""Pitfalls in a run table that mislead a scaling law, each with a code, a sentence and a citation."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayescale.errorrates import counted_examples, sampling_error
from bayescale.laws import BUILTIN
from bayescale.runs import RunTable, require_table


@dataclass(frozen=True)
class Finding:
    """One pitfall found.

    Attributes
    ----------
    code : str
        Short and stable, e.g. ``collinear``.
    message : str
        What was found, with numbers, and what it does to a fit.
    citation : str
        Where the pitfall is described.
    """

    code: str
    message: str
    citation: str


def check(table: RunTable) -> list[Finding]:
    """Return every pitfall found in a run table, most serious first.

    Raises
    ------
    TableError
        If it is no run table.

    Examples
    --------
    >>> from bayescale import load
    >>> [finding.code for finding in check(load("cerebras-gpt"))]
    ['collinear', 'few-runs', 'narrow-ratio', 'compute-convention', 'rounding']
    """
    require_table(table)
    return [finding for look in _CHECKS for finding in look(table)]


def _no_inputs(table: RunTable) -> Iterator[Finding]:
    if any(set(law.columns) <= set(table.frame) for law in BUILTIN.values()):
        return
    yield Finding(
        "no-inputs",
        f"no law built in can be fitted: found {', '.join(map(str, table.frame))}, expected params, tokens "
        "or compute; say what they are called here (--columns 'params=NAME'), or fit a formula of your own",
        "arXiv:2001.08361",
    )


def _collinear(table: RunTable) -> Iterator[Finding]:
    if not {"params", "tokens"} <= set(table.frame) or len(table) < 3:
        return
    n, d = np.log(table.column("params")), np.log(table.column("tokens"))
    if np.ptp(n) < 1e-9 or np.ptp(d) < 1e-9:
        which = "params" if np.ptp(n) < 1e-9 else "tokens"
        yield Finding(
            "constant-input",
            f"all runs have the same {which}; the law's term in {which} cannot be told from its floor",
            "arXiv:2404.10102",
        )
        return
    correlation = abs(np.corrcoef(n, d)[0, 1])
    if correlation > 0.99:
        ratio = np.exp(np.median(d - n))
        yield Finding(
            "collinear",
            f"log params and log tokens are collinear (|r| = {correlation:.4f}, about {ratio:.3g} tokens per "
            "parameter throughout); effects of params and tokens cannot be told apart, and forecasts hold "
            "only along that line",
            "arXiv:2304.03208",
        )


def _single_budget(table: RunTable) -> Iterator[Finding]:
    if "compute" not in table.frame or len(table) < 3:
        return
    compute = np.log10(table.column("compute"))
    if np.ptp(compute) < 0.3:
        yield Finding(
            "single-budget",
            f"compute spans a factor of {10 ** np.ptp(compute):.2g}; how loss falls with compute is left to "
            "the priors",
            "arXiv:2203.15556",
        )


def _few_rows(table: RunTable) -> Iterator[Finding]:
    if len(table) < 10:
        yield Finding(
            "few-runs",
            f"{len(table)} runs; the Chinchilla law with its noise has 7 parameters, so priors decide "
            "much of the answer",
            "arXiv:2404.10102",
        )


# Rows that a finding names at most.
_NAMED = 3
# What tables call the column of runs' names, the likeliest first.
_RUN_NAMES = ("name", "run_name", "run", "run_id", "id", "model")


def _name_columns(table: RunTable) -> dict[str, Hashable]:
    """Return the columns that may hold runs' names, by what they are called, the likeliest first."""
    columns = {str(c).strip().lower(): c for c in table.frame}
    return {n: columns[n] for n in _RUN_NAMES if n in columns}


def _called(table: RunTable, place: int) -> str:
    """Return a run's row, and its name where the table has one."""
    for column in _name_columns(table).values():
        return f"{table.row(place)}, {column} {table.frame[column].iloc[place]}"
    return table.row(place)


def _near_duplicates(table: RunTable) -> Iterator[Finding]:
    names = [c for c in ("params", "tokens", "unique_tokens") if c in table.frame] or ["compute"]
    if not set(names) <= set(table.frame):
        return
    rows = pd.DataFrame({c: np.round(np.log(table.frame[c].to_numpy(float)), 3) for c in names})
    rows["loss"] = np.round(np.log(table.column("loss")), 4)
    seed = "without a seed column"
    if "seed" in table.frame:
        rows["seed"], seed = table.frame["seed"].astype(str), "and seed"
    repeats = np.flatnonzero(rows.duplicated())
    if len(repeats):
        first = rows.groupby(list(rows), dropna=False, sort=False).ngroup()
        of = [int(np.argmax(first == first[place])) for place in repeats[:_NAMED]]
        named = [
            f"{table.row(place)} of {table.row(other)}"
            for place, other in zip(repeats[:_NAMED], of, strict=True)
        ]
        more = ", ..." if len(repeats) > _NAMED else ""
        yield Finding(
            "near-duplicates",
            f"repeats of another run's inputs to .1% and loss to .01%, {seed}: {len(repeats)} "
            f"({', '.join(named)}{more}); the same run counted twice narrows every band",
            "arXiv:2404.10102",
        )


def _checkpoints(table: RunTable) -> Iterator[Finding]:
    if "trunk" in table.frame:
        return
    ways = [c for c in ("tokens", "step") if c in table.frame]
    names = [c for called, c in _name_columns(table).items() if called != "model"]  # of one, many are trained
    if not ways or not names:
        return
    runs = table.frame.groupby(_labels(table.frame[names[0]]))
    one_model = runs["params"].nunique() == 1 if "params" in table.frame else True
    several = (runs[ways[0]].nunique() > 1) & one_model
    if several.any():
        yield Finding(
            "checkpoints",
            f"{int(several.sum())} of {len(several)} runs by {names[0]!r} have rows at several {ways[0]}: "
            "checkpoints of one run share its noise, and before the learning rate has decayed their losses "
            "lie above those of runs that end there. Keep the last of each, or say --columns "
            f"'trunk={names[0]}', which gives them a common offset",
            "arXiv:2405.18392",
        )


def _outliers(table: RunTable) -> Iterator[Finding]:
    if "outlier" in table.frame and (flagged := int(table.frame["outlier"].sum())):
        yield Finding(
            "flagged-outliers",
            f"flagged by the table's compilers: {flagged} of {len(table)} runs; `load` leaves them out "
            "unless told",
            "arXiv:2404.10102",
        )
    if not {"params", "tokens"} <= set(table.frame) or len(table) < 12:
        return
    # Robust residuals of a quadratic surface in log inputs: smooth misfit of any law is absorbed.
    n, d = (np.log(table.column(c)) for c in ("params", "tokens"))
    n, d = n - n.mean(), d - d.mean()
    design = np.stack([np.ones_like(n), n, d, n * n, n * d, d * d], axis=1)
    loss, weights = np.log(table.column("loss")), np.ones(len(table))
    for _ in range(20):
        root = np.sqrt(weights)
        fitted = np.linalg.lstsq(design * root[:, None], loss * root, rcond=None)[0]
        residual = loss - design @ fitted
        spread = 1.4826 * np.median(np.abs(residual)) + 1e-12
        weights = 1 / np.maximum(1.0, np.abs(residual) / (2 * spread))
    far = np.abs(residual) > 8 * spread
    if far.any():
        worst = int(np.argmax(np.abs(residual)))
        yield Finding(
            "outliers",
            f"over 8 robust sd off a smooth surface: {int(far.sum())} of {len(table)} runs (worst: "
            f"{_called(table, worst)}, loss {np.exp(loss[worst]):.3f}); keep Student-t noise, or leave "
            "them out and say so",
            "arXiv:2404.10102",
        )


def _mixed(table: RunTable) -> Iterator[Finding]:
    for name, what in (("tokenizer", "tokenizers"), ("unit", "units"), ("corpus", "corpora")):
        if name in table.frame and (count := _labels(table.frame[name]).nunique()) > 1:
            yield Finding(
                f"mixed-{what}",
                f"{count} {what} in one table; their losses share no floor and cannot be pooled in one law "
                "(split the table)",
                "arXiv:2010.14701",
            )
    if "group" in table.frame and (count := _labels(table.frame["group"]).nunique()) > 1:
        yield Finding(
            "groups",
            f"{count} groups in one table; if they differ in corpus, tokenizer or recipe, fit them apart, or "
            "with a group effect (--group-effect group)",
            "arXiv:2406.19146",
        )


def _labels(column: pd.Series) -> pd.Series:
    """Return a column as text, lists and the like among it; what is missing stays so."""
    return column.astype(object).where(column.isna(), column.map(str))


def _repeated_data(table: RunTable) -> Iterator[Finding]:
    if not {"tokens", "unique_tokens"} <= set(table.frame):
        return
    unique = table.frame["unique_tokens"].fillna(np.inf).to_numpy(float)  # where there is no limit
    epochs = table.column("tokens") / unique
    if (many := int((epochs > 4).sum())) > 0:
        yield Finding(
            "repeated-data",
            f"data repeated over 4 times (up to {epochs.max():.0f}) in {many} of {len(table)} runs; tokens "
            "are then worth less than the law takes them for",
            "arXiv:2305.16264",
        )


def _ratio_range(table: RunTable) -> Iterator[Finding]:
    if not {"params", "tokens"} <= set(table.frame):
        return
    ratio = table.column("tokens") / table.column("params")
    if ratio.max() / ratio.min() > 100:
        yield Finding(
            "wide-ratio",
            f"tokens per parameter run from {ratio.min():.2g} to {ratio.max():.2g}; the additive law "
            "misfits so wide a range, keep the discrepancy",
            "arXiv:2403.08540",
        )
    elif ratio.max() / ratio.min() < 3:
        yield Finding(
            "narrow-ratio",
            f"tokens per parameter run from {ratio.min():.3g} to {ratio.max():.3g} only; forecasts elsewhere "
            "are extrapolation",
            "arXiv:2401.00448",
        )


def _small_counts(table: RunTable) -> Iterator[Finding]:
    for name in (n for n in ("params", "tokens") if n in table.frame):
        if (least := table.column(name).min()) < 1000:
            yield Finding(
                "small-count",
                f"the smallest {name} is {least:g}; if the column is in millions or billions, say so "
                f"(--columns '{name}=NAME * 1e6')",
                "arXiv:2406.12907",
            )


def _compute_convention(table: RunTable) -> Iterator[Finding]:
    if not {"params", "tokens", "compute"} <= set(table.frame):
        return
    k = table.column("compute") / (table.column("params") * table.column("tokens"))
    stated = table.meta.flops_per_param_token
    off = np.abs(np.log(k / stated)) > np.log(1.2)
    if off.any():
        yield Finding(
            "compute-convention",
            f"compute is {k.min():.2g} to {k.max():.2g} times params x tokens, in {int(off.sum())} of "
            f"{len(table)} runs off by over 20% from the stated {stated:g}; check what params and "
            "compute count",
            "arXiv:2406.12907",
        )
    if table.meta.params_convention == "unknown":
        yield Finding(
            "params-convention",
            "whether params are total or non-embedding is not stated; exponents differ between the two",
            "arXiv:2406.19146",
        )


def _rounding(table: RunTable) -> Iterator[Finding]:
    step = table.meta.loss_step
    if step and step >= 1e-3:
        yield Finding(
            "rounding",
            f"losses are rounded to {step:g} {table.meta.loss_unit}; a rounding error of sd "
            f"{step / np.sqrt(12):.1g} enters the noise",
            "arXiv:2404.10102",
        )


# A curve of so many steps of which so few rise and so many repeat is taken for smoothed.
_STEPS, _MAX_RISING, _MIN_REPEATED = 20, 0.01, 0.02
_NOT_INPUTS = frozenset({"loss", "loss_se", "loss_rounding", "seed", "outlier", "training"})


def _smoothed(table: RunTable) -> Iterator[Finding]:
    if table.meta.loss_step:  # rounding, too, makes losses repeat
        return
    # As text: in records of a trainer a column of this name may hold anything.
    parts = [table.frame[c].astype(str) for c in ("group", "trunk", "training") if c in table.frame]
    curves = [curve for _, curve in table.frame.groupby(parts)] if parts else [table.frame]
    smooth = [curve for curve in curves if _never_rises(curve)]
    if smooth:
        which = "the loss" if len(curves) == 1 else f"the loss of {len(smooth)} of {len(curves)} curves"
        yield Finding(
            "smoothed",
            f"{which} hardly ever rises and repeats to the last digit: a best so far, or means; raw "
            "evaluations scatter more than these, and forecasts of such want the noise that is known of them "
            "(`known_noise`)",
            "arXiv:2209.06640",
        )


def _never_rises(curve: pd.DataFrame) -> bool:
    """Whether runs lie along one way through the inputs, and their losses are too orderly for raw ones."""
    numbers = curve.select_dtypes("number")
    varying = [str(c) for c in numbers if c not in _NOT_INPUTS and numbers[c].nunique() > 1]
    ordered = numbers.sort_values(varying) if varying else numbers
    one_way = all(ordered[c].is_monotonic_increasing for c in varying)
    if not varying or not one_way or len(curve) <= _STEPS:
        return False
    change = np.diff(ordered["loss"])
    return bool((change > 0).mean() <= _MAX_RISING and (change == 0).mean() >= _MIN_REPEATED)


def _counted(table: RunTable) -> Iterator[Finding]:
    rate = table.column("loss")
    if (examples := counted_examples(rate)) is None:
        return
    errors = sampling_error(rate, examples)
    yield Finding(
        "counted",
        f"losses are whole multiples of 1/{examples}, as error rates counted on {examples:,} examples are: "
        f"their sampling error is {errors.min():.2%} to {errors.max():.2%} of the loss, shared as far as the "
        "examples are the same; forecasts of raw rates want it as `known_noise` (`sampling_error`)",
        "arXiv:2209.06640",
    )


_CHECKS: tuple[Callable[[RunTable], Iterator[Finding]], ...] = (
    _no_inputs,
    _collinear,
    _single_budget,
    _few_rows,
    _small_counts,
    _mixed,
    _near_duplicates,
    _checkpoints,
    _outliers,
    _repeated_data,
    _ratio_range,
    _compute_convention,
    _rounding,
    _smoothed,
    _counted,
)
