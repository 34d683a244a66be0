"""How a run of a given size is trained: every setting follows from (N, D) by a named rule.

A scaling law fitted to runs with one fixed recipe measures the recipe's misfit to each size as much
as the size (arXiv:2406.19146), so nothing here is a constant that ought to grow with the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from .shape import Shape

SCHEDULES = ("cosine", "trunk")
LEARNING_RATES = ("mup", "porian", "step-law", "fixed")
BATCHES = ("step-law", "porian", "fixed")

# What a schedule does not look at, and what to do instead.
_UNUSED = {
    "trunk": {
        "warmup_share": "its branches share one warm-up, which can be no share of each one's D: leave it "
        "out, and set warmup_tokens_per_param",
        "ends_at": "each branch's cooldown ends at its D: leave it out",
    },
    "cosine": {"cooldown_share": 'leave it out, or use schedule = "trunk"'},
}


class RecipeError(ValueError):
    """A recipe that makes no run; the message says what to do."""


@dataclass(frozen=True)
class Recipe:
    """The rules of one ladder.

    Parameters
    ----------
    learning_rate_rule : {"mup", "porian", "step-law", "fixed"}
        `mup`: `learning_rate` for embeddings at every width; for matrices and head it falls as
        `reference_width / width` (arXiv:2203.03466). `porian`: 3.7 N^-.36, N with the head and without
        the embedding, tied or not (arXiv:2406.19146).
        `step-law`: 1.79 N^-.713 D^.307, N without embeddings (arXiv:2503.04715). `fixed`:
        `learning_rate` for all.
    learning_rate, reference_width
        See the rules.
    batch_rule : {"step-law", "porian", "fixed"}
        Tokens per step. `step-law`: .58 D^.571; `porian`: .00037 N^.703 sequences of 2048 tokens, N as in
        its learning rate;
        `fixed`: `batch_tokens`.
    batch_tokens, least_batch_tokens : int
        See the rule; `least_batch_tokens` bounds all three from below.
    beta1 : float
        AdamW's first-moment decay per step.
    beta2_half_life_tokens : float
        AdamW's second moment halves after so many tokens whatever the batch (arXiv:2507.07101),
        beta2 being kept within [.9, .999].
    weight_decay : float
        Independent of the learning rate (arXiv:2309.14322): each step shrinks weights by this times
        the schedule.
    clip : float
        Largest norm of a run's gradient.
    warmup_tokens_per_param, warmup_share : float
        Warm-up lasts as many tokens as N times the first, but at most the second's share of D
        (arXiv:2406.19146). A trunk, which has no D of its own, knows the first alone.
    schedule : {"cosine", "trunk"}
        `cosine`: to `final_share` at D, one schedule per D. `trunk`: constant, with a cooldown (1 -
        sqrt, arXiv:2405.18392) over the last `cooldown_share` of each D, so that one trunk yields
        many D.
    final_share, cooldown_share : float
        See the schedules.
    ends_at : float
        Where the cosine would end, in units of D. Only 1 gives valid scaling data; another value is
        there to show that, and `check` objects.
    """

    learning_rate_rule: str = "mup"
    learning_rate: float = 0.03
    reference_width: int = 32
    batch_rule: str = "step-law"
    batch_tokens: int = 2048
    least_batch_tokens: int = 256
    beta1: float = 0.9
    beta2_half_life_tokens: float = 28_000.0
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup_tokens_per_param: float = 1.0
    warmup_share: float = 0.1
    schedule: str = "cosine"
    final_share: float = 0.0
    cooldown_share: float = 0.2
    ends_at: float = 1.0

    def __post_init__(self) -> None:
        _one_of("learning_rate_rule", self.learning_rate_rule, LEARNING_RATES)
        _one_of("batch_rule", self.batch_rule, BATCHES)
        _one_of("schedule", self.schedule, SCHEDULES)
        for name in (
            "learning_rate", "reference_width", "batch_tokens", "least_batch_tokens",
            "beta2_half_life_tokens", "clip", "ends_at",
        ):  # fmt: skip
            if not 0 < getattr(self, name) < math.inf:
                raise RecipeError(f"[recipe] {name} = {getattr(self, name)}: must be above 0, and finite")
        if not 0 <= self.warmup_tokens_per_param < math.inf:
            found = self.warmup_tokens_per_param
            raise RecipeError(f"[recipe] warmup_tokens_per_param = {found}: must be 0 or above, and finite")
        for name in ("beta1", "warmup_share", "final_share", "cooldown_share", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"[recipe] {name} = {getattr(self, name)}: must be in [0, 1)")
        if self.schedule == "trunk" and "step-law" in (self.learning_rate_rule, self.batch_rule):
            raise RecipeError(
                '[recipe] schedule = "trunk" shares one trunk among several D, but the '
                "step-law rules depend "
                'on D: use learning_rate_rule = "mup" and batch_rule = "porian" or "fixed"'
            )
        if self.schedule == "trunk" and not self.cooldown_share:
            raise RecipeError('[recipe] schedule = "trunk" needs cooldown_share above 0')

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Recipe:
        """Read a ladder's `[recipe]` table, refusing options that are unknown or do nothing."""
        known = {field.name: field.type for field in fields(cls)}
        for name, value in table.items():
            if name not in known:
                raise RecipeError(f"[recipe] option {name!r} is unknown; known are {', '.join(known)}")
            if not _is_of(str(known[name]), value):
                raise RecipeError(f"[recipe] {name} = {value!r}: expected {known[name]}")
        # A run's id is of its settings as they are written: 1 and 1.0 are one setting.
        recipe = cls(**{name: _KINDS[str(known[name])](value) for name, value in table.items()})
        for name, instead in _UNUSED[recipe.schedule].items():
            if name in table:
                found, schedule = table[name], recipe.schedule
                raise RecipeError(
                    f'[recipe] {name} = {found} does nothing with schedule = "{schedule}": {instead}'
                )
        return recipe


_KINDS: dict[str, Callable[[Any], Any]] = {"str": str, "int": int, "float": float}


def _is_of(kind: str, value: Any) -> bool:
    if kind == "str":
        return isinstance(value, str)
    return type(value) in (int, float) and (kind == "float" or float(value).is_integer())


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(f"[recipe] {option} = {value!r}: use one of {', '.join(known)}")


def batch_tokens(recipe: Recipe, shape: Shape, tokens: float) -> int:
    """Return the tokens per step: the rule's, rounded to whole windows."""
    if recipe.batch_rule == "step-law":
        wanted = 0.58 * tokens**0.571
    elif recipe.batch_rule == "porian":
        wanted = 0.00037 * _size_with_head(shape) ** 0.703 * 2048
    else:
        wanted = recipe.batch_tokens
    return shape.context * max(1, round(max(wanted, recipe.least_batch_tokens) / shape.context))


def _size_with_head(shape: Shape) -> int:
    """Return N as arXiv:2406.19146 counts it: all matrices that tokens are multiplied by."""
    return shape.parameters()["non_embedding"] + shape.vocabulary * shape.width


def learning_rates(recipe: Recipe, shape: Shape, tokens: float) -> dict[str, float]:
    """Return the peak learning rate by kind of weight: `embedding`, `matrix` and `head`."""
    if recipe.learning_rate_rule == "mup":
        inner = recipe.learning_rate * recipe.reference_width / shape.width
        return {"embedding": recipe.learning_rate, "matrix": inner, "head": inner}
    if recipe.learning_rate_rule == "porian":
        rate = 3.7 * _size_with_head(shape) ** -0.36
    elif recipe.learning_rate_rule == "step-law":
        rate = 1.79 * shape.parameters()["non_embedding"] ** -0.713 * tokens**0.307
    else:
        rate = recipe.learning_rate
    return dict.fromkeys(("embedding", "matrix", "head"), rate)


def beta2(recipe: Recipe, batch: int) -> float:
    """Return AdamW's second-moment decay per step for a batch in tokens."""
    return min(0.999, max(0.9, 0.5 ** (batch / recipe.beta2_half_life_tokens)))


def warmup_steps(recipe: Recipe, shape: Shape, tokens: float, batch: int) -> int:
    """Return the steps over which the learning rate rises."""
    wanted = recipe.warmup_tokens_per_param * shape.parameters()["total"]
    return math.ceil(min(wanted, recipe.warmup_share * tokens) / batch)


def schedule_share(
    step: int,
    *,
    steps: int,
    warmup: int,
    schedule: str,
    final: float,
    cooldown: int,
    ends_at: float,
) -> float:
    """Return the share of the peak learning rate at a step, 0 <= step < steps.

    Parameters
    ----------
    step, steps, warmup, cooldown : int
        This step; steps in all, of warm-up, and of cooldown at the end (trunk only).
    schedule : {"cosine", "trunk"}
    final : float
        Share left at the end.
    ends_at : float
        Where the schedule would end, in units of `steps`.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if schedule == "trunk":
        done = max(0.0, (step + 1 - (steps - cooldown)) / (cooldown + 1))
        fall = 1 - math.sqrt(done)
    else:
        done = max(0, step - warmup) / max(1, steps * ends_at - warmup)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return rise * (final + (1 - final) * fall)
