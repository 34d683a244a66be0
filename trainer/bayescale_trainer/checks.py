"""The validity list: what makes losses poor scaling data, in a ladder or in its records.

Each check looks at plain records; a ladder's runs are turned into records without results, and
checks that need a result (divergence, gradient noise, the best learning rate) then find nothing to
say.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .ladder import Ladder, read_ladder
from .records import Record, RecordError, read_records
from .sources import Source

LONGEST_WARMUP = 0.2  # of the steps
LARGEST_FINAL_SHARE = 0.1  # of the peak learning rate
MOST_EPOCHS = 4.0
LEAST_SEED_PAIRS = 2
LEAST_SIZES = 3
LEAST_RATIO_SPAN = 1.5  # of D/N, largest to smallest: sizes are rounded, so that equal ones differ


@dataclass(frozen=True)
class Finding:
    """One fault: a stable code, a sentence with numbers and a remedy, and who showed it."""

    code: str
    sentence: str
    citation: str


def check_records(records: Sequence[Record]) -> list[Finding]:
    """Apply the validity list to the records of one ladder.

    Parameters
    ----------
    records : sequence of Record
        As read from `runs.jsonl`, or from `records_of_ladder`.

    Returns
    -------
    list of Finding
        Empty where nothing is wrong.
    """
    return [finding for test in CHECKS for finding in test(records)] if records else []


def check_ladder(ladder: Ladder, cache: Path) -> list[Finding]:
    """Apply the validity list to a ladder that is still to be trained."""
    source = ladder.open_source(cache)
    return check_records(records_of_ladder(ladder, source))


def records_of_ladder(ladder: Ladder, source: Source) -> list[Record]:
    """Write down a ladder's runs as records without results."""
    return [
        {
            "params": run.shape.parameters()["total"],
            "tokens": run.tokens,
            "unique_tokens": run.unique_tokens,
            "batch_tokens": run.batch_tokens,
            "seed": run.seed,
            "trunk": run.trunk,
            "learning_rate_factor": run.learning_rate_factor,
            "status": "planned",
            "loss": None,
            "source": {"fingerprint": source.fingerprint, "tokenizer": source.tokenizer},
            "training": run.training(),
        }
        for run in ladder.runs(source)
    ]


def check(path: Path) -> int:
    """Print the findings about a ladder (.toml) or records (.jsonl); return 1 if there are any."""
    if path.suffix == ".jsonl":
        if not (records := read_records(path)):
            raise RecordError("no run records: expected the runs.jsonl of a trained ladder")
        try:
            findings = check_records(records)
        except (KeyError, TypeError) as error:
            raise RecordError(
                f"records lack what the trainer writes ({error}): they are of other make"
            ) from None
    else:
        findings = check_ladder(read_ladder(path), path.with_suffix("") / "cache")
    for finding in findings:
        print(f"{finding.code}: {finding.sentence} [{finding.citation}]")
    if not findings:
        print(f"{path}: nothing on the validity list")
    return 1 if findings else 0


def _by_size(records: Sequence[Record]) -> dict[tuple[int, int], list[Record]]:
    sizes = defaultdict(list)
    for record in records:
        sizes[record["params"], record["tokens"]].append(record)
    return sizes


def _learning_rate(records: Sequence[Record]) -> Iterator[Finding]:
    sweeps: dict[tuple[int, int, int], list[Record]] = defaultdict(list)
    for record in records:
        sweeps[record["params"], record["tokens"], record["seed"]].append(record)
    sweeps = {at: runs for at, runs in sweeps.items() if len({r["learning_rate_factor"] for r in runs}) >= 3}
    citation = "arXiv:2406.19146"
    if len({params for params, _, _ in sweeps}) < 2:
        yield Finding(
            "learning-rate-not-swept",
            f"the learning rate is swept at {len({p for p, _, _ in sweeps})} sizes; sweep "
            "it at two or more "
            "(learning_rate_factor = [0.5, 1, 2]): one tuned at a single size bends the law",
            citation,
        )
    for (params, tokens, _), runs in sweeps.items():
        scored = sorted((r for r in runs if r["loss"] is not None), key=lambda r: r["loss"])
        factors = sorted(r["learning_rate_factor"] for r in runs)
        if scored and scored[0]["learning_rate_factor"] in (factors[0], factors[-1]):
            best = scored[0]["learning_rate_factor"]
            yield Finding(
                "learning-rate-at-edge",
                f"at N {params:,}, D {tokens:,} the best learning rate is {best:g} times "
                "the rule's, the edge of "
                "the sweep: widen the sweep or change [recipe] learning_rate",
                citation,
            )


def _schedule(records: Sequence[Record]) -> Iterator[Finding]:
    bad = [
        r
        for r in records
        if r["training"]["ends_at"] != 1 or r["training"]["final_share"] > LARGEST_FINAL_SHARE
    ]
    if bad:
        yield Finding(
            "schedule-not-ended",
            f"{len(bad)} runs stop before their learning rate has fallen: set [recipe] "
            "ends_at = 1 and final_share "
            f"at most {LARGEST_FINAL_SHARE:g}, or use trunk and cooldown",
            "arXiv:2203.15556",
        )


def _warmup(records: Sequence[Record]) -> Iterator[Finding]:
    shares = [r["training"]["warmup_steps"] / r["training"]["steps"] for r in records]
    long = [share for share in shares if share > LONGEST_WARMUP]
    if long:
        yield Finding(
            "warm-up-too-long",
            f"{len(long)} runs warm up for more than {LONGEST_WARMUP:.0%} of their steps (at most "
            f"{max(long):.0%}): lower [recipe] warmup_share (of a trunk: "
            "warmup_tokens_per_param), or train longer",
            "arXiv:2406.19146",
        )


def _batch(records: Sequence[Record]) -> Iterator[Finding]:
    known = [r for r in records if r["training"].get("gradient_noise_scale_tokens") is not None]
    above = [r for r in known if r["batch_tokens"] > r["training"]["gradient_noise_scale_tokens"]]
    if above:
        worst = min(above, key=lambda r: r["training"]["gradient_noise_scale_tokens"] / r["batch_tokens"])
        scale = worst["training"]["gradient_noise_scale_tokens"]
        yield Finding(
            "batch-above-critical",
            f"{len(above)} of {len(known)} runs have batches above their gradient-noise "
            "scale (worst: N "
            f"{worst['params']:,}, D {worst['tokens']:,}: {worst['batch_tokens']:,} tokens "
            f"against {scale:,.0f}): "
            "their tokens teach less than the law assumes; lower the batch",
            "arXiv:1812.06162",
        )


def _seeds(records: Sequence[Record]) -> Iterator[Finding]:
    sizes = _by_size([r for r in records if r["learning_rate_factor"] == 1])
    repeated = {params for (params, _), runs in sizes.items() if len({r["seed"] for r in runs}) >= 2}
    if len(repeated) < LEAST_SEED_PAIRS:
        yield Finding(
            "too-few-seeds",
            f"seeds repeat at {len(repeated)} model sizes, expected {LEAST_SEED_PAIRS} or "
            "more (seeds = [0, 1]): "
            "without repeats noise cannot be told from misfit",
            "arXiv:2502.18969",
        )


def _one_of_each(records: Sequence[Record]) -> Iterator[Finding]:
    subjects: list[tuple[str, Callable[[Record], object], str]] = [
        ("optimiser", lambda r: r["training"]["optimiser"], "arXiv:2509.02046"),
        ("schedule", lambda r: r["training"]["schedule"], "arXiv:2405.18392"),
        ("precision", lambda r: r["training"]["precision"], "arXiv:2411.04330"),
        ("tokenizer", lambda r: r["source"]["tokenizer"], "arXiv:2407.13623"),
        ("source", lambda r: r["source"]["fingerprint"], "arXiv:2407.13623"),
    ]
    for subject, of, citation in subjects:
        found = sorted({str(of(record)) for record in records})
        if len(found) > 1:
            yield Finding(
                f"mixed-{subject}",
                f"{len(found)} kinds of {subject} in one table ({', '.join(found)}): fit "
                "them apart, or as groups",
                citation,
            )


def _epochs(records: Sequence[Record]) -> Iterator[Finding]:
    many = [r for r in records if r["tokens"] > MOST_EPOCHS * r["unique_tokens"]]
    if many:
        yield Finding(
            "data-repeated",
            f"{len(many)} runs repeat their text more than {MOST_EPOCHS:g} times: use a law "
            "with unique tokens, or "
            "more text",
            "arXiv:2305.16264",
        )


def _sizes(records: Sequence[Record]) -> Iterator[Finding]:
    for axis, name in (("params", "N"), ("tokens", "D")):
        found = {record[axis] for record in records}
        if len(found) < LEAST_SIZES:
            yield Finding(
                f"too-few-{axis}",
                f"{len(found)} values of {name}, expected {LEAST_SIZES} or more: its "
                "exponent is not identified",
                "arXiv:2404.10102",
            )
    ratios = sorted(record["tokens"] / record["params"] for record in records)
    if len(records) > 1 and ratios[-1] < LEAST_RATIO_SPAN * ratios[0]:
        yield Finding(
            "fixed-ratio",
            f"D/N is {ratios[0]:.3g} to {ratios[-1]:.3g} in all runs: the terms in N and D cannot be told "
            "apart; vary it",
            "arXiv:2404.10102",
        )


def _status(records: Sequence[Record]) -> Iterator[Finding]:
    for status, runs in itertools.groupby(
        sorted(records, key=lambda r: r["status"]), key=lambda r: r["status"]
    ):
        if status in ("nan", "diverged"):
            worst = [f"N {r['params']:,} D {r['tokens']:,}" for r in runs]
            yield Finding(
                f"run-{status}",
                f"{len(worst)} runs ended as {status} ({'; '.join(worst[:3])}): leave them "
                "out of fits, and lower "
                "the learning rate",
                "arXiv:2309.14322",
            )


def _trunks(records: Sequence[Record]) -> Iterator[Finding]:
    trunks = {record["trunk"] for record in records if record["trunk"]}
    branches = [record for record in records if record["trunk"]]
    if trunks and len(branches) > len(trunks):
        yield Finding(
            "shared-trunk",
            f"{len(branches)} runs branch from {len(trunks)} trunks, so they share noise: "
            "fit with a group effect "
            "per trunk, and do not count them as independent",
            "arXiv:2405.18392",
        )


CHECKS = (
    _status, _learning_rate, _schedule, _warmup, _batch, _seeds, _one_of_each, _epochs, _sizes,
    _trunks,
)  # fmt: skip
