"""Extra losses in training, one of them from a plug-in: curves, resuming, keys, costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gigatok import plugins
from gigatok.config import SplitConfig
from gigatok.config.kinds.losses import LOSSES
from gigatok.contracts.loss import broken_promises
from gigatok.costs.memory import tokenizer_training_memory
from gigatok.costs.training import tokenizer_step_flops
from gigatok.models.tokenizer.base import TokenizerOutput
from gigatok.runtime.context import Interrupted, Runtime
from gigatok.runtime.tracker import MemoryTracker
from gigatok.stages import STAGES
from gigatok.stages.train_tokenizer.losses import extra_losses
from gigatok.stages.train_tokenizer.run import run
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from orchestration.plan.identity import plugins_of
from tests.gigatok.counted_flops import training

PLUGIN = """
from typing import Literal

from gigatok.config.kinds.losses import LossConfig, LossKind, register


class PatchyConfig(LossConfig):
    name: Literal["patchy"]
    channels: int = 4


def patchy(config):
    # Here and not at the top: planning imports this file.
    import torch
    from torch import nn

    class Patchy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, config.channels, 3, padding=1)

        def forward(self, output, image_BCHW, step):
            # Other places in each step, more of them with time.
            keep = torch.rand(image_BCHW.shape[-1], device=image_BCHW.device) < step / (step + 1)
            error = self.conv(output.reconstruction_BCHW) - self.conv(image_BCHW)
            return (error * keep).square().mean()

    return Patchy()


register(LossKind(PatchyConfig, f"{__name__}:patchy"))
"""
STEPS = 4
PAGE = Path(__file__).resolve().parents[4] / "docs" / "tasks" / "write_a_plugin.md"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[plugins.Plugin]:
    """Load the plug-in from a file; undo what it registers."""
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "patchy.py").write_text(PLUGIN)
    (plugin,) = plugins.load(["./patchy.py"], tmp_path)
    yield plugin
    del LOSSES["patchy"], plugins.LOADED[plugin.package]


def test_the_example_of_the_page_keeps_the_contract(tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Another loss")[2]
    (code, *_) = re.findall(r"```python\n(.*?)```", section, re.S)
    (tmp_path / "edges.py").write_text(code)
    (plugin,) = plugins.load(["./edges.py"], tmp_path)
    try:
        assert broken_promises(LOSSES["edges"]) == []
    finally:
        del LOSSES["edges"], plugins.LOADED[plugin.package]


def config(*losses: dict[str, Any]) -> TrainTokenizerConfig:
    settings = {"steps": STEPS, "batch_size": 4, "log_every": 1, "semantic_weight": 0}
    tokenizer = training("1d", extra_losses=losses, checkpoint_every=2, **settings)
    images = SplitConfig(name="digits", split="train", image_size=16, images=40)
    return TrainTokenizerConfig(train=images, tokenizer=tokenizer, seed=3)


def train(
    folder: Path, config: TrainTokenizerConfig, should_stop: Callable[[], bool] = lambda: False
) -> MemoryTracker:
    tracker = MemoryTracker()
    (folder / "out").mkdir(parents=True, exist_ok=True)
    run(config, {}, folder / "out", tracker, Runtime(folder / "work", should_stop=should_stop))
    return tracker


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "out" / "model.safetensors")


@pytest.mark.heavy
def test_a_loss_of_a_plugin_is_trained_with_and_resumed_bit_by_bit(
    tmp_path: Path, plugin: plugins.Plugin
) -> None:
    both = config({"name": "patchy", "weight": 3.0}, {"name": "l1"})
    log = train(tmp_path / "whole", both)
    assert {"train/patchy_loss", "train/l1_loss"} <= {name for name, _, _ in log.points}
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", both, lambda: next(calls) == 2)
    train(tmp_path / "parts", both)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    # It does something, and is no part of the model.
    train(tmp_path / "without", config())
    without = weights(tmp_path / "without")
    assert whole.keys() == without.keys()
    assert any(not torch.equal(whole[name], without[name]) for name in whole)


def test_it_keeps_the_contract_and_keys_hold_its_code(plugin: plugins.Plugin) -> None:
    assert broken_promises(LOSSES["patchy"]) == []
    stage = STAGES["train_tokenizer"]
    assert plugins_of(stage, config({"name": "l1"}, {"name": "patchy"})) == (plugin,)
    assert plugins_of(stage, config({"name": "l1"})) == ()


@pytest.mark.heavy
def test_its_network_is_in_the_costs(plugin: plugins.Plugin) -> None:
    bare, with_it = config().tokenizer, config({"name": "patchy", "channels": 8}).tokenizer
    conv = 2 * 9 * 3 * 8 * 16**2
    # Both images forward, and back to the reconstruction.
    assert tokenizer_step_flops(with_it, 16).extra == 3 * conv
    assert tokenizer_step_flops(bare, 16).extra == 0
    more = tokenizer_training_memory(with_it, 16) - tokenizer_training_memory(bare, 16)
    assert more >= 4 * (9 * 3 * 8 + 8), "at least its parameters"


def test_terms_are_unweighted_and_their_sum_is_weighted() -> None:
    settings = config({"name": "l1", "weight": 0.5}, {"name": "focal_frequency", "weight": 2})
    image, codes = torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, dtype=torch.int64)
    output = TokenizerOutput((image + 1).bfloat16(), codes, {})
    seen: list[torch.dtype] = []

    def first(output: TokenizerOutput, image: torch.Tensor, step: int) -> torch.Tensor:
        seen.append(output.reconstruction_BCHW.dtype)
        return (output.reconstruction_BCHW - image).mean() * step

    def second(output: TokenizerOutput, image: torch.Tensor, step: int) -> torch.Tensor:
        return (output.reconstruction_BCHW @ image.mT).mean() + 5

    with torch.autocast("cpu", torch.bfloat16):
        terms = extra_losses(settings.tokenizer, [first, second], output, image, 4)
    assert {name: float(value) for name, value in terms.items()} == {
        "loss": 0.5 * 4 + 2 * 5,
        "l1_loss": 4,
        "focal_frequency_loss": 5,
    }
    assert seen == [torch.float32]
