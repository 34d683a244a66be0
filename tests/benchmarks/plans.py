"""How much compute do planned runs save? Simulated worlds whose law is wrong, planned against two peers.

    python -m tests.benchmarks.plans 50 [FIRST]

A world is a Chinchilla law with constants from wide ranges, times a smooth misfit drawn from a Gaussian
process over decades of compute and tokens per parameter, seen with noise. From 16 small runs, a target 300
times as dear as the dearest is to be forecast, at 20 to 300 tokens per parameter. Peers: a D/N = 20 ladder,
and runs at random, as the geometric mean over six choices. FIRST is the first world's seed.
"""

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

import bayescale as bs
from bayescale.plans import Plan, plan
from bayescale.runs import make_table
from bayescale.targets import Target, band, joint_draws

# Of the target's compute, which is 300 times the dearest run's.
TARGET_COMPUTE = 4.8e20
BUDGET = 3e19
SHARES = np.array([1, 2, 4, 8]) / 8
# How often each way chooses; peers only at the whole budget, whose bands plans are to match with less.
CHOICES = {"planned": 1, "ladder": 1, "random": 6}


class World:
    """A truth to train runs in."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        u = self.rng.uniform
        self.floor, self.alpha, self.beta = u(1.2, 2.2), u(0.25, 0.5), u(0.25, 0.5)
        self.a, self.b = u(0.3, 1.0), u(0.3, 1.0)  # loss each term adds at 1e8 params, 2e9 tokens
        self.noise, tau, length = 0.002, 0.03, u(2.5, 4.5)
        ratio = np.exp(u(np.log(20), np.log(300)))
        params = np.sqrt(TARGET_COMPUTE / (6 * ratio))
        self.target = Target({"params": params, "tokens": ratio * params})
        count = 300
        self.frequency = self.rng.standard_normal((count, 2)) / length
        self.phase = u(0, 2 * np.pi, count)
        self.weight = self.rng.standard_normal(count) * np.sqrt(2 / count) * tau

    def train(self, runs: pd.DataFrame) -> pd.DataFrame:
        """Return runs with their loss."""
        n, d = runs["params"].to_numpy(float), runs["tokens"].to_numpy(float)
        axes = np.stack([np.log10(n * d / 2e17), np.log10(d / n / 20)], axis=1)
        misfit = np.cos(axes @ self.frequency.T + self.phase) @ self.weight
        law = self.a * (n / 1e8) ** -self.alpha + self.b * (d / 2e9) ** -self.beta
        loss = self.floor + law * np.exp(misfit)
        loss = loss * np.exp(self.noise * self.rng.standard_normal(len(runs)))
        return runs.assign(loss=loss, compute=6 * n * d)[["params", "tokens", "compute", "loss"]]


def start(world: World) -> pd.DataFrame:
    """Return the runs a study begins with: four small sizes at four lengths."""
    n, d = np.meshgrid(np.geomspace(1e7, 8e7, 4), np.geomspace(2e8, 3.2e9, 4))
    return world.train(pd.DataFrame({"params": n.ravel(), "tokens": d.ravel()}))


def planned(proposed: Plan, budget: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return the plan's runs."""
    return proposed.runs[["params", "tokens"]]


def ladder(proposed: Plan, budget: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return a ladder at 20 tokens per parameter: four sizes, each twice as large, that cost the budget."""
    sizes = 2.0 ** np.arange(4)
    sizes *= np.sqrt(budget / (120 * (sizes**2).sum()))
    return pd.DataFrame({"params": sizes, "tokens": 20 * sizes})


def at_random(proposed: Plan, budget: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return affordable candidates of the plan's own grid, by chance."""
    pool = proposed.candidates
    chosen = []
    for i in rng.permutation(len(pool)):
        if pool["compute"].iloc[i] <= budget:
            chosen.append(i)
            budget -= pool["compute"].iloc[i]
    return pool.iloc[chosen][["params", "tokens"]]


def fit_of(runs: pd.DataFrame) -> bs.Fit:
    """Return a fit of runs."""
    table = make_table(runs, bs.TableMeta(name="world", loss_step=0.0))
    return bs.fit(table, method="fast", draws=1000)


def widths_in_world(seed: int, share: float = 1.0) -> dict[str, float]:
    """Return the width after spending a share of the budget in each way, and what the plan predicted."""
    world, budget = World(seed), share * BUDGET
    begun = start(world)
    proposed = plan(fit_of(begun), world.target, budget)
    row = {"seed": seed, "share": share, "before": proposed.width, "predicted": proposed.predicted_width}
    ways: dict[str, Callable[..., pd.DataFrame]] = {
        "planned": planned, "ladder": ladder, "random": at_random,
    }  # fmt: skip
    for name, choose in ways.items():
        if name != "planned" and share < 1:
            continue
        widths, held = [], []
        for choice in range(CHOICES[name]):
            world = World(seed)
            begun, runs = start(world), choose(proposed, budget, np.random.default_rng([seed, choice]))
            width, holds = _outcome(world, pd.concat([begun, world.train(runs)], ignore_index=True))
            widths.append(width)
            held.append(holds)
        row |= {name: float(np.exp(np.mean(np.log(widths)))), f"{name}_held": float(np.mean(held))}
    return row


def _outcome(world: World, trained: pd.DataFrame) -> tuple[float, bool]:
    """Return the width of the target's band, and whether it holds the truth."""
    fitted = fit_of(trained)
    world.noise = 0.0
    truth = world.train(pd.DataFrame([world.target.inputs]))["loss"].iloc[0]
    low, high = _band(fitted, world.target)
    return high - low, low <= truth <= high


def _band(fitted: bs.Fit, target: Target) -> tuple[float, float]:
    nothing: dict[str, np.ndarray] = {c: np.array([]) for c in fitted.law.columns}
    return band(joint_draws(fitted, target, nothing, seed=0)[0])


def main(worlds: int, first: int = 0) -> None:
    rows: list[dict[str, float]] = []
    jobs = (
        delayed(widths_in_world)(seed, share) for seed in range(first, first + worlds) for share in SHARES
    )
    for row in Parallel(n_jobs=-1, return_as="generator")(jobs):
        rows.append(row)
        print(pd.DataFrame([row]).round(4).to_string(header=len(rows) == 1, index=False), flush=True)
    found = pd.DataFrame(rows)
    print(found.groupby("share").median(numeric_only=True).round(4).to_string())
    print(found.groupby("share")[[c for c in found if c.endswith("_held")]].mean().to_string())
    ratio = found["planned"] / found["predicted"]
    spread = ratio.quantile([0.1, 0.9]).round(3).tolist()
    print(f"realised over predicted width: median {ratio.median():.3f}, 80% of worlds {spread}")
    for peer in ("ladder", "random"):
        _compare(found, peer)


def _compare(found: pd.DataFrame, peer: str) -> None:
    half = found[found["share"] == 0.5].set_index("seed")
    whole = found[found["share"] == 1.0].set_index("seed")
    ratio = half["planned"] / whole[peer]
    worlds = zip(found.groupby("seed"), whole[peer], strict=True)
    needed = [_share_to_reach(part["share"], part["planned"], width) for (_, part), width in worlds]
    equal = (whole["planned"] / whole[peer]).median()
    print(
        f"planned over {peer}, widths: equal compute {equal:.2f}, half the compute "
        f"{ratio.median():.2f}, enough in {(ratio <= 1).sum()} of {len(ratio)}; share of the compute that "
        f"matches it: median {np.median(needed):.3f}"
    )


def _share_to_reach(shares: pd.Series, widths: pd.Series, width: float) -> float:
    """Return the share of the budget that reaches a width: a power law through the world's shares."""
    slope, level = np.polyfit(np.log(shares), np.log(widths), 1)
    return float(np.exp((np.log(width) - level) / slope))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
