"""What one run is: a value that holds all that decides its result, and whose hash is its id."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from . import recipe as rules
from .recipe import Recipe
from .shape import Shape
from .sources.source import Source, digest

# Raised when the same specification would train to another result.
TRAINER_VERSION = 1


@dataclass(frozen=True)
class Run:
    """One run to train.

    Parameters
    ----------
    source : str
        Fingerprint of its source.
    shape : Shape
    tokens : int
        D: steps * batch_tokens.
    pool_windows : int or None
        Distinct windows of training text that it draws from, again and again; None where they never
        end.
    batch_tokens, steps, warmup_steps, cooldown_steps : int
    learning_rate : tuple of (str, float)
        Peak rate by kind of weight, the factor included.
    learning_rate_factor : float
        Deviation from the rule, for sweeps; 1 is the rule.
    beta1, beta2, weight_decay, clip : float
    schedule : str
    final_share, ends_at : float
    seed : int
        Starts the weights and picks the training text.
    trunk : str or None
        Id of the trunk that this run branches from: all that it shares with its other branches.
    precision : {"fp32", "bf16"}
    """

    source: str
    shape: Shape
    tokens: int
    pool_windows: int | None
    batch_tokens: int
    steps: int
    warmup_steps: int
    cooldown_steps: int
    learning_rate: tuple[tuple[str, float], ...]
    learning_rate_factor: float
    beta1: float
    beta2: float
    weight_decay: float
    clip: float
    schedule: str
    final_share: float
    ends_at: float
    seed: int
    trunk: str | None
    precision: str

    @property
    def id(self) -> str:
        """Content hash of the specification, 16 hexadecimal digits."""
        return digest(TRAINER_VERSION, dataclasses.asdict(self))

    @property
    def unique_tokens(self) -> int:
        """Distinct training tokens that the run meets, at most `tokens`."""
        pool = self.tokens if self.pool_windows is None else self.pool_windows * self.shape.context
        return min(self.tokens, pool)

    @property
    def branch_step(self) -> int:
        """The step at which this run leaves its trunk; 0 for a run without one."""
        return self.steps - self.cooldown_steps if self.trunk else 0

    @property
    def stack_key(self) -> str:
        """Runs with one key have tensors and steps of one shape, so they can share a stack."""
        spec = dataclasses.asdict(self)
        own = ("seed", "trunk", "learning_rate", "learning_rate_factor")
        shared = ("steps", "tokens", "cooldown_steps") if self.trunk else ()
        return digest({name: spec[name] for name in spec if name not in own + shared})

    def training(self) -> dict[str, Any]:
        """Return optimiser and schedule in full, for a record."""
        own = (
            "batch_tokens", "steps", "warmup_steps", "cooldown_steps", "schedule", "final_share",
            "ends_at", "beta1", "beta2", "weight_decay", "clip", "precision",
        )  # fmt: skip
        return {
            "optimiser": "adamw",
            "learning_rate": dict(self.learning_rate),
            "epochs": self.tokens / self.unique_tokens,
            **{name: getattr(self, name) for name in own},
        }

    def share(self, step: int) -> float:
        """Return the share of the peak learning rate at a step."""
        return rules.schedule_share(
            step,
            steps=self.steps,
            warmup=self.warmup_steps,
            schedule=self.schedule,
            final=self.final_share,
            cooldown=self.cooldown_steps,
            ends_at=self.ends_at,
        )


def plan_run(
    recipe: Recipe,
    source: Source,
    shape: Shape,
    tokens: float,
    *,
    seed: int,
    unique_tokens: float | None = None,
    learning_rate_factor: float = 1.0,
    precision: str = "fp32",
) -> Run:
    """Settle every number of one run.

    Parameters
    ----------
    recipe, source, shape
        The ladder's rules, what to train on, and the model.
    tokens : float
        D asked for; what is trained is the nearest whole number of steps.
    seed : int
    unique_tokens : float, optional
        Distinct tokens to train on, repeated until D; all that the source has by default.
    learning_rate_factor : float
        Multiplies the rule's learning rate.
    precision : {"fp32", "bf16"}

    Returns
    -------
    Run
    """
    batch = rules.batch_tokens(recipe, shape, tokens)
    steps = max(1, round(tokens / batch))
    trained = steps * batch
    pools = [source.train_windows] if source.train_windows is not None else []
    if unique_tokens is not None:
        pools.append(max(1, int(unique_tokens) // shape.context))
    # A trunk's warm-up may not depend on how far any one branch goes.
    span = trained if recipe.schedule == "cosine" else float("inf")
    rates = rules.learning_rates(recipe, shape, trained)
    run = Run(
        source=source.fingerprint,
        shape=shape,
        tokens=trained,
        pool_windows=min(pools, default=None),
        batch_tokens=batch,
        steps=steps,
        warmup_steps=rules.warmup_steps(recipe, shape, span, batch),
        cooldown_steps=(max(1, round(recipe.cooldown_share * steps)) if recipe.schedule == "trunk" else 0),
        learning_rate=tuple((kind, learning_rate_factor * rate) for kind, rate in rates.items()),
        learning_rate_factor=learning_rate_factor,
        beta1=recipe.beta1,
        beta2=rules.beta2(recipe, batch),
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
        schedule=recipe.schedule,
        final_share=recipe.final_share,
        ends_at=recipe.ends_at,
        seed=seed,
        trunk=None,
        precision=precision,
    )
    return run if recipe.schedule == "cosine" else dataclasses.replace(run, trunk=_trunk_id(run))


def _trunk_id(run: Run) -> str:
    spec: dict[str, Any] = dataclasses.asdict(run)
    for own in ("steps", "tokens", "cooldown_steps", "trunk"):
        del spec[own]
    return digest(TRAINER_VERSION, spec)
