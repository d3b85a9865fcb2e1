"""Interface of extra losses to training and costs."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Protocol

from torch import Tensor, nn

from gigatok.config.kinds.losses import LOSSES, LossConfig
from gigatok.models.tokenizer.base import TokenizerOutput


class Loss(Protocol):
    """Protocol of an extra loss; a class may be a `torch.nn.Module` or not."""

    def __call__(self, output: TokenizerOutput, image_BCHW: Tensor, step: int) -> Tensor:
        """Compute the loss of a batch, a finite scalar without its weight.

        It keeps nothing from step to step: checkpoints hold no state of losses. Random numbers
        come from torch's global generator, which is seeded in each step.

        Args:
            output: the tokenizer's output in training mode; its images are float32.
            image_BCHW: images in [-1, 1], float32.
            step: counted from 1.
        """


def build_loss(config: LossConfig, device: str = "cpu") -> Loss:
    """Build the loss that a config names. Networks in it are frozen."""
    loss: Loss = resolve_name(LOSSES[config.name].module)(config)
    if isinstance(loss, nn.Module):
        loss.to(device).eval().requires_grad_(False)
    return loss


class OfTensors(nn.Module):
    """Loss as a function of tensors alone, whose costs can be traced."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        # Not on a device of its own: tracing chooses one.
        self.loss = resolve_name(LOSSES[config.name].module)(config)
        self.requires_grad_(False)

    def forward(self, reconstruction: Tensor, image: Tensor, *grids: Tensor) -> Tensor:
        """Compute the loss of images (B, 3, H, W), with the grids around the bottleneck."""
        codes_BS = image.new_zeros(len(image), 1).long()
        output = TokenizerOutput(reconstruction, codes_BS, {}, None, *grids)
        loss: Tensor = self.loss(output, image, 1)
        return loss
