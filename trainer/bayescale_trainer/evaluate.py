"""The validation loss of a stack, its standard error and, where the truth is known, its exact KL."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .model import cross_entropy
from .sources.source import Source
from .stack import Stack

LOGITS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Evaluation:
    """What one run scored on the validation split, in nats per token.

    Parameters
    ----------
    loss, loss_se : float
        Mean cross-entropy, and its standard error over windows. The windows are the same for every run of a
        ladder, so this error is mostly common to them: differences between runs are known better.
    tokens : int
        Tokens predicted.
    kl, kl_se : float or None
        Mean KL(truth, model) over positions, exact given the contexts, where the source knows the truth.
    truth : float or None
        Mean surprisal of the same tokens under the truth: the entropy rate plus this sample's luck.
    """

    loss: float
    loss_se: float
    tokens: int
    kl: float | None
    kl_se: float | None
    truth: float | None


def evaluate(stack: Stack, source: Source) -> list[Evaluation]:
    """Evaluate every run of a stack on the whole validation split."""
    runs, shape = len(stack.losses), stack.shape
    at_once = max(1, LOGITS_AT_ONCE // (runs * shape.context * shape.vocabulary))
    pieces = [
        _scores(stack, source, np.arange(start, min(start + at_once, source.validation_windows)))
        for start in range(0, source.validation_windows, at_once)
    ]
    loss, kl, truth = (torch.cat(part, dim=1).double() for part in zip(*pieces, strict=True))
    return [
        _summary(loss[run], kl[run], truth[0], source.validation_windows * shape.context)
        for run in range(runs)
    ]


def _scores(stack: Stack, source: Source, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Return per-window means of loss (runs, n), KL (runs, n) and true surprisal (1, n); NaN if unknown."""
    windows = source.windows(index, "validation")
    tokens = torch.from_numpy(windows).to(stack.device)
    stacked = tokens.expand(len(stack.losses), -1, -1)
    predicted = stack.predict(stacked)
    loss = cross_entropy(predicted, stacked[..., 1:]).mean(dim=2).cpu()
    exact = source.conditional(windows)
    if exact is None:
        return loss, torch.full_like(loss, math.nan), torch.full_like(loss[:1], math.nan)
    truth = torch.from_numpy(exact).to(stack.device)
    surprisal = -truth.gather(2, tokens[:, 1:, None]).log().mean(dim=(1, 2))[None].cpu()
    entropy = torch.special.entr(truth).sum(dim=(1, 2))
    kl = torch.stack(
        [
            -(truth * torch.log_softmax(row.float(), dim=-1)).sum(dim=(1, 2)) - entropy
            for row in predicted
        ]
    )
    return loss, kl.cpu() / stack.shape.context, surprisal


def _summary(loss: Tensor, kl: Tensor, truth: Tensor, tokens: int) -> Evaluation:
    known = not bool(truth.isnan().any())
    return Evaluation(
        loss=loss.mean().item(),
        loss_se=_standard_error(loss),
        tokens=tokens,
        kl=kl.mean().item() if known else None,
        kl_se=_standard_error(kl) if known else None,
        truth=truth.mean().item() if known else None,
    )


def _standard_error(window_means: Tensor) -> float:
    return (window_means.std() / len(window_means) ** 0.5).item() if len(window_means) > 1 else math.nan
