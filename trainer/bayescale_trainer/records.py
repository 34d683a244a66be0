"""Run records: one JSON line per trained run, with all that a fit needs to trust its loss.

A record's top level reads as a row of a run table: `params`, `params_non_embedding`, `tokens`,
`unique_tokens`, `compute` (training FLOPs, `compute_convention`), `loss` (nats per token,
validation), `loss_se`, `seed`, `trunk`, `status`, `run_id`. Everything else is grouped under it.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]

# The laws' own priors are about language, whose terms add half a nat or so at a table's centre, and whose
# exponents lie near each other. Of a synthetic source nobody knows that beforehand.
_PRIORS_OF_NO_LANGUAGE = """
[priors]
A = "LogNormal(0.5, 1.4)"
B = "LogNormal(0.5, 1.4)"
beta = "LogNormal(0.4, 0.35)"
"""
# What another machine, or another run of the same code, may write differently.
MEASURED = ("measured", "versions")
TABLE_COLUMNS = (
    "run_id", "params", "params_non_embedding", "tokens", "unique_tokens", "compute", "loss",
    "loss_se", "seed", "trunk", "status", "outlier", "learning_rate_factor", "batch_tokens",
    "width", "layers", "kl",
)  # fmt: skip


class RecordError(ValueError):
    """Records that cannot be read; the message says what to do."""


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Append records to a file, each a whole line, and see them onto the disk."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path) -> list[Record]:
    """Read records, the first of each run; a torn last line, which a kill in mid-write leaves, is none."""
    if not path.exists():
        return []
    found: dict[str, Record] = {}
    for number, line in enumerate(_whole(path.read_bytes()).splitlines(), 1):
        try:
            record = json.loads(line)
            found.setdefault(record["run_id"], record)
        except (ValueError, TypeError, KeyError) as error:
            raise RecordError(
                f"{path.name} line {number}: no run record ({error}): move the file away or mend the line"
            ) from None
    return list(found.values())


def mend_records(path: Path) -> None:
    """Cut a torn last line off a file, for others to follow; only whoever appends to it may do so."""
    if not path.exists():
        return
    raw = path.read_bytes()
    whole = _whole(raw)
    if whole != raw:
        os.truncate(path, len(whole))
    elif raw and not raw.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def _whole(raw: bytes) -> bytes:
    """Return the lines that were written to their end, the last perhaps without a line's end."""
    end = raw.rfind(b"\n") + 1
    try:
        json.loads(raw[end:])
    except ValueError:
        return raw[:end]
    return raw


def write_table(path: Path, records: Sequence[Record], name: str) -> None:
    """Write records as a run table: CSV at `path`, metadata in a TOML of the same name beside it.

    The table holds the runs that have a loss; those that blew up remain in the records.
    """
    rows = [record for record in records if record["loss"] is not None]
    rows.sort(key=lambda r: (r["params"], r["tokens"], r["learning_rate_factor"], r["seed"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, TABLE_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "outlier": str(row["outlier"]).lower()} for row in rows)
    write_aside(path.with_suffix(".toml"), _metadata(records, name))
    write_aside(path, text.getvalue())


def _metadata(records: Sequence[Record], name: str) -> str:
    source = records[0]["source"]
    known = {
        "name": name,
        "title": f"{len(records)} runs trained by bayescale on {source['kind']}",
        "corpus": f"{source['kind']} {source['fingerprint']}",
        "tokenizer": source["tokenizer"],
        "loss_unit": records[0]["loss_unit"],
        "params_convention": "total",
        "shared_evaluation": True,  # one validation set: loss_se is common to all runs
        "entropy_rate": source["entropy_rate"],
        "seeds_taken": 1 + max(record["seed"] for record in records),  # those without a loss included
        "notes": f"compute = {records[0]['compute_convention']}",
    }
    # A JSON string or number is a TOML one too, but for a character escaped as two surrogates.
    stated = {key: value for key, value in known.items() if value is not None}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in stated.items()]
    return "\n".join(lines) + "\n" + (_PRIORS_OF_NO_LANGUAGE if known["entropy_rate"] is not None else "")


def write_aside(path: Path, text: str) -> None:
    """Write a file under another name, then rename it: a reader sees all of it or the old one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
