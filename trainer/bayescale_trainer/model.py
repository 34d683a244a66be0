"""The transformer, written for a stack: every tensor has a leading axis, one row per run.

A solo run is a stack of one, so there is a single model. Rows never mix: each operation is batched
over the leading axis, which is what lets a diverged run share a stack with healthy ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .device import compiles_kernels
from .shape import Shape

HAS_SHORT_ATTENTION = compiles_kernels()
if HAS_SHORT_ATTENTION:
    from .attention import LONGEST, WIDEST, short_attention

LOGIT_SCALE = 10.0  # attention logits lie in [-10, 10]: normalised queries and keys alone are too soft
EPS = 1e-6


@dataclass(frozen=True)
class Weight:
    """One weight matrix of one run: its name, kind, shape and the deviation it starts from."""

    name: str
    kind: str  # "embedding", "head" or "matrix"
    shape: tuple[int, int]
    start: float

    @property
    def size(self) -> int:
        """Number of parameters in the matrix."""
        return self.shape[0] * self.shape[1]


def weights_of(shape: Shape) -> tuple[Weight, ...]:
    """List the weights of one run in the order in which they lie in its flat vector."""
    d, h = shape.width, shape.hidden
    residual = 1 / math.sqrt(2 * shape.layers)
    found = [Weight("embedding", "embedding", (shape.vocabulary, d), 1.0)]
    for i in range(shape.layers):
        found += [
            Weight(f"{i}.qkv", "matrix", (d, 3 * d), d**-0.5),
            Weight(f"{i}.attention_out", "matrix", (d, d), residual * d**-0.5),
            Weight(f"{i}.mlp_in", "matrix", (d, h * (2 if shape.mlp == "swiglu" else 1)), d**-0.5),
            Weight(f"{i}.mlp_out", "matrix", (h, d), residual * h**-0.5),
        ]
    if not shape.tied:
        # A head of zeros starts every width at the same loss, log(vocabulary), as muP asks.
        found.append(Weight("head", "head", (d, shape.vocabulary), 0.0))
    return tuple(found)


def start_weights(shape: Shape, seeds: Sequence[int]) -> Tensor:
    """Draw the starting weights, (runs, parameters) float32; row i depends on seeds[i] alone."""
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        rows.append(
            torch.cat([w.start * torch.randn(w.size, generator=generator) for w in weights_of(shape)])
        )
    return torch.stack(rows)


def views(shape: Shape, flat: Tensor) -> dict[str, Tensor]:
    """Name the weights inside a (runs, parameters) tensor; a view is (runs, *weight.shape)."""
    found, at = {}, 0
    for w in weights_of(shape):
        found[w.name] = flat[:, at : at + w.size].view(len(flat), *w.shape)
        at += w.size
    return found


def _at_least_fp32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) over the last axis; by hand, as eager autograd would do twice the work."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=_at_least_fp32(x))
        scale = norm.square_().div_(x.shape[-1]).add_(EPS).rsqrt_().to(x.dtype)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors
        along = (grad * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(grad, y, along, value=-1).mul_(scale)


def rms_norm(x: Tensor) -> Tensor:
    """Return x divided by its root mean square over the last axis."""
    return _RMSNorm.apply(x)


class _ReLU2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rectified = F.relu(x)
        ctx.save_for_backward(rectified)
        return rectified.square()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (rectified,) = ctx.saved_tensors
        return (grad * rectified).mul_(2)


def rotation(shape: Shape, device: torch.device | str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary positions (arXiv:2104.09864), (context, 1, half)."""
    half = shape.head_width // 2
    frequency = 1e4 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(shape.context, dtype=torch.float64)[:, None, None] * frequency
    return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


class _Rotate(torch.autograd.Function):
    """Turn pairs (a, b) of channels by an angle; by hand, as a turn back is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    half = cos.shape[-1]
    y = x * torch.cat((cos, cos), dim=-1)
    y[..., :half].addcmul_(x[..., half:], sin, value=-direction)
    y[..., half:].addcmul_(x[..., :half], sin, value=direction)
    return y


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend causally within windows: (windows, time, heads, head_width) each."""
    short = HAS_SHORT_ATTENTION and q.shape[1] <= LONGEST and q.shape[3] <= WIDEST
    if short and q.is_cuda and q.dtype == torch.bfloat16:
        return short_attention(q, k, v, scale)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2)


def _attention(shape: Shape, x: Tensor, weights: Mapping[str, Tensor], i: int, turn: Any) -> Tensor:
    runs, batch, time, _ = x.shape
    qkv = torch.bmm(x.view(runs, -1, shape.width), weights[f"{i}.qkv"])
    qkv = qkv.view(runs, batch, time, 3 * shape.heads, shape.head_width)
    qk, v = qkv.split((2 * shape.heads, shape.heads), dim=3)
    q, k = _Rotate.apply(rms_norm(qk), *turn).flatten(0, 1).chunk(2, dim=2)
    y = _attend(q, k, v.flatten(0, 1), LOGIT_SCALE / shape.head_width).reshape(runs, -1, shape.width)
    return torch.bmm(y, weights[f"{i}.attention_out"]).view_as(x)


def _mlp(shape: Shape, x: Tensor, weights: Mapping[str, Tensor], i: int) -> Tensor:
    inner = torch.bmm(x.view(len(x), -1, shape.width), weights[f"{i}.mlp_in"])
    if shape.mlp == "swiglu":
        gate, value = inner.chunk(2, dim=-1)
        inner = F.silu(gate) * value
    else:
        inner = _ReLU2.apply(inner)
    return torch.bmm(inner, weights[f"{i}.mlp_out"]).view_as(x)


def logits(shape: Shape, weights: Mapping[str, Tensor], tokens: Tensor, turn: Any) -> Tensor:
    """Predict the next token at every position.

    Parameters
    ----------
    shape : Shape
    weights : Mapping[str, Tensor]
        From `views`.
    tokens : Tensor
        Token ids, (runs, batch, time), time at most the shape's context.
    turn : tuple of Tensor
        From `rotation`.

    Returns
    -------
    Tensor
        Logits, (runs, batch, time, vocabulary).
    """
    runs, batch, time = tokens.shape
    row = torch.arange(runs, device=tokens.device)[:, None, None] * shape.vocabulary
    table = weights["embedding"].reshape(-1, shape.width)
    x = rms_norm(F.embedding(tokens + row, table))
    turn = tuple(part[:time] for part in turn)
    for i in range(shape.layers):
        x = x + _attention(shape, rms_norm(x), weights, i, turn)
        x = x + _mlp(shape, rms_norm(x), weights, i)
    x = rms_norm(x).view(runs, -1, shape.width)
    head = weights["embedding"].transpose(1, 2) / shape.width if shape.tied else weights["head"]
    return torch.bmm(x, head).view(runs, batch, time, shape.vocabulary)


def cross_entropy(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return -log p(target), nats, in the shape of `targets`."""
    wide = predicted.flatten(0, -2).to(_at_least_fp32(predicted))
    flat = F.cross_entropy(wide, targets.flatten(), reduction="none")
    return flat.view(targets.shape)
