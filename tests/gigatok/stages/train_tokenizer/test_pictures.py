"""Pictures of a training: at which steps, and that they change nothing of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gigatok.config import SplitConfig
from gigatok.runtime.context import Runtime
from gigatok.runtime.tracker import MemoryTracker
from gigatok.stages.train_tokenizer import run as training_run
from gigatok.stages.train_tokenizer.cost import picture_steps
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from tests.gigatok.counted_flops import training


class Pictures(MemoryTracker):
    """Tracker that keeps the pictures of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.by_step: dict[int, np.ndarray] = {}

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """Keep it."""
        assert name == "reconstructions"
        self.by_step[step] = image


def train(folder: Path) -> tuple[Pictures, dict[str, torch.Tensor]]:
    # A window of used codes and dropout: what a forward pass could change.
    tokenizer = training("1d", steps=8, batch_size=4, semantic_weight=0, lr=1e-2)
    images = SplitConfig(name="digits", split="train", image_size=16, images=40)
    config = TrainTokenizerConfig(train=images, tokenizer=tokenizer, seed=3)
    tracker, out = Pictures(), folder / "out"
    out.mkdir(parents=True)
    training_run.run(config, {}, out, tracker, Runtime(folder / "work"))
    return tracker, load_file(out / "model.safetensors")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1, [1]), (2, [1, 2]), (12, [1, 3, 6, 12]), (1600, [100, 200, 400, 800, 1600])],
)
def test_pictures_are_denser_early(steps: int, expected: list[int]) -> None:
    assert picture_steps(steps) == expected


@pytest.mark.heavy
def test_pictures_show_the_progress_and_change_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, weights = train(tmp_path / "with")
    assert list(log.by_step) == [1, 2, 4, 8]
    first, *_, last = log.by_step.values()
    half = len(first) // 2
    # The originals above are the same, what is made of them is not.
    assert (first[:half] == last[:half]).all()
    assert (first[half:] != last[half:]).any()
    monkeypatch.setattr(training_run, "picture_steps", lambda steps: [steps])
    bare, same = train(tmp_path / "without")
    assert list(bare.by_step) == [8]
    assert (bare.by_step[8] == last).all()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
