"""Linear classifier on fixed features: BatchNorm without affine, LARS, warm-up and cosine.

The recipe is the reference's `autoregressive/lin_probe`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import ProbeConfig
from gigatok.names import TRAIN_PREFIX
from gigatok.runtime.context import Runtime
from gigatok.runtime.tracker import Tracker
from gigatok.training.seeds import step_seed

# LARS as in the reference's probe, without weight decay.
MOMENTUM, TRUST = 0.9, 0.001


ReadFeatures = Callable[[Tensor, Tensor], Tensor]
"""Function of a view of each of some images, (B,) each, that returns features (B, D)."""


@dataclass(frozen=True)
class ProbeData:
    """Features and labels of N training and M validation images.

    Attributes:
        read: returns training features, which may be too many for memory.
        views: number of views of each training image.
        labels_N: labels of the training images.
        val_MD: validation features; their device is that of the probe.
        val_labels_M: their labels, on the same device.
        num_classes: number of classes.
    """

    read: ReadFeatures
    views: int
    labels_N: Tensor
    val_MD: Tensor
    val_labels_M: Tensor
    num_classes: int


def train_probe(
    data: ProbeData, config: ProbeConfig, seed: int, tracker: Tracker, runtime: Runtime
) -> float:
    """Train on random views, and return the top-1 accuracy on validation features, 0 to 1.

    Raises:
        Interrupted: the stage was asked to stop, between two epochs.
    """
    images, width = len(data.labels_N), data.val_MD.shape[1]
    device = data.val_MD.device
    # On the CPU, so that the order is the same on every device.
    random = torch.Generator().manual_seed(step_seed(seed, 0, "probe"))
    head = _head(width, data.num_classes, random).to(device)
    velocity = [torch.zeros_like(p) for p in head.parameters()]
    for epoch in runtime.until_stopped(range(config.epochs)):
        order = torch.randperm(images, generator=random)
        # A batch of one image has no statistics to normalise with.
        batches = [b for b in torch.split(order, config.batch_size) if len(b) > 1]
        for index, batch in enumerate(batches):
            view = torch.randint(data.views, batch.shape, generator=random)
            features = data.read(view, batch).to(device)
            loss = F.cross_entropy(head(features), data.labels_N[batch].to(device))
            head.zero_grad()
            torch.autograd.backward(loss)
            # The rate moves with every step, not with every epoch, as in the reference.
            lars_step(head, velocity, probe_rate(config, epoch + index / len(batches)))
        tracker.metrics({TRAIN_PREFIX + "loss": loss.item()}, epoch + 1)
        tracker.progress(epoch + 1, config.epochs, "epoch", loss=loss.item())
    head.eval()
    with torch.inference_mode():
        return float((head(data.val_MD).argmax(-1) == data.val_labels_M).float().mean())


def describe_training(config: ProbeConfig) -> str:
    """Describe the training of a probe in words."""
    return f"LARS {config.epochs} epochs, lr {config.lr:g} per 256, batch {config.batch_size}"


def _head(width: int, num_classes: int, random: torch.Generator) -> nn.Sequential:
    linear = nn.Linear(width, num_classes)
    # Initialised as the head of the reference's probe.
    nn.init.trunc_normal_(linear.weight, std=0.01, generator=random)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=1e-6), linear)


def probe_rate(config: ProbeConfig, epoch: float) -> float:
    """Compute the rate: linear warm-up from 0, then cosine to 0; scaled by batch size over 256."""
    peak = config.lr * config.batch_size / 256
    if epoch < config.warmup_epochs:
        return peak * epoch / config.warmup_epochs
    span = max(config.epochs - config.warmup_epochs, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / span))


@torch.no_grad()
def lars_step(model: nn.Module, velocity: list[Tensor], rate: float) -> None:
    """Take one step of LARS (You et al. 2017); 1-D parameters take plain momentum steps."""
    for parameter, v in zip(model.parameters(), velocity, strict=True):
        gradient = parameter.grad
        assert gradient is not None
        if parameter.ndim > 1:
            sizes = parameter.norm(), gradient.norm()
            # A weight or a gradient of 0 has no ratio; then the step is not scaled.
            scale = torch.where(sizes[0] * sizes[1] > 0, TRUST * sizes[0] / sizes[1], 1.0)
            gradient = gradient * scale
        v.mul_(MOMENTUM).add_(gradient)
        parameter.sub_(v, alpha=rate)
