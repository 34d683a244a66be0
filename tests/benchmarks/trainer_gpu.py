"""The trainer on a CUDA GPU, beside what one writes first.

    python -m tests.benchmarks.trainer_gpu [attention] [stacks] [large]

`attention`: our kernel for short windows beside PyTorch's, forward and backward, milliseconds.

`stacks`: tokens per second in all of runs trained together, beside the same runs one after the other
by nanoGPT's loop (`trainer_speed.py`: bf16 autocast, fused AdamW, eager) and by our own eager step.
Our figure is of all that `train` does a step: batches drawn by the source, gradient noise looked at
every 16 steps, losses checked. `fused` is what a task turns to when it is long enough.

`large`: one run of 25M parameters, as a share of the bf16 matrix-product rate measured here.
"""

import itertools
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from bayescale_trainer.batches import stream
from bayescale_trainer.device import measure
from bayescale_trainer.flops import training_flops
from bayescale_trainer.recipe import Recipe
from bayescale_trainer.run import plan_run
from bayescale_trainer.shape import shape_of_size
from bayescale_trainer.sources import ZipfFacts
from bayescale_trainer.stack import Stack
from bayescale_trainer.train import PROBE_EVERY
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.benchmarks.trainer_speed import Plain

VOCABULARY = 256
SECONDS = 1.0


def seconds_of(step):
    """Measure the seconds of a call, over `SECONDS`, after a few that do not count."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for _ in range(PROBE_EVERY):
            step()
        torch.cuda.synchronize()
        calls += PROBE_EVERY
    return (time.perf_counter() - start) / calls


def plain_step(shape, batch_tokens):
    """Return a step of nanoGPT's loop on the GPU."""
    model = Plain(shape).cuda()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    data = torch.randint(shape.vocabulary, (1 << 22,), device="cuda")
    place = torch.arange(shape.context + 1, device="cuda")

    def step():
        at = torch.randint(len(data) - shape.context - 1, (batch_tokens // shape.context, 1), device="cuda")
        tokens = data[at + place]
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(tokens[:, :-1], tokens[:, 1:])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def runs_of(shape, batch_tokens, rows, source):
    recipe = Recipe(batch_rule="fixed", batch_tokens=batch_tokens)
    return [plan_run(recipe, source, shape, 1e11, seed=seed, precision="bf16") for seed in range(rows)]


def our_step(stack, runs, source):
    """Return a step as `train` takes it."""
    batches, steps = stream(runs, source, 0, "cuda"), itertools.count()

    def step():
        at = next(steps)
        look = at % PROBE_EVERY == 0
        stack.step(next(batches), at, 0.1, halves=look)
        return look and bool(stack.losses.isfinite().any())

    return step


def eager_step(stack, runs, source):
    """Return our step without a graph."""
    windows = next(stream(runs, source, 0, "cuda"))

    def step():
        stack.optimiser.set_step(0, 0.1)
        stack._eager(windows.cuda(non_blocking=True))

    return step


def stacks():
    print("| params | batch, tokens | runs | plain loop | our eager step | stack | x plain | x eager "
          "| fused | x plain | x eager |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for params, batch_tokens in ((100e3, 2048), (1e6, 8192), (4e6, 16384)):
        source = ZipfFacts(48, VOCABULARY)
        shape = shape_of_size(params, vocabulary=VOCABULARY, context=48)
        plain = batch_tokens / seconds_of(plain_step(shape, batch_tokens))
        solo = runs_of(shape, batch_tokens, 1, source)
        eager = batch_tokens / seconds_of(eager_step(Stack(solo, "cuda"), solo, source))
        for rows in (16, 64):
            runs = runs_of(shape, batch_tokens, rows, source)
            stack = Stack(runs, "cuda")
            cells = []
            for fused in (False, True):
                if fused:
                    stack.fuse()
                rate = rows * batch_tokens / seconds_of(our_step(stack, runs, source))
                cells += [f"{rate:,.0f}", f"{rate / plain:.1f}", f"{rate / eager:.1f}"]
            counts = f"{shape.parameters()['total'] / 1e6:.2f}M", f"{batch_tokens}", f"{rows}"
            print("| " + " | ".join([*counts, f"{plain:,.0f}", f"{eager:,.0f}", *cells]) + " |", flush=True)
            del stack
            torch.cuda.empty_cache()


def large():
    ceiling = measure("cuda", "bf16").ceiling_flops
    print(f"matrix products: {ceiling / 1e12:.0f} TFLOP/s in bf16")
    print(
        "| params | context | head width | layers | width | plain loop | ours | x plain | share of ceiling |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for context, head_width, aspect in ((48, 16, 64.0), (240, 64, 64.0), (240, 64, 160.0)):
        source = ZipfFacts(context, VOCABULARY)
        shape = shape_of_size(
            25e6, vocabulary=VOCABULARY, context=context, head_width=head_width, aspect=aspect
        )
        batch_tokens = context * (52_800 // context)  # what the step law gives at D = 20 N
        runs = runs_of(shape, batch_tokens, 1, source)
        plain = batch_tokens / seconds_of(plain_step(shape, batch_tokens))
        stack = Stack(runs, "cuda")
        stack.fuse()
        rate = batch_tokens / seconds_of(our_step(stack, runs, source))
        share = rate * training_flops(shape, 1)["compute"] / ceiling
        print(
            f"| {shape.parameters()['total'] / 1e6:.1f}M | {context} | {shape.head_width} | {shape.layers} "
            f"| {shape.width} | {plain:,.0f} | {rate:,.0f} | {rate / plain:.1f} | {share:.0%} |",
            flush=True,
        )
        del stack
        torch.cuda.empty_cache()


def attention():
    from bayescale_trainer.attention import short_attention

    names = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
             "efficient": SDPBackend.EFFICIENT_ATTENTION}  # fmt: skip
    print("| windows | time | heads | head width | " + " | ".join(names) + " | ours |")
    print("|---|---|---|---|" + "---|" * (len(names) + 1))
    for windows, time_, heads, width in ((1024, 48, 3, 16), (10_240, 48, 16, 16), (220, 240, 8, 64),
                                         (1024, 96, 8, 64)):  # fmt: skip
        q, k, v, grad = (
            torch.randn(windows, time_, heads, width, device="cuda", dtype=torch.bfloat16) for _ in range(4)
        )
        inputs = [x.requires_grad_() for x in (q, k, v)]

        def library(q=q, k=k, v=v, grad=grad, inputs=inputs):
            out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True)
            torch.autograd.grad(out.transpose(1, 2), inputs, grad)

        def ours(q=q, k=k, v=v, grad=grad, inputs=inputs, width=width):
            torch.autograd.grad(short_attention(q, k, v, width**-0.5), inputs, grad)

        cells = []
        for backend in names.values():
            with sdpa_kernel(backend):
                cells.append(f"{1e3 * seconds_of(library):.2f}")
        cells.append(f"{1e3 * seconds_of(ours):.2f}" if time_ <= 128 else "-")
        print(f"| {windows} | {time_} | {heads} | {width} | " + " | ".join(cells) + " |", flush=True)


def main():
    if not torch.cuda.is_available():
        sys.exit("no CUDA GPU that PyTorch can use")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, numpy {np.__version__}")
    wanted = sys.argv[1:] or ["attention", "stacks", "large"]
    for section in wanted:
        {"attention": attention, "stacks": stacks, "large": large}[section]()


if __name__ == "__main__":
    main()
