"""Training loop of tokenizers and generators: resumable, bit-identical on CPU.

Everything random in a step, batch and dropout included, is a function of (seed, step). So a
checkpoint holds a step number, weights and optimizer moments, but no iterator and no generator
state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gigatok.config import TrainingConfig
from gigatok.config.schedules import SCHEDULES
from gigatok.names import TRAIN_PREFIX
from gigatok.runtime.context import Interrupted, Runtime
from gigatok.runtime.distributed import any_rank, average_gradients, mean, whole, without_sync
from gigatok.runtime.tracker import Tracker
from gigatok.training.averages import Averages
from gigatok.training.checkpoint import OptimizerState, Stateful, load_checkpoint, save_checkpoint
from gigatok.training.optimizers import make_optimizer, set_learning_rate
from gigatok.training.seeds import step_seed

Losses = Mapping[str, Tensor]
"""Scalars by name; `loss` is minimised."""
ComputeLosses = Callable[[int, slice], Losses]
"""Function of a step and the samples of its batch; a pure function of (seed, step)."""


class NonFiniteLoss(RuntimeError):
    """Divergence: loss or gradient became NaN or infinite; the message names the step."""


@dataclass(frozen=True)
class Opponent:
    """Second model that is trained in turn with the first, such as a discriminator.

    It has the same settings and an optimizer of its own, and is not saved at the end.

    Attributes:
        name: prefix of its metrics.
        model: the model, replicated in every process.
        compute_losses: forward pass of one micro-batch, after the first model's step.
        start: step, counted from 1, of its first turn.
    """

    name: str
    model: nn.Module
    compute_losses: ComputeLosses
    start: int


class Turn:
    """Part of a step for one model: gradients of all micro-batches, clipping, its optimizer.

    Args:
        model: model whose parameters move.
        config: settings.
        runtime: device and share of the batch.
        compute_losses: forward pass of one micro-batch.
        forward: result of `parallelise` for the model; None: the turn averages gradients itself.
        first_step: step, counted from 1, of the first turn.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        runtime: Runtime,
        compute_losses: ComputeLosses,
        *,
        forward: nn.Module | None = None,
        first_step: int = 1,
    ) -> None:
        self.optimizer = make_optimizer(model, config)
        self.scaler = torch.amp.GradScaler(runtime.device, enabled=config.precision == "fp16")
        self.first_step = first_step
        self._model, self._config, self._runtime = model, config, runtime
        self._compute_losses, self._forward = compute_losses, forward

    def take(self, step: int) -> dict[str, Tensor]:
        """Run step `step`, counted from 0; returns the losses and the norm of the gradient."""
        set_learning_rate(self.optimizer, learning_rate(self._config, step + 1, self.first_step))
        # Freed instead of zeroed: between steps gradients take no memory.
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._accumulate(step)
        if self._forward is None:
            average_gradients(self._model)
        # Before clipping: the limit is for gradients without fp16's scale.
        self.scaler.unscale_(self.optimizer)
        # Infinity measures the norm without clipping.
        limit = self._config.grad_clip or math.inf
        norm = whole(nn.utils.clip_grad_norm_(self._model.parameters(), limit))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {**losses, "grad_norm": norm}

    def _accumulate(self, step: int) -> dict[str, Tensor]:
        """Run backward over this process's micro-batches; returns their mean losses."""
        totals: dict[str, Tensor] = {}
        share = self._config.batch_size // self._runtime.ranks.world
        parts = list(micro_batches(self._config, self._runtime))
        for part in parts:
            # By share: the last micro-batch may be smaller, and the sum must be the batch's mean.
            weight = (part.stop - part.start) / share
            # Under DDP, gradients are averaged in the last backward pass only.
            with nullcontext() if part is parts[-1] else without_sync(self._forward):
                with autocast(self._config, self._runtime):
                    losses = self._compute_losses(step, part)
                self.scaler.scale(losses["loss"] * weight).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value.detach() * weight
        return totals

    def state(self) -> dict[str, Stateful]:
        """Return the parts of a checkpoint, by name."""
        return {
            "model": self._model,
            "optimizer": OptimizerState(self._model, self.optimizer),
            "scaler": self.scaler,
        }


@dataclass
class Trainer:
    """Training of one stage: model, optimizer and schedule.

    Attributes:
        compute_losses: forward pass of one micro-batch.
        before_first_step: runs once, unless training resumes.
        after_step: runs after each optimizer step with the number of finished steps.
        extra_metrics: values to log in addition to the losses.
        forward: result of `parallelise` for the model, which `compute_losses` calls.
        opponent: second model, which takes its turn after the first in every step.
    """

    model: nn.Module
    config: TrainingConfig
    seed: int
    compute_losses: ComputeLosses
    tracker: Tracker
    runtime: Runtime
    before_first_step: Callable[[], None] = lambda: None
    after_step: Callable[[int], None] = lambda step: None
    extra_metrics: Callable[[], Mapping[str, float]] = dict
    forward: nn.Module | None = None
    opponent: Opponent | None = None
    ema: Averages | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._turn = Turn(
            self.model,
            self.config,
            self.runtime,
            self.compute_losses,
            forward=self.model if self.forward is None else self.forward,
        )
        self._reply: Turn | None = None
        if (opponent := self.opponent) is not None:
            self._reply = Turn(
                opponent.model,
                self.config,
                self.runtime,
                opponent.compute_losses,
                first_step=opponent.start,
            )
        if self.config.ema_decay > 0:
            self.ema = Averages(self.model, self.config.ema_decay)

    def run(self) -> None:
        """Train to the last step, from the newest checkpoint if there is one.

        Raises:
            Interrupted: `runtime.should_stop` became true; a checkpoint was saved.
            NonFiniteLoss: the loss is NaN or infinite.
        """
        start = self._resume()
        meter = StepReporter(self.config, start, self.tracker)
        self.model.train()
        if self.opponent is not None:
            self.opponent.model.train()
        losses: dict[str, Tensor] = {}
        for step in range(start + 1, self.config.steps + 1):
            # All ranks stop in the same step: a rank that went on would wait in a collective for
            # ever.
            if any_rank(self.runtime.should_stop()):
                self._checkpoint(step - 1, losses)
                raise Interrupted(f"stopped on request after step {step - 1}")
            losses = self._step(step - 1)
            self.after_step(step)
            # The last step is always logged, and needs no checkpoint: the model itself is saved.
            last = step == self.config.steps
            if step % self.config.log_every == 0 or last:
                values = self._finite(losses, step)
                rate = learning_rate(self.config, step)
                meter.log(step, {**values, "lr": rate, **self.extra_metrics()})
            if step % self.config.checkpoint_every == 0 and not last:
                self._checkpoint(step, losses)
        if self.ema is not None:
            self.ema.apply()  # the averages are saved and evaluated
        self.model.eval()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Optimizer of the model."""
        return self._turn.optimizer

    def _step(self, step: int) -> dict[str, Tensor]:
        # Each step has a seed of its own, so that resuming needs no state of the random generator.
        torch.manual_seed(step_seed(self.seed, step, "step", self.runtime.ranks.rank))
        losses = self._turn.take(step)
        if self.ema is not None:
            self.ema.update()
        return losses | self._step_of_opponent(step)

    def _step_of_opponent(self, step: int) -> dict[str, Tensor]:
        if self._reply is None or step + 1 < self._reply.first_step:
            return {}
        assert self.opponent is not None
        losses = self._reply.take(step)
        return {f"{self.opponent.name}_{name}": value for name, value in losses.items()}

    def _resume(self) -> int:
        step = load_checkpoint(self.runtime.checkpoint_dir, self._state())
        if step is None:
            self.before_first_step()
            if self.ema is not None:
                self.ema.restart()  # the first step's setup may have replaced the codebook
            return 0
        return step

    def _state(self) -> dict[str, Stateful]:
        """Collect everything that a checkpoint holds, by name."""
        parts = self._turn.state()
        if self.ema is not None:
            parts["ema"] = self.ema
        if self._reply is not None:
            parts |= {f"opponent_{name}": part for name, part in self._reply.state().items()}
        return parts

    def _finite(self, losses: Losses, step: int) -> dict[str, float]:
        """Convert losses and gradient norm to numbers: the only wait for the device.

        The values are means over the whole batch.

        Raises:
            NonFiniteLoss: one of them is not finite; with fp16 the scaler skips such gradients.
        """
        names = list(losses)
        numbers = mean(torch.stack([losses[name].float() for name in names])).tolist()
        values = dict(zip(names, numbers, strict=True))
        watched = ("loss",) if self.config.precision == "fp16" else ("loss", "grad_norm")
        prefix = f"{self.opponent.name}_" if self.opponent else ""
        for name in values:
            if name.removeprefix(prefix) in watched and not math.isfinite(values[name]):
                batch = f"batch {step - 1} of seed {self.seed}"
                raise NonFiniteLoss(
                    f"{name} is {values[name]} at step {step} ({batch}, "
                    f"looked at every {self.config.log_every} steps): {values}"
                )
        return values

    def _checkpoint(self, step: int, losses: Losses) -> None:
        """Save, unless the last step diverged: resuming from it would gain nothing."""
        if losses:
            self._finite(losses, step)
        # Metrics before weights: steps before a checkpoint are never run again to log them.
        self.tracker.sync()
        save_checkpoint(self.runtime.checkpoint_dir, step, self._state())


class StepReporter:
    """Reporter of losses and speed to the tracker."""

    def __init__(self, config: TrainingConfig, step: int, tracker: Tracker) -> None:
        self.config = config
        self.tracker = tracker
        self._last = (step, time.monotonic())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a step, and images per second since the previous call."""
        previous, then = self._last
        now = time.monotonic()
        speed = (step - previous) * self.config.batch_size / max(now - then, 1e-9)
        # Time between two logged steps, checkpoints and data included: what a user waits for.
        self._last = (step, now)
        values = {**values, "images_per_second": speed}
        self.tracker.metrics({TRAIN_PREFIX + name: v for name, v in values.items()}, step)
        self.tracker.progress(
            step, self.config.steps, "step", loss=values["loss"], images_per_second=speed
        )


def learning_rate(config: TrainingConfig, step: int, first_step: int = 1) -> float:
    """Compute the learning rate of optimizer step `step`, counted from 1.

    The warm-up is that of the reference's `vq_train.py`; a schedule follows it
    (`gigatok.config.schedules`). With `reference_schedule_quirk` the reference's order is
    kept too: it counts steps from 0 and sets the rate after each, so an optimizer's first step
    runs at full rate, and step k at the rate of k-2.
    """
    if config.reference_schedule_quirk:
        if step == first_step:
            return config.lr
        step -= 2
    if step < config.warmup_steps:
        ramp = step / config.warmup_steps
        # From a hundredth of the rate to all of it, as in the reference.
        return config.lr * (ramp + (1 - ramp) / 100)
    return SCHEDULES[config.schedule].rate(config, step)


def micro_batches(config: TrainingConfig, runtime: Runtime) -> Iterator[slice]:
    """Cut this process's share of the batch into micro-batches."""
    # The size changes memory and speed alone, so the choice of this machine comes first.
    share = runtime.ranks.share(config.batch_size)
    size = runtime.micro_batch or config.micro_batch or config.batch_size
    for start in range(share.start, share.stop, size):
        yield slice(start, min(start + size, share.stop))


def autocast(config: TrainingConfig, runtime: Runtime) -> AbstractContextManager[object]:
    """Return a context of the config's mixed precision; without effect for fp32."""
    if config.precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float16
    return torch.autocast(runtime.device, dtype)
