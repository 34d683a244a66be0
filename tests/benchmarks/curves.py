"""One-dimensional curves: losses at more examples than were seen, laws alone, with discrepancy and mixed.

    python -m tests.benchmarks.curves ../shared/published OUT [inner|outer]

The protocol of arXiv:2505.23032 on the curves of arXiv:2209.06640: a curve's points with `Training` are
fitted, the others forecast. Per curve, then averaged: RMSLE of the predictive median, mean log density of the
points, and MSCE, the mean squared distance of the share of points below the predictive quantiles from their
levels.

`inner` looks at training points only: those up to 1/2.13 of the most examples forecast the rest. Which
mixture to use is chosen there; `outer` is the published split. Mixtures weigh laws half by evidence, half
equally. OUT/curves.jsonl keeps a line per curve; stopped, the same command goes on.

Points to fit were smoothed before release, those to forecast were not: what the first show of noise is less
than the second have. But most curves are error rates, and the points to fit show on how many examples they
were counted (`counted_examples`), and so the sampling error of a raw one. Outer forecasts are scored without
it and with it.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

import bayescale as bs
from bayescale.errorrates import counted_examples, sampling_error
from bayescale.forecasts import expected_loss
from bayescale.runs import make_table

ALONE: dict[str, Any] = {"discrepancy": False}
# Laws that are wrong: that they may be right is for fits of laws alone to say, which mixtures weigh beside.
WRONG: dict[str, Any] = {"priors": {"discrepancy_sd": "LogNormal(0.05, 0.7)"}}
FITS = {
    "M1": ("curve-m1", ALONE),
    "M2": ("curve-m2", ALONE),
    "M3": ("curve-m3", ALONE),
    "M4": ("curve-m4", ALONE),
    "BNSL-1": ("curve-bnsl-1", ALONE),
    "M2 + discrepancy": ("curve-m2", WRONG),
    "M3 + discrepancy": ("curve-m3", WRONG),
    "BNSL-1 + discrepancy": ("curve-bnsl-1", WRONG),
}
MIXTURES = (
    ("M2", "BNSL-1"),
    ("M2", "M3", "BNSL-1"),
    ("M2", "M4", "BNSL-1"),
    ("M2", "M3", "M4", "BNSL-1"),
    ("M1", "M2", "M3", "M4", "BNSL-1"),
    ("M2 + discrepancy", "BNSL-1 + discrepancy"),
    ("M2 + discrepancy", "M3 + discrepancy", "BNSL-1 + discrepancy"),
    ("M2", "M3", "BNSL-1", "M2 + discrepancy", "M3 + discrepancy", "BNSL-1 + discrepancy"),
)
INNER_CUT = 2.13
DRAWS = 1000
LEAST_RUNS = 5
LEVELS = np.arange(0.05, 1.0, 0.05)
SAMPLED = ", sampling error known"
DOMAINS = {"IC": "image classification", "BB": "BIG-Bench", "LM": "language modelling", "NMT": "translation"}


class Predictive(NamedTuple):
    """Draws of log expected loss, (draw, point), each draw's noise, and the log evidence behind them."""

    log_loss: np.ndarray
    noise_sd: np.ndarray
    noise_df: np.ndarray
    log_evidence: float
    passed: bool


def read_curves(folder: Path) -> list[tuple[str, pd.DataFrame]]:
    """Return curves by name, their points in order of examples."""
    files = (folder / "extrapolation_1d" / f"{name}.csv" for name in ("vision", "lang"))
    points = pd.concat([pd.read_csv(file) for file in files])
    groups = points.groupby(["Domain", "Task", "Model"], sort=True)
    return [(" / ".join(key), curve.sort_values("Seen Examples")) for key, curve in groups]


def split(curve: pd.DataFrame, which: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    training = curve["Training"] == 1
    if which == "outer":
        return curve[training], curve[~training]
    seen = curve[training]
    early = seen["Seen Examples"] <= seen["Seen Examples"].max() / INNER_CUT
    return seen[early], seen[~early]


def curve_table(known: pd.DataFrame) -> bs.RunTable:
    """Return a curve's points as a run table."""
    frame = pd.DataFrame({"seen_examples": known["Seen Examples"], "loss": known["Loss"]}, dtype=float)
    meta = bs.TableMeta(name="curve", loss_unit="other", loss_step=0.0)
    return make_table(frame.reset_index(drop=True), meta)


def predict(known: pd.DataFrame, examples: np.ndarray, law: str, options: dict) -> Predictive:
    """Fit a curve's known points; return what is predicted at other numbers of examples."""
    fit = bs.fit(curve_table(known), law, method="fast", draws=DRAWS // 4, **options)
    at = fit.model.ratios_at({"seen_examples": examples})
    log_loss = np.log(expected_loss(fit, at, np.random.default_rng(0)))
    noise_sd, noise_df = (fit.parameters[n] for n in ("noise_sd", "noise_df"))
    log_evidence = fit.evidence.log if fit.evidence else -np.inf
    return Predictive(log_loss, noise_sd, noise_df, log_evidence, not fit.diagnostics.failures)


def mixed(parts: list[Predictive]) -> tuple[list[Predictive], np.ndarray]:
    """Return parts with weights, half by evidence and half equal."""
    logs = np.array([p.log_evidence for p in parts])
    by_evidence = np.exp(logs - logs.max())
    return parts, 0.5 * by_evidence / by_evidence.sum() + 0.5 / len(parts)


def scores(
    parts: list[Predictive], weights: np.ndarray, loss: np.ndarray, test_size: float = np.inf
) -> dict[str, float]:
    """Score a mixture of predictives; densities are of the loss itself, not of its log.

    Losses that are error rates on `test_size` examples have a sampling error beside the curve's noise.
    """
    per_draw = np.concatenate(
        [np.full(len(p.log_loss), w / len(p.log_loss)) for p, w in zip(parts, weights, strict=True)]
    )
    log_loss = np.concatenate([p.log_loss for p in parts])
    noise_sd, noise_df = (
        np.concatenate([getattr(p, n) for p in parts])[:, None] for n in ("noise_sd", "noise_df")
    )
    noise_sd = np.hypot(noise_sd, sampling_error(np.clip(np.exp(log_loss), 0, 1), test_size))
    noise = stats.t(noise_df, log_loss, noise_sd)
    with np.errstate(divide="ignore"):
        log_density = np.logaddexp.reduce(noise.logpdf(np.log(loss)) + np.log(per_draw)[:, None]) - np.log(
            loss
        )
    below = per_draw @ noise.cdf(np.log(loss))
    draws = log_loss + noise_sd * np.random.default_rng(0).standard_t(noise_df, log_loss.shape)
    median = _weighted_median(draws, per_draw)
    calibration = np.mean([(np.mean(below <= level) - level) ** 2 for level in LEVELS])
    return {
        "rmsle": float(np.sqrt(np.mean((median - np.log(loss)) ** 2))),
        "log_density": float(log_density.mean()),
        "msce": float(calibration),
    }


def _weighted_median(draws: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the median of each column of draws, shape (draw, point)."""
    order = np.argsort(draws, axis=0)
    passed = np.cumsum(weight[order], axis=0) >= 0.5 * weight.sum()
    return np.take_along_axis(draws, np.take_along_axis(order, passed.argmax(axis=0)[None], axis=0), axis=0)[
        0
    ]


def score_curve(curve: pd.DataFrame, which: str) -> dict | None:
    """Return every method's scores and CPU seconds; None if too few points are left to fit."""
    known, hidden = split(curve, which)
    if len(known) < LEAST_RUNS or not len(hidden):
        return None
    loss, examples = (hidden[c].to_numpy(float) for c in ("Loss", "Seen Examples"))
    counted = counted_examples(known["Loss"].to_numpy(float)) or np.inf
    found, out = {}, {}
    for name, (law, options) in FITS.items():
        started = time.process_time()
        found[name] = predict(known, examples, law, options)
        seconds = time.process_time() - started
        out[name] = scores([found[name]], np.ones(1), loss) | {"cpu_s": seconds, "passed": found[name].passed}
    for names in MIXTURES:
        parts, weights = mixed([found[n] for n in names])
        whole = {"cpu_s": sum(out[n]["cpu_s"] for n in names), "passed": all(p.passed for p in parts)}
        out[" & ".join(names)] = scores(parts, weights, loss) | whole
        if which == "outer":
            out[" & ".join(names) + SAMPLED] = scores(parts, weights, loss, counted) | whole
    return out


def show_smoothing(curves: list[pd.DataFrame]) -> None:
    """Print how points to fit and raw ones differ, of image curves."""
    rows = []
    for curve in curves:
        examples, loss = curve["Seen Examples"].to_numpy(float), curve["Loss"].to_numpy(float)
        known = curve["Training"].to_numpy() == 1
        wait = np.median(np.diff(np.log(examples[known]))[-10:])
        thinned = [np.flatnonzero(~known)[0]]
        for point in np.flatnonzero(~known):
            if np.log(examples[point] / examples[thinned[-1]]) >= 0.99 * wait:
                thinned.append(point)
        # Means are off by rounding.
        steps, raw_steps = (np.diff(loss[points]).round(12) for points in (known, thinned))
        counted = counted_examples(loss[known])
        whole = loss[~known] * (counted or np.nan)
        rows.append(
            {
                "steps": len(steps),
                "rise": (steps > 0).sum(),
                "repeat": (steps == 0).sum(),
                "raw steps": len(raw_steps),
                "raw rise": (raw_steps > 0).sum(),
                "counted": float(counted or np.nan),
                "raw, from whole images": np.abs(whole - whole.round()).max(),
            }
        )
    frame = pd.DataFrame(rows)
    print(frame.drop(columns=["counted", "raw, from whole images"]).sum().to_string())
    print(f"examples that points to fit show: {frame['counted'].value_counts(dropna=False).to_dict()}")
    print(f"raw error rates are whole numbers of these to {frame['raw, from whole images'].max():.2g}")


def main(folder: Path, out: Path, which: str) -> None:
    show_smoothing([c for _, c in read_curves(folder) if c["Domain"].iloc[0] == "IC"])
    out.mkdir(parents=True, exist_ok=True)
    path = out / "curves.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(line["split"], line["curve"]) for line in lines}
    for name, curve in read_curves(folder):
        if (which, name) in done or (scored := score_curve(curve, which)) is None:
            continue
        lines.append({"split": which, "curve": name, "scores": scored})
        with path.open("a") as file:
            file.write(json.dumps(lines[-1]) + "\n")
    report([line for line in lines if line["split"] == which])


def report(lines: list[dict]) -> None:
    """Print means over the curves of each domain."""
    rows = [
        {"domain": DOMAINS[line["curve"].split(" / ")[0]], "method": method, **values}
        for line in lines
        for method, values in line["scores"].items()
    ]
    frame = pd.DataFrame(rows)
    print("| domain | curves | method | RMSLE | log density | MSCE | CPU s a curve | diagnostics failed |")
    print("|---|---|---|---|---|---|---|---|")
    for (domain, method), part in frame.groupby(["domain", "method"], sort=False):
        means = part[["rmsle", "log_density", "msce", "cpu_s"]].mean()
        shown = (
            f"{means['rmsle']:.4f} | {means['log_density']:.3f} | {means['msce']:.3f} | {means['cpu_s']:.2f}"
        )
        print(f"| {domain} | {len(part)} | {method} | {shown} | {int((~part['passed']).sum())} |")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "outer")
