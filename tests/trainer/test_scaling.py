"""Losses behave as scaling data should, on runs small enough for every test run."""

import statistics

import pytest

pytest.importorskip("torch", reason="bayescale[trainer] is not installed")

from bayescale_trainer.ladder import tasks_of
from bayescale_trainer.recipe import Recipe
from bayescale_trainer.run import plan_run
from bayescale_trainer.shape import shape_of_width
from bayescale_trainer.sources import ZipfFacts
from bayescale_trainer.train import train

SOURCE = ZipfFacts(24, symbols=64, validation_tokens=24_000)
SEEDS = range(8)


@pytest.fixture(scope="module")
def losses():
    """Losses by (width, tokens), and with a cosine that would end at 4 D, one per seed."""

    def run(width, tokens, ends_at=1.0):
        shape = shape_of_width(width, vocabulary=64, context=24, head_width=8)
        recipe = Recipe(ends_at=ends_at)
        runs = [plan_run(recipe, SOURCE, shape, tokens, seed=seed) for seed in SEEDS]
        # As one stack: an eighth of the steps, and the losses of solo runs.
        return [r["loss"] for task in tasks_of(runs, 8) for r in train(task, SOURCE)]

    grid = {(width, tokens): run(width, tokens) for width in (8, 32) for tokens in (2e4, 8e4)}
    return grid | {"unfinished": run(32, 8e4, ends_at=4.0)}


def test_loss_falls_with_parameters_and_with_tokens(losses):
    mean = {at: statistics.mean(values) for at, values in losses.items()}
    for tokens in (2e4, 8e4):
        assert mean[32, tokens] < mean[8, tokens]
    for width in (8, 32):
        assert mean[width, 8e4] < mean[width, 2e4]
    assert min(map(min, losses.values())) > SOURCE.entropy_rate


def test_seeds_agree_better_after_more_tokens(losses):
    assert statistics.stdev(losses[32, 8e4]) < statistics.stdev(losses[32, 2e4])


def test_a_schedule_that_does_not_end_at_d_is_worse(losses):
    assert statistics.mean(losses["unfinished"]) > statistics.mean(losses[32, 8e4])
