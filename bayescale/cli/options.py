"""Options that several commands share: groups as dataclasses, each of whose fields becomes an option."""

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from bayescale.cli.output import say

if TYPE_CHECKING:
    from bayescale.runs import RunTable

Source = Annotated[str, typer.Argument(help="A table's name, a file of runs, or a fit (.nc).")]
TableSource = Annotated[str, typer.Argument(help="A table's name or a file of runs.")]
LawOption = Annotated[str, typer.Option("--law", help="A law's name, or a formula: 'E + A*N**-a'.")]
NoiseOption = Annotated[str, typer.Option("--noise", help="student-t or normal.")]
DiscrepancyOption = Annotated[
    bool,
    typer.Option("--discrepancy/--no-discrepancy", help="Whether the law may be smoothly wrong."),
]
PriorOption = Annotated[
    list[str] | None, typer.Option("--prior", help="E.g. 'E=LogNormal(1.6, 0.2)'. Repeatable.")
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group-effect",
        help="Column whose values share an offset; by default trunk, where runs share one; none for none.",
    ),
]
OfGroupOption = Annotated[
    str | None,
    typer.Option("--group", help="Of a fit with --group-effect: the group whose losses these are."),
]
MethodOption = Annotated[
    str, typer.Option("--method", help="auto, fast (importance sampling) or nuts (the reference).")
]
DrawsOption = Annotated[int, typer.Option("--draws", min=10, max=1_000_000, help="Draws kept per chain.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws.")]
AgainstOption = Annotated[str, typer.Option(help="Peers to score beside the default model.")]
AtOption = Annotated[list[str] | None, typer.Option(help="Forecast: other inputs, e.g. unique_tokens=20M.")]
HeldOption = Annotated[
    list[str] | None,
    typer.Option("--at", help="Hold another input of the law, e.g. unique_tokens=100B. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

PEERS = "law-only,huber-bootstrap"


def size(text: str) -> float:
    """Parse a number as people write sizes: 70e9, 70B."""
    from bayescale.units import written_number

    if (number := written_number(text)) != number:
        raise typer.BadParameter(f"found {text!r}; expected a number such as 70e9 or 70B")
    return number


ParamsOption = Annotated[
    list[float] | None,
    typer.Option("--params", parser=size, metavar="N", help="Forecast: params, 70e9 or 70B. Repeatable."),
]
TokensOption = Annotated[
    list[float] | None,
    typer.Option("--tokens", parser=size, metavar="D", help="Forecast: tokens, 1.4e12 or 1.4T. Repeatable."),
]


@dataclass(frozen=True)
class FileOptions:
    """How to read a file of runs."""

    columns: Annotated[
        str | None,
        typer.Option("--columns", help="For a file: our names to its, 'params=N,loss=val_loss'."),
    ] = None
    loss_unit: Annotated[
        str | None, typer.Option("--loss-unit", help="For a file: nats/token unless told.")
    ] = None
    tokens_per_byte: Annotated[
        float | None, typer.Option("--tokens-per-byte", help="For a file with losses per byte.")
    ] = None
    drop_missing: Annotated[
        bool,
        typer.Option("--drop-missing", help="For a file: leave out rows with a value missing or loss inf."),
    ] = False

    def load_all(self, source: str) -> "RunTable":
        """Read a table, flagged runs included; say how many rows lacked a value, or a finite loss."""
        from bayescale.catalogue import load
        from bayescale.tablefiles import read_frame

        options: dict[str, Any] = {
            "columns": pairs(mappings(self.columns) if self.columns else None, "--columns"),
            "loss_unit": self.loss_unit,
            "tokens_per_byte": self.tokens_per_byte,
            "drop_missing": self.drop_missing,
        }
        given = {k: v for k, v in options.items() if v is not None and v is not False and v != {}}
        table = load(source, outliers=True, **given)
        if self.drop_missing and (rows := len(read_frame(Path(source)))) > len(table):
            say(f"left out as missing an input or a finite loss: {rows - len(table)} of {rows} rows")
        return table


@dataclass(frozen=True)
class TableOptions(FileOptions):
    """How to read a run table, and which of its runs to keep."""

    keep_outliers: Annotated[
        bool, typer.Option("--keep-outliers", help="Keep runs that the table's compilers flagged.")
    ] = False

    def load(self, source: str) -> "RunTable":
        """Read the runs to fit; say how many were left out."""
        table = self.load_all(source)
        kept = table if self.keep_outliers else table.without_outliers()
        if len(kept) < len(table):
            left = f"{len(table) - len(kept)} of {len(table)} runs"
            say(f"left out as flagged outliers: {left} (--keep-outliers keeps them)")
        return kept


def refuse_for_fit(source: str, *groups: Any) -> None:
    """Raise for the first option of these groups that was given, but cannot apply to a fit made already."""
    from bayescale.errors import BayescaleError

    for group in groups:
        for field in fields(group):
            # A forecast or plan of a fit has a seed of its own.
            if field.name != "seed" and (getattr(group, field.name) or None) != (field.default or None):
                option = field.name.replace("_", "-")
                raise BayescaleError(
                    f"--{option}: {source} is a fit, made already; give this option to `bayescale fit`, or "
                    "give the table in place of the fit"
                )


@dataclass(frozen=True)
class FitOptions:
    """How to fit a law."""

    law: LawOption = "chinchilla"
    prior: PriorOption = None
    noise: NoiseOption = "student-t"
    discrepancy: DiscrepancyOption = True
    group_effect: GroupOption = None
    method: MethodOption = "auto"
    draws: DrawsOption = 1500
    seed: SeedOption = 0


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose option groups are spread, for Typer to see their fields as options."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        group = parameter.annotation
        if not (isinstance(group, type) and is_dataclass(group)):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[name] = group
        hints = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(f.name, parameter.kind, default=f.default, annotation=hints[f.name])
            for f in fields(group)
        ]

    @functools.wraps(command)
    def spread(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
        command(**values)

    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    return spread


def pairs(items: Iterable[str] | None, option: str) -> dict[str, str]:
    """Split NAME=VALUE items of an option."""
    from bayescale.errors import BayescaleError

    found = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise BayescaleError(f"{option}: found {item!r}; expected NAME=VALUE")
        if name.strip() in found:
            raise BayescaleError(f"{option}: {name.strip()!r} is given twice; expected each name once")
        found[name.strip()] = value.strip()
    return found


def priors_given(items: list[str] | None, *, noise: str, discrepancy: bool = True) -> dict[str, str]:
    """Read --prior; raise for one of something that the model will not have."""
    from bayescale.errors import BayescaleError

    priors = pairs(items, "--prior")
    for name in priors:
        idle = "--no-discrepancy" if name.startswith("discrepancy_") and not discrepancy else ""
        idle = "--noise normal" if name == "noise_df" and noise == "normal" else idle
        if idle:
            raise BayescaleError(f"--prior {name}: with {idle} there is none; leave one of the two out")
    return priors


def mappings(text: str) -> list[str]:
    """Split NAME=VALUE items at commas; a piece without = goes on with the one before: names hold commas.

    >>> mappings("params=Params, total (M) * 1e6,loss=val_loss")
    ['params=Params, total (M) * 1e6', 'loss=val_loss']
    """
    items: list[str] = []
    for piece in text.split(","):
        if items and piece.strip() and "=" not in piece:
            items[-1] += f",{piece}"
        else:
            items.append(piece)
    return items


def number(text: str, option: str) -> float:
    """Parse a number given to an option, written as `size` reads it."""
    from bayescale.errors import BayescaleError
    from bayescale.units import written_number

    if (found := written_number(text)) != found:
        raise BayescaleError(f"{option}: found {text!r}; expected a number such as 0.5, 20e6 or 20M")
    return found


def target_inputs(at: list[str] | None, **inputs: list[float] | None) -> dict[str, Any]:
    """Collect the inputs of the runs to forecast, those that were given."""
    from bayescale.errors import BayescaleError

    other = {k: number(v, "--at") for k, v in pairs(at, "--at").items()}
    if of_forecasts := sorted({"seed", "known_noise", "group"} & other.keys()):
        raise BayescaleError(
            f"--at: {of_forecasts[0]!r} is no input of a law; expected such as unique_tokens=20M"
        )
    given = {k: v for k, v in inputs.items() if v}
    if twice := given.keys() & other.keys():
        name = sorted(twice)[0]
        raise BayescaleError(f"{name} is given by --{name} and by --at; expected one of them")
    return given | other


def names(text: str) -> list[str]:
    """Split a list at commas outside brackets, which formulas may hold; empty items are left out."""
    items, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth <= 0:
            items.append("")
        else:
            items[-1] += character
    return [name.strip() for name in items if name.strip()]
