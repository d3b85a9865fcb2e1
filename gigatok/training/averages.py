"""Exponential moving averages of a model's parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gigatok.runtime.distributed import local


class Averages:
    """Averages of parameters; buffers are not averaged, as in the reference.

    They start from the initial weights. Each process averages the shards that it holds.

    Attributes:
        values: average of each parameter by name.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        # By name, as the state dict has them: `apply` loads them like weights.
        self.values = {name: p.detach().clone() for name, p in model.named_parameters()}

    def restart(self) -> None:
        """Set every average to the present value of its parameter."""
        self._move(1.0)

    def update(self) -> None:
        """Move the averages towards the parameters after a step."""
        self._move(1 - self._decay)

    def _move(self, weight: float) -> None:
        targets = [local(p.detach()) for p in self._model.parameters()]
        # One fused call: a large model has thousands of tensors, and a kernel for each is slow.
        torch._foreach_lerp_([local(v) for v in self.values.values()], targets, weight)

    def apply(self) -> None:
        """Replace the model's parameters by their averages."""
        # Not strict: the averages have no buffers.
        self._model.load_state_dict(self.values, strict=False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages themselves, not copies."""
        return self.values

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy averages that were saved under the same names."""
        for name, value in self.values.items():
            value.copy_(state[name])
