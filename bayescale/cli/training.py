"""`bayescale train`: hands over to the trainer, which has its own command line."""

import typer


def train(context: typer.Context) -> None:
    """Train a ladder of small models and write their records; see `bayescale train --help`."""
    raise typer.Exit(train_ladder(context.args))


def train_ladder(arguments: list[str]) -> int:
    """Run the trainer's command line and return its exit code."""
    from bayescale_trainer.cli import main as train_main

    return train_main(arguments, prog="bayescale train")
