"""Linear classifier on fixed features, behind a BatchNorm without affine parameters.

Trained by the recipe of the reference's `autoregressive/lin_probe` (LARS, warm-up and cosine), or
fitted to its optimum.
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
    """Train a classifier, and return its top-1 accuracy on validation features, 0 to 1.

    Raises:
        Interrupted: the stage was asked to stop, between two epochs.
    """
    # On the CPU, so that the order is the same on every device.
    random = torch.Generator().manual_seed(step_seed(seed, 0, "probe"))
    head = _head(data.val_MD.shape[1], data.num_classes, random).to(data.val_MD.device)
    if config.method == "lbfgs":
        _fit(head.double(), data, tracker, runtime)
    else:
        _train(head, data, config, random, tracker, runtime)
    head.eval()
    with torch.inference_mode():
        val_MD = data.val_MD.to(next(head.parameters()).dtype)
        return float((head(val_MD).argmax(-1) == data.val_labels_M).float().mean())


def _train(
    head: nn.Sequential,
    data: ProbeData,
    config: ProbeConfig,
    random: torch.Generator,
    tracker: Tracker,
    runtime: Runtime,
) -> None:
    """Train on random views, by the reference's recipe."""
    images, device = len(data.labels_N), data.val_MD.device
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


def _fit(head: nn.Sequential, data: ProbeData, tracker: Tracker, runtime: Runtime) -> None:
    """Fit the optimum of softmax regression on all views, in float64.

    Raises:
        ValueError: it does not converge.
    """
    norm, linear = head
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(linear, nn.Linear)
    device, all_N = data.val_MD.device, torch.arange(len(data.labels_N))
    views = [data.read(torch.full_like(all_N, view), all_N) for view in range(data.views)]
    # One momentum of 1: the running statistics are those of all views.
    norm.momentum = 1.0
    # (V*N, D), normalised once.
    features = norm(torch.cat(views).to(device).double())
    labels = data.labels_N.long().repeat(data.views).to(device)
    optimizer = torch.optim.LBFGS(
        linear.parameters(),
        max_iter=_ROUND,
        tolerance_grad=_FLAT,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        linear.zero_grad()
        # The penalty makes the optimum unique and finite where classes can be told apart.
        penalty = linear.weight.square().sum() / (2 * len(labels))
        found = F.cross_entropy(linear(features), labels) + penalty
        torch.autograd.backward(found)
        return found

    for number in runtime.until_stopped(range(1, _MOST_ROUNDS + 1)):
        before = optimizer.step(loss).item()  # type: ignore[no-untyped-call]
        tracker.metrics({TRAIN_PREFIX + "loss": before}, number)
        tracker.progress(number, _MOST_ROUNDS, "round", loss=before)
        slopes = [p.grad.abs().max().item() for p in linear.parameters() if p.grad is not None]
        if max(slopes) <= _FLAT:
            return
    raise ValueError(
        f"the probe's fit did not converge in {_MOST_ROUNDS * _ROUND} iterations of L-BFGS; are "
        "its features finite? probe.method lars trains for a fixed time"
    )


# Iterations between two looks at whether to stop, the most rounds of them, and the largest
# derivative of the loss at which it counts as flat; scikit-learn's default is 10 times that.
_ROUND, _MOST_ROUNDS, _FLAT = 20, 250, 1e-5


def describe_training(config: ProbeConfig) -> str:
    """Describe the training of a probe in words."""
    if config.method == "lbfgs":
        return "L-BFGS to the optimum of softmax regression (C = 1)"
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
