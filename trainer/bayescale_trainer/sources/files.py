"""The user's own text: .txt, .jsonl, .parquet, or .bin token shards, cut into windows.

Documents are joined by a blank line. The last `validation_tokens` tokens are held out (or a file of
its own is named), so that every run of a ladder, and every ladder on the same files, is judged on
the same tokens.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .source import (
    MOST_SYMBOLS,
    MOST_TOKENS,
    SourceError,
    Split,
    Tokens,
    check_numbers,
    check_whole,
    digest,
)
from .tokenizer import coder_of

BETWEEN_DOCUMENTS = "\n\n"
LLM_C_MAGIC, LLM_C_MAGIC_OF_UINT32, LLM_C_HEADER_BYTES = 20240520, 20240801, 1024


class Files:
    """Token windows from files.

    Parameters
    ----------
    context : int
        Predicted tokens per window.
    paths : list of str
        Files, of one suffix; read in the order given.
    folder : Path
        What relative paths are relative to: where the ladder lies.
    cache : Path
        Folder for a learned tokenizer.
    validation_tokens : int
        Tokens held out, from the end.
    validation_paths : list of str, optional
        Files to hold out instead.
    tokenizer : {"bytes", "bpe"}
        One token per byte, or byte-level BPE merges learned from the training text.
    vocabulary : int, optional
        Size of the BPE vocabulary, or of the vocabulary that .bin shards were written with.
    field : str
        Field of .jsonl records, or column of .parquet, that holds the text.
    bytes_per_token : float, optional
        For .bin shards, whose text is not at hand; turns nats per token into bits per byte.
    """

    kind = "files"
    entropy_rate = None

    def __init__(
        self,
        context: int,
        paths: list[str],
        folder: Path,
        cache: Path,
        validation_tokens: int = 196_608,
        validation_paths: list[str] | None = None,
        tokenizer: str = "bytes",
        vocabulary: int | None = None,
        field: str = "text",
        bytes_per_token: float | None = None,
    ) -> None:
        self.context = context
        check_whole(1, int(MOST_TOKENS), validation_tokens=validation_tokens)
        for option, given in (("paths", paths), ("validation_paths", validation_paths or [])):
            if not isinstance(given, list) or not all(isinstance(path, str) for path in given):
                raise SourceError(f'[source] {option} = {given!r}: expected a list such as ["a.txt"]')
        if vocabulary is not None:
            check_whole(2, MOST_SYMBOLS, vocabulary=vocabulary)
        if bytes_per_token is not None:
            check_numbers(1e-3, 1e3, bytes_per_token=bytes_per_token)
        found = [_existing(folder, path) for path in paths]
        held_out = [_existing(folder, path) for path in validation_paths or []]
        _refuse_twice([*found, *held_out])
        if not found:
            raise SourceError('[source] paths is empty: name at least one file, paths = ["a.txt"]')
        if found[0].suffix == ".bin":
            if vocabulary is None:
                raise SourceError(
                    "[source] vocabulary is missing: .bin shards do not say how many tokens they "
                    "were written with (50257 for GPT-2)"
                )
            self.vocabulary, self.tokenizer = vocabulary, "shards"
            train, held = _shards(found), _shards(held_out)
            if not held_out:
                train, held = train[: -(validation_tokens + 1)], train[-(validation_tokens + 1) :]
            self.bytes_per_token = bytes_per_token
        else:
            coder = coder_of(tokenizer, vocabulary, cache)
            text, held_text = _text(found, field), _text(held_out, field)
            if not held_out:
                text, held_text = coder.split(text, validation_tokens)
            train, held = coder.fit(text).encode(text), coder.encode(held_text)
            self.vocabulary, self.tokenizer = coder.vocabulary, coder.name
            self.bytes_per_token = len(held_text.encode()) / max(1, len(held))
        self._train, self._validation = train, held
        self._check(context)
        self.train_windows: int | None = (len(train) - 1) // context
        self.validation_windows = (len(held) - 1) // context
        self.validation_fingerprint = digest(held)
        self.fingerprint = digest(self.tokenizer, train, self.validation_fingerprint)

    def _check(self, context: int) -> None:
        train, held = self._train, self._validation
        if min(len(train), len(held)) < context + 1:
            raise SourceError(
                f"[source] {len(train)} training and {len(held)} validation tokens, but one "
                "window needs "
                f"{context + 1}: add text, or lower validation_tokens or [model] context"
            )
        largest = max(int(train.max()), int(held.max()))
        if largest >= self.vocabulary:
            raise SourceError(
                f"[source] token {largest} found, but vocabulary = {self.vocabulary}: raise vocabulary"
            )

    def windows(self, index: Tokens, split: Split) -> Tokens:
        """Return windows by index: (n,) to (n, context + 1); neighbours share one token."""
        tokens = self._train if split == "train" else self._validation
        place = index[:, None] * self.context + np.arange(self.context + 1)
        return tokens[place].astype(np.int64)

    def conditional(self, windows: Tokens) -> None:
        """Return None: nobody knows the exact distribution of text."""
        return None


def _existing(folder: Path, path: str) -> Path:
    found = folder / path
    if not found.is_file():
        raise SourceError(f"[source] {path}: no such file in {folder}")
    if found.suffix not in (".txt", ".jsonl", ".parquet", ".bin"):
        raise SourceError(f"[source] {path}: suffix {found.suffix!r} is not .txt, .jsonl, .parquet or .bin")
    return found


def _refuse_twice(paths: list[Path]) -> None:
    """Refuse a file given twice: it is no new text, and what is held out must not be trained on."""
    for number, path in enumerate(paths):
        for other in paths[:number]:
            if path.resolve() == other.resolve():
                raise SourceError(
                    f"[source] {path.name} is given twice, in paths or validation_paths: give it once"
                )
            if _alike(path, other):
                raise SourceError(f"[source] {path.name} is a copy of {other.name}: give one of them")


def _alike(path: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(path, other, shallow=False)  # reads them only where their sizes are equal
    except OSError:  # told where it is read
        return False


def _text(paths: list[Path], field: str) -> str:
    return BETWEEN_DOCUMENTS.join(document for path in paths for document in _documents(path, field))


def _documents(path: Path, field: str) -> Iterator[str]:
    try:
        if path.suffix == ".txt":
            yield path.read_text(encoding="utf-8")
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _field(json.loads(line), field, f"{path.name} line {number}")
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            for batch in pq.ParquetFile(path).iter_batches(columns=[field]):
                yield from (_field(row, field, path.name) for row in batch.to_pylist())
        else:
            raise SourceError(f"[source] {path.name}: mix no {path.suffix} with text files")
    except SourceError:
        raise
    except (ValueError, OSError) as error:  # of what is no UTF-8, no JSON, no Parquet
        raise SourceError(f"[source] {path.name} cannot be read: {error}") from None


def _field(record: Any, field: str, where: str) -> str:
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise SourceError(f"[source] {where}: no text in field {field!r}: set field = ...")
    text.encode()  # half a surrogate pair is JSON, but no text
    return text


def _shards(paths: list[Path]) -> NDArray[np.uint16]:
    """Join uint16 shards, with llm.c's header of 256 int32 or, as nanoGPT writes them, without."""
    shards = [np.zeros(0, np.uint16)]
    for path in paths:
        if path.suffix != ".bin":
            raise SourceError(f"[source] {path.name}: mix no {path.suffix} with .bin shards")
        if path.stat().st_size % 2:
            raise SourceError(f"[source] {path.name}: an odd number of bytes is no uint16 shard")
        head = np.fromfile(path, np.int32, 1)
        if len(head) == 1 and head[0] == LLM_C_MAGIC_OF_UINT32:
            raise SourceError(f"[source] {path.name}: tokens of 32 bits; write a shard of uint16 tokens")
        has_header = len(head) == 1 and head[0] == LLM_C_MAGIC
        shards.append(np.fromfile(path, np.uint16, offset=LLM_C_HEADER_BYTES if has_header else 0))
    return np.concatenate(shards)
