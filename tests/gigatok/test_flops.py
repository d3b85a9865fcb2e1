"""FLOPs in closed form against torch's counter, on the meta device."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import module_tracker
from torch.utils.flop_counter import FlopCounterMode

from gigatok import flops, frozen_flops, memory
from gigatok.config import (
    AdversarialConfig,
    CNNConfig,
    GeneratorArchitecture,
    SamplingConfig,
    TokenizerArchitecture,
    TokenizerConfig,
    TokenizerProbeConfig,
    TransformerSize,
    TrialConfig,
)
from gigatok.models import backbones, perceptual
from gigatok.models.dino import DINOSmall
from gigatok.models.discriminators import DINODiscriminator, PatchGAN
from gigatok.models.generator import Generator
from gigatok.models.inception import Inception
from gigatok.models.teachers import build_teacher
from gigatok.models.tokenizer import Tokenizer
from gigatok.published.compute import published_utilisation
from gigatok.runtime.context import Runtime
from gigatok.runtime.tracker import NullTracker
from gigatok.scores.sampling import generate
from gigatok.sizes import GENERATOR_SIZES
from gigatok.stages import STAGES
from gigatok.stages.probe_tokenizer.cost import probed_width
from gigatok.stages.train_tokenizer.adversarial import Adversary
from gigatok.stages.train_tokenizer.losses import tokenizer_losses

TOLERANCE = 0.02
NARROW = TransformerSize(width=32, layers=2, heads=2)
WIDE = TransformerSize(width=48, layers=3, heads=3)
SMALL_CNN = CNNConfig(channels=16, multipliers=(1, 2), resblocks=1, z_channels=24, groups=4)
PATCHED_CNN = CNNConfig(
    channels=8,
    multipliers=(1, 2, 2),
    mid_blocks=0,
    z_channels=16,
    groups=4,
    patch_size=2,
    adaptive_norm=False,
)
SHAPES: dict[str, dict[str, Any]] = {
    "1d": {"encoder": NARROW, "decoder": WIDE, "cnn": SMALL_CNN, "num_latent_tokens": 8},
    "1d-patched": {"encoder": WIDE, "decoder": NARROW, "cnn": PATCHED_CNN, "num_latent_tokens": 4},
    "1d-entropy": {
        "encoder": NARROW,
        "decoder": NARROW,
        "cnn": SMALL_CNN,
        "num_latent_tokens": 16,
        "entropy_weight": 0.1,
    },
    "2d-vit": {"variant": "2d", "encoder": NARROW, "decoder": WIDE, "cnn": SMALL_CNN},
    "2d-qformer": {
        "variant": "2d",
        "encoder": WIDE,
        "decoder": NARROW,
        "cnn": PATCHED_CNN,
        "transformer_layer": "qformer",
    },
    "2d-double": {
        "variant": "2d",
        "encoder": NARROW,
        "decoder": NARROW,
        "cnn": SMALL_CNN,
        "transformer_layer": "double_attention",
    },
}
SIDE = 32
BATCH = 2


def counted(run: Callable[[], object]) -> int:
    """Of the plain form of attention, which the counter knows on every device."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return int(counter.get_total_flops())


def backward(loss: Tensor) -> None:
    torch.autograd.backward(loss)


def check(predicted: float, found: float) -> None:
    assert found > 0
    assert predicted == pytest.approx(found, rel=TOLERANCE)


def architecture(shape: str, **more: Any) -> TokenizerArchitecture:
    values = {"codebook_size": 64, "usage_window": 128, "teacher": "pixels", "semantic_layer": 1}
    return TokenizerArchitecture(**{**values, **SHAPES[shape], **more})


def training(shape: str, **more: Any) -> TokenizerConfig:
    values = {"steps": 1, "batch_size": BATCH, "lr": 1e-3, "perceptual_weight": 0}
    return TokenizerConfig(**{**architecture(shape).model_dump(), **values, **more})


def tokenizer(config: TokenizerArchitecture) -> Tokenizer:
    recompute = isinstance(config, TokenizerConfig) and config.activation_checkpointing
    with torch.device("meta"):
        return Tokenizer(
            config, SIDE, teacher_dim=12, teacher_grid=4, activation_checkpointing=recompute
        )


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_component_of_a_tokenizer(shape: str) -> None:
    config = architecture(shape)
    predicted, model = flops.tokenizer_flops(config, SIDE), tokenizer(config)
    cells, tokens = model.grid_size, config.tokens_per_image(SIDE)
    z, dim, width = config.cnn.z_channels, config.codebook_dim, config.decoder.width
    grid, latents = meta(1, z, cells, cells), meta(1, tokens, z)
    head = model.to_grid.distill_mlp
    assert head is not None
    check(predicted.cnn_encoder, counted(lambda: model.encoder(meta(1, 3, SIDE, SIDE))))
    check(predicted.to_tokens, counted(lambda: model.to_tokens(grid)))
    check(predicted.project_in, counted(lambda: model.quant_conv(latents)))
    check(predicted.lookup, counted(lambda: model.quantize.nearest(meta(1, tokens, dim))))
    check(
        predicted.lookup + predicted.entropy,
        counted(lambda: model.quantize(meta(1, tokens, dim))),
    )
    check(predicted.project_out, counted(lambda: model.post_quant_conv(meta(1, tokens, dim))))
    check(predicted.to_grid, counted(lambda: model.to_grid(latents)))
    check(predicted.cnn_decoder, counted(lambda: model.decoder(grid)))
    check(predicted.head, counted(lambda: head(meta(1, 16, width))))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_training_steps_of_tokenizers(shape: str, recompute: bool) -> None:
    config = training(shape, activation_checkpointing=recompute)
    model, image = tokenizer(config), meta(BATCH, 3, SIDE, SIDE)
    teacher = meta(BATCH, 16, 12)

    def step() -> None:
        backward(tokenizer_losses(config, model(image), image, teacher, None)["loss"])

    check(BATCH * flops.tokenizer_step_flops(config, SIDE).tokenizer, counted(step))


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
    check(BATCH * flops.tokenizer_step_flops(config, SIDE).shortcut, more)


@pytest.mark.parametrize("network", ["vgg", "alex"])
@pytest.mark.parametrize("side", [32, 65])
def test_lpips(network: perceptual.Network, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Weights are a download; the layers are the real ones.
    build = perceptual._NETWORKS[network][0]
    with torch.device("meta"):
        stages = build()
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
    check(BATCH * flops.tokenizer_step_flops(config, side).perceptual, found)
    check(frozen_flops.lpips(network, side, side), counted(lambda: lpips.maps(image)) / BATCH)


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
    check(BATCH * flops.tokenizer_step_flops(config, side).game, found)


@pytest.mark.parametrize(
    ("name", "build"),
    [("mobilenetv2", backbones._mobilenetv2_backbone), ("resnet50", backbones._ResNet50)],
)
def test_convolutional_teachers(name: str, build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        network = build().eval()
    image, cost = meta(1, 3, 128, 128), frozen_flops.teacher_cost(name)
    check(cost.flops, counted(lambda: network(image)))
    assert network(image).shape == (1, cost.dim, cost.grid, cost.grid)


def test_dinov2() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        network = transformers.Dinov2Model(transformers.Dinov2Config()).eval()
    cost = frozen_flops.teacher_cost("dinov2")
    check(cost.flops, counted(lambda: network(meta(1, 3, 224, 224))))
    assert (cost.dim, cost.grid**2) == (network.config.hidden_size, (224 // 14) ** 2)


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("clip_dfn", "CLIPVision", (1280, 32, 5120)),
        ("siglip", "SiglipVision", (1152, 27, 4304)),
    ],
)
def test_language_trained_teachers(name: str, kind: str, shape: tuple[int, int, int]) -> None:
    """Shapes are those of the config files on the hub."""
    transformers = pytest.importorskip("transformers")
    width, layers, hidden = shape
    config = getattr(transformers, f"{kind}Config")(
        **{"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": hidden},
        **{"num_attention_heads": 16, "image_size": 224, "patch_size": 14},
    )
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        network = getattr(transformers, f"{kind}Model")(config).eval()
    network.use_head = False
    cost = frozen_flops.teacher_cost(name)
    check(cost.flops, counted(lambda: network(meta(1, 3, 224, 224))))
    assert (cost.dim, cost.grid**2) == (width, (224 // 14) ** 2)
    assert memory._FROZEN[name] == sum(p.numel() for p in network.parameters())


def test_the_teacher_without_a_network() -> None:
    teacher, cost = build_teacher("pixels"), frozen_flops.teacher_cost("pixels")
    assert (cost.dim, cost.grid, cost.flops) == (teacher.dim, teacher.grid, 0)
    image = torch.zeros(1, 3, 16, 16)
    assert counted(lambda: teacher.features(image)) == 0


@pytest.mark.parametrize(("resolution", "side"), [(299, 256), (299, 299), (75, 32), (128, 16)])
def test_inception(resolution: int, side: int) -> None:
    with torch.device("meta"):
        network = Inception(resolution).eval()
    predicted = frozen_flops.features("inception", resolution, side)
    # The resize multiplies with matrices made on the CPU.
    check(predicted, counted(lambda: network(meta(BATCH, 3, side, side))) / BATCH)


GENERATORS = {
    "plain": GeneratorArchitecture(size=NARROW, ffn_multiple_of=32),
    "wide": GeneratorArchitecture(size=WIDE, dropout=0, ffn_multiple_of=16),
    "rope": GeneratorArchitecture(size=NARROW, position="rope_2d", ffn_multiple_of=64),
}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", GENERATORS)
def test_training_steps_of_generators(name: str, recompute: bool) -> None:
    config = GENERATORS[name]
    with torch.device("meta"):
        model = Generator(config, 50, 10, 16, activation_checkpointing=recompute)
    codes = torch.zeros(BATCH, 16, dtype=torch.int64, device="meta")
    predicted = flops.generator_training_flops(config, 50, 16, recompute=recompute)
    found = counted(lambda: backward(model(codes, codes[:, 0]).float().mean()))
    check(BATCH * predicted, found)
    check(
        flops.generator_flops(config, 50, 16),
        counted(lambda: model(codes, codes[:, 0])) / BATCH,
    )
    read = counted(lambda: model.features(codes, 1))
    check(flops.generator_flops(config, 50, 16, layers=1), read / BATCH)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("name", GENERATORS)
def test_sampling(name: str, scale: float) -> None:
    model = Generator(GENERATORS[name], 50, 10, 16).eval()
    config, guided = SamplingConfig(num_images=4, cfg_scale=scale), scale > 1
    classes, random = torch.zeros(BATCH, dtype=torch.int64), torch.Generator()
    predicted = flops.sampling_flops(GENERATORS[name], 50, 16, guided=guided)
    check(predicted, counted(lambda: generate(model, classes, config, random)) / BATCH)
    cache = model.allocate_cache(1)
    one = counted(lambda: model.next_logits(classes[:1], 7, cache))
    check(flops.sampled_token_flops(GENERATORS[name], 50, 7, guided=False), one)


def test_the_published_cost_of_the_generator_implies_a_low_utilisation() -> None:
    """170 h on 64 V100s are 25 times what GPT-L's training needs at the V100s' peak."""
    assert 0.03 < published_utilisation() < 0.05
    size = GENERATOR_SIZES["L"]
    per_image = flops.generator_training_flops(GeneratorArchitecture(size=size), 16384, 256)
    assert per_image == pytest.approx(6 * 343e6 * 256, rel=0.05)


def test_flops_import_no_torch() -> None:
    program = "import sys, gigatok.flops, gigatok.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


TRIAL = TrialConfig.model_validate(
    {
        "data": {"name": "digits", "image_size": 16, "train_images": 64, "val_images": 32},
        "tokenizer": {
            **{"encoder": {"width": 32, "layers": 1, "heads": 1}, "semantic_layer": 1},
            **{"decoder": {"width": 32, "layers": 2, "heads": 2}, "num_latent_tokens": 8},
            "cnn": {"channels": 16, "multipliers": (1, 2), "resblocks": 1, "groups": 4},
            **{"codebook_size": 64, "usage_window": 128, "perceptual_weight": 0},
            **{"teacher": "pixels", "init": "fan_in", "codebook_init": "data"},
            **{"dead_code_restart_every": 2, "shortcut_end": 3, "shortcut_images": True},
            **{"steps": 5, "batch_size": 8, "lr": 1e-3, "checkpoint_every": 2},
        },
        "generator": {"size": NARROW, "steps": 3, "batch_size": 8, "lr": 1e-3},
        "sampling": {"num_images": 8},
        "evaluation": {
            **{"num_images": 32, "network": "pixels", "resolution": 8},
            "lpips_network": "none",
        },
        "probe": {"epochs": 2, "warmup_epochs": 0, "batch_size": 32},
        "tokenizer_probe": {"features": "encoder"},
    }
)


class _NoHandle:
    def remove(self) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["1d", "2d"])
@pytest.mark.parametrize("features", ["encoder", "latents", "decoder"])
def test_what_the_tokenizers_probe_reads(
    features: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As below.
    monkeypatch.setattr(
        module_tracker, "register_multi_grad_hook", lambda *args, **kwargs: _NoHandle()
    )
    config = TRIAL.tokenizer.model_copy(update={"variant": variant})
    trial = TRIAL.model_copy(
        update={
            "tokenizer": config,
            "tokenizer_probe": TokenizerProbeConfig.model_validate({"features": features}),
            "probe": TRIAL.probe.model_copy(update={"epochs": 0}),
        }
    )
    model = Tokenizer(config, 16, 12, 4).eval()
    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        found = counted(lambda: model.probe_features(image, features))
        width = model.probe_features(image, features).shape[1]
    data = trial.data
    images = 2 * data.train_images + data.val_images  # mirrored ones too
    head = 2 * width * data.num_classes * data.val_images
    check(STAGES["probe_tokenizer"].costs.flops(trial), images * found + head)
    assert probed_width(trial.tokenizer, features) == width


@pytest.mark.slow
def test_whole_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in order, each is counted; what it leaves on disk is as long as was said."""
    # The counter's attribution to modules fails on views of parameters without gradients.
    monkeypatch.setattr(
        module_tracker, "register_multi_grad_hook", lambda *args, **kwargs: _NoHandle()
    )
    for stage, spec in STAGES.items():
        if not spec.applies(TRIAL):
            continue
        inputs = {name: tmp_path / name for name in spec.inputs_of(TRIAL)}
        config, out = spec.read(TRIAL), tmp_path / stage
        runtime = Runtime(tmp_path / "work" / stage)
        found = counted(lambda: spec.run(config, inputs, out, NullTracker(), runtime))  # noqa: B023
        predicted, disk = spec.costs.flops(TRIAL), spec.costs.disk(TRIAL)
        assert predicted == pytest.approx(found, rel=TOLERANCE), stage
        written = sum(f.stat().st_size for f in out.glob("*") if f.is_file())
        # Headers and descriptions come on top.
        assert disk.outputs <= written <= 1.02 * disk.outputs + 25_000, stage
