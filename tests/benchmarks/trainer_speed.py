"""Tokens per second of the trainer on CPU, beside a plain eager loop of the same shape.

    python tests/benchmarks/trainer_speed.py [width ...]

The plain loop is what one writes first (nanoGPT's model and loop, in our words): modules with
LayerNorm, GELU and learned positions, torch's AdamW and gradient clipping, batches cut from an
array of tokens. Both are given the same width, layers, heads, context and batch, and take turns
within one run, so that a busy machine slows both. Two comparisons:

`1 thread` is one run, one thread each; `machine` is what the machine trains in all: our pool of one
single-threaded process per core against one plain loop with as many threads as torch takes.
"""

import multiprocessing
import os
import statistics
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from bayescale_trainer.batches import stacked
from bayescale_trainer.ladder import cores
from bayescale_trainer.recipe import Recipe
from bayescale_trainer.run import plan_run
from bayescale_trainer.shape import shape_of_width
from bayescale_trainer.sources import ZipfFacts
from bayescale_trainer.stack import Stack
from torch import nn

# The batch is the default ladder's at D = 1M.
CONTEXT, VOCABULARY, BATCH_TOKENS = 48, 256, 1536
TURNS, SECONDS = 5, 2.0


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        size = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        q, k, v = (part.view(size).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Plain(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.token = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def forward(self, tokens, targets):
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


def plain_loop(shape, source):
    """Return a function that trains one step."""
    data = source.windows(np.arange(4096), "train")[:, :CONTEXT].astype(np.uint16).ravel()
    model = Plain(shape)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    windows = BATCH_TOKENS // CONTEXT

    def step():
        at = torch.randint(len(data) - CONTEXT - 1, (windows,))
        cut = [torch.from_numpy(data[i : i + CONTEXT + 1].astype(np.int64)) for i in at]
        tokens = torch.stack(cut)
        loss = model(tokens[:, :-1], tokens[:, 1:])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss.item()

    return step


def our_loop(shape, source):
    """Return a function that trains one step as `train` does: batch, step, look at the loss."""
    recipe = Recipe(batch_rule="fixed", batch_tokens=BATCH_TOKENS)
    run = plan_run(recipe, source, shape, 1e9, seed=0)
    stack, steps = Stack([run]), iter(range(run.steps))

    def step():
        at = next(steps)
        stack.step(stacked([run], source, at), at, 0.1)
        return stack.losses.item()

    return step


def rate(step):
    """Measure a loop: tokens per second over `SECONDS`, after a few steps that do not count."""
    for _ in range(3):
        step()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        step()
        steps += 1
    return steps * BATCH_TOKENS / (time.perf_counter() - start)


def serve(pipe, width):
    torch.set_num_threads(1)
    step = our_loop(*setting(width))
    while pipe.recv():
        pipe.send(rate(step))


def setting(width):
    shape = shape_of_width(width, vocabulary=VOCABULARY, context=CONTEXT)
    return shape, ZipfFacts(CONTEXT, VOCABULARY, validation_tokens=CONTEXT)


def measure(width):
    """Return tokens per second by name, the median of the turns."""
    threads = torch.get_num_threads()
    shape, source = setting(width)
    plain, ours = plain_loop(shape, source), our_loop(shape, source)
    pool = []
    for _ in range(cores()):
        here, there = multiprocessing.get_context("spawn").Pipe()
        worker = multiprocessing.get_context("spawn").Process(target=serve, args=(there, width))
        worker.start()
        pool.append((worker, here))
    rates = {name: [] for name in ("plain 1", "ours 1", "plain machine", "ours machine")}
    for _ in range(TURNS):
        torch.set_num_threads(1)
        rates["plain 1"].append(rate(plain))
        rates["ours 1"].append(rate(ours))
        torch.set_num_threads(threads)
        rates["plain machine"].append(rate(plain))
        for _, pipe in pool:
            pipe.send(True)
        rates["ours machine"].append(sum(pipe.recv() for _, pipe in pool))
    for worker, pipe in pool:
        pipe.send(False)
        worker.join()
    return {name: statistics.median(found) for name, found in rates.items()}


def main():
    os.environ |= {"OMP_WAIT_POLICY": "passive"}
    print(f"torch {torch.__version__}, {cores()} cores, {BATCH_TOKENS} tokens a step, context {CONTEXT}")
    print("| width | 1 thread: plain | ours | ratio | machine: plain | ours | ratio |")
    print("|---|---|---|---|---|---|---|")
    for width in map(int, sys.argv[1:] or ["16", "32", "64", "128"]):
        found = measure(width)
        cells = [f"{width}"]
        for scope in ("1", "machine"):
            plain, ours = found[f"plain {scope}"], found[f"ours {scope}"]
            cells += [f"{plain:,.0f}", f"{ours:,.0f}", f"{ours / plain:.2f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
