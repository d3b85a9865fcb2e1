"""A tokenizer against a discriminator: two processes train the same weights as one.

With the DINO discriminator that holds where each process sees whole virtual batches of its local
batch norms, and only apart from its random augmentations, which every process draws for itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gigatok.config import SplitConfig, TokenizerConfig
from gigatok.models.judges import discriminators
from gigatok.models.judges.dino import DINOSmall
from gigatok.runtime.context import Ranks, Runtime
from gigatok.runtime.tracker import MemoryTracker
from gigatok.stages import TrainTokenizerConfig, train_tokenizer
from tests.gigatok.process_pair import ProcessPair
from tests.gigatok.runtime.test_distributed import (
    TOKENIZER,
    Outcome,
    assert_same_curves,
    assert_same_weights,
)

pytestmark = pytest.mark.heavy
GAME: dict[str, Any] = {
    "semantic_weight": 0.0,
    "steps": 4,
    "discriminator_start": 2,
    "adversarial_weight": 0.5,
    "lecam_weight": 0.01,
}
KEPT = (2,)
"""The block of the backbone that is kept: a twelfth of the work, the same code."""


def pruned_dino(device: str) -> nn.Module:
    """The DINO discriminator on random features."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = DINOSmall()
        for index in range(len(backbone.blocks)):
            if index not in KEPT:
                backbone.blocks[index] = nn.Identity()
    return discriminators.DINODiscriminator(backbone.eval().requires_grad_(False))


def play(ranks: Ranks, folder: Path, changes: dict[str, Any]) -> Outcome:
    tracker = MemoryTracker()
    split = SplitConfig(name="digits", split="train", image_size=24, images=64)
    tokenizer = TokenizerConfig.model_validate({**TOKENIZER, **GAME, **changes})
    config = TrainTokenizerConfig(train=split, tokenizer=tokenizer, seed=0)
    runtime = Runtime(folder / "checkpoints", ranks=ranks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(discriminators.DISCRIMINATORS, "dino", pruned_dino)
        patch.setattr(discriminators, "augment", lambda image: image)
        train_tokenizer.run(config, {}, folder / "out", tracker, runtime)
    return Outcome(tracker.points)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_patchgan_judges_the_whole_batch(pair: ProcessPair, tmp_path: Path, parallel: str) -> None:
    changes = {"discriminator": "patchgan", "batch_size": 8}
    single = play(Ranks(), tmp_path / "1", changes)
    both = pair.run(play, tmp_path / "2", {**changes, "parallel": parallel})
    assert single.curve("discriminator_grad_norm")
    assert_same_weights(tmp_path / "1", tmp_path / "2")
    for outcome in both:
        assert_same_curves(single, outcome)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_dino_judges_virtual_batches(pair: ProcessPair, tmp_path: Path, parallel: str) -> None:
    changes = {
        "discriminator": "dino",
        "batch_size": 2 * discriminators.VIRTUAL_BATCH,
        "steps": 3,
    }
    single = play(Ranks(), tmp_path / "1", changes)
    both = pair.run(play, tmp_path / "2", {**changes, "parallel": parallel})
    assert_same_weights(tmp_path / "1", tmp_path / "2")
    for name in ("loss", "adversarial_loss", "discriminator_loss", "discriminator_grad_norm"):
        expected = single.curve(name)
        for outcome in both:
            assert outcome.curve(name)[2] == pytest.approx(expected[2], rel=1e-4), name
            # The discriminator's first step by Adam has made steps of the rate's size of rounding
            # where gradients should be zero, such as those of biases in front of batch norms.
            assert outcome.curve(name)[3] == pytest.approx(expected[3], rel=2e-3), name


def test_the_adaptive_weight_is_of_the_whole_batch(pair: ProcessPair, tmp_path: Path) -> None:
    changes = {
        "discriminator": "patchgan",
        "batch_size": 8,
        "adaptive_adversarial_weight": True,
    }
    single = play(Ranks(), tmp_path / "1", changes)
    both = pair.run(play, tmp_path / "2", changes)
    assert single.curve("adaptive_weight")
    assert_same_weights(tmp_path / "1", tmp_path / "2")
    assert_same_curves(single, both[0])
