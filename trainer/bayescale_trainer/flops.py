"""Floating-point operations of one model, counted exactly, term by term.

A multiply-add is two operations; norms, activations and the optimiser's step are left out, as
everywhere in the literature. The backward pass costs twice the forward one (arXiv:2001.08361), so
training costs 3 x forward.
"""

from __future__ import annotations

from .shape import Shape

CONVENTION = "3 * (matrices + head + causal attention) * tokens"


def forward_flops(shape: Shape) -> dict[str, float]:
    """Count the forward FLOPs per token by term, averaged over a window.

    Returns
    -------
    dict of str to float
        `matmul` (attention and MLP matrices), `head`, `attention_causal` (a position attends to
        itself and what is before it) and `attention_full` (to the whole window, as PaLM's
        convention counts, arXiv:2204.02311).
    """
    counts = shape.parameters()
    attention = 4 * shape.layers * shape.width  # query . key and weight . value, per attended token
    return {
        "matmul": 2.0 * counts["non_embedding"],
        "head": 2.0 * shape.width * shape.vocabulary,
        "attention_causal": attention * (shape.context + 1) / 2,
        "attention_full": float(attention * shape.context),
    }


def training_flops(shape: Shape, tokens: int) -> dict[str, float]:
    """Count the FLOPs of training on `tokens` tokens under each convention in use.

    Returns
    -------
    dict of str to float
        `compute` (the run table's: CONVENTION), `compute_full_attention`, `compute_6nd` (6 N D, N
        without embeddings and head) and `compute_6nd_total` (6 N D, N total).
    """
    term, counts = forward_flops(shape), shape.parameters()
    dense = term["matmul"] + term["head"]
    return {
        "compute": 3 * (dense + term["attention_causal"]) * tokens,
        "compute_full_attention": 3 * (dense + term["attention_full"]) * tokens,
        "compute_6nd": 6.0 * counts["non_embedding"] * tokens,
        "compute_6nd_total": 6.0 * counts["total"] * tokens,
    }
