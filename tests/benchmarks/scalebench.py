"""ScaleBench (arXiv:2604.22753): which runs of a pool to buy, to forecast the dear runs kept apart?

    python -m tests.benchmarks.scalebench OUT [REPEATS [TASK ...]]

Each task is a pool of runs with costs and a few dear runs to forecast. Runs are bought until 1, 5 and 10% of
the pool's cost are spent: by plans, at random, or the cheapest first. Scored as they do: R^2 of the dear
runs, not below -1, over all groups of a task, its mean over laws and repeats; beside it, how many of the dear
losses lie inside their 90% bands. Where a task's paper compares laws, they are also planned for and averaged
by their evidence, as one who does not know the law would. No choice of law or prior looked at the dear runs.
OUT/results.jsonl keeps a line per task, law, way, repeat and budget; stopped, the same command goes on.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import pandas as pd

import bayescale as bs
from bayescale.averaging import AveragedForecast
from bayescale.comparison import Comparison
from bayescale.plans import plan
from bayescale.runs import make_table
from tests.conftest import PUBLISHED

BUDGETS = (0.01, 0.05, 0.10)
# Plans start from this many runs taken by chance, for a fifth of the first budget.
SEEDS, SEED_SHARE = 6, 0.002
LEAST_RUNS = 3


@dataclass(frozen=True)
class Task:
    """A pool of the catalogue, what a run costs there, and the laws of the paper that it is from."""

    table: str
    laws: tuple[str, ...]
    cost: Callable[[pd.DataFrame], pd.Series]
    # auto: fits that importance sampling cannot make stand go to NUTS. Only where that takes a minute.
    method: Literal["auto", "fast"] = "fast"

    @property
    def choices(self) -> list[tuple[str, ...]]:
        """Laws to forecast by: each by itself, and all averaged."""
        return [(law,) for law in self.laws] + ([self.laws] if len(self.laws) > 1 else [])


def _flop(runs: pd.DataFrame) -> pd.Series:
    return 6 * runs["params"] * runs["tokens"]


TASKS = {
    "data_constrained": Task("scalebench-data-constrained", ("muennighoff",), _flop),
    "farseer": Task("scalebench-farseer", ("farseer-local", "chinchilla"), _flop),
    "moe": Task(
        "scalebench-moe", ("routing-saturating", "routing"), lambda f: f["params"] * f["experts"], "auto"
    ),
    "lr_bsz": Task("scalebench-lr-bsz", ("learning-rate-batch",), _flop),
    "parallel": Task("scalebench-parallel", ("parscale",), lambda f: f["params"]),
}


type Known = bs.Fit | Comparison


@dataclass(frozen=True)
class Group:
    """Runs of one kind: what can be bought, and what is to be forecast."""

    task: Task
    laws: tuple[str, ...]
    meta: bs.TableMeta
    pool: pd.DataFrame
    dear: pd.DataFrame

    @property
    def cost(self) -> np.ndarray:
        """Of each run in the pool, as a share of all."""
        cost = self.pool["compute"].to_numpy(float)
        return cost / cost.sum()

    def fit(self, bought: list[int], seed: int) -> Known:
        """Return what the runs bought say: a fit, or where there are several laws their comparison."""
        table = make_table(self.pool.iloc[bought].reset_index(drop=True), self.meta)
        fits = [bs.fit(table, law, seed=seed, method=self.task.method, draws=500) for law in self.laws]
        return bs.compare(fits, sensitivity=False) if len(fits) > 1 else fits[0]

    def forecast(self, known: Known) -> dict[str, np.ndarray]:
        """Return losses of the dear runs, their forecasts, and whether these hold them."""
        columns = {c for fitted in fits_of(known) for c in fitted.law.columns}
        inputs = {c: self.dear[c].to_numpy(float) for c in columns}
        forecast, loss = known.forecast(**inputs), self.dear["loss"].to_numpy()
        if isinstance(forecast, AveragedForecast):
            forecast = forecast.mixture
        expected, new = (d.reshape(-1, len(loss)) for d in (forecast.expected_loss, forecast.loss))
        low, high = np.quantile(new, [0.05, 0.95], axis=0)
        return {"loss": loss, "expected": np.median(expected, axis=0), "held": (low <= loss) & (loss <= high)}


def fits_of(known: Known) -> list[bs.Fit]:
    """Return the fits in what is known."""
    return list(known.fits.values()) if isinstance(known, Comparison) else [known]


def groups_of(task: Task, laws: tuple[str, ...]) -> list[Group]:
    """Return a task's groups, with costs as the compute column that plans read."""
    table = bs.pull(task.table, PUBLISHED)
    frame, meta = table.frame, table.meta
    if meta.loss_unit == "other":
        # Bits per character; priors are on nats per token. Four characters a token will do: R^2 has no unit.
        frame = frame.assign(loss=frame["loss"] * 4 * np.log(2))
    frame = frame.assign(compute=task.cost(frame))
    labels = frame["group"] if "group" in frame else pd.Series("all", frame.index)
    return [
        Group(task, laws, meta, *(rows[rows["split"] == s].drop(columns="split") for s in ("train", "test")))
        for _, rows in frame.groupby(labels)
    ]


def buy_in_order(group: Group, order: np.ndarray, seed: int) -> Iterator[Known | None]:
    """Buy runs in an order, leaving out what a budget cannot pay; yield a fit per budget."""
    bought: list[int] = []
    for budget in BUDGETS:
        bought += _afford(group.cost, order, bought, budget)
        yield group.fit(bought, seed) if len(bought) >= LEAST_RUNS else None


def buy_planned(group: Group, seed: int) -> Iterator[Known | None]:
    """Buy a few runs by chance, then a plan for the dear runs per budget; yield a fit per budget."""
    cost = group.cost
    chance = np.random.default_rng(seed).permutation(np.flatnonzero(cost <= SEED_SHARE / SEEDS))
    bought = chance[:SEEDS].tolist()
    fitted = group.fit(bought, seed) if bought else None
    for budget in BUDGETS:
        if (
            fitted is None
        ):  # dear pools: the cheapest runs that the first budget to pay for enough of them buys
            bought = _afford(cost, np.argsort(cost, kind="stable"), [], budget)[:LEAST_RUNS]
            fitted = group.fit(bought, seed) if len(bought) == LEAST_RUNS else None
        if fitted is not None:
            fitted = _buy_one_plan(group, fitted, bought, budget, seed)
        yield fitted


def _buy_one_plan(group: Group, fitted: Known, bought: list[int], budget: float, seed: int) -> Known:
    total = float(group.pool["compute"].sum())
    left = budget * total - float(group.pool["compute"].iloc[bought].sum())
    rest = np.setdiff1d(np.arange(len(group.pool)), bought)
    if left < group.pool["compute"].iloc[rest].min():
        return fitted
    proposed = plan(fitted, group.dear, left, candidates=group.pool.iloc[rest], seed=seed)
    if proposed.runs.empty:
        return fitted
    bought += rest[proposed.runs.index].tolist()
    return group.fit(bought, seed)


def _afford(cost: np.ndarray, order: np.ndarray, bought: list[int], budget: float) -> list[int]:
    more: list[int] = []
    left = budget * (1 + 1e-9) - float(cost[bought].sum())
    for i in order:
        if i not in bought and cost[i] <= left:
            more.append(int(i))
            left -= cost[i]
    return more


WAYS: dict[str, Callable[[Group, int], Iterator[Known | None]]] = {
    "planned": buy_planned,
    "random": lambda g, seed: buy_in_order(g, np.random.default_rng(seed).permutation(len(g.pool)), seed),
    "cheapest": lambda g, seed: buy_in_order(g, np.argsort(g.cost, kind="stable"), seed),
}


def scores(groups: list[Group], way: str, seed: int) -> list[dict]:
    """Return a row per budget; R^2 is -1 where a group's budget does not buy enough runs."""
    rows = []
    for budget, *fits in zip(BUDGETS, *(WAYS[way](g, seed) for g in groups), strict=True):
        row: dict = {"budget": budget, "runs": sum(len(f.table) for f in fits if f is not None)}
        if any(f is None for f in fits):
            rows.append(row | {"r2": -1.0, "held": None})
            continue
        parts = [g.forecast(f) for g, f in zip(groups, fits, strict=True)]
        loss, expected, held = (np.concatenate([p[k] for p in parts]) for k in ("loss", "expected", "held"))
        r2 = 1 - ((loss - expected) ** 2).sum() / ((loss - loss.mean()) ** 2).sum()
        row["passed"] = all(f.diagnostics.passed for known in fits for f in fits_of(known))
        rows.append(row | {"r2": max(float(r2), -1.0), "held": float(held.mean())})
    return rows


def main(out: Path, repeats: int, tasks: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "results.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(r["task"], r["law"], r["way"], r["repeat"]) for r in found}
    for repeat in range(repeats):
        for name in tasks:
            for laws in TASKS[name].choices:
                groups = groups_of(TASKS[name], laws)
                for way in WAYS:
                    key = {"task": name, "law": " + ".join(laws), "way": way, "repeat": repeat}
                    # The cheapest runs are the same in every repeat.
                    if tuple(key.values()) in done or (way == "cheapest" and repeat):
                        continue
                    started = time.process_time()
                    rows = scores(groups, way, crc32(f"{name} {way} {repeat}".encode()))
                    seconds = (time.process_time() - started) / len(rows)
                    rows = [key | row | {"cpu_seconds": seconds} for row in rows]
                    with path.open("a") as file:
                        file.write("".join(json.dumps(row) + "\n" for row in rows))
                    found += rows
    report(pd.DataFrame(found))


def report(found: pd.DataFrame) -> None:
    """Print means over laws (by themselves) and repeats, and of each law."""
    found = found.assign(budget=found["budget"].map("{:.0%}".format))
    alone = found[~found["law"].str.contains("+", regex=False)]
    for by, of in ((["task", "way"], alone), (["task", "law", "way"], found)):
        rows = of.groupby([*by, "budget"], sort=False)
        table = rows.agg(
            r2=("r2", "mean"), sd=("r2", "std"), held=("held", "mean"), runs=("runs", "mean"),
            passed=("passed", "mean"),
        )  # fmt: skip
        print(table.unstack("budget").round(2).to_string(), end="\n\n")
    print(f"repeats {found['repeat'].max() + 1}; CPU minutes {found['cpu_seconds'].sum() / 60:.1f}")


if __name__ == "__main__":
    _, where, *rest = sys.argv
    main(Path(where), int(rest[0]) if rest else 10, rest[1:] or list(TASKS))
