"""The shape of a model: from a target size by one rule, with its parameters counted by kind."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

WIDTH_STEP = 8
# With one head, losses of a model of width 16 varied twice as much between seeds as with two.
LEAST_HEADS = 2


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer, as numbers.

    Parameters
    ----------
    vocabulary : int
        Tokens that can be read and predicted.
    context : int
        Tokens predicted per sequence.
    width, layers, heads, hidden : int
        Residual width, blocks, attention heads, and units of the MLP of one block.
    mlp : {"relu2", "swiglu"}
        Kind of MLP; swiglu has three matrices where relu2 has two.
    tied : bool
        Whether the head is the embedding transposed.
    aspect : float
        The width per layer that the shape was asked for; rounding may change what it has.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    hidden: int
    mlp: str = "relu2"
    tied: bool = False
    aspect: float = 64.0

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    def parameters(self) -> dict[str, int]:
        """Count the parameters by kind: `embedding`, `head`, `non_embedding` and `total`.

        `non_embedding` is the attention and MLP matrices, as in arXiv:2001.08361; a tied head
        counts as 0 because its matrix is the embedding. Norms have no gains and nothing has a bias.
        """
        matrices = 3 if self.mlp == "swiglu" else 2
        block = 4 * self.width**2 + matrices * self.width * self.hidden
        embedding = self.vocabulary * self.width
        head = 0 if self.tied else embedding
        non_embedding = self.layers * block
        return {
            "embedding": embedding,
            "head": head,
            "non_embedding": non_embedding,
            "total": embedding + head + non_embedding,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the shape as plain values, for a record."""
        return asdict(self)


def shape_of_width(
    width: int,
    *,
    vocabulary: int,
    context: int,
    aspect: float = 64.0,
    least_layers: int = 2,
    head_width: int = 16,
    mlp: str = "relu2",
    tied: bool = False,
) -> Shape:
    """Return the shape of a width: everything else follows from it by fixed ratios.

    Layers are `width / aspect`, rounded, at least `least_layers`; the MLP has 4 units per channel
    (relu2) or 8/3 (swiglu), so that both kinds of block hold 12 width^2 parameters.
    """
    hidden = 4 * width if mlp == "relu2" else WIDTH_STEP * round(8 * width / 3 / WIDTH_STEP)
    return Shape(
        vocabulary=vocabulary,
        context=context,
        width=width,
        layers=max(least_layers, round(width / aspect)),
        heads=max(LEAST_HEADS, width // head_width),
        hidden=hidden,
        mlp=mlp,
        tied=tied,
        aspect=aspect,
    )


def shape_of_size(params: float, **rule: Any) -> Shape:
    """Return the shape whose total parameters are nearest, in log, to `params`.

    Parameters
    ----------
    params : float
        Total parameters asked for.
    **rule
        The other arguments of `shape_of_width`.

    Returns
    -------
    Shape
        Its width is a multiple of `head_width` (of 8 below that), so its size is near `params`, not
        at it.
    """
    head_width = rule.get("head_width", 16)
    width, best = WIDTH_STEP, None
    while True:
        shape = shape_of_width(width, **rule)
        gap = abs(math.log(shape.parameters()["total"] / params))
        if best is None or gap < best[0]:
            best = (gap, shape)
        elif shape.parameters()["total"] > params:
            return best[1]
        width += WIDTH_STEP if width < head_width else head_width
