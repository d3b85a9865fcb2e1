"""Training stages of seconds with all that a published recipe trains with, for any device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gigatok.config import GeneratorConfig, SplitConfig, TokenizerConfig
from gigatok.data.archives.streamed import flush, open_streamed
from gigatok.runtime.context import Runtime
from gigatok.runtime.tracker import NullTracker, Tracker
from gigatok.stages.train_generator import run as train_generator
from gigatok.stages.train_generator.spec import TrainGeneratorConfig
from gigatok.stages.train_tokenizer import run as train_tokenizer
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from gigatok.training.saved import CODES_FILE, code_tensors

SIZE = {"width": 32, "layers": 1, "heads": 1}
TRAINING: dict[str, Any] = {
    **{"steps": 3, "log_every": 3, "batch_size": 4, "lr": 1e-3},
    **{"grad_clip": 1, "ema_decay": 0.5},
}
# Networks that would have to be fetched are left out.
TOKENIZER: dict[str, Any] = {
    **TRAINING,
    "encoder": SIZE,
    "decoder": SIZE,
    "cnn": {"channels": 16, "multipliers": [1, 2], "resblocks": 1, "groups": 4, "patch_size": 2},
    **{"num_latent_tokens": 8, "codebook_size": 32, "usage_window": 128},
    **{"semantic_layer": 1, "teacher": "pixels", "perceptual_weight": 0},
    **{"shortcut_end": 5, "shortcut_images": True, "augment": "crop_flip"},
    **{"discriminator": "patchgan", "discriminator_start": 1, "lecam_weight": 0.001},
    "adaptive_adversarial_weight": True,
}
GENERATOR: dict[str, Any] = {**TRAINING, "size": SIZE, "ffn_multiple_of": 32}


def train_tiny_tokenizer(
    runtime: Runtime, out: Path, tracker: Tracker | None = None, **changes: Any
) -> None:
    """Run `train_tokenizer` on digits enlarged to 32 pixels."""
    split = SplitConfig(name="digits", split="train", image_size=32, images=16)
    tokenizer = TokenizerConfig.model_validate({**TOKENIZER, **changes})
    config = TrainTokenizerConfig(train=split, tokenizer=tokenizer, seed=0)
    train_tokenizer.run(config, {}, out, tracker or NullTracker(), runtime)


def train_tiny_generator(
    runtime: Runtime, out: Path, codes: Path, tracker: Tracker | None = None, **changes: Any
) -> None:
    """Run `train_generator` on the codes of a folder."""
    generator = GeneratorConfig.model_validate({**GENERATOR, **changes})
    config = TrainGeneratorConfig(generator=generator, seed=0)
    inputs = {"extract_codes": codes}
    train_generator.run(config, inputs, out, tracker or NullTracker(), runtime)


def write_codes(folder: Path) -> Path:
    """Write random codes of eight images, as `extract_codes` leaves them."""
    tensors = code_tensors(views=1, train=8, val=8, tokens=6, codebook_size=16)
    arrays = open_streamed(folder / CODES_FILE, tensors)
    for name in ("train", "val"):
        arrays[name][:] = np.random.default_rng(0).integers(16, size=arrays[name].shape)
    arrays["sizes"][:] = 16, 1
    flush(arrays)
    return folder
