"""No step waits for the device: what reads a value first is the log, every `log_every` steps."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gigatok.config import GeneratorConfig, SplitConfig, TokenizerConfig
from gigatok.data.streamed import flush, open_streamed
from gigatok.models.frozen.teachers import normalised_for_imagenet
from gigatok.runtime.context import Runtime
from gigatok.runtime.tracker import NullTracker
from gigatok.stages.train_generator import run as train_generator
from gigatok.stages.train_generator.spec import TrainGeneratorConfig
from gigatok.stages.train_tokenizer import run as train_tokenizer
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from gigatok.training.saved import CODES_FILE, code_tensors
from tests.gigatok.waiting import NoBlockingCopies, NoConstants, first_wait

pytestmark = pytest.mark.heavy
DEVICES = ["meta", *["cuda"] * torch.cuda.is_available()]
SIZE = {"width": 32, "layers": 1, "heads": 1}
TRAINING: dict[str, Any] = {
    **{"steps": 3, "log_every": 3, "batch_size": 4, "lr": 1e-3},
    **{"grad_clip": 1, "ema_decay": 0.5},
}
# All that a published recipe trains with, but for networks that would have to be fetched.
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


def tokenizer_stage(runtime: Runtime) -> None:
    split = SplitConfig(name="digits", split="train", image_size=32, images=16)
    tokenizer = TokenizerConfig.model_validate(TOKENIZER)
    config = TrainTokenizerConfig(train=split, tokenizer=tokenizer, seed=0)
    train_tokenizer.run(config, {}, runtime.checkpoint_dir / "out", NullTracker(), runtime)


def generator_stage(codes: Path, runtime: Runtime) -> None:
    generator = GeneratorConfig.model_validate({**TRAINING, "size": SIZE, "ffn_multiple_of": 32})
    config = TrainGeneratorConfig(generator=generator, seed=0)
    out = runtime.checkpoint_dir / "out"
    train_generator.run(config, {"extract_codes": codes}, out, NullTracker(), runtime)


def write_codes(folder: Path) -> Path:
    """Random codes of eight images, as `extract_codes` leaves them."""
    tensors = code_tensors(views=1, train=8, val=8, tokens=6, codebook_size=16)
    arrays = open_streamed(folder / CODES_FILE, tensors)
    for name in ("train", "val"):
        arrays[name][:] = np.random.default_rng(0).integers(16, size=arrays[name].shape)
    arrays["sizes"][:] = 16, 1
    flush(arrays)
    return folder


@pytest.mark.parametrize("device", DEVICES)
def test_a_tokenizer_waits_for_the_device_to_log(tmp_path: Path, device: str) -> None:
    assert first_wait(tokenizer_stage, tmp_path, device)[-2:] == ["run", "_finite"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_generator_waits_for_the_device_to_log(tmp_path: Path, device: str) -> None:
    stage = partial(generator_stage, write_codes(tmp_path))
    assert first_wait(stage, tmp_path, device)[-2:] == ["run", "_finite"]


def test_constants_are_not_copied_to_the_device() -> None:
    image_BCHW = torch.zeros(1, 3, 4, 4, device="meta")
    with NoBlockingCopies() as copies, NoConstants() as constants:
        copies.armed = constants.armed = True
        assert normalised_for_imagenet(image_BCHW).shape == image_BCHW.shape
        # What would be found.
        with pytest.raises(RuntimeError, match="blocking copy from cpu to meta"):
            torch.zeros(3).to("meta")
        with pytest.raises(RuntimeError, match="blocking copy of"):
            image_BCHW.new_tensor([1.0, 2.0, 3.0])
