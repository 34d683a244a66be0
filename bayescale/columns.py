"""Which column of a file is which of ours: mapped, or guessed from its name, units included.

Trackers and papers name columns as they like. What a name suggests is said, never assumed.
"""

import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from bayescale.errors import TableError, did_you_mean
from bayescale.runs import COLUMNS, as_numbers

_ALIASES = {
    "params": ("n", "n_params", "num_params", "parameters", "model_size", "size", "nparams"),
    "tokens": ("d", "n_tokens", "num_tokens", "train_tokens", "data", "dataset_size", "t"),
    "compute": ("c", "flops", "flop", "training_flop", "train_flops", "total_flops", "budget"),
    "loss": (
        "val_loss",
        "eval_loss",
        "validation_loss",
        "test_loss",
        "final_loss",
        "ce",
        "bpb",
        "ppl",
    ),
}
# What else tells a column of an experiment tracker's export: words found in its name.
_WORDS = {
    "params": ("param", "model size"),
    "tokens": ("token",),
    "compute": ("flop",),
    "loss": ("loss", "bits per byte", "bpb", "perplexity", "ppl", "cross entropy", "nll"),
}
_UNIT_SIGNS = {
    "bits per byte": "bits/byte",
    "bit per byte": "bits/byte",
    "bpb": "bits/byte",
    "bits per token": "bits/token",
    "bits per tok": "bits/token",
    "bpt": "bits/token",
    "nats per byte": "nats/byte",
    "byte perplexity": "",
    "word perplexity": "",
    "perplexity": "perplexity",
    "ppl": "perplexity",
    "bpc": "",
    "bit": "",
    "bits": "",
}
# In what units names of columns say that they count: "Params (M)", "tokens_in_billions".
_SCALES = {
    ("k", "thousand", "thousands"): 1e3,
    ("m", "million", "millions"): 1e6,
    ("b", "bn", "billion", "billions"): 1e9,
    ("t", "trillion", "trillions"): 1e12,
}
# More millions, billions ... than any run has.
_MOST_OF_UNITS = 1e5


def renamed(frame: pd.DataFrame, mapping: Mapping[str, str], path: Path) -> pd.DataFrame:
    """Return a frame whose columns have our names, as a mapping of ours to the file's says.

    Parameters
    ----------
    frame : pandas.DataFrame
        The file as it stands, its index the numbers of its rows.
    mapping : mapping
        Our column name to the file's; a factor may follow, as in ``"Tokens (B) * 1e9"``.
    path : Path
        The file, for errors to name.

    Raises
    ------
    TableError
        If there is no such column, a name is no column of ours, or a factor meets text.
    """
    have = list(map(str, frame.columns))
    split = {ours: split_factor(theirs, have) for ours, theirs in mapping.items()}
    mapping = {ours: theirs for ours, (theirs, _) in split.items()}
    for ours, theirs in mapping.items():
        if theirs not in have:
            hint = did_you_mean(theirs, have)
            raise TableError(
                f"{path}: no column {theirs!r} to read {ours} from{f' ({hint})' if hint else ''}; "
                f"found {', '.join(have)}"
            )
        if ours not in COLUMNS and (hint := did_you_mean(ours, COLUMNS, cutoff=0.8)):
            raise TableError(
                f"{path}: {ours!r}, to be read from column {theirs!r}, is no column of ours ({hint})"
            )
    frame = frame.set_axis(have, axis=1)
    found = {
        ours: frame[theirs] if factor == 1 else as_numbers(frame[theirs], ours, str(path), factor=factor)
        for ours, (theirs, factor) in split.items()
    }
    _require_scales(split, found, path)
    # A mapped column replaces one that already has our name; one that has our name is no other's alone.
    read = set(mapping.values()) - COLUMNS.keys()
    return frame.drop(columns=[c for c in have if c in mapping or c in read]).assign(**found)


def _require_scales(
    split: Mapping[str, tuple[str, float]], found: Mapping[str, pd.Series], path: Path
) -> None:
    """Raise for counts whose column's name says thousands to trillions, and whose mapping has no factor."""
    for ours, (theirs, factor) in split.items():
        scale = _scale_of(theirs) if ours in ("params", "tokens", "unique_tokens") else 1.0
        numbers = pd.to_numeric(found[ours], errors="coerce")
        # Where one is large, it is a count, whatever the name says: of variant b, say.
        if scale > 1 and factor == 1 and numbers.max() < _MOST_OF_UNITS:
            unit = _power(scale)
            raise TableError(
                f"{path}, column {theirs!r}: its name says that it counts in units of {unit}, and values go "
                f'up to {numbers.max():g}; say so: --columns "{ours}={theirs} * {unit}"'
            )


def refuse_other_unit(column: str, path: Path) -> None:
    """Raise if a column's name says that its losses are no nats/token, which they would be taken for."""
    spoken = column.replace("/", " per ")
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", spoken)  # evalPPL and eval_ppl are two words each
    words = f" {apart.lower()} "
    for sign, unit in _UNIT_SIGNS.items():
        if f" {sign} " not in words:
            continue
        which = (
            f"say which: --loss-unit {unit}, or --loss-unit nats/token"
            if unit
            else "if that is one that --loss-unit takes, say so; else convert the column to bits/byte or "
            "nats/token"
        )
        raise TableError(
            f"{path}, column {column!r}: its name says {unit or sign}, and no unit is stated; {which}"
        )


def suggested_mapping(have: Sequence[str]) -> str:
    """Return the mapping that column names suggest, as it is typed on the command line."""
    found: dict[str, str] = {}
    for ours in ("params", "tokens", "compute", "loss"):
        if ours not in have and (theirs := likely_column(ours, [h for h in have if h not in found.values()])):
            found[ours] = theirs
    found.setdefault("loss", "NAME")
    pairs = ",".join(f"{ours}={theirs}{_factor_of(ours, theirs)}" for ours, theirs in found.items())
    return f'Say which column is which: --columns "{pairs}"'


def _factor_of(ours: str, theirs: str) -> str:
    scale = _scale_of(theirs) if ours in ("params", "tokens") else 1.0
    return f" * {_power(scale)}" if scale > 1 else ""


def _power(scale: float) -> str:
    return f"1e{round(math.log10(scale))}"


def _scale_of(name: str) -> float:
    """Return the unit that a column's name says it counts in: in brackets, or as a last word of its own."""
    bracketed = re.search(r"[(\[]\s*(?:in\s+)?(\w+)\s*[)\]]\s*$", name)
    last = re.findall(r"[A-Za-z]+", name)[-1:] if "_" in name or " " in name else []
    word = (bracketed[1] if bracketed else "".join(last)).lower()
    for words, scale in _SCALES.items():
        # A letter alone is a unit in brackets, or after an underscore: config.n_params_M.
        if word in words and (bracketed or len(word) > 1 or f"_{word}" in name.lower()[-2:]):
            return scale
    return 1.0


def split_factor(theirs: str, have: Sequence[str]) -> tuple[str, float]:
    """Split ``"Tokens (B) * 1e9"`` into a column's name and a factor; a name that exists is left alone."""
    name, star, factor = theirs.rpartition("*")
    if theirs in have or not star:
        return theirs, 1.0
    try:
        return name.strip(), float(factor)
    except ValueError:
        return theirs, 1.0


def likely_column(ours: str, have: Sequence[str]) -> str | None:
    """Return the column that one of ours by name may be meant by: params, tokens, compute or loss."""
    # Trackers write beside a number its step, and its least and most.
    have = [name for name in have if not re.search(r"_step$|__(min|max)$", name.lower())]
    plain = {re.sub(r"[^a-z0-9]+", " ", name.lower()).strip(): name for name in have}
    for alias in _ALIASES.get(ours, ()):
        if (spaced := alias.replace("_", " ")) in plain:
            return plain[spaced]
    if holding := [name for word in _WORDS[ours] for text, name in plain.items() if word in text]:
        # A validation loss before a training loss.
        return next((h for h in holding if re.search("val|eval|test", h.lower())), holding[0])
    close = get_close_matches(ours, have, n=1, cutoff=0.5)
    return close[0] if close else None
