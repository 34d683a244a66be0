"""Which training windows a run reads at a step: a function of its seed and the step alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .run import Run
from .sources.source import Source, Tokens, scramble

_KEY_EPOCH = 0x5EED
# Endless text is dealt out by seed, far enough apart that no two runs meet the same window.
_WINDOWS_PER_SEED = 1 << 36


def batch(run: Run, source: Source, step: int) -> Tokens:
    """Return the windows of a step, (batch windows, context + 1).

    Endless text is read in order, from a place that the seed picks. A pool is read in epochs, each
    in an order of its own that seed and epoch pick.
    """
    count = run.batch_tokens // run.shape.context
    index = np.arange(step * count, (step + 1) * count)
    if run.pool_windows is None:
        return source.windows(run.seed * _WINDOWS_PER_SEED + index, "train")
    epoch, place = np.divmod(index, run.pool_windows)
    for e in np.unique(epoch):
        here = epoch == e
        place[here] = _order(run.seed, int(e), run.pool_windows)[place[here]]
    return source.windows(place, "train")


@lru_cache(maxsize=64)  # two epochs of every row of a stack
def _order(seed: int, epoch: int, windows: int) -> NDArray[np.int32]:
    counter = np.arange(windows) + np.int64(epoch) * windows
    return np.argsort(scramble(_KEY_EPOCH + seed, counter), kind="stable").astype(np.int32)
