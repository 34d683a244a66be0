"""The validation loss of a stack, its standard error and, where it is known, the exact KL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .model import cross_entropy
from .sources.source import Source
from .stack import Stack

LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}
KEPT = 1 << 28  # numbers: a GPU keeps a gigabyte of exact conditionals from one evaluation to the next


@dataclass(frozen=True)
class Evaluation:
    """What one run scored on the validation split, in nats per token.

    Parameters
    ----------
    loss, loss_se : float
        The run's loss and its standard error over windows. Where the truth is known it is the
        entropy rate plus `kl`: the cross-entropy with its expectation over each target taken
        exactly instead of sampled once. It estimates what `cross_entropy` estimates, without the
        luck of the drawn targets. Elsewhere it is `cross_entropy`.
    cross_entropy, cross_entropy_se : float
        Mean of -log p(target) over the validation tokens. They are the same for every run of a
        ladder, so most of this error is common to them: differences between runs are known better.
    tokens : int
        Tokens predicted.
    kl, kl_se : float or None
        Mean KL(truth, model) over positions, exact given the contexts.
    true_surprisal : float or None
        Mean of -log p(target) of the same tokens under the truth: the entropy rate plus this
        sample's luck.
    """

    loss: float
    loss_se: float
    cross_entropy: float
    cross_entropy_se: float
    tokens: int
    kl: float | None = None
    kl_se: float | None = None
    true_surprisal: float | None = None


def evaluate(stack: Stack, source: Source) -> list[Evaluation]:
    """Evaluate every run of a stack on the whole validation split."""
    runs, shape = len(stack.losses), stack.shape
    at_once = max(1, LOGITS_AT_ONCE[stack.device.type] // (runs * shape.context * shape.vocabulary))
    keep = (
        stack.device.type == "cuda" and source.validation_windows * shape.context * shape.vocabulary <= KEPT
    )
    pieces = [_scores(stack, *question) for question in _questions(source, stack.device, at_once, keep)]
    loss, kl, truth = (torch.cat(part, dim=1).double() for part in zip(*pieces, strict=True))
    return [
        _summary(source, source.validation_windows * shape.context, loss[run], kl[run], truth[0])
        for run in range(runs)
    ]


Question = tuple[Tensor, Tensor | None]


def _questions(source: Source, device: torch.device, at_once: int, keep: bool) -> Iterator[Question]:
    """Yield the validation windows and what is known of them, `at_once` of them at a time."""
    count = source.validation_windows
    if keep:
        tokens, truth = _kept(source, device)  # type: ignore[arg-type]  # sources hash by identity
        for start in range(0, count, at_once):
            piece = slice(start, start + at_once)
            yield tokens[piece], None if truth is None else truth[piece]
    else:
        for start in range(0, count, at_once):
            yield _question(source, device, np.arange(start, min(start + at_once, count)))


@lru_cache(maxsize=1)
def _kept(source: Source, device: torch.device) -> Question:
    return _question(source, device, np.arange(source.validation_windows))


def _question(source: Source, device: torch.device, index: np.ndarray) -> Question:
    windows = source.windows(index, "validation")
    exact = source.conditional(windows)
    truth = None if exact is None else torch.from_numpy(exact).to(device)
    return torch.from_numpy(windows).to(device), truth


def _scores(stack: Stack, tokens: Tensor, truth: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return means by window: loss (runs, n), KL (runs, n), true surprisal (1, n)."""
    stacked = tokens.expand(len(stack.losses), -1, -1)
    predicted = stack.predict(stacked)
    loss = cross_entropy(predicted, stacked[..., 1:]).mean(dim=2).cpu()
    if truth is None:
        return loss, torch.full_like(loss, math.nan), torch.full_like(loss[:1], math.nan)
    surprisal = -truth.gather(2, tokens[:, 1:, None]).log().mean(dim=(1, 2))[None].cpu()
    entropy = torch.special.entr(truth).sum(dim=(1, 2))
    kl = torch.stack(
        [-(truth * torch.log_softmax(row.float(), dim=-1)).sum(dim=(1, 2)) - entropy for row in predicted]
    )
    return loss, kl.cpu() / stack.shape.context, surprisal


def _summary(source: Source, tokens: int, loss: Tensor, kl: Tensor, truth: Tensor) -> Evaluation:
    sampled, sampled_se = loss.mean().item(), _standard_error(loss)
    if source.entropy_rate is None:
        return Evaluation(sampled, sampled_se, sampled, sampled_se, tokens)
    mean, error = kl.mean().item(), _standard_error(kl)
    return Evaluation(
        loss=source.entropy_rate + mean,
        loss_se=error,
        cross_entropy=sampled,
        cross_entropy_se=sampled_se,
        tokens=tokens,
        kl=mean,
        kl_se=error,
        true_surprisal=truth.mean().item(),
    )


def _standard_error(window_means: Tensor) -> float:
    return (window_means.std() / len(window_means) ** 0.5).item() if len(window_means) > 1 else math.nan
