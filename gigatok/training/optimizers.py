"""Optimizers of a model: which parameters each updates, and at which peak rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gigatok.config import TrainingConfig
from gigatok.config.kinds.optimizers import OPTIMIZERS, MuonConfig

Named = list[tuple[str, nn.Parameter]]
"""Parameters with their names in the model."""


def make_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """Make the optimizer that a config names, with all its moments.

    Each of its groups has the entry `share`: the group's learning rate over the config's, which
    keeps their ratio while the rate follows its schedule.
    """
    build = resolve_name(OPTIMIZERS[config.optimizer.name].module)
    optimizer: Optimizer = build(model, config)
    for group in optimizer.param_groups:
        group["share"] = group["lr"] / config.lr
    return optimizer


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of every group to its share of the schedule's."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


class JointOptimizer(Optimizer):
    """Optimizer of which several others update a part of the parameters each.

    It is one, so that a gradient scaler that meets an infinite gradient skips the step of all.
    Groups and moments are those of the parts, not copies.
    """

    def __init__(self, parts: Iterable[Optimizer]) -> None:
        self.parts = tuple(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        for part in self.parts:
            self.state.update(part.state)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Let every part take its step."""
        assert closure is None, "training computes the loss once, before the step"
        for part in self.parts:
            part.step()


def adamw(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """Make AdamW for all parameters."""
    return _adamw(_trained(model), config)


def muon(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """Make Muon for the matrices of the model's `blocks`, and AdamW for the rest.

    A model without blocks, such as a discriminator, is left to AdamW.
    """
    settings = config.optimizer
    assert isinstance(settings, MuonConfig)
    inside = {id(p) for block in _blocks(model) for p in block.parameters() if p.ndim == 2}
    named = _trained(model)
    hidden = [(name, p) for name, p in named if id(p) in inside]
    if not hidden:
        return _adamw(named, config)
    # `weight_decay` is in units of the learning rate, and Muon's is `hidden_lr`.
    matrices = torch.optim.Muon(
        _groups(hidden, config), lr=settings.hidden_lr, momentum=settings.momentum
    )
    for _, parameter in hidden:
        # Made here, as in `_adamw`.
        matrices.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    rest = [(name, p) for name, p in named if id(p) not in inside]
    return JointOptimizer([matrices, _adamw(rest, config)])


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    yield from getattr(model, "blocks", ())


def _trained(model: nn.Module) -> Named:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def _adamw(named: Named, config: TrainingConfig) -> Optimizer:
    # Fused: one kernel for many parameters, instead of several for each.
    betas = (config.beta1, config.beta2)
    groups = _groups(named, config)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=1e-8, fused=True)
    for _, parameter in named:
        # Made here, as the first step would: a checkpoint is loaded into them before that step.
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def _groups(named: Named, config: TrainingConfig) -> list[dict[str, Any]]:
    """Divide parameters into those that are decayed and those that are not.

    Without `decay_norms_and_biases`, 1-D parameters are not decayed, as in the reference's
    `train_c2i.py`. With `reference_decay_quirk`, parameters with `norm` in their name are not, as
    in its FSDP trainer (`vq_train_fsdp.py`).
    """

    def spared(name: str, p: Tensor) -> bool:
        one_dimensional = p.ndim < 2 and not config.decay_norms_and_biases
        return one_dimensional or ("norm" in name and config.reference_decay_quirk)

    decayed = [p for name, p in named if not spared(name, p)]
    others = [p for name, p in named if spared(name, p)]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": config.weight_decay}]
    return [*groups, {"params": others, "weight_decay": 0.0}] if others else groups
