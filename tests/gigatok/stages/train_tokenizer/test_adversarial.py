"""The adversarial losses against their formulas, and the discriminator's side of training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from gigatok.config import (
    AdversarialConfig,
    CNNConfig,
    EvaluationConfig,
    SplitConfig,
    TokenizerConfig,
    TransformerSize,
)
from gigatok.runtime.context import Interrupted, Ranks, Runtime
from gigatok.runtime.distributed import parallelise
from gigatok.runtime.tracker import MemoryTracker
from gigatok.stages.train_tokenizer import run as train_tokenizer
from gigatok.stages.train_tokenizer.adversarial import (
    DISCRIMINATOR_LOSSES,
    GENERATOR_LOSSES,
    Adversary,
    LeCam,
    adaptive_weight,
    frozen,
)
from gigatok.stages.train_tokenizer.run import run
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from gigatok.training.trainer import Opponent, Trainer, learning_rate
from tests.gigatok.process_pair import ProcessPair

REAL, FAKE = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("hinge", 0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3), 2 / 3),
        (
            "vanilla",
            0.5 * sum(softplus(-r) + softplus(f) for r, f in zip(REAL, FAKE, strict=True)) / 3,
            2 / 3,
        ),
        (
            "non_saturating",
            0.5 * sum(softplus(-r) + softplus(f) for r, f in zip(REAL, FAKE, strict=True)) / 3,
            sum(softplus(-f) for f in FAKE) / 3,
        ),
    ],
)
def test_losses(name: str, discriminator: float, generator: float) -> None:
    assert DISCRIMINATOR_LOSSES[name](REAL, FAKE).item() == pytest.approx(discriminator)
    assert GENERATOR_LOSSES[name](FAKE).item() == pytest.approx(generator)


def test_every_loss_of_the_config_exists() -> None:
    names = set(AdversarialConfig.model_fields["adversarial_loss"].annotation.__args__)
    assert names == DISCRIMINATOR_LOSSES.keys() == GENERATOR_LOSSES.keys()


def test_lecam_follows_means_and_penalises_beyond_them() -> None:
    lecam = LeCam(first_turn=20)
    assert lecam(REAL, FAKE, 20).item() == 0
    early = (REAL + 2 / 3).relu().square().mean() + (0.5 - FAKE).relu().square().mean()
    assert lecam(REAL, FAKE, 21).item() == pytest.approx(early.item())
    lecam(REAL, FAKE, 1019)
    assert lecam.real_mean.item() == pytest.approx(0.5), "means of the step up to 1,000 later"
    assert lecam.fake_mean.item() == pytest.approx(-2 / 3)
    penalty = lecam(REAL + 1, FAKE + 1, 1021)
    real_mean, fake_mean = 0.99 * 0.5 + 0.01 * 1.5, 0.99 * -2 / 3 + 0.01 / 3
    assert lecam.real_mean.item() == pytest.approx(real_mean)
    above = (REAL + 1 - fake_mean).relu().square().mean()
    below = (real_mean - FAKE - 1).relu().square().mean()
    assert penalty.item() == pytest.approx((above + below).item())
    assert set(lecam.state_dict()) == {"real_mean", "fake_mean"}


def test_adaptive_weight_is_the_ratio_of_gradients_at_the_last_layer() -> None:
    last, x = nn.Parameter(torch.tensor([3.0, 4.0])), torch.tensor([1.0, 2.0])
    weight = adaptive_weight((last * x).sum() * 10, last.square().sum() / 2, last)
    assert weight.item() == pytest.approx(10 * 5**0.5 / 5, rel=1e-4)
    assert not weight.requires_grad
    assert adaptive_weight(last.sum() * 1e9, last.sum() * 0, last).item() == 10_000


def test_a_frozen_module_passes_gradients_through() -> None:
    layer, x = nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    with frozen(layer):
        layer(x).sum().backward()
    assert layer.weight.grad is None
    assert torch.equal(x.grad, layer.weight.detach())
    assert layer.weight.requires_grad


def game(**changes: object) -> tuple[Adversary, torch.Tensor, torch.Tensor, nn.Parameter]:
    torch.manual_seed(0)
    config = AdversarialConfig(discriminator="patchgan", **changes)
    adversary = Adversary(config, nn.Conv2d(3, 1, 2, 2))
    last = nn.Parameter(torch.randn(3, 1, 1))
    real = torch.randn(2, 3, 8, 8)
    return adversary, real, real * last, last


def test_either_side_has_its_gradients_alone() -> None:
    adversary, real, fake, last = game()
    terms = adversary.generator_losses(slice(0, 2), real, fake, fake.square().mean(), last)
    logits = adversary.discriminator(fake)
    assert terms["adversarial_loss"].item() == pytest.approx(-logits.mean().item())
    assert terms["loss"].item() == pytest.approx(-0.5 * logits.mean().item())
    terms["loss"].backward()
    assert last.grad.abs().sum() > 0
    assert adversary.discriminator.weight.grad is None
    last.grad = None
    reply = adversary.discriminator_losses(1, slice(0, 2))
    hinge = 0.5 * (1 - adversary.discriminator(real)).relu().mean()
    hinge = hinge + 0.5 * (1 + logits).relu().mean()
    assert reply["loss"].item() == pytest.approx(0.5 * hinge.item())
    reply["loss"].backward()
    assert last.grad is None
    assert adversary.discriminator.weight.grad.abs().sum() > 0


def test_what_was_shown_is_forgotten_after_the_turn() -> None:
    adversary, real, fake, last = game()
    adversary.generator_losses(slice(0, 2), real, fake, fake.mean(), last)
    adversary.discriminator_losses(1, slice(0, 2))
    with pytest.raises(KeyError):
        adversary.discriminator_losses(1, slice(0, 2))


def test_options_enter_the_losses() -> None:
    adversary, real, fake, last = game(adaptive_adversarial_weight=True, lecam_weight=0.1)
    other = 3 * fake.square().mean()
    terms = adversary.generator_losses(slice(0, 2), real, fake, other, last)
    expected = 0.5 * terms["adversarial_loss"] * terms["adaptive_weight"]
    assert terms["loss"].item() == pytest.approx(expected.item())
    adversary.discriminator_losses(1, slice(0, 2))
    adversary.generator_losses(slice(0, 2), real, fake, other, last)
    reply = adversary.discriminator_losses(5000, slice(0, 2))
    assert reply["lecam"] > 0
    hinge = DISCRIMINATOR_LOSSES["hinge"](
        adversary.discriminator(real), adversary.discriminator(fake)
    )
    assert reply["loss"].item() == pytest.approx((0.5 * hinge + 0.1 * reply["lecam"]).item())


# ── the training stage ─────────────────────────────────────────────────────────────────────────

TOKENIZER = TokenizerConfig(
    encoder=TransformerSize(width=16, layers=1, heads=1),
    decoder=TransformerSize(width=16, layers=1, heads=1),
    cnn=CNNConfig(
        channels=8, multipliers=(1, 2), resblocks=1, mid_blocks=0, z_channels=16, groups=4,
        patch_size=2,
    ),
    num_latent_tokens=4,
    codebook_size=32,
    usage_window=64,
    semantic_weight=0,
    perceptual_weight=0,
    init="fan_in",
    steps=8,
    batch_size=8,
    lr=2e-3,
    log_every=1,
    checkpoint_every=3,
    ema_decay=0.9,
    discriminator="patchgan",
    discriminator_start=4,
    lecam_weight=0.01,
    shortcut_end=3,
    shortcut_images=True,
)  # fmt: skip


def train(
    folder: Path, stop_at: int | None = None, **changes: object
) -> dict[int, dict[str, float]]:
    """Logged values by step. `stop_at`: interrupted after that step, then resumed."""
    data = SplitConfig(name="digits", split="train", image_size=24, images=64)
    tokenizer = TokenizerConfig.model_validate(TOKENIZER.model_dump() | changes)
    config = TrainTokenizerConfig(train=data, tokenizer=tokenizer, seed=3)
    tracker = MemoryTracker()

    def attempt(should_stop: Callable[[], bool]) -> None:
        runtime = Runtime(folder / "checkpoints", should_stop=should_stop)
        run(config, {}, folder / "out", tracker, runtime)

    if stop_at is not None:
        calls = iter(range(1000))
        with pytest.raises(Interrupted):
            attempt(lambda: next(calls) == stop_at)
    attempt(lambda: False)
    logged: dict[int, dict[str, float]] = {}
    for name, step, value in tracker.points:
        logged.setdefault(step, {})[name.removeprefix("train/")] = value
    return logged


@pytest.mark.heavy
def test_the_game_begins_at_its_start_and_the_shortcut_ends(tmp_path: Path) -> None:
    logged = train(tmp_path)
    for step, values in logged.items():
        playing, in_shortcut = step >= 4, step < 3
        assert ("adversarial_loss" in values) == playing
        assert ("discriminator_loss" in values) == playing
        assert ("discriminator_grad_norm" in values) == playing
        assert ("shortcut_feature_loss" in values) == in_shortcut
        assert ("shortcut_reconstruction_loss" in values) == in_shortcut
    first, last = logged[1], logged[8]
    total = first["reconstruction_loss"] + first["vq_loss"] + first["commitment_loss"]
    total += first["shortcut_feature_loss"] + first["shortcut_reconstruction_loss"]
    assert first["loss"] == pytest.approx(total, rel=1e-5)
    total = last["reconstruction_loss"] + last["vq_loss"] + last["commitment_loss"]
    assert last["loss"] == pytest.approx(total + 0.5 * last["adversarial_loss"], rel=1e-4)


@pytest.mark.heavy
@pytest.mark.parametrize("stop_at", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_interrupted_adversarial_training_ends_in_the_same_bits(
    tmp_path: Path, stop_at: int
) -> None:
    whole = train(tmp_path / "a")
    resumed = train(tmp_path / "b", stop_at)
    for step, values in whole.items():
        for name, value in values.items():
            if name != "images_per_second":
                assert resumed[step][name] == value, (step, name)
    weights = [(tmp_path / run / "out/model.safetensors").read_bytes() for run in "ab"]
    assert weights[0] == weights[1]


@pytest.mark.heavy
def test_the_discriminator_changes_the_tokenizer_after_its_start_only(tmp_path: Path) -> None:
    without = train(tmp_path / "a", discriminator="none")
    playing = train(tmp_path / "b")
    for step in range(1, 5):  # of step 4 the reconstruction is from before the game
        assert playing[step]["reconstruction_loss"] == without[step]["reconstruction_loss"]
    assert playing[5]["reconstruction_loss"] != without[5]["reconstruction_loss"]


@pytest.mark.slow
def test_the_discriminator_learns(tmp_path: Path) -> None:
    logged = train(tmp_path, steps=40, discriminator_start=1, lecam_weight=0, checkpoint_every=99)
    gap = [values["discriminator_real_logit"] - values["discriminator_fake_logit"]
           for values in logged.values()]  # fmt: skip
    assert gap[0] < 2, "weights at random do not tell them apart"
    assert min(gap[-5:]) > 2, "the hinge loss is content at this distance"


def test_the_first_turn_runs_at_full_rate_with_the_reference_quirk() -> None:
    config = TOKENIZER.model_copy(
        update={"reference_schedule_quirk": True, "warmup_steps": 100, "steps": 1000}
    )
    assert learning_rate(config, 30, first_step=30) == config.lr
    assert learning_rate(config, 31, first_step=30) == learning_rate(config, 31)


def test_the_discriminator_sees_fakes_first() -> None:
    """As the reference's: each call moves the estimate of a spectral norm."""
    adversary, real, fake, last = game()
    seen: list[torch.Tensor] = []
    adversary.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    adversary.generator_losses(slice(0, 2), real, fake, fake.mean(), last)
    adversary.discriminator_losses(1, slice(0, 2))
    for given, expected in zip(seen, (fake, fake, real), strict=True):
        assert torch.equal(given, expected)


def play(ranks: Ranks, folder: Path) -> list[torch.Tensor]:
    """Three steps of a game without batch norms; the weights of both sides."""
    torch.manual_seed(0)
    config = TOKENIZER.model_copy(update={"steps": 3, "ema_decay": 0.0})
    model = nn.Conv2d(3, 3, 1)
    adversary = Adversary(config, nn.Conv2d(3, 1, 2, 2))
    forward = parallelise(model, config)

    def losses(step: int, part: slice) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(step)
        real = torch.randn(config.batch_size, 3, 4, 4, generator=random)[part]
        fake = forward(real)
        error = (fake - real).square().mean()
        terms = adversary.generator_losses(part, real, fake, error, model.weight)
        return {"loss": error + terms["loss"]}

    def reply(step: int, part: slice) -> dict[str, torch.Tensor]:
        return adversary.discriminator_losses(step + 1 + 2000, part)

    runtime = Runtime(folder, ranks=ranks)
    opponent = Opponent("discriminator", adversary, reply, 1)
    tracker = MemoryTracker()
    Trainer(model, config, 0, losses, tracker, runtime, forward=forward, opponent=opponent).run()
    return [p.detach() for p in (*model.parameters(), *adversary.state_dict().values())]


@pytest.mark.slow
def test_two_processes_play_the_same_game(pair: ProcessPair, tmp_path: Path) -> None:
    alone = play(Ranks(), tmp_path / "one")
    results = pair.run(play, tmp_path / "two")
    for weights in results:
        for actual, expected in zip(weights, alone, strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_batch": 4}, "discriminator patchgan does not go with micro_batch"),
        (
            {"adaptive_adversarial_weight": True, "parallel": "fsdp"},
            "does not go with parallel fsdp",
        ),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig.model_validate(TOKENIZER.model_dump() | changes)


def test_a_batch_that_the_dino_discriminator_will_not_take_is_refused_before_training() -> None:
    config = TOKENIZER.model_copy(update={"discriminator": "dino", "batch_size": 9})
    with pytest.raises(ValueError, match="equal parts of at most 8; a process has 9"):
        train_tokenizer._adversary(config, Runtime(Path()))
    shared = config.model_copy(update={"batch_size": 18})
    with pytest.raises(ValueError, match="a process has 9"):
        train_tokenizer._adversary(shared, Runtime(Path(), ranks=Ranks(1, 2, 1)))


def test_published_statistics_are_of_one_network() -> None:
    with pytest.raises(ValidationError, match="is of network inception at resolution 299, not of"):
        EvaluationConfig(num_images=8, reference="adm_imagenet256", resolution=128)
