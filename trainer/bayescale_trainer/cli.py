"""The trainer's command line: `python -m bayescale_trainer LADDER` and `bayescale train LADDER`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None, prog: str = "python -m bayescale_trainer") -> int:
    """Train a ladder, or show or check it.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; the process's own by default.
    prog : str
        What the program is called in its help.

    Returns
    -------
    int
        Exit status: 0, 1 if a run blew up or `--check` found a fault, 2 for input that cannot be
        used or a folder that cannot be written, 130 when interrupted.
    """
    options = _parser(prog).parse_args(argv)
    from .checks import check
    from .ladder import LadderError
    from .recipe import RecipeError
    from .records import RecordError
    from .sources import SourceError

    try:
        return check(options.ladder) if options.check else _train(options)
    except (LadderError, RecipeError, RecordError, SourceError) as error:
        print(f"{options.ladder}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that cannot be made
        where = error.filename2 or error.filename or options.out or options.ladder
        print(
            f"{where}: {error.strerror or error}: mend that, or give another folder with --out, and start "
            "again: finished runs are kept",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on where this one ended.", file=sys.stderr)
        return 130


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train the runs of a ladder and write their records. Stopped at any point, "
        "the same command goes on where it ended; finished runs are not trained again.",
    )
    parser.add_argument(
        "ladder", type=Path, help="the ladder (TOML); with --check, also run records (JSON lines)"
    )
    parser.add_argument(
        "-o", "--out", type=Path, help="output folder (default: the ladder's name, where you are)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print every run with N, D, FLOPs and time, and the total",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="say what would make, or makes, these losses invalid scaling data",
    )
    parser.add_argument(
        "--executor",
        choices=("process", "ray"),
        default="process",
        help="where to train (default: %(default)s)",
    )
    return parser


def _train(options: argparse.Namespace) -> int:
    from .ladder import LadderError, read_ladder

    if importlib.util.find_spec("torch") is None:
        raise LadderError("training needs PyTorch: pip install 'bayescale[trainer]'")
    ladder = read_ladder(options.ladder)
    folder = options.out or Path(options.ladder.stem)
    from .conduct import settle, train_ladder, workplace
    from .executors import ExecutorError
    from .progress import print_plan
    from .records import read_records
    from .train import CheckpointError

    if options.dry_run:
        place = workplace(ladder, folder)
        source = ladder.open_source(folder / "cache")
        done = {record["run_id"] for record in read_records(folder / "runs.jsonl")}
        runs, tasks = settle(ladder, source, place.device, done)
        print_plan(runs, tasks, source, place.device, place.workers)
        if len(runs) < ladder.asked:
            print(ladder.says_settled(runs))
        return 0
    try:
        records = train_ladder(ladder, folder, options.executor)
    except (ExecutorError, CheckpointError) as error:
        raise LadderError(str(error)) from None
    failed = [record for record in records if record["status"] != "finished"]
    print(f"{len(records)} runs in {folder / 'runs.jsonl'}, as a run table in {folder / 'runs.csv'}")
    if failed:
        print(f"{len(failed)} of them blew up (status nan or diverged): a fit should leave them out")
    return 1 if failed else 0
