"""Fixtures: the published originals where they are at hand, simulated tables, and shared fits."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

import bayescale as bs
from bayescale.runs import make_table

# Machines that run this suite are shared: no deadlines, and the same examples every time.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")

# A small file of runs, for tests to damage.
GOOD = "params,tokens,loss\n1e8,2e9,3.5\n2e8,4e9,3.2\n4e8,8e9,3.0\n"

PUBLISHED = Path(__file__).parents[2] / "shared" / "published"


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    """Keep the tests' pulled tables and fits out of the user's cache."""
    os.environ["BAYESCALE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def published() -> Path:
    if not PUBLISHED.is_dir():
        pytest.skip("the folder of published originals is not beside the project")
    return PUBLISHED


def written(folder: Path, text: str, name: str = "runs.csv") -> Path:
    """Write a file into a folder and return its path."""
    path = folder / name
    path.write_text(text)
    return path


def simulated_table(
    *, noise_sd=0.003, seed=0, rows=60, constants=None, name="simulated", law="chinchilla"
) -> bs.RunTable:
    """Runs of a known Chinchilla law on a grid of budgets and ratios."""
    rng = np.random.default_rng(seed)
    c = constants or {"E": 1.8, "A": 480.0, "B": 2000.0, "alpha": 0.35, "beta": 0.366}
    compute = 10 ** rng.uniform(18, 21.5, rows)
    ratio = 10 ** rng.uniform(0.3, 2.3, rows)
    params = np.sqrt(compute / (6 * ratio))
    tokens = ratio * params
    loss = c["E"] + c["A"] * params ** -c["alpha"] + c["B"] * tokens ** -c["beta"]
    loss = loss * np.exp(noise_sd * rng.standard_normal(rows))
    frame = pd.DataFrame({"params": params, "tokens": tokens, "loss": loss})
    return make_table(frame, bs.TableMeta(name=name, loss_step=0.0))


def fit_of_two_modes() -> bs.Fit:
    """Two exponents that may swap: the posterior has two equal modes."""
    table = simulated_table(rows=40)
    params = table.column("params")
    loss = 1.5 + 300 * params**-0.3 + 9e6 * params**-1.0
    table.frame["loss"] = loss * np.exp(0.003 * np.random.default_rng(0).standard_normal(40))
    priors = {"a": "LogNormal(0.5, 0.7)", "b": "LogNormal(0.5, 0.7)"}
    priors |= {"p": "LogNormal(0.5, 0.8)", "q": "LogNormal(0.5, 0.8)"}
    return bs.fit(table, "E + a*N**-p + b*N**-q", priors=priors, discrepancy=False, method="fast")


@pytest.fixture(scope="session")
def law_only_fit() -> bs.Fit:
    """The plain law on the 240 Chinchilla runs."""
    return bs.fit(bs.load("chinchilla"), discrepancy=False, seed=1)


@pytest.fixture(scope="session")
def full_fit() -> bs.Fit:
    """The default model, discrepancy included, on a table simulated from the law itself."""
    return bs.fit(simulated_table(), seed=1)
