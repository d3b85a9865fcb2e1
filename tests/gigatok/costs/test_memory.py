"""Peak memory in closed form against what torch's allocator hands out in a CPU training step.

The measure is the largest sum of live allocations, as the profiler records every one of them with
its size: exact, deterministic, and blind to what else the machine or the process does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from gigatok.config import (
    CNNConfig,
    GeneratorConfig,
    TokenizerConfig,
    TransformerSize,
)
from gigatok.costs.memory import generator_training_memory, tokenizer_training_memory
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.judges.discriminators import PatchGAN
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.runtime.context import Runtime
from gigatok.runtime.tracker import NullTracker
from gigatok.stages.train_generator.scoring import token_loss
from gigatok.stages.train_tokenizer.adversarial import Adversary
from gigatok.stages.train_tokenizer.objective import Objective
from gigatok.training.saved import place
from gigatok.training.trainer import Trainer

TOLERANCE = 0.1
NARROW = TransformerSize(width=64, layers=3, heads=2)
WIDE = TransformerSize(width=96, layers=4, heads=3)
CNN = CNNConfig(channels=16, multipliers=(1, 2, 2), resblocks=1, z_channels=32, groups=4)
THIN_CNN = CNNConfig(
    channels=8, multipliers=(1, 2), z_channels=16, groups=4, patch_size=2, adaptive_norm=False
)

pytestmark = pytest.mark.slow
STEP: dict[str, Any] = {"steps": 2, "batch_size": 8, "lr": 1e-3, "grad_clip": 1.0}


def peak_bytes(run: Callable[[], object]) -> int:
    """Largest sum of live allocations of the CPU allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    results = profiler.profiler.kineto_results
    assert results is not None
    events = [e for e in results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def train(
    build: Callable[[], tuple[nn.Module, Any, Any]], config: Any, folder: Path
) -> Callable[[], None]:
    def run() -> None:
        torch.manual_seed(0)
        model, losses, opponent = build()
        Trainer(model, config, 0, losses, NullTracker(), Runtime(folder), opponent=opponent).run()

    return run


GENERATOR: dict[str, Any] = {**STEP, "size": NARROW, "ffn_multiple_of": 32}
GENERATORS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no-dropout": {"dropout": 0.0},
    "ema": {"size": WIDE, "ema_decay": 0.9},
    "recompute": {"activation_checkpointing": True},
    "micro-batches": {"micro_batch": 2},
    "both": {"micro_batch": 4, "activation_checkpointing": True, "dropout": 0.0},
    "small-batch": {"batch_size": 1, "size": WIDE},
    "rope": {"position": "rope_2d"},
    "muon": {"size": WIDE, "optimizer": {"name": "muon"}},
}


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("codebook_size", [64, 1024])
def test_generators(name: str, codebook_size: int, tmp_path: Path) -> None:
    config = GeneratorConfig(**{**GENERATOR, **GENERATORS[name]})
    tokens = 64

    def build() -> tuple[nn.Module, Any, Any]:
        recompute = config.activation_checkpointing
        model = LlamaGen(config, codebook_size, 10, tokens, activation_checkpointing=recompute)
        codes_BT = torch.randint(codebook_size, (config.batch_size, tokens))

        def losses(step: int, part: slice) -> dict[str, Tensor]:
            return {"loss": token_loss(model, codes_BT[part], codes_BT[part, 0] % 10, "cpu")}

        return model, losses, None

    predicted = generator_training_memory(config, codebook_size, 10, tokens)
    assert predicted == pytest.approx(peak_bytes(train(build, config, tmp_path)), rel=TOLERANCE)


TOKENIZER: dict[str, Any] = {
    **STEP,
    "encoder": NARROW,
    "decoder": WIDE,
    "cnn": CNN,
    "num_latent_tokens": 16,
    "codebook_size": 256,
    "usage_window": 512,
    "teacher": "pixels",
    "semantic_layer": 1,
    "perceptual_weight": 0,
}
TOKENIZERS: dict[str, dict[str, Any]] = {
    "1d": {},
    "recompute": {"activation_checkpointing": True},
    "micro-batches": {"micro_batch": 2},
    "ema": {"ema_decay": 0.9, "batch_size": 2},
    "patched": {"cnn": THIN_CNN, "num_latent_tokens": 64},
    "patched-recompute": {"cnn": THIN_CNN, "activation_checkpointing": True},
    "entropy": {"entropy_weight": 0.1, "codebook_size": 2048, "cnn": THIN_CNN},
    "no-teacher": {"semantic_weight": 0.0},
    "2d-vit": {"variant": "2d", "cnn": THIN_CNN},
    "2d-qformer": {"variant": "2d", "cnn": THIN_CNN, "transformer_layer": "qformer"},
    "2d-double": {"variant": "2d", "cnn": THIN_CNN, "transformer_layer": "double_attention"},
    "patchgan": {"discriminator": "patchgan"},
    "muon": {"optimizer": {"name": "muon"}, "batch_size": 2},
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers(name: str, tmp_path: Path) -> None:
    config, side = TokenizerConfig(**{**TOKENIZER, **TOKENIZERS[name]}), 32

    def build() -> tuple[nn.Module, Any, Any]:
        model = GigaTok(
            config,
            side,
            12,
            4 if config.semantic_weight else 0,
            activation_checkpointing=config.activation_checkpointing,
        )
        model = place(model, "cpu")
        image = torch.rand(config.batch_size, 3, side, side)
        teacher = torch.randn(config.batch_size, 16, 12) if config.semantic_weight else None
        adversary = None if config.discriminator == "none" else Adversary(config, PatchGAN())
        objective = Objective(
            config,
            model,
            model,
            lambda step, part: (image[part], None if teacher is None else teacher[part]),
            None,
            adversary,
        )
        return model, objective.losses, objective.opponent()

    predicted = tokenizer_training_memory(config, side)
    assert predicted == pytest.approx(peak_bytes(train(build, config, tmp_path)), rel=TOLERANCE)
