"""A ladder: a set of runs trained together, read from TOML and settled into runs and tasks.

    name = "zipf-facts"
    [source]    kind = "zipf-facts", and the arguments of that source
    [model]     context, aspect, least_layers, head_width, mlp, tied
    [recipe]    the fields of `recipe.Recipe`
    [engine]    device, workers, stack, precision, checkpoint_seconds
    [[runs]]    params, tokens, seeds, learning_rate_factor: numbers or lists, multiplied out; unique_tokens

Only `[source] kind` and one `[[runs]]` with params and tokens are required.
"""

from __future__ import annotations

import itertools
import math
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .flops import training_flops
from .recipe import Recipe
from .run import Run, plan_run
from .shape import Shape, shape_of_size
from .sources import Source, open_source
from .task import Task

# What runs are multiplied out from, and bounds of each. Seeds deal out text: no two of so many read the same
# windows (batches.py).
_BOUNDS = {
    "params": (1, 1e13), "tokens": (1, 1e15), "seeds": (0, 2**20 - 1), "learning_rate_factor": (1e-6, 1e6),
}  # fmt: skip
# An epoch's order is drawn in memory: some 5 GB for so many.
_MOST_POOL_WINDOWS = 2**27


class LadderError(ValueError):
    """A ladder that cannot be trained; the message says what to do."""


@dataclass(frozen=True)
class Engine:
    """How a ladder is trained; nothing here but `precision` changes a result.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
    workers : int
        Tasks at a time; 0 for one per CPU core, or one per GPU.
    stack : int
        Most runs to train as one stack; 0 for 1 on CPU and 32 on a GPU.
    precision : {"fp32", "bf16"}
    checkpoint_seconds : float
        Time between checkpoints: what a kill can lose.
    """

    device: str = "auto"
    workers: int = 0
    stack: int = 0
    precision: str = "fp32"
    checkpoint_seconds: float = 15.0


@dataclass(frozen=True)
class Ladder:
    """A ladder as read.

    Parameters
    ----------
    path : Path
        Its file; relative paths of its source start where it lies.
    name : str
    source_options, model, groups
        The tables `[source]` and `[model]`, and every `[[runs]]`.
    recipe : Recipe
    engine : Engine
    """

    path: Path
    name: str
    source_options: dict[str, Any]
    model: dict[str, Any]
    recipe: Recipe
    engine: Engine
    groups: tuple[dict[str, Any], ...]

    @property
    def asked(self) -> int:
        """Number of runs asked for, before rounding makes some equal."""
        return sum(math.prod(len(group[axis]) for axis in _BOUNDS) for group in self.groups)

    def open_source(self, cache: Path) -> Source:
        """Open what the ladder trains on; `cache` may keep its tokenizer."""
        return open_source(self.source_options, self.model["context"], self.path.parent, cache)

    def runs(self, source: Source) -> list[Run]:
        """Settle the runs; two that rounding makes equal are one."""
        found: dict[str, Run] = {}
        for group in self.groups:
            for params, tokens, seed, factor in itertools.product(*(group[axis] for axis in _BOUNDS)):
                run = plan_run(
                    self.recipe,
                    source,
                    self.shape(params, source.vocabulary),
                    tokens,
                    seed=seed,
                    unique_tokens=group["unique_tokens"],
                    learning_rate_factor=factor,
                    precision=self.engine.precision,
                )
                found.setdefault(run.id, run)
        return list(found.values())

    def says_settled(self, runs: Sequence[Run]) -> str:
        """Say what became of the runs asked for."""
        return f"{self.asked} runs asked for; sizes come in steps, which makes {len(runs)} of them"

    def shape(self, params: float, vocabulary: int) -> Shape:
        """Return the model whose total parameters are nearest to `params`."""
        return shape_of_size(params, vocabulary=vocabulary, **self.model)


def settled_sizes(
    ladder: Ladder, source: Source, sizes: Iterable[tuple[float, float]]
) -> list[dict[str, float]]:
    """Return `params`, `tokens` and `compute` (FLOPs) of what is trained where sizes (N, D) are asked for."""
    found = []
    for params, tokens in sizes:
        run = plan_run(ladder.recipe, source, ladder.shape(params, source.vocabulary), tokens, seed=0)
        counts, compute = run.shape.parameters(), training_flops(run.shape, run.tokens)["compute"]
        found.append({"params": float(counts["total"]), "tokens": float(run.tokens), "compute": compute})
    return found


def tasks_of(runs: Sequence[Run], stack: int) -> list[Task]:
    """Group runs into tasks of at most `stack` rows, the most expensive first.

    Branches of one trunk always share a task: the trunk is trained once. So rows of a stack must
    have the same D.
    """
    trunks: dict[str, list[Run]] = {}
    for run in runs:
        trunks.setdefault(run.trunk or run.id, []).append(run)
    alike: dict[tuple[Any, ...], list[list[Run]]] = {}
    for row in trunks.values():
        row.sort(key=lambda run: run.steps)
        alike.setdefault((row[0].stack_key, *(run.steps for run in row)), []).append(row)
    tasks = [
        Task(tuple(zip(*rows[start : start + stack], strict=True)))
        for rows in alike.values()
        for start in range(0, len(rows), stack)
    ]
    return sorted(tasks, key=cost, reverse=True)


def cost(task: Task) -> float:
    """Return the FLOPs of a task, roughly: what to start first."""
    run = task.branches[0][0]
    return float(task.steps * run.batch_tokens * len(task.branches[0]) * run.shape.parameters()["total"])


def read_ladder(path: Path) -> Ladder:
    """Read a ladder's TOML.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Ladder

    Raises
    ------
    LadderError, RecipeError
        Naming the option, what was found, what was expected.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LadderError(f"cannot be read: {error}") from None
    _known("the ladder", table, ("name", "source", "model", "recipe", "engine", "runs"))
    for section in ("source", "model", "recipe", "engine"):
        if not isinstance(table.get(section, {}), dict):
            raise LadderError(f"{section} must be a table: write [{section}] on a line of its own")
    groups = table.get("runs")
    if not isinstance(groups, list) or not groups:
        raise LadderError("no runs: add [[runs]] with params = [...] and tokens = [...]")
    model = _model(table.get("model", {}))
    return Ladder(
        path=path.resolve(),
        name=str(table.get("name", path.stem)),
        source_options=table.get("source", {}),
        model=model,
        recipe=Recipe.from_table(table.get("recipe", {})),
        engine=_engine(table.get("engine", {})),
        groups=tuple(_group(group, model["context"]) for group in groups),
    )


def workers_of(engine: Engine, device: str) -> int:
    """Return how many tasks to train at a time on this machine."""
    if engine.workers:
        return engine.workers
    return 1 if device == "cuda" else cores()


def cores() -> int:
    """Return how many CPU cores this process may use; macOS tells only how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _known(where: str, table: Mapping[str, Any], options: Sequence[str]) -> None:
    for option in table:
        if option not in options:
            raise LadderError(f"{where} has no option {option!r}; known are {', '.join(options)}")


def _model(table: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {
        "context": 48, "aspect": 64.0, "least_layers": 2, "head_width": 16, "mlp": "relu2",
        "tied": False,
    }  # fmt: skip
    _known("[model]", table, list(known))
    model = known | dict(table)
    for option, default in known.items():
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        value = model[option]
        if type(value) not in kinds or (type(default) in (int, float) and not 0 < value < math.inf):
            raise LadderError(f"[model] {option} = {value!r}: expected such as {default!r}")
    if model["mlp"] not in ("relu2", "swiglu"):
        raise LadderError(f"[model] mlp = {model['mlp']!r}: use relu2 or swiglu")
    if model["head_width"] % 8:
        raise LadderError(f"[model] head_width = {model['head_width']}: use a multiple of 8")
    return model | {"aspect": float(model["aspect"])}  # 64 and 64.0 are one shape


def _engine(table: Mapping[str, Any]) -> Engine:
    _known("[engine]", table, [field.name for field in fields(Engine)])
    engine = Engine(**table)
    for option, known in (("device", ("auto", "cpu", "cuda")), ("precision", ("fp32", "bf16"))):
        if getattr(engine, option) not in known:
            raise LadderError(
                f"[engine] {option} = {getattr(engine, option)!r}: use one of {', '.join(known)}"
            )
    for option in ("workers", "stack", "checkpoint_seconds"):
        value = getattr(engine, option)
        kinds = (int, float) if option == "checkpoint_seconds" else (int,)
        if type(value) not in kinds or not 0 <= value < math.inf:
            what = "a whole number" if option != "checkpoint_seconds" else "a number"
            raise LadderError(f"[engine] {option} = {value!r}: expected {what}, 0 or above")
    return engine


def _group(group: Any, context: int) -> dict[str, Any]:
    if not isinstance(group, dict):
        raise LadderError("[[runs]]: expected a table with params and tokens")
    defaults: dict[str, Any] = {
        "params": None, "tokens": None, "seeds": [0], "learning_rate_factor": [1.0],
    }  # fmt: skip
    _known("[[runs]]", group, [*defaults, "unique_tokens"])
    found: dict[str, Any] = {"unique_tokens": group.get("unique_tokens")}
    for option, default in defaults.items():
        value = group.get(option, default)
        values = value if isinstance(value, list) else [value]
        least, most = _BOUNDS[option]
        kinds = (int,) if option == "seeds" else (int, float)
        if not values or any(type(v) not in kinds or not least <= v <= most for v in values):
            raise LadderError(
                f"[[runs]] {option} = {value!r}: expected a number from {least:g} to {most:.10g}, or several"
            )
        found[option] = [float(v) for v in values] if option == "learning_rate_factor" else values
    unique = found["unique_tokens"]
    if unique is not None and (type(unique) not in (int, float) or not 1 <= unique < math.inf):
        raise LadderError(f"[[runs]] unique_tokens = {unique!r}: expected a positive number")
    most = _MOST_POOL_WINDOWS * context
    if unique is not None and unique > most:
        raise LadderError(
            f"[[runs]] unique_tokens = {unique:g}: at most {most:g} can be shuffled in memory; lower it, "
            "or leave it out: a pool larger than a run's tokens repeats nothing"
        )
    return found
