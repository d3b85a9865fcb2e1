"""Optimizers by name: their settings beside those that all share, and what they cost.

`register` is the door for optimizers from outside; the two at the end of this file come through it
too. Standard library and pydantic only: planning reads this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import PositiveFloat

from gigatok.config.fields.base import Fraction
from gigatok.config.fields.marks import SAME_COST
from gigatok.config.fields.open_union import NamedConfig, NetworkKind, add_kind
from gigatok.plugins import Registry, registry


class OptimizerConfig(NamedConfig):
    """Settings of one kind of optimizer, beside those of `TrainingConfig`.

    A subclass narrows `name` to its own and gives it no default.
    """


@dataclass(frozen=True)
class OptimizerKind(NetworkKind[OptimizerConfig]):
    """Optimizer that a trial can name.

    Attributes:
        config: its settings, whose `name` is the value of `tokenizer.optimizer.name` and
            `generator.optimizer.name`.
        module: `package.module:function` of a model and its `TrainingConfig`, which makes the
            optimizer (`gigatok.training.optimizers`); imported when training starts.
        layout: `package.module:function` without torch, of the layers of a model to
            `OptimizerCosts` (`gigatok.costs.optimizers`); None: two moments and no FLOPs.
        example: settings beside `name` with which the contract is checked
            (`gigatok.contracts.optimizer`): all required ones.
    """


OPTIMIZERS: Registry[OptimizerKind] = registry("optimizer")
"""Every optimizer that a trial may name."""


def register(kind: OptimizerKind) -> OptimizerKind:
    """Add an optimizer, and return it.

    Raises:
        ValueError: another one has the name, or its name has a default.
    """
    return add_kind(OPTIMIZERS, kind)


class AdamWConfig(OptimizerConfig):
    """AdamW for all parameters, as published; its settings are those of training."""

    name: Literal["adamw"]
    """Kind of optimizer."""


class MuonConfig(OptimizerConfig):
    """Muon for the matrices of the transformer layers, AdamW for everything else.

    Muon replaces the mean gradient of a matrix by its nearest orthogonal one (Jordan et al. 2024).
    """

    name: Literal["muon"]
    """Kind of optimizer."""
    # The rate of its authors' own runs; it hardly depends on width, as an update has norm 1.
    hidden_lr: Annotated[PositiveFloat, SAME_COST] = 0.02
    """Peak learning rate of the matrices; it follows the course of `lr`."""
    momentum: Annotated[Fraction, SAME_COST] = 0.95
    """Decay of the mean of gradients, with Nesterov's step."""


register(OptimizerKind(AdamWConfig, "gigatok.training.optimizers:adamw"))
register(
    OptimizerKind(
        MuonConfig, "gigatok.training.optimizers:muon", "gigatok.costs.optimizers:muon_costs"
    )
)
