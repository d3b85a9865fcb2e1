"""Built-in optimizers keep their contract, and it tells what a broken one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gigatok.config import TrainingConfig
from gigatok.config.kinds.optimizers import OPTIMIZERS, AdamWConfig, OptimizerKind
from gigatok.contracts.optimizer import broken_promises

HERE = __name__


def without_heads(model: Any, config: TrainingConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.ndim < 2 or len(p) > 1], config.lr)


def climbing(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), config.lr, maximize=True)


def late(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), config.lr, momentum=0.9)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_built_in_ones_keep_it(name: str) -> None:
    assert broken_promises(OPTIMIZERS[name]) == []


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (without_heads, "these parameters are in no group or in several: head.weight"),
        (climbing, "the loss of a small model does not fall in 30 steps"),
        (late, "a new optimizer holds no moments of blocks.0.0.bias"),
    ],
)
def test_what_a_broken_one_does_is_said(build: Any, text: str, monkeypatch: Any) -> None:
    kind = OptimizerKind(AdamWConfig, f"{HERE}:{build.__name__}")
    monkeypatch.setitem(OPTIMIZERS, "adamw", kind)
    assert any(text in sentence for sentence in broken_promises(kind))
