"""`bayescale train`: hands over to the trainer, which has its own command line."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bayescale.candidates import Settle


def train(context: typer.Context) -> None:
    """Train a ladder of small models and write their records; see `bayescale train --help`."""
    raise typer.Exit(train_ladder(context.args))


def train_ladder(arguments: list[str]) -> int:
    """Run the trainer's command line and return its exit code."""
    from bayescale_trainer.cli import main as train_main

    return train_main(arguments, prog="bayescale train")


def settle_with(ladder: Path, folder: Path) -> "Settle":
    """Return what makes of runs those that the trainer would, on a ladder's source and model.

    Parameters
    ----------
    ladder : path
        The ladder.
    folder : path
        Where the trainer keeps a learned tokenizer.
    """
    import pandas as pd
    from bayescale_trainer.ladder import read_ladder, settled_sizes

    from bayescale.errors import BayescaleError

    def settle(runs: pd.DataFrame) -> pd.DataFrame:
        sizes = zip(runs["params"], runs["tokens"], strict=True)
        try:
            found = read_ladder(ladder)
            return pd.DataFrame(settled_sizes(found, found.open_source(folder), sizes))
        except ValueError as error:  # the base of all that the trainer raises on purpose
            raise BayescaleError(f"{ladder}: {error}") from error

    return settle
