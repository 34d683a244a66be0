"""Causal attention for short windows on a GPU: one program per window and head, all of it on chip.

The library's kernels are cut for long sequences: at 48 positions and 16 channels they spend nearly
half of a training step. Here scores never leave the registers, backward recomputes them, and
queries, keys and values are read where the projection left them. Longer windows and single precision
are the library's.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LONGEST, WIDEST = 128, 64  # positions and channels that fit on chip, smaller GPUs' too


@triton.jit
def _operands(
    Q, K, V, q_row, k_row, v_row, HEADS, TIME, WIDTH, T: tl.constexpr, W: tl.constexpr
):  # fmt: skip
    """Load this program's window and head; return where they lie in packed rows, and which are real."""
    window, head = tl.program_id(0).to(tl.int64) // HEADS, tl.program_id(0) % HEADS
    time, channel = tl.arange(0, T), tl.arange(0, W)
    inside = (time < TIME)[:, None] & (channel < WIDTH)[None, :]
    row, column = (window * TIME + time)[:, None], (head * WIDTH + channel)[None, :]
    q = tl.load(Q + row * q_row + column, inside, 0.0)
    k = tl.load(K + row * k_row + column, inside, 0.0)
    v = tl.load(V + row * v_row + column, inside, 0.0)
    return q, k, v, row * HEADS * WIDTH + column, inside


@triton.jit
def _weights(q, k, scale, T: tl.constexpr):
    """Return the attention weights, (T, T) float32."""
    time = tl.arange(0, T)
    score = tl.dot(q, tl.trans(k)) * scale
    score = tl.where(time[:, None] >= time[None, :], score, float("-inf"))
    weight = tl.exp(score - tl.max(score, 1)[:, None])
    return weight / tl.sum(weight, 1)[:, None]


@triton.jit
def _forward(
    Q, K, V, OUT, q_row, k_row, v_row, scale, HEADS, TIME, WIDTH,
    T: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    q, k, v, packed, inside = _operands(Q, K, V, q_row, k_row, v_row, HEADS, TIME, WIDTH, T, W)
    weight = _weights(q, k, scale, T)
    out = tl.dot(weight.to(v.dtype), v)
    tl.store(OUT + packed, out.to(v.dtype), inside)


@triton.jit
def _backward(
    Q, K, V, GRAD, DQ, DK, DV, q_row, k_row, v_row, scale, HEADS, TIME, WIDTH,
    T: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    q, k, v, packed, inside = _operands(Q, K, V, q_row, k_row, v_row, HEADS, TIME, WIDTH, T, W)
    grad = tl.load(GRAD + packed, inside, 0.0)
    weight = _weights(q, k, scale, T)
    d_weight = tl.dot(grad, tl.trans(v))
    d_score = weight * (d_weight - tl.sum(weight * d_weight, 1)[:, None]) * scale
    d_score = d_score.to(q.dtype)
    dq = tl.dot(d_score, k)
    dk = tl.dot(tl.trans(d_score), q)
    dv = tl.dot(tl.trans(weight.to(v.dtype)), grad)
    tl.store(DQ + packed, dq.to(q.dtype), inside)
    tl.store(DK + packed, dk.to(q.dtype), inside)
    tl.store(DV + packed, dv.to(q.dtype), inside)


def _launch(kernel: Any, tensors: tuple[Tensor, ...], scale: float) -> None:
    q, k, v = tensors[:3]
    _, time, heads, width = q.shape
    tile = max(16, triton.next_power_of_2(time))
    kernel[(len(q) * heads,)](
        *tensors, q.stride(1), k.stride(1), v.stride(1), scale, heads, time, width,
        T=tile, W=max(16, triton.next_power_of_2(width)),
        num_warps=4 if tile <= 64 else 8,
    )  # fmt: skip


@torch.library.custom_op("bayescale::short_attention", mutates_args=())
def short_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend causally within each window.

    Parameters
    ----------
    q, k, v : Tensor
        (windows, time, heads, head_width) bfloat16; may be slices of wider rows; time is at most
        `LONGEST` and head_width at most `WIDEST`.
    scale : float
        Multiplies the scores.

    Returns
    -------
    Tensor
        Of the same shape, contiguous.
    """
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    _launch(_forward, (q, k, v, out), scale)
    return out


@torch.library.custom_op("bayescale::short_attention_gradient", mutates_args=())
def _gradient(q: Tensor, k: Tensor, v: Tensor, grad: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    _launch(_backward, (q, k, v, grad.contiguous(), dq, dk, dv), scale)
    return dq, dk, dv


@short_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@_gradient.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, grad: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.scale = inputs[3]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return *_gradient(*ctx.saved_tensors, grad, ctx.scale), None


short_attention.register_autograd(_differentiate, setup_context=_keep)
