import dataclasses
import gc
import math
import os
import resource
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("torch", reason="bayescale[trainer] is not installed")

import torch
import torch.nn.functional as F
from bayescale_trainer.batches import stacked, stream
from bayescale_trainer.device import Device
from bayescale_trainer.evaluate import LOGITS_AT_ONCE, Evaluation, evaluate
from bayescale_trainer.flops import training_flops
from bayescale_trainer.ladder import tasks_of
from bayescale_trainer.outcome import Outcome, record_of
from bayescale_trainer.recipe import Recipe
from bayescale_trainer.records import MEASURED
from bayescale_trainer.run import plan_run
from bayescale_trainer.shape import shape_of_width
from bayescale_trainer.sources import ZipfBigram, ZipfFacts
from bayescale_trainer.stack import Stack
from bayescale_trainer.task import Task
from bayescale_trainer.train import CheckpointError, _status, _Trainer, noise_scale, train

ROOT = Path(__file__).parents[2]
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
        for name in ("train_loss", "gradient_norm", "gradient_noise_scale_tokens"):
            one, other = (found[run.id]["training"][name] or 0.0 for found in (stacked, solo))
            assert one == pytest.approx(other, rel=0.05)  # None where noise hides the gradient, in both
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


def _gradient(windows):
    stack = Stack([_run()])
    stack._backward(windows)
    return stack._grad[0]


def test_halves_of_a_batch_make_the_same_step():
    whole, halved = Stack([_run()]), Stack([_run()])
    windows = torch.from_numpy(SOURCE.windows(np.arange(16), "train"))[None]
    assert whole.step(windows, 0, 1.0) is None
    norms = halved.step(windows, 0, 1.0, halves=True)
    parts = torch.stack([_gradient(part) for part in (windows[:, :8], windows[:, 8:], windows)])
    first, second, both = parts.square().sum(dim=1)
    torch.testing.assert_close(norms[0], torch.stack(((first + second) / 2, both)), rtol=1e-4, atol=0)
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


def test_a_gradient_is_clipped_to_its_largest_norm():
    run = _run(dataclasses.replace(FIXED, clip=1e-3))
    windows = torch.from_numpy(SOURCE.windows(np.arange(8), "train"))[None]
    stack = Stack([run])
    stack.step(windows, 0, 1.0)
    whole = _gradient(windows)
    assert stack.optimiser.norm.item() == pytest.approx(whole.norm().item())
    assert whole.norm() > 10 * run.clip
    clipped = whole * run.clip / whole.norm()
    torch.testing.assert_close(stack.optimiser.mean[0], (1 - run.beta1) * clipped, rtol=1e-4, atol=1e-10)


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
    path, stops, seen = tmp_path / "task.pt", [7, 30, 75], [(0, 0)]

    def stop(progress):
        seen.append((progress.branch, progress.step))
        if stops and progress.branch * 60 + progress.step > stops[0]:
            del stops[0]
            raise Interrupted

    records = None
    for _ in range(4):
        before = len(seen)
        try:
            records = train(task, SOURCE, checkpoint=path, checkpoint_seconds=0.0, report=stop)
        except Interrupted:
            assert path.exists()
        assert min(seen[before - 1 :]) == seen[before - 1]  # it goes on, and does not begin again
    assert len(stops) < 2
    assert [_result(record) for record in records] == whole


def test_a_checkpoint_that_the_disk_has_no_room_for_is_told_and_leaves_nothing(tmp_path):
    (task,) = tasks_of([_run(tokens=1_000)], 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))  # bytes a file may have, as if it were full
    try:
        with pytest.raises(CheckpointError, match=r"task.pt cannot be written .*too large\): make room"):
            train(task, SOURCE, checkpoint=tmp_path / "task.pt", checkpoint_seconds=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_branches_of_a_trunk_equal_runs_trained_alone():
    runs = [_run(TRUNK, tokens) for tokens in (5_000, 10_000, 12_000, 20_000)]
    assert len(tasks_of(runs, 1)) == 1
    together = _train(*runs)
    alone = {}
    for run in runs:
        alone |= _train(run)
    assert len({record["trunk"] for record in together.values()}) == 1
    for run in runs:
        assert together[run.id]["loss"] == alone[run.id]["loss"]
        assert together[run.id]["training"] == alone[run.id]["training"]


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


@pytest.mark.parametrize(
    ("share", "status"), [(0.99, "finished"), (1.01, "diverged"), (math.nan, "nan"), (math.inf, "nan")]
)
def test_the_uniform_guess_tells_divergence(share, status):
    loss = share * math.log(16)
    assert _status(Evaluation(loss, 0.0, loss, 0.0, 1), _run()) == status


def test_a_record_says_how_fast_its_stack_was():
    run, machine = _run(), Device("H100", "cuda", 1, 4e12, 1e12)
    scored = Evaluation(1.5, 0.1, 1.5, 0.1, 9_600)
    measured = record_of(run, SOURCE, machine, Outcome(scored, "finished", 1.0, 1.0, None, 2.0, 3))[
        "measured"
    ]
    assert (measured["wall_seconds"], measured["stack_rows"]) == (2.0, 3)
    assert measured["tokens_per_second"] == run.tokens / 2
    assert measured["stack_tokens_per_second"] == 3 * run.tokens / 2
    flops = 3 * training_flops(run.shape, run.tokens)["compute"] / 2  # a second
    assert measured["mfu_ceiling"] == pytest.approx(flops / 1e12)
    assert measured["mfu_datasheet"] == pytest.approx(flops / 4e12)


def test_seconds_of_a_branch_are_those_of_its_own_steps(monkeypatch):
    """By a clock on which every step takes two seconds, whoever takes it."""
    clock, seen = [0.0], []
    honest = _Trainer._step

    def timed(self, *how):
        clock[0] += 2.0
        return honest(self, *how)

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("bayescale_trainer.train.REPORT_SECONDS", 1.0)
    monkeypatch.setattr(_Trainer, "_step", timed)
    runs = [_run(TRUNK, tokens, seed=seed) for tokens in (2_000, 4_000) for seed in (0, 1)]
    (task,) = tasks_of(runs, 2)
    machine = Device("", "cpu", 1, None, 1.0)
    found = {r["run_id"]: r for r in train(task, SOURCE, machine=machine, report=seen.append)}
    for run in runs:
        assert found[run.id]["measured"]["wall_seconds"] == pytest.approx(2 * run.steps)
    assert len(seen) == task.steps == runs[2].steps + runs[0].cooldown_steps
    for progress in seen:
        assert progress.tokens_per_second == pytest.approx(2 * runs[0].batch_tokens / 2)


class _Linear:
    """Gradients of known mean and covariance, in place of a model's."""

    def probes(self, tokens, count):
        rng = np.random.default_rng(0)
        mean, sd = np.array([1.0, 2.0]), np.array([3.0, 4.0])
        half = mean + sd * rng.standard_normal((count, 2, 2)) / (tokens / 2) ** 0.5
        norms = np.stack([(half**2).sum(2).mean(1), (half.mean(1) ** 2).sum(1)], axis=1)
        return [(step, torch.from_numpy(row)) for step, row in enumerate(norms)]


@pytest.mark.parametrize("batch", [12, 192])
def test_noise_scale_of_gradients_with_known_noise(batch):
    """Of the later half of a run: the earlier one has gradients of another kind."""
    run = dataclasses.replace(_run(), steps=4_000, batch_tokens=batch)
    early = [(step, torch.zeros(2, dtype=torch.float64)) for step in range(2_000)]
    late = [(2_000 + step, norms) for step, norms in _Linear().probes(batch, 2_000)]
    assert noise_scale(early + late, run) == pytest.approx(25 / 5, rel=0.2)
    assert noise_scale(early, run) is None
    alike = [(2_000, torch.tensor([1.0 - 1e-9, 1.0], dtype=torch.float64))]  # by rounding, less than none
    assert noise_scale(alike, run) == 0


@pytest.mark.parametrize("source", [SOURCE, ZipfBigram(12, symbols=16, validation_tokens=9_600)])
def test_loss_is_entropy_rate_plus_kl_and_agrees_with_sampled_cross_entropy(source):
    stack = Stack([_run(source=source)])
    (scored,) = evaluate(stack, source)
    assert scored.loss == pytest.approx(source.entropy_rate + scored.kl)
    # The untrained head is uniform: its cross-entropy is log(vocabulary) whatever the token.
    assert scored.cross_entropy == pytest.approx(math.log(16), abs=1e-5)
    excess = scored.cross_entropy - scored.true_surprisal
    assert scored.kl == pytest.approx(excess, abs=4 * scored.cross_entropy_se + 0.05)


def test_every_window_of_the_validation_split_is_scored(monkeypatch):
    stack = Stack([_run()])
    for step in range(20):
        stack.step(stacked([_run()], SOURCE, step), step, 1.0)
    windows = SOURCE.windows(np.arange(SOURCE.validation_windows), "validation")
    exact, tokens = torch.from_numpy(SOURCE.conditional(windows)), torch.from_numpy(windows)
    guess = torch.log_softmax(stack.predict(tokens[None])[0], dim=-1)
    surprisal = -guess.gather(2, tokens[:, 1:, None]).mean(dim=(1, 2))
    kl = (torch.special.entr(exact).neg() - exact * guess).sum(dim=2).mean(dim=1)
    monkeypatch.setitem(LOGITS_AT_ONCE, "cpu", 300 * 12 * 16)  # in three pieces, the last a short one
    (scored,) = evaluate(stack, SOURCE)
    assert scored.tokens == tokens[:, 1:].numel() == 9_600
    for found, of in ((scored.cross_entropy, surprisal), (scored.kl, kl)):
        assert found == pytest.approx(of.mean().item(), rel=1e-5)
    for error, of in ((scored.cross_entropy_se, surprisal), (scored.loss_se, kl)):
        assert error == pytest.approx(of.std().item() / len(of) ** 0.5, rel=1e-4)


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


def test_a_fused_step_equals_an_eager_one_whatever_the_batch(monkeypatch):
    # Traced and differentiated as for a GPU; kernels of C++ would take a minute to compile.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    for tokens in (192, 384):
        runs = [_run(dataclasses.replace(FIXED, batch_tokens=tokens), seed=seed) for seed in range(2)]
        eager, fused = Stack(runs), Stack(runs)
        fused.fuse()
        for step, halves in enumerate((True, False, True)):
            windows = stacked(runs, SOURCE, step)
            expected, found = (
                stack.step(windows.clone(), step, 1.0, halves=halves) for stack in (eager, fused)
            )
            if halves:
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
        for name, tensor in eager.state().items():
            torch.testing.assert_close(fused.state()[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_fused_step_that_does_not_compile_stays_as_it_is(monkeypatch):
    stack, asked = Stack([_run()]), []

    def capture(windows, halves):
        asked.append(stack._losses_of)
        if len(asked) == 1:
            raise RuntimeError("no Python.h\nand more")
        return "graph"

    monkeypatch.setattr(torch, "compile", lambda function, **_: partial(function))
    monkeypatch.setattr(stack, "_capture", capture)
    stack.fuse()
    with pytest.warns(UserWarning, match=r"its fused form failed \(no Python.h\)"):
        assert stack._recorded(torch.zeros(1), halves=False) == "graph"
    assert asked[0] is not asked[1]
    monkeypatch.setattr(stack, "_capture", Mock(side_effect=RuntimeError("no GPU")))
    with pytest.raises(RuntimeError, match="no GPU"):  # not the compiler's fault
        stack._recorded(torch.zeros(1), halves=False)


def test_a_stack_that_is_let_go_leaves_its_memory_at_once():
    stack = Stack([_run()])
    stack.step(torch.from_numpy(SOURCE.windows(np.arange(16), "train"))[None], 0, 1.0, halves=True)
    left = weakref.ref(stack)
    gc.disable()
    del stack
    gc.enable()
    assert left() is None


def test_batches_drawn_ahead_are_those_of_each_step():
    runs = [_run(seed=seed) for seed in range(2)]
    ahead, at_once = (list(stream(runs, SOURCE, 5, device)) for device in ("cuda", "cpu"))
    assert len(ahead) == len(at_once) == runs[0].steps - 5
    assert all(map(torch.equal, ahead, at_once))


def test_the_short_attention_kernel_is_the_librarys_attention_on_an_interpreter():
    pytest.importorskip("triton", reason="this build of torch has no Triton")
    code = """
import torch
from tests.trainer.test_engine import attention_gap
for windows, time, heads, width in ((3, 12, 2, 8), (2, 48, 3, 16), (1, 100, 1, 24)):
    print(attention_gap(windows, time, heads, width, torch.float32, "cpu"))
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    gaps = [float(line) for line in done.stdout.split()]
    assert len(gaps) == 3, done.stderr
    assert max(gaps) < 1e-5


@pytest.mark.parametrize("capability", [80, 89, 90])
def test_the_short_attention_kernels_compile_for_gpus_and_fit_on_them(capability, monkeypatch, tmp_path):
    triton = pytest.importorskip("triton", reason="this build of torch has no Triton")
    from bayescale_trainer import attention
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # else nothing is compiled the second time
    for kernel, tensors in ((attention._forward, 4), (attention._backward, 7)):
        kinds = ["*bf16"] * tensors + ["i32"] * 3 + ["fp32"] + ["i32"] * 3 + ["constexpr"] * 2
        source = ASTSource(
            kernel,
            dict(zip(kernel.arg_names, kinds, strict=True)),
            {"T": attention.LONGEST, "W": attention.WIDEST},
        )
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8})
        assert made.asm["cubin"]
        assert made.metadata.shared < 99 * 1024  # bytes that a block may have on a GPU of capability 8.9


def attention_gap(windows, time, heads, width, dtype, device):
    """Return the largest relative distance from PyTorch's attention in fp64, of output and gradients."""
    from bayescale_trainer.attention import short_attention

    draw = torch.Generator().manual_seed(0)
    size = (windows, time, 5 * heads + heads, width)
    values = torch.randn(size, generator=draw).to(device, dtype)
    *parts, grad = values.split((2 * heads, 3 * heads, heads), dim=2)

    def gradients(attend, dtype):
        qk, qkv = (part.to(dtype).contiguous().requires_grad_() for part in parts)
        out = attend(*qk.split(heads, dim=2), qkv[:, :, 2 * heads :], 0.7)
        return [out, *torch.autograd.grad(out, (qk, qkv), grad.to(dtype))]

    def library(q, k, v, scale):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2)

    found, truth = gradients(short_attention, dtype), gradients(library, torch.float64)
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, truth, strict=True))


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")


@on_a_gpu
@pytest.mark.parametrize("size", [(64, 12, 2, 8), (64, 48, 3, 16), (16, 128, 2, 64), (4, 100, 1, 24)])
def test_the_short_attention_kernel_is_the_librarys_attention(size):
    assert attention_gap(*size, torch.bfloat16, "cuda") < 1e-2


@on_a_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.1)])
@pytest.mark.parametrize("fused", [False, True])
def test_a_captured_step_equals_an_eager_one(precision, tolerance, fused):
    runs = [_run(seed=seed, precision=precision) for seed in range(4)]
    graph, eager = Stack(runs, "cuda"), Stack(runs, "cuda")
    if fused:
        graph.fuse()
    for step in range(6):
        halves = step in (0, 4)
        windows = torch.from_numpy(SOURCE.windows(np.arange(16) + 16 * step, "train"))
        stacked = windows.expand(4, -1, -1)
        norms = graph.step(stacked, step, 1.0, halves=halves)
        eager.optimiser.set_step(step, 1.0)
        eager._eager(stacked.cuda(), halves)
        if halves:
            torch.testing.assert_close(norms, eager._norms.cpu(), rtol=tolerance, atol=1e-6)
        torch.testing.assert_close(graph.losses, eager.losses, rtol=tolerance, atol=0)
    if precision == "fp32":
        torch.testing.assert_close(graph.optimiser.master, eager.optimiser.master, rtol=1e-3, atol=1e-4)


@on_a_gpu
@pytest.mark.parametrize("fuse_seconds", [0.0, 1e9])
def test_a_gpu_run_ends_near_a_cpu_run(fuse_seconds, monkeypatch):
    monkeypatch.setattr("bayescale_trainer.train.FUSE_SECONDS", fuse_seconds)
    run = _run(tokens=20_000)
    (task,) = tasks_of([run], 1)
    (gpu,) = train(task, SOURCE, device="cuda")
    assert gpu["loss"] == pytest.approx(_train(run)[run.id]["loss"], rel=0.02)


@on_a_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.03)])
def test_a_stacked_run_equals_a_solo_run_on_a_gpu(precision, tolerance):
    runs = [_run(seed=seed, precision=precision) for seed in range(4)]
    solo, stacked = _train(*runs, device="cuda"), _train(*runs, stack=4, device="cuda")
    for run in runs:
        assert stacked[run.id]["loss"] == pytest.approx(solo[run.id]["loss"], rel=tolerance)


@on_a_gpu
def test_a_task_resumed_on_a_gpu_ends_near_an_uninterrupted_one(tmp_path, monkeypatch):
    run = _run(tokens=20_000)
    (task,) = tasks_of([run], 1)
    (whole,) = train(task, SOURCE, device="cuda")

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step > 40:
            raise Killed

    checkpoint = tmp_path / "task.pt"
    monkeypatch.setattr("bayescale_trainer.train.REPORT_SECONDS", 0.0)
    with pytest.raises(Killed):
        train(task, SOURCE, device="cuda", checkpoint=checkpoint, checkpoint_seconds=0.0, report=kill)
    assert checkpoint.exists()
    (resumed,) = train(task, SOURCE, device="cuda", checkpoint=checkpoint)
    assert resumed["loss"] == pytest.approx(whole["loss"], rel=1e-3)
