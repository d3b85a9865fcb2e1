"""The training loop: schedules, accumulation, and resuming bit by bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gigatok.config import CNNConfig, TokenizerArchitecture, TrainingConfig, TransformerSize
from gigatok.models.tokenizer.qformer import QFormerDecoder
from gigatok.runtime.context import Interrupted, Runtime
from gigatok.runtime.tracker import MemoryTracker
from gigatok.training.optimizers import make_optimizer
from gigatok.training.trainer import NonFiniteLoss, Trainer, learning_rate

CONFIG = TrainingConfig(
    steps=20, batch_size=8, lr=1e-2, warmup_steps=3, grad_clip=1.0, log_every=1, checkpoint_every=6
)


def train(
    folder: Path,
    config: TrainingConfig = CONFIG,
    should_stop: Callable[[], bool] = lambda: False,
    loss_factor: Callable[[int], float] = lambda step: 1.0,
    micro_batch: int | None = None,
) -> tuple[Trainer, MemoryTracker]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.1), nn.Linear(16, 1))

    def losses(step: int, part: slice) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(step)
        x = torch.randn(config.batch_size, 4, generator=random)[part]
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean() * loss_factor(step)}

    tracker = MemoryTracker()
    runtime = Runtime(folder, micro_batch=micro_batch, should_stop=should_stop)
    return Trainer(model, config, 0, losses, tracker, runtime), tracker


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.heavy
@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [1, 6, 13, 19])
def test_interrupted_training_ends_in_the_same_bits(
    tmp_path: Path, stop_at: int, ema: float
) -> None:
    config = CONFIG.model_copy(update={"ema_decay": ema})
    whole, whole_log = train(tmp_path / "a", config)
    whole.run()
    calls = iter(range(1000))
    first, first_log = train(tmp_path / "b", config, lambda: next(calls) == stop_at)
    with pytest.raises(Interrupted, match=f"after step {stop_at}"):
        first.run()
    second, second_log = train(tmp_path / "b", config)
    second.run()
    assert torch.equal(weights(second), weights(whole))
    if ema:
        assert whole.ema is not None
        assert second.ema is not None
        averages = second.ema.values, whole.ema.values
        assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[1])

    def losses(tracker: MemoryTracker) -> list[tuple[str, int, float]]:
        return [point for point in tracker.points if point[0] == "train/loss"]

    assert losses(first_log) + losses(second_log) == losses(whole_log)


@pytest.mark.heavy
def test_killed_training_resumes_from_the_last_checkpoint(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "a")
    whole.run()

    def die() -> bool:
        if len(list((tmp_path / "b").glob("step-*"))) == 2:
            raise KeyboardInterrupt
        return False

    killed, _ = train(tmp_path / "b", should_stop=die)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    resumed, log = train(tmp_path / "b")
    resumed.run()
    assert log.points[0][1] == 13
    assert torch.equal(weights(resumed), weights(whole))


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path)
    trainer.run()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000000012", "step-000000018"]


def test_micro_batches_accumulate_to_the_same_gradient(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 1})
    results = []
    for micro_batch in (None, 3):
        trainer, _ = train(tmp_path / str(micro_batch), config, micro_batch=micro_batch)
        trainer.model[1].p = 0.0  # dropout draws other masks for other shapes
        trainer.run()
        results.append(weights(trainer))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-6)


def test_non_finite_loss_names_the_step(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, loss_factor=lambda step: math.nan if step == 7 else 1.0)
    with pytest.raises(NonFiniteLoss, match=r"loss is nan at step 8"):
        trainer.run()


def test_a_non_finite_gradient_never_reaches_a_checkpoint(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"log_every": 20, "checkpoint_every": 1})
    trainer, _ = train(tmp_path, config)

    def spoil(step: int) -> None:
        for parameter in trainer.model.parameters():
            if step == 4:
                parameter.register_hook(lambda gradient: gradient * math.nan)

    trainer.after_step = spoil
    with pytest.raises(NonFiniteLoss, match=r"grad_norm is nan at step 5"):
        trainer.run()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000000003", "step-000000004"]


def test_the_averaged_weights_are_what_is_kept(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, CONFIG.model_copy(update={"ema_decay": 0.9}))
    trainer.run()
    assert trainer.ema is not None
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, trainer.ema.values[name])


def test_averages_start_from_the_initial_weights(tmp_path: Path) -> None:
    """Those that are there when training begins, `before_first_step` included."""
    config = CONFIG.model_copy(update={"ema_decay": 0.9, "steps": 2})
    trainer, _ = train(tmp_path, config)
    seen: list[Tensor] = []

    def begin() -> None:
        torch.nn.init.constant_(trainer.model[0].weight, 3.0)
        seen.append(trainer.model[0].weight.detach().clone())

    trainer.before_first_step = begin
    trainer.after_step = lambda step: seen.append(trainer.model[0].weight.detach().clone())
    trainer.run()
    first, second, third = seen
    expected = 0.9 * (0.9 * first + 0.1 * second) + 0.1 * third
    torch.testing.assert_close(trainer.model[0].weight.detach(), expected)


def test_cosine_goes_from_warmup_over_the_peak_to_the_end() -> None:
    config = CONFIG.model_copy(update={"min_lr": 1e-4, "warmup_steps": 10, "steps": 110})
    assert learning_rate(config, 5) == pytest.approx(1e-2 * (0.5 + 0.5 / 100))
    assert learning_rate(config, 10) == pytest.approx(1e-2)
    assert learning_rate(config, 60) == pytest.approx((1e-2 + 1e-4) / 2)
    assert learning_rate(config, 110) == pytest.approx(1e-4)


def test_wsd_holds_then_falls_with_the_square_root() -> None:
    config = CONFIG.model_copy(update={"schedule": "wsd", "steps": 100, "warmup_steps": 0})
    assert learning_rate(config, 80) == 1e-2
    assert learning_rate(config, 85) == pytest.approx(1e-2 * (1 - math.sqrt(5 / 20)))
    assert learning_rate(config, 100) == pytest.approx(0)


def test_the_decay_of_wsd_is_truncated_to_whole_steps() -> None:
    config = CONFIG.model_copy(update={"schedule": "wsd", "steps": 13, "warmup_steps": 0})
    assert learning_rate(config, 11) == 1e-2, "2.6 steps are 2"
    assert learning_rate(config, 12) == pytest.approx(1e-2 * (1 - math.sqrt(1 / 2)))


def test_reference_quirk_runs_two_steps_behind_and_the_first_at_full_rate() -> None:
    quirk = CONFIG.model_copy(update={"reference_schedule_quirk": True, "warmup_steps": 10})
    plain = quirk.model_copy(update={"reference_schedule_quirk": False})
    assert learning_rate(quirk, 1) == 1e-2
    assert learning_rate(quirk, 2) == pytest.approx(1e-2 / 100), "the start of the warm-up"
    assert learning_rate(quirk, 7) == learning_rate(plain, 5)
    assert learning_rate(quirk, 12) == 1e-2 > learning_rate(quirk, 11)


def test_the_reference_spares_what_has_norm_in_its_name() -> None:
    """Of a Q-Former its `norm1` to `norm3`, but neither `ln_post` nor a bias."""
    size = TransformerSize(width=8, layers=1, heads=1)
    architecture = TokenizerArchitecture(
        encoder=size,
        decoder=size,
        cnn=CNNConfig(z_channels=8),
        num_latent_tokens=2,
        semantic_weight=0,
    )
    model = QFormerDecoder(architecture, 2)
    config = CONFIG.model_copy(update={"reference_decay_quirk": True, "weight_decay": 0.1})
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, spared = make_optimizer(model, config).param_groups
    assert spared["weight_decay"] == 0.0
    assert {names[id(p)] for p in spared["params"]} == {
        f"transformer.0.norm{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")
    }
    rest = {names[id(p)] for p in decayed["params"]}
    assert {"ln_post.weight", "ln_pre.bias", "transformer.0.linear1.bias"} <= rest
    assert len(rest) + 6 == len(names)


def test_weight_decay_can_spare_norms_and_biases(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"decay_norms_and_biases": False, "weight_decay": 0.1})
    trainer, _ = train(tmp_path, config)
    decayed, spared = trainer.optimizer.param_groups
    assert {p.ndim for p in decayed["params"]} == {2}
    assert decayed["weight_decay"] == 0.1
    assert {p.ndim for p in spared["params"]} == {1}
    assert spared["weight_decay"] == 0.0
