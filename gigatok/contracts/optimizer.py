"""Contract of an optimizer: what training, its schedule and its checkpoints rely on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gigatok.config import TrainingConfig
from gigatok.config.kinds.optimizers import OptimizerKind
from gigatok.contracts.base import Check, SmokeTrial, broken
from gigatok.training.checkpoint import OptimizerState
from gigatok.training.optimizers import make_optimizer, set_learning_rate

BATCH, WIDTH, STEPS = 16, 8, 30


class Model(nn.Module):
    """Small network with what optimizers tell apart: layers in `blocks`, and parts around them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())
            for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x_BC: Tensor) -> Tensor:
        """Map (B, 4) to (B, 1)."""
        x = self.embed(x_BC)
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.head(x)
        return out


def broken_promises(kind: OptimizerKind) -> list[str]:
    """List what an optimizer does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, kind, f"optimizer {kind.name}")


def smoke(kind: OptimizerKind) -> SmokeTrial:
    """Train a tokenizer with it."""
    settings = {"tokenizer.optimizer": {"name": kind.name, **kind.example}}
    return SmokeTrial(stages=("train_tokenizer",), settings=settings)


def made(kind: OptimizerKind) -> tuple[Model, Optimizer]:
    """Make model and optimizer, always with the same weights."""
    optimizer: Any = {"name": kind.name, **kind.example}
    config = TrainingConfig(steps=STEPS, batch_size=BATCH, lr=1e-2, optimizer=optimizer)
    torch.manual_seed(0)
    model = Model()
    return model, make_optimizer(model, config)


def take(model: Model, optimizer: Optimizer, steps: range, rate: float = 1e-2) -> list[float]:
    """Take steps as training does; returns the losses before each."""
    losses = []
    for step in steps:
        random = torch.Generator().manual_seed(step)
        x_BC = torch.randn(BATCH, 4, generator=random)
        set_learning_rate(optimizer, rate)
        optimizer.zero_grad(set_to_none=True)
        loss = (model(x_BC) - x_BC.square().sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _weights(model: Model) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def coverage(kind: OptimizerKind) -> Iterator[str]:
    """Check that every parameter is updated, by one group."""
    model, optimizer = made(kind)
    found = [id(p) for group in optimizer.param_groups for p in group["params"]]
    names = {id(p): name for name, p in model.named_parameters()}
    if left := [name for key, name in names.items() if found.count(key) != 1]:
        yield f"these parameters are in no group or in several: {', '.join(left)}"


def learning(kind: OptimizerKind) -> Iterator[str]:
    """Check that the loss falls, and that a learning rate of 0 changes nothing."""
    model, optimizer = made(kind)
    losses = take(model, optimizer, range(STEPS))
    if not sum(losses[-5:]) < sum(losses[:5]):
        yield f"the loss of a small model does not fall in {STEPS} steps: {losses[0]:g} to "
        f"{losses[-1]:g}"
    before = _weights(model)
    take(model, optimizer, range(1), rate=0.0)
    if not torch.equal(before, _weights(model)):
        yield "it moves weights at learning rate 0, so that no schedule would stop it"


def resuming(kind: OptimizerKind) -> Iterator[str]:
    """Check that moments which are saved and loaded go on in the same bits."""
    whole, optimizer = made(kind)
    take(whole, optimizer, range(3))
    saved = {
        name: {key: value.clone() for key, value in moments.items()}
        for name, moments in OptimizerState(whole, optimizer).state_dict().items()
    }
    other, fresh = made(kind)
    missing = set(saved) - set(OptimizerState(other, fresh).state_dict())
    if missing:
        yield (
            f"a new optimizer holds no moments of {', '.join(sorted(missing))}; make them when "
            "it is made, as a checkpoint is loaded into them before the first step"
        )
        return
    other.load_state_dict(whole.state_dict())
    OptimizerState(other, fresh).load_state_dict(saved)
    take(whole, optimizer, range(3, 6))
    take(other, fresh, range(3, 6))
    if not torch.equal(_weights(whole), _weights(other)):
        yield "weights differ after moments were saved and loaded: some state is not among them"


CHECKS: tuple[Check, ...] = (coverage, learning, resuming)
