"""AdamW on flat vectors, one row per run: a dozen operations a step for any number of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .model import weights_of
from .run import Run

EPS = 1e-12  # small beside any gradient: a larger one is a hidden cut of the learning rate


class AdamW:
    """AdamW (arXiv:1711.05101) with independent weight decay and per-run hyper-parameters.

    Parameters
    ----------
    runs : sequence of Run
        Row i of every tensor belongs to runs[i]; all of one stack key.
    master : Tensor
        The weights, (runs, parameters) float32, changed in place.
    """

    def __init__(self, runs: Sequence[Run], master: Tensor) -> None:
        device, first = master.device, runs[0]
        self.master = master
        self.mean, self.square = torch.zeros_like(master), torch.zeros_like(master)
        self._beta1, self._beta2, self._clip = first.beta1, first.beta2, first.clip
        self._decay = first.weight_decay
        sizes = [(weight.kind, weight.size) for weight in weights_of(first.shape)]
        self._rate = torch.stack([_row(dict(run.learning_rate), sizes) for run in runs]).to(device)
        # Changed in place at each step, so that a captured CUDA graph reads the new values.
        self._share, self._correct1, self._correct2 = (torch.zeros((), device=device) for _ in range(3))
        self.norm = torch.zeros(len(runs), 1, device=device)

    def set_step(self, step: int, share: float) -> None:
        """Set what depends on the step: the share of the peak rate and Adam's corrections."""
        self._share.fill_(share)
        self._correct1.fill_(1 - self._beta1 ** (step + 1))
        self._correct2.fill_(1 - self._beta2 ** (step + 1))

    def update(self, grad: Tensor) -> None:
        """Move the weights by their gradient, (runs, parameters) float32, which it overwrites."""
        torch.linalg.vector_norm(grad, dim=1, keepdim=True, out=self.norm)
        grad.mul_((self._clip / self.norm.clamp(min=1e-30)).clamp_(max=1.0))
        self.mean.lerp_(grad, 1 - self._beta1)
        self.square.mul_(self._beta2).addcmul_(grad, grad, value=1 - self._beta2)
        scale = torch.div(self.square, self._correct2, out=grad).sqrt_().add_(EPS)
        change = torch.div(self.mean, scale, out=scale).mul_(self._rate)
        if self._decay:
            self.master.mul_(1 - self._decay * self._share)
        self.master.addcmul_(change, self._share / self._correct1, value=-1)


def _row(rates: Mapping[str, float], sizes: Sequence[tuple[str, int]]) -> Tensor:
    return torch.cat([torch.full((size,), rates[kind]) for kind, size in sizes])
