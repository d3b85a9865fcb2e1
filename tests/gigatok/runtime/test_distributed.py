"""One process and two compute the same: weights, losses, gradient norms, checkpoints, stops."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gigatok.config import (
    CNNConfig,
    GeneratorConfig,
    SplitConfig,
    TokenizerConfig,
    TrainingConfig,
    TransformerSize,
)
from gigatok.runtime.context import Interrupted, Ranks, Runtime
from gigatok.runtime.distributed import parallelise, whole
from gigatok.runtime.tracker import MemoryTracker
from gigatok.stages.train_generator import run as train_generator
from gigatok.stages.train_generator.spec import TrainGeneratorConfig
from gigatok.stages.train_tokenizer import run as train_tokenizer
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from gigatok.training.checkpoint import load_checkpoint, save_checkpoint
from gigatok.training.saved import CODES_FILE
from gigatok.training.trainer import NonFiniteLoss, Trainer
from tests.gigatok.damages import flip
from tests.gigatok.process_pair import ProcessPair

pytestmark = pytest.mark.heavy
SIZE = TransformerSize(width=32, layers=2, heads=2)
STEPS = 6
TRAINING: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": 8,
    # Adam turns the rounding of gradients that should be zero into steps of the rate's size.
    "lr": 2e-4,
    "grad_clip": 0.05,  # below every norm here, so that a wrong norm shows in the weights
    "log_every": 1,
    "checkpoint_every": 100,
    "ema_decay": 0.5,
}
TOKENIZER: dict[str, Any] = {
    **TRAINING,
    "encoder": SIZE,
    "decoder": SIZE,
    "cnn": CNNConfig(
        channels=16,
        multipliers=(1, 2),
        resblocks=1,
        mid_blocks=0,
        z_channels=32,
        groups=4,
        patch_size=2,
    ),
    "num_latent_tokens": 8,
    "codebook_size": 32,
    "usage_window": 128,
    "semantic_layer": 1,
    "teacher": "pixels",
    "init": "fan_in",
    "codebook_init": "data",
    "dead_code_restart_every": 2,
    "entropy_weight": 0.1,
    "entropy_temperature": 0.1,
    "perceptual_weight": 0.0,
}
GENERATOR: dict[str, Any] = {
    **TRAINING,
    "size": SIZE,
    "ffn_multiple_of": 32,
    "dropout": 0.0,
    "class_dropout": 0.0,
}


@dataclass
class Outcome:
    """What a process saw of its stage."""

    points: list[tuple[str, int, float]]
    interrupted: str | None = None

    def curve(self, name: str) -> dict[int, float]:
        return {step: value for key, step, value in self.points if key == f"train/{name}"}


def train(
    ranks: Ranks, stage: str, folder: Path, changes: dict[str, Any], stop: tuple[int, int] | None
) -> Outcome:
    """Run a training stage; `stop` is which rank asks for it before which step, from 0."""
    asked = iter(range(1000))
    tracker = MemoryTracker()
    runtime = Runtime(
        folder / "checkpoints",
        ranks=ranks,
        should_stop=lambda: stop is not None and (ranks.rank, next(asked)) == stop,
    )
    outcome = Outcome(tracker.points)
    try:
        if stage == "tokenizer":
            split = SplitConfig(name="digits", split="train", image_size=16, images=64)
            tokenizer = TokenizerConfig.model_validate({**TOKENIZER, **changes})
            config = TrainTokenizerConfig(train=split, tokenizer=tokenizer, seed=0)
            train_tokenizer.run(config, {}, folder / "out", tracker, runtime)
        else:
            generator = GeneratorConfig.model_validate({**GENERATOR, **changes})
            train_generator.run(
                TrainGeneratorConfig(generator=generator, seed=0),
                {"extract_codes": folder.parent},
                folder / "out",
                tracker,
                runtime,
            )
    except Interrupted as interruption:
        outcome.interrupted = str(interruption)
    return outcome


def alone(
    stage: str, folder: Path, changes: dict[str, Any], stop: tuple[int, int] | None = None
) -> Outcome:
    return train(Ranks(), stage, folder, changes, stop)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the codes that generators learn."""
    random = torch.Generator().manual_seed(0)
    codes = {
        "train": torch.randint(32, (2, 40, 8), generator=random, dtype=torch.int16),
        "train_labels": torch.randint(3, (40,), generator=random),
        "val": torch.randint(32, (9, 8), generator=random, dtype=torch.int16),
        "val_labels": torch.randint(3, (9,), generator=random),
        "sizes": torch.tensor([32, 3]),
    }
    save_file(codes, tmp_path / CODES_FILE)
    return tmp_path


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(path / "out" / "model.safetensors") for path in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-5, msg=name)


def assert_same_curves(one: Outcome, other: Outcome) -> None:
    """All that was logged, step by step, but the speed."""
    names = {key.removeprefix("train/") for key, _, _ in one.points} - {"images_per_second"}
    assert {"loss", "grad_norm"} <= names
    for name in names:
        assert other.curve(name) == pytest.approx(one.curve(name), rel=1e-4, abs=1e-6), name


def train_in_double(ranks: Ranks, folder: Path) -> None:
    """Train a tokenizer in float64, at the rate of scale `smoke`."""
    with pytest.MonkeyPatch.context() as patch:
        # What the code casts to float32 stays precise, too.
        patch.setattr(Tensor, "float", Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            train(ranks, "tokenizer", folder, {"lr": 2e-3}, None)
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_what_two_processes_change_is_rounding(pair: ProcessPair, folder: Path) -> None:
    """In float32 some weights differ by 1e-4 at this rate: their gradient is rounding alone.

    Such are biases of attention's keys, which the softmax cancels; Adam divides the rounding by
    its own size.
    """
    train_in_double(Ranks(), folder / "1")
    pair.run(train_in_double, folder / "2")
    first, second = (load_file(folder / n / "out" / "model.safetensors") for n in "12")
    assert {weight.dtype for weight in first.values()} >= {torch.float64}
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_two_processes_train_the_same_weights_as_one(
    pair: ProcessPair, folder: Path, stage: str, parallel: str
) -> None:
    single = alone(stage, folder / "1", {})
    both = pair.run(train, stage, folder / "2", {"parallel": parallel}, None)
    assert_same_weights(folder / "1", folder / "2")
    for outcome in both:
        assert_same_curves(single, outcome)
    assert min(single.curve("grad_norm").values()) > TRAINING["grad_clip"]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_training_saved_by_two_resumes_on_any_number(
    pair: ProcessPair, folder: Path, stage: str, parallel: str, world: int
) -> None:
    """The stop is asked of rank 1 only; both end at that step with one checkpoint."""
    whole = alone(stage, folder / "whole", {})
    changes = {"parallel": parallel}
    first = pair.run(train, stage, folder / "parts", changes, (1, 3))
    assert [one.interrupted for one in first] == ["stopped on request after step 3"] * 2
    assert [path.name for path in (folder / "parts" / "checkpoints").iterdir()] == [
        "step-000000003"
    ]
    if world == 1:
        rest = [alone(stage, folder / "parts", changes)]
    else:
        rest = pair.run(train, stage, folder / "parts", changes, None)
    assert min(rest[0].curve("loss")) == 4
    for one in rest:
        assert_same_curves(whole, Outcome(first[0].points + one.points))
    assert_same_weights(folder / "whole", folder / "parts")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_training_saved_by_one_resumes_on_two(
    pair: ProcessPair, folder: Path, parallel: str
) -> None:
    whole = alone("generator", folder / "whole", {})
    first = alone("generator", folder / "parts", {}, stop=(0, 3))
    rest = pair.run(train, "generator", folder / "parts", {"parallel": parallel}, None)
    assert_same_curves(whole, Outcome(first.points + rest[0].points))
    assert_same_weights(folder / "whole", folder / "parts")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_muon_of_two_processes_is_that_of_one(
    pair: ProcessPair, folder: Path, parallel: str
) -> None:
    """Two begin, one goes on. Muon computes in bfloat16, which rounds updates by .4 %."""
    optimizer = {"optimizer": {"name": "muon"}}
    whole = alone("generator", folder / "whole", optimizer)
    changes = {**optimizer, "parallel": parallel}
    first = pair.run(train, "generator", folder / "parts", changes, (1, 3))
    rest = alone("generator", folder / "parts", optimizer)
    found, expected = (o.curve("loss") for o in (Outcome(first[0].points + rest.points), whole))
    assert found == pytest.approx(expected, rel=1e-3)
    weights = [load_file(folder / n / "out" / "model.safetensors") for n in ("whole", "parts")]
    distances = {n: float((weights[0][n] - weights[1][n]).abs().mean()) for n in weights[0]}
    # A step of Muon moves each entry of these matrices by about 2e-3.
    assert max(distances.values()) < 3e-4, distances


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_micro_batches_and_recomputed_layers_change_nothing(
    pair: ProcessPair, folder: Path, parallel: str
) -> None:
    single = alone("generator", folder / "1", {})
    changes = {"parallel": parallel, "micro_batch": 3, "activation_checkpointing": True}
    both = pair.run(train, "generator", folder / "2", changes, None)
    assert_same_curves(single, both[0])
    assert_same_weights(folder / "1", folder / "2")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_computes_the_same_under_ddp_and_fsdp(
    pair: ProcessPair, folder: Path, precision: str
) -> None:
    changes = {"precision": precision, "steps": 3}
    ddp = pair.run(train, "generator", folder / "1", {**changes, "parallel": "ddp"}, None)
    fsdp = pair.run(train, "generator", folder / "2", {**changes, "parallel": "fsdp"}, None)
    assert_same_curves(ddp[0], fsdp[0])
    assert_same_weights(folder / "1", folder / "2")


def test_fp16_scale_survives_another_number_of_processes(pair: ProcessPair, folder: Path) -> None:
    changes = {"precision": "fp16", "parallel": "fsdp", "steps": 4}
    pair.run(train, "generator", folder / "parts", changes, (0, 2))
    saved = json.loads((folder / "parts/checkpoints/step-000000002/state.json").read_text())
    assert saved["scaler/_growth_tracker"] == 2
    whole = alone("generator", folder / "whole", changes)
    rest = alone("generator", folder / "parts", changes)
    for step in (3, 4):
        assert rest.curve("loss")[step] == pytest.approx(whole.curve("loss")[step], rel=1e-3)


def overflow(ranks: Ranks, folder: Path, parallel: str) -> list[torch.Tensor]:
    """Weights before and after two steps; gradients of row 1 overflow in the first.

    Under `fsdp` rank 0 holds row 0 only, and never sees them.
    """
    torch.manual_seed(0)
    model = nn.Linear(4, 2, bias=False)
    config = TrainingConfig.model_validate(
        {**TRAINING, "batch_size": 2, "precision": "fp16", "parallel": parallel}
        | {"steps": 2, "schedule": "constant", "grad_clip": 0, "checkpoint_every": 1}
    )
    forward = parallelise(model, config)

    def losses(step: int, part: slice) -> dict[str, Tensor]:
        factors = torch.tensor([1.0, 1e5 if step == 0 else 1.0])
        return {"loss": (forward(torch.ones(1, 4)).float() * factors).sum()}

    weights = [whole(model.weight.detach()).clone()]
    Trainer(
        model,
        config,
        0,
        losses,
        MemoryTracker(),
        Runtime(folder, ranks=ranks),
        after_step=lambda step: weights.append(whole(model.weight.detach()).clone()),
        forward=forward,
    ).run()
    return weights


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_an_overflow_in_one_shard_skips_the_step_everywhere(
    pair: ProcessPair, folder: Path, parallel: str
) -> None:
    for before, first, second in pair.run(overflow, folder, parallel):
        assert torch.equal(first, before)
        assert (second != first).all()
    saved = json.loads((folder / "step-000000001" / "state.json").read_text())
    assert saved["scaler/scale"] == 65536 / 2


def diverge(ranks: Ranks, folder: Path) -> str:
    model = nn.Linear(4, 2)
    config = TrainingConfig.model_validate({**TRAINING, "checkpoint_every": 1})
    forward = parallelise(model, config)

    def losses(step: int, part: slice) -> dict[str, Tensor]:
        loss = forward(torch.ones(1, 4)).sum()
        return {"loss": loss * math.nan if (step, ranks.rank) == (2, 1) else loss}

    trainer = Trainer(
        model, config, 0, losses, MemoryTracker(), Runtime(folder, ranks=ranks), forward=forward
    )
    with pytest.raises(NonFiniteLoss) as error:
        trainer.run()
    return str(error.value)


def test_a_loss_that_is_nan_on_one_rank_stops_all(pair: ProcessPair, folder: Path) -> None:
    messages = pair.run(diverge, folder / "checkpoints")
    assert all("loss is nan at step 3" in message for message in messages)
    assert (folder / "checkpoints" / "step-000000002").exists()


def save_and_load(ranks: Ranks, folder: Path, steps: tuple[int, ...]) -> tuple[int | None, float]:
    model = nn.Linear(4, 2)
    for step in steps:
        nn.init.constant_(model.weight, float(step))
        save_checkpoint(folder, step, {"model": model})
    return load_checkpoint(folder, {"model": model}), float(model.weight[0, 0])


@pytest.mark.parametrize("file", range(5))
def test_all_processes_pass_over_the_same_damaged_checkpoint(
    pair: ProcessPair, folder: Path, file: int
) -> None:
    """Each checks a share of the files, so that one of them alone sees the damage."""
    assert pair.run(save_and_load, folder, (1, 2)) == [(2, 2.0), (2, 2.0)]
    newest = folder / "step-000000002"
    files = sorted(newest.iterdir())
    assert len(files) == 5, "tensors of both processes, torch's index and ours, the state"
    flip(files[file])
    assert pair.run(save_and_load, folder, ()) == [(1, 1.0), (1, 1.0)]
    assert not newest.exists()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_compiled_models_train_the_same_weights(
    pair: ProcessPair, folder: Path, parallel: str
) -> None:
    single = alone("generator", folder / "1", {})
    changes = {"parallel": parallel, "compile": True}
    both = pair.run(train, "generator", folder / "2", changes, None)
    assert_same_curves(single, both[0])
    assert_same_weights(folder / "1", folder / "2")


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 9 does not split evenly over 2 processes"):
        Ranks(1, 2).share(9)


def test_ranks_are_torchruns() -> None:
    assert Ranks.from_environment({}) == Ranks(0, 1, 0)
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert Ranks.from_environment(environment) == Ranks(5, 8, 1)
    assert Ranks(5, 8).share(16) == slice(10, 12)
    for wrong in ({"RANK": "0"}, {"WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}):
        with pytest.raises(ValueError, match="set both"):
            Ranks.from_environment(wrong)
