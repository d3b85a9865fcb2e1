"""FLOPs of training steps against torch's counter, on the meta device."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from gigatok.config import AdversarialConfig
from gigatok.costs.training import generator_training_flops, tokenizer_step_flops
from gigatok.models.frozen import perceptual
from gigatok.models.frozen.layout import lpips_layer
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.judges.dino import DINOSmall
from gigatok.models.judges.discriminators import DINODiscriminator, PatchGAN
from gigatok.stages.train_tokenizer.adversarial import Adversary
from gigatok.stages.train_tokenizer.losses import tokenizer_losses
from tests.gigatok.counted_flops import (
    BATCH,
    GENERATORS,
    SHAPES,
    SIDE,
    backward,
    counted,
    meta,
    tokenizer,
    training,
)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_training_steps_of_tokenizers(shape: str, recompute: bool) -> None:
    config = training(shape, activation_checkpointing=recompute)
    model, image = tokenizer(config), meta(BATCH, 3, SIDE, SIDE)
    teacher = meta(BATCH, 16, 12)

    def step() -> None:
        backward(tokenizer_losses(config, model(image), image, teacher, None)["loss"])

    assert BATCH * tokenizer_step_flops(config, SIDE).tokenizer == counted(step)


def test_shortcut_images_are_decoded_again() -> None:
    config = training("1d", shortcut_images=True, shortcut_end=9)
    model, image = tokenizer(config), meta(BATCH, 3, SIDE, SIDE)

    def step(shortcut: bool) -> None:
        output = model(image, shortcut=shortcut)
        loss = tokenizer_losses(config, output, image, meta(BATCH, 16, 12), None)["loss"]
        if output.shortcut_BCHW is not None:
            loss = loss + output.shortcut_BCHW.mean()
        backward(loss)

    more = counted(lambda: step(True)) - counted(lambda: step(False))
    assert BATCH * tokenizer_step_flops(config, SIDE).shortcut == more


@pytest.mark.parametrize("network", ["vgg", "alex"])
@pytest.mark.parametrize("side", [32, 65])
def test_lpips(network: perceptual.Network, side: int) -> None:
    # Weights are a download; the layers are the real ones.
    with torch.device("meta"):
        stages = perceptual._stages(network)
        stages.requires_grad_(False)
        lpips = perceptual.LPIPS.__new__(perceptual.LPIPS)
        nn.Module.__init__(lpips)
        lpips.network, lpips.dropout, lpips.min_side = network, 0.0, 16
        lpips.stages = stages
        lpips.shift, lpips.scale = torch.empty(3, 1, 1), torch.empty(3, 1, 1)
        widths = (64, 128, 256, 512, 512) if network == "vgg" else (64, 192, 384, 256, 256)
        for index, width in enumerate(widths):
            lpips.register_buffer(f"head_{index}", torch.empty(width))
    image, fake = meta(BATCH, 3, side, side), meta(BATCH, 3, side, side).requires_grad_()
    config = training("1d", perceptual_weight=1, perceptual_network=network)
    found = counted(lambda: backward(lpips(image, fake).mean()))
    assert BATCH * tokenizer_step_flops(config, side).perceptual == found
    layer = lpips_layer(network, side, side)
    assert BATCH * layer.flops == counted(lambda: lpips.maps(image))
    assert layer.parameters == sum(p.numel() for p in stages.parameters())


@pytest.mark.parametrize(("name", "side"), [("patchgan", 32), ("patchgan", 256), ("dino", 64)])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_adversarial_game(name: str, side: int, adaptive: bool) -> None:
    with torch.device("meta"):
        backbone = DINOSmall().eval().requires_grad_(False)
        judge = PatchGAN() if name == "patchgan" else DINODiscriminator(backbone)
        last = nn.Conv2d(16, 3, 3, padding=1)
    config = training("1d", discriminator=name, adaptive_adversarial_weight=adaptive)
    adversary = Adversary(AdversarialConfig(adaptive_adversarial_weight=adaptive), judge)
    image, before = meta(BATCH, 3, side, side), meta(BATCH, 16, side, side).requires_grad_()

    def tokenizer_turn(play: bool) -> None:
        fake = last(before)
        loss = fake.square().mean()
        if play:
            part = slice(0, BATCH)
            loss = loss + adversary.generator_losses(part, image, fake, loss, last.weight)["loss"]
        backward(loss)

    def turns(play: bool) -> None:
        tokenizer_turn(play)
        if play:
            backward(adversary.discriminator_losses(1, slice(0, BATCH))["loss"])

    found = counted(lambda: turns(True)) - counted(lambda: turns(False))
    assert BATCH * tokenizer_step_flops(config, side).game == found


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", GENERATORS)
def test_training_steps_of_generators(name: str, recompute: bool) -> None:
    config = GENERATORS[name]
    with torch.device("meta"):
        model = LlamaGen(config, 50, 10, 16, activation_checkpointing=recompute)
    codes = torch.zeros(BATCH, 16, dtype=torch.int64, device="meta")
    predicted = generator_training_flops(config, 50, 16, recompute=recompute)
    found = counted(lambda: backward(model(codes, codes[:, 0]).float().mean()))
    assert BATCH * predicted == found


@pytest.mark.heavy
def test_costs_import_no_torch() -> None:
    modules = "gigatok.costs.training, gigatok.costs.memory, gigatok.stages"
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
