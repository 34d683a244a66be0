"""Which training windows a run reads at a step: a function of its seed and the step alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .run import Run
from .sources.source import Source, scramble

_KEY_EPOCH = 0x5EED
# Endless text is dealt out by seed, far enough apart that no two seeds meet the same window. Sources count
# draws in 64 bits, which 2^20 seeds fill where a window takes 256 draws: more would read the same text.
_WINDOWS_PER_SEED = 1 << 36
_THREADS, _AHEAD = 4, 8


def stacked(runs: Sequence[Run], source: Source, step: int) -> Tensor:
    """Return the windows of a step of every run, (runs, batch windows, context + 1) int64.

    Endless text is read in order, from a place that the seed picks. A pool is read in epochs, each
    in an order of its own that seed and epoch pick.
    """
    index = np.concatenate([_index(run, step) for run in runs])  # one call for all runs is the fastest
    windows = torch.from_numpy(source.windows(index, "train"))
    return windows.view(len(runs), -1, windows.shape[-1])


def _index(run: Run, step: int) -> NDArray[np.int64]:
    count = run.batch_tokens // run.shape.context
    index = np.arange(step * count, (step + 1) * count)
    if run.pool_windows is None:
        return run.seed * _WINDOWS_PER_SEED + index
    epoch, place = np.divmod(index, run.pool_windows)
    for e in np.unique(epoch):
        here = epoch == e
        place[here] = _order(run.seed, int(e), run.pool_windows)[place[here]]
    return place


def stream(runs: Sequence[Run], source: Source, first: int, device: str) -> Generator[Tensor]:
    """Yield the windows of every step from `first` on; for a GPU, threads draw them ahead of it.

    The threads call nothing of CUDA, which would spoil a graph in capture.
    """
    last = runs[0].steps
    if device == "cpu":
        yield from (stacked(runs, source, step) for step in range(first, last))
        return
    drawn: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for step in range(first, last + _AHEAD):
            if step < last:
                drawn.append(pool.submit(stacked, runs, source, step))
            if step >= first + _AHEAD:
                yield drawn.popleft().result()


@lru_cache(maxsize=64)  # two epochs of every row of a stack
def _order(seed: int, epoch: int, windows: int) -> NDArray[np.int32]:
    counter = np.arange(windows) + np.int64(epoch) * windows
    return np.argsort(scramble(_KEY_EPOCH + seed, counter), kind="stable").astype(np.int32)
