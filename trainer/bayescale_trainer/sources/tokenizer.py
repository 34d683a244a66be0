"""Text to tokens: bytes, or byte-level BPE with merges learned from the training text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..records import write_aside
from .source import SourceError, digest


class Coder(Protocol):
    """Text to tokens, after `fit` has seen the training text."""

    name: str
    vocabulary: int

    def split(self, text: str, held_tokens: int) -> tuple[str, str]:
        """Hold out the end of the text: about `held_tokens` tokens."""
        ...

    def fit(self, text: str) -> Self:
        """Learn from the training text."""
        ...

    def encode(self, text: str) -> NDArray[np.uint16]:
        """Return the tokens of a text."""
        ...


class Bytes:
    """One token per UTF-8 byte."""

    name = "bytes"
    vocabulary = 256

    def split(self, text: str, held_tokens: int) -> tuple[str, str]:
        """Hold out the last `held_tokens` + 1 bytes, to whole characters."""
        raw = text.encode()
        cut = max(0, len(raw) - held_tokens - 1)
        while cut and raw[cut] & 0xC0 == 0x80:
            cut -= 1
        return raw[:cut].decode(), raw[cut:].decode()

    def fit(self, text: str) -> Self:
        """Learn nothing."""
        return self

    def encode(self, text: str) -> NDArray[np.uint16]:
        """Return the bytes."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)


class BPE:
    """Byte-level byte-pair encoding (the `tokenizers` library)."""

    def __init__(self, vocabulary: int, cache: Path) -> None:
        self.vocabulary, self.name, self._cache = vocabulary, "bpe", cache

    def split(self, text: str, held_tokens: int) -> tuple[str, str]:
        """Hold out the last characters, four to a token: a guess needed before merges exist."""
        cut = max(0, len(text) - 4 * held_tokens)
        return text[:cut], text[cut:]

    def fit(self, text: str) -> Self:
        """Learn the merges, or read those learned before from the same text."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        path = self._cache / f"bpe-{digest(text, self.vocabulary)}.json"
        if path.exists():
            self._tokenizer = Tokenizer.from_file(str(path))
        else:
            self._tokenizer = Tokenizer(models.BPE())
            self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            self._tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=self.vocabulary,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
            self._tokenizer.train_from_iterator([text], trainer)
            _keep(self._tokenizer.to_str(), path)
        self.vocabulary = self._tokenizer.get_vocab_size()
        self.name = f"bpe-{digest(self._tokenizer.to_str())}"
        return self

    def encode(self, text: str) -> NDArray[np.uint16]:
        """Return the token ids."""
        return np.array(self._tokenizer.encode(text).ids, np.uint16)


def _keep(text: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, text)
    except OSError as error:
        raise SourceError(
            f"[source] the tokenizer cannot be kept in {path.parent} ({error.strerror}): make room, or give "
            "another folder with --out"
        ) from None


def coder_of(name: str, vocabulary: int | None, cache: Path) -> Coder:
    """Return the coder that `[source] tokenizer` and `vocabulary` ask for."""
    if name == "bytes":
        if vocabulary not in (None, 256):
            raise SourceError(f'[source] vocabulary = {vocabulary}, but tokenizer = "bytes" has 256')
        return Bytes()
    if name == "bpe":
        if vocabulary is None or not 256 < vocabulary <= 65_536:
            raise SourceError(f"[source] vocabulary = {vocabulary}: BPE needs 257 to 65536, for example 1024")
        return BPE(vocabulary, cache)
    raise SourceError(f'[source] tokenizer = {name!r}: use "bytes" or "bpe"')
