"""What training one run led to, written down as its record."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from .device import Device
from .evaluate import Evaluation
from .flops import CONVENTION, forward_flops, training_flops
from .records import Record
from .run import TRAINER_VERSION, Run
from .sources import Source

SCHEMA = 1


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
    bits = scored.cross_entropy / math.log(2)
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
        # Rows that a fit should leave out: not trained as the ladder's rules say, or not to an end.
        "outlier": outcome.status != "finished" or run.learning_rate_factor != 1,
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
            **{k: v for k, v in asdict(scored).items() if k not in ("loss", "loss_se")},
            "fingerprint": source.validation_fingerprint,
            "bits_per_byte": bits / source.bytes_per_token if source.bytes_per_token else None,
        },
        "shape": run.shape.as_dict(),
        "params_by_kind": counts,
        "flops": {"forward_per_token": forward_flops(run.shape), **compute},
        "training": {
            **run.training(),
            "train_loss": outcome.train_loss,
            "gradient_norm": outcome.gradient_norm,
            "gradient_noise_scale_tokens": outcome.noise_scale,
        },
        "measured": _measured(run, machine, outcome),
        "versions": {
            "trainer": TRAINER_VERSION,
            "torch": str(torch.__version__),  # a subclass of str, which a checkpoint may not hold
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    return _finite(record)


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
