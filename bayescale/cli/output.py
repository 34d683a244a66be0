"""What commands print: rows, numbers that are never cropped, warnings, JSON."""

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from bayescale.fitting import Fit


def say(text: str) -> None:
    """Tell what goes on, on stderr: stdout is for the result."""
    print(text, file=sys.stderr)


def json_text(data: Any, *, indent: int = 2) -> str:
    """Write plain data as JSON, which knows no NaN: null stands for what there is no number for."""
    return json.dumps(_finite(data), indent=indent, allow_nan=False)


def print_data(data: Any) -> None:
    """Print plain data as JSON."""
    print(json_text(data))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def print_rows(rows: list[dict[str, Any]], as_json: bool, wrap: tuple[str, ...]) -> None:
    """Print rows of text as columns, those named in `wrap` folded to the terminal's width."""
    if as_json:
        print_data(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name not in wrap)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(highlight=False, markup=False).print(table)


def print_frame(frame: "pd.DataFrame", title: str) -> None:
    """Print a frame as plain text of any width: a number must never be cropped to fit a terminal."""
    cells = [list(map(str, frame.columns)), *([plain(v) for v in row] for row in frame.to_numpy(object))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(title)
    for row in cells:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def plain(value: Any) -> str:
    """Write a value of a table."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    if isinstance(value, list):
        return " - ".join(map(plain, value))
    return str(value)


def print_counted(fitted: "Fit") -> None:
    """Say how compute was counted where nobody gave it."""
    print(f"compute counted as {fitted.table.counting}")


def print_warnings(warnings: list[str]) -> None:
    """Print each warning on a line of its own."""
    for warning in warnings:
        print(f"! {warning}")


def print_json(fitted: "Fit", data: dict[str, Any], warnings: list[str] | None = None) -> None:
    """Print what was made from a fit, under what the fit is and whether its diagnostics passed."""
    header = {
        "table": fitted.table.name,
        "runs": len(fitted.table),
        "group": fitted.group,
        "law": fitted.law.name,
        "formula": fitted.law.formula,
        "compute_counted_as": str(fitted.table.counting),
        "diagnostics": fitted.diagnostics.to_dict() | {"passed": fitted.diagnostics.passed},
        "warnings": fitted.warnings if warnings is None else warnings,
    }
    print_data(header | data)


def origin(fitted: "Fit") -> str:
    """Say what was fitted to what, and for which group."""
    return f"{fitted.law.name} on {fitted.table.name}" + (f", group {fitted.group}" if fitted.group else "")


def exit_by(passed: bool) -> None:
    """End with exit code 1 where diagnostics failed."""
    if not passed:
        raise typer.Exit(1)
