import dataclasses
import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="bayescale[trainer] is not installed")

import torch
from bayescale_trainer.evaluate import evaluate
from bayescale_trainer.ladder import tasks_of
from bayescale_trainer.recipe import Recipe
from bayescale_trainer.records import MEASURED
from bayescale_trainer.run import plan_run
from bayescale_trainer.shape import shape_of_width
from bayescale_trainer.sources import ZipfBigram, ZipfFacts
from bayescale_trainer.stack import Stack
from bayescale_trainer.task import Task
from bayescale_trainer.train import noise_scale, train

SOURCE = ZipfFacts(12, symbols=16, validation_tokens=9_600)
FIXED = Recipe(batch_rule="fixed", batch_tokens=192, least_batch_tokens=12)
TRUNK = dataclasses.replace(FIXED, schedule="trunk")


def _run(recipe=FIXED, tokens=10_000, *, width=16, seed=0, source=SOURCE, **options):
    shape = shape_of_width(width, vocabulary=source.vocabulary, context=12)
    return plan_run(recipe, source, shape, tokens, seed=seed, **options)


def _train(*runs, stack=1, **options):
    records = [r for t in tasks_of(runs, stack) for r in train(t, SOURCE, **options)]
    return {record["run_id"]: record for record in records}


def _result(record):
    return {key: value for key, value in record.items() if key not in MEASURED}


def test_a_stacked_run_equals_a_solo_run():
    runs = [_run(seed=seed, learning_rate_factor=factor) for seed in (0, 1) for factor in (0.5, 1.0)]
    solo, stacked = _train(*runs), _train(*runs, stack=4)
    for run in runs:
        assert stacked[run.id]["measured"]["stack_rows"] == 4
        assert stacked[run.id]["loss"] == pytest.approx(solo[run.id]["loss"], rel=2e-4)
    assert len({round(record["loss"], 6) for record in solo.values()}) == len(runs)


def test_a_stacked_step_equals_solo_steps_to_fp32_tolerance():
    runs = [_run(seed=0), _run(seed=1, learning_rate_factor=2.0)]
    together, apart = Stack(runs), [Stack([run]) for run in runs]
    for step in range(5):
        index = np.arange(16) + 16 * step
        windows = torch.from_numpy(SOURCE.windows(index, "train"))
        together.step(windows.expand(2, -1, -1), step, 1.0)
        for alone in apart:
            alone.step(windows[None], step, 1.0)
    for row, alone in enumerate(apart):
        for name, tensor in alone.state().items():
            torch.testing.assert_close(together.state()[name][row], tensor[0], rtol=1e-4, atol=1e-5)


def test_halves_of_a_batch_make_the_same_step():
    whole, halved = Stack([_run()]), Stack([_run()])
    windows = torch.from_numpy(SOURCE.windows(np.arange(16), "train"))[None]
    assert whole.step(windows, 0, 1.0) is None
    norms = halved.step(windows, 0, 1.0, halves=True)
    assert norms[0, 0] >= norms[0, 1] > 0
    torch.testing.assert_close(whole.optimiser.mean, halved.optimiser.mean, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(whole.losses, halved.losses)


def test_adamw_takes_the_steps_of_torchs():
    run = _run(Recipe(clip=1e9, batch_rule="fixed", learning_rate=0.01))
    ours, theirs = Stack([run]), Stack([run])
    rates = dict(run.learning_rate)
    assert len(set(rates.values())) == 2
    parameters = [
        {"params": [w], "lr": rates["embedding" if n == "embedding" else "matrix"]}
        for n, w in theirs.weights.items()
    ]
    reference = torch.optim.Adam(parameters, betas=(run.beta1, run.beta2), eps=1e-12)
    for step in range(5):
        windows = torch.from_numpy(SOURCE.windows(np.arange(8) + 8 * step, "train"))[None]
        ours.step(windows, step, 1.0)
        theirs._backward(windows)
        reference.step()
        theirs._grad.zero_()
    torch.testing.assert_close(ours.optimiser.master, theirs.optimiser.master, rtol=1e-3, atol=1e-5)


def test_weight_decay_is_independent_of_the_learning_rate():
    run = _run(dataclasses.replace(FIXED, weight_decay=0.1), learning_rate_factor=1e-12)
    stack = Stack([run])
    before = stack.optimiser.master.clone()
    stack.step(torch.from_numpy(SOURCE.windows(np.arange(8), "train"))[None], 0, 0.5)
    torch.testing.assert_close(stack.optimiser.master, 0.95 * before)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("recipe", [FIXED, TRUNK])
def test_a_resumed_task_equals_an_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr("bayescale_trainer.train.REPORT_SECONDS", 0.0)
    runs = [_run(recipe, 10_000)] + ([_run(recipe, 16_000)] if recipe is TRUNK else [])
    (task,) = tasks_of(runs, 1)
    whole = [_result(record) for record in train(task, SOURCE)]
    path, stops = tmp_path / "task.pt", [7, 30, 75]

    def stop(progress):
        if stops and progress.branch * 60 + progress.step > stops[0]:
            del stops[0]
            raise Interrupted

    records = None
    for _ in range(4):
        try:
            records = train(task, SOURCE, checkpoint=path, checkpoint_seconds=0.0, report=stop)
        except Interrupted:
            assert path.exists()
    assert len(stops) < 2
    assert [_result(record) for record in records] == whole


def test_branches_of_a_trunk_equal_runs_trained_alone():
    runs = [_run(TRUNK, tokens) for tokens in (5_000, 10_000, 20_000)]
    assert len(tasks_of(runs, 1)) == 1
    together = _train(*runs)
    alone = {}
    for run in runs:
        alone |= _train(run)
    assert len({record["trunk"] for record in together.values()}) == 1
    for run in runs:
        assert together[run.id]["loss"] == alone[run.id]["loss"]


def test_a_run_that_blows_up_is_recorded_and_its_neighbour_unharmed():
    good, bad = _run(seed=0), _run(seed=1)
    solo = _train(good)[good.id]
    bad = dataclasses.replace(bad, learning_rate=(("embedding", 1e38), ("matrix", 1e38), ("head", 1e38)))
    (task,) = [Task(((good, bad),))]
    first, second = train(task, SOURCE)
    assert second["status"] == "nan"
    assert second["loss"] is None
    assert second["outlier"] is True
    assert first["status"] == "finished"
    assert first["loss"] == pytest.approx(solo["loss"], rel=1e-4)


def test_a_run_worse_than_the_uniform_guess_has_diverged():
    run = _run(tokens=1_000, learning_rate_factor=1e4)
    record = _train(run)[run.id]
    assert record["status"] == "diverged"
    assert record["loss"] > math.log(16)


class _Linear:
    """Gradients of known mean and covariance, in place of a model's."""

    def probes(self, tokens, count=4_000):
        rng = np.random.default_rng(0)
        mean, sd = np.array([1.0, 2.0]), np.array([3.0, 4.0])
        half = mean + sd * rng.standard_normal((count, 2, 2)) / (tokens / 2) ** 0.5
        norms = np.stack([(half**2).sum(2).mean(1), (half.mean(1) ** 2).sum(1)], axis=1)
        return [(step, torch.from_numpy(row)) for step, row in enumerate(norms)]


def test_noise_scale_of_gradients_with_known_noise():
    run = dataclasses.replace(_run(), steps=4_000)
    found = noise_scale(_Linear().probes(run.batch_tokens), run)
    assert found == pytest.approx(25 / 5, rel=0.2)


@pytest.mark.parametrize("source", [SOURCE, ZipfBigram(12, symbols=16, validation_tokens=9_600)])
def test_loss_is_entropy_rate_plus_kl_and_agrees_with_sampled_cross_entropy(source):
    stack = Stack([_run(source=source)])
    (scored,) = evaluate(stack, source)
    assert scored.loss == pytest.approx(source.entropy_rate + scored.kl)
    # The untrained head is uniform: its cross-entropy is log(vocabulary) whatever the token.
    assert scored.cross_entropy == pytest.approx(math.log(16), abs=1e-5)
    excess = scored.cross_entropy - scored.true_surprisal
    assert scored.kl == pytest.approx(excess, abs=4 * scored.cross_entropy_se + 0.05)


def test_bf16_trains_to_nearly_the_same_loss():
    runs = [_run(tokens=20_000), _run(tokens=20_000, precision="bf16")]
    full, half = (_train(run)[run.id]["loss"] for run in runs)
    assert half == pytest.approx(full, rel=0.1)
    assert half != full


def test_the_truth_itself_has_no_kl(monkeypatch):
    """Predict with the exact conditional: KL is 0 and the loss is the entropy rate."""
    stack = Stack([_run()])
    monkeypatch.setattr(
        stack,
        "predict",
        lambda windows: torch.from_numpy(SOURCE.conditional(windows[0].numpy())).log().clamp(min=-60)[None],
    )
    (scored,) = evaluate(stack, SOURCE)
    assert scored.kl == pytest.approx(0, abs=1e-5)
    assert scored.loss == pytest.approx(SOURCE.entropy_rate, abs=1e-5)
    assert scored.cross_entropy == pytest.approx(scored.true_surprisal, abs=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_a_captured_step_equals_an_eager_one():
    runs = [_run(seed=seed) for seed in range(4)]
    graph, eager = Stack(runs, "cuda"), Stack(runs, "cuda")
    for step in range(4):
        windows = torch.from_numpy(SOURCE.windows(np.arange(16) + 16 * step, "train"))
        stacked = windows.expand(4, -1, -1)
        graph.step(stacked, step, 1.0)
        eager.optimiser.set_step(step, 1.0)
        eager._eager(stacked.cuda())
    torch.testing.assert_close(graph.optimiser.master, eager.optimiser.master, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_a_gpu_run_ends_near_a_cpu_run():
    run = _run(tokens=20_000)
    (task,) = tasks_of([run], 1)
    (gpu,) = train(task, SOURCE, device="cuda")
    assert gpu["loss"] == pytest.approx(_train(run)[run.id]["loss"], rel=0.02)
