"""What the trainer trains on: synthetic sources of known entropy, and the user's files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import Files
from .source import Source, SourceError
from .zipf_bigram import ZipfBigram
from .zipf_facts import ZipfFacts

KINDS: dict[str, Any] = {kind.kind: kind for kind in (ZipfFacts, ZipfBigram, Files)}

__all__ = ["KINDS", "Files", "Source", "SourceError", "ZipfBigram", "ZipfFacts", "open_source"]


def open_source(options: Mapping[str, Any], context: int, folder: Path, cache: Path) -> Source:
    """Open the source that a ladder's `[source]` table describes.

    Parameters
    ----------
    options : Mapping[str, Any]
        The table: `kind`, and the arguments of that kind's class.
    context : int
        Predicted tokens per window.
    folder, cache : Path
        Where relative paths start, and where tokens may be kept.

    Raises
    ------
    SourceError
        If the kind or an option is unknown, or the source itself objects.
    """
    given = dict(options)
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise SourceError(f"[source] kind = {kind!r}: use one of {', '.join(KINDS)}")
    known = set(inspect.signature(KINDS[kind].__init__).parameters) - {"self", "context"}
    places = {"folder": folder, "cache": cache} if kind == "files" else {}
    unknown = set(given) - (known - set(places))
    if unknown:
        raise SourceError(
            f"[source] option {min(unknown)!r} is not one of {kind}'s: "
            f"{', '.join(sorted(known - set(places)))}"
        )
    try:
        source: Source = KINDS[kind](context=context, **given, **places)
        return source
    except TypeError as error:
        raise SourceError(f"[source] {error}") from None
