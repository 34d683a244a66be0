"""Run records: one JSON line per trained run, holding all that a scaling fit may need to trust its loss.

A record's top level reads as a row of a run table: `params`, `params_non_embedding`, `tokens`, `unique_tokens`,
`compute` (training FLOPs, `compute_convention`), `loss` (nats per token, validation), `loss_se`, `seed`, `trunk`,
`status`, `run_id`. Everything else is grouped under it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .device import Device
from .evaluate import Evaluation
from .flops import CONVENTION, forward_flops, training_flops
from .run import TRAINER_VERSION, Run
from .sources.source import Source

Record = dict[str, Any]

SCHEMA = 1
# What another machine, or another run of the same code, may write differently.
MEASURED = ("measured", "versions")
TABLE_COLUMNS = (
    "run_id", "params", "params_non_embedding", "tokens", "unique_tokens", "compute", "loss",
    "loss_se", "seed", "trunk", "status", "learning_rate_factor", "batch_tokens", "width", "layers", "kl",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What training one run led to.

    Parameters
    ----------
    evaluation : Evaluation
    status : {"finished", "diverged", "nan"}
    gradient_norm, train_loss : float
        At the last step.
    noise_scale : float or None
        Gradient-noise scale, tokens.
    seconds : float
        Wall time of its steps.
    rows : int
        Runs in its stack, which shared that time.
    """

    evaluation: Evaluation
    status: str
    gradient_norm: float
    train_loss: float
    noise_scale: float | None
    seconds: float
    rows: int


def record_of(run: Run, source: Source, machine: Device, outcome: Outcome) -> Record:
    """Write down one run; numbers that are not finite become None, which JSON can hold."""
    counts, scored = run.shape.parameters(), outcome.evaluation
    compute = training_flops(run.shape, run.tokens)
    bits = scored.loss / math.log(2)
    record = {
        "schema": SCHEMA,
        "run_id": run.id,
        "params": counts["total"],
        "params_non_embedding": counts["non_embedding"],
        "tokens": run.tokens,
        "unique_tokens": run.unique_tokens,
        "compute": compute["compute"],
        "compute_convention": CONVENTION,
        "loss": scored.loss,
        "loss_se": scored.loss_se,
        "loss_unit": "nats/token",
        "seed": run.seed,
        "trunk": run.trunk,
        "status": outcome.status,
        "learning_rate_factor": run.learning_rate_factor,
        "batch_tokens": run.batch_tokens,
        "width": run.shape.width,
        "layers": run.shape.layers,
        "kl": scored.kl,
        "source": {
            "kind": source.kind,
            "entropy_rate": source.entropy_rate,
            "fingerprint": source.fingerprint,
            "tokenizer": source.tokenizer,
            "bytes_per_token": source.bytes_per_token,
        },
        "validation": {
            "tokens": scored.tokens,
            "fingerprint": source.validation_fingerprint,
            "true_surprisal": scored.truth,
            "kl": scored.kl,
            "kl_se": scored.kl_se,
            "bits_per_byte": bits / source.bytes_per_token if source.bytes_per_token else None,
        },
        "shape": run.shape.as_dict(),
        "params_by_kind": counts,
        "flops": {"forward_per_token": forward_flops(run.shape), **compute},
        "training": _training(run, outcome),
        "measured": _measured(run, machine, outcome),
        "versions": {
            "trainer": TRAINER_VERSION,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    return _finite(record)


def _training(run: Run, outcome: Outcome) -> Record:
    spec = asdict(run)
    own = ("batch_tokens", "steps", "warmup_steps", "cooldown_steps", "schedule", "final_share")
    return {
        "optimiser": "adamw",
        **{name: spec[name] for name in own},
        **{name: spec[name] for name in ("ends_at", "beta1", "beta2", "weight_decay", "clip")},
        "learning_rate": dict(run.learning_rate),
        "precision": run.precision,
        "epochs": run.tokens / run.unique_tokens,
        "train_loss": outcome.train_loss,
        "gradient_norm": outcome.gradient_norm,
        "gradient_noise_scale_tokens": outcome.noise_scale,
    }


def _measured(run: Run, machine: Device, outcome: Outcome) -> Record:
    alone = run.tokens / max(outcome.seconds, 1e-9)
    rate = outcome.rows * alone
    flops = rate * training_flops(run.shape, 1)["compute"]
    return {
        **asdict(machine),
        "wall_seconds": outcome.seconds,
        "stack_rows": outcome.rows,
        "tokens_per_second": alone,
        "stack_tokens_per_second": rate,
        "mfu_ceiling": flops / machine.ceiling_flops,
        "mfu_datasheet": flops / machine.datasheet_flops if machine.datasheet_flops else None,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Append records to a file, each a whole line, and see them onto the disk."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path) -> list[Record]:
    """Read records; a torn last line, which a kill in mid-write leaves, is cut off the file."""
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    try:
        records = [json.loads(line) for line in whole.splitlines()]
    except json.JSONDecodeError as error:
        raise RecordError(
            f"{path.name}: a line is not JSON ({error}): move the file away or mend the line"
        ) from None
    if whole != raw:
        os.truncate(path, len(whole))
    return records


class RecordError(ValueError):
    """Records that cannot be read; the message says what to do."""


def write_table(path: Path, records: Sequence[Record]) -> None:
    """Write records as a run table: CSV at `path`, beside it metadata of the same name in TOML."""
    rows = sorted(
        records, key=lambda r: (r["params"], r["tokens"], r["learning_rate_factor"], r["seed"])
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, TABLE_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_aside(path, text.getvalue())


def write_aside(path: Path, text: str) -> None:
    """Write a file under another name, then rename it: a reader sees all of it or the old one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
