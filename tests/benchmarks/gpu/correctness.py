"""Sections that compare results on a GPU with those of the CPU and of the authors' code."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gigatok.config import SamplingConfig
from gigatok.models.frozen.inception import Inception
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.generator.steps import CompiledSteps
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.runtime.context import Interrupted, Runtime
from gigatok.runtime.devices import full_precision
from gigatok.runtime.tracker import MemoryTracker
from gigatok.scores.sampling import generate
from tests.benchmarks.gpu.rows import Row, Settings
from tests.benchmarks.measuring import build_generator, generator_architecture
from tests.gigatok.published.test_published_models import GOLDEN, build_seeded, normal
from tests.gigatok.tiny_stages import train_tiny_generator, train_tiny_tokenizer, write_codes
from tests.gigatok.waiting import first_wait

EXACT, ROUNDED = 1e-3, 2e-2
"""Largest difference from golden outputs, which are of unit scale: in float32, and in TF32."""
LOSS_FP32, LOSS_BF16 = 2e-2, 1e-1
"""Largest relative difference of a loss from the CPU's in float32 within 20 steps."""

Stage = Callable[..., None]


@torch.inference_mode()
def golden(settings: Settings) -> Iterator[Row]:
    """Compare outputs and codes of S-S and logits of GPT-B with those of the authors' code."""
    device = torch.device(settings.device)
    found = np.load(GOLDEN / "tokenizer_S-S.npz")
    tokenizer = build_seeded("S-S").to(device)
    assert isinstance(tokenizer, GigaTok)
    image_BCHW = (0.5 * normal(123, 1, 3, 256, 256)).clamp(-1, 1).to(device)
    for title, exact in (("fp32", True), ("as stages run", False)):
        with exactly(device) if exact else nullcontext():
            output = tokenizer(image_BCHW)
        limit = EXACT if exact else ROUNDED
        image = output.reconstruction_BCHW[..., ::8, ::8].cpu().numpy()
        far = float(np.abs(image - found["recon"]).max())
        yield _distance(f"S-S image, {title}", far, limit)
        same = float((output.codes_BS.flatten().cpu().numpy() == found["indices"]).mean())
        yield Row(
            f"S-S codes, {title}",
            f"{same:.1%} equal",
            same > (0.99 if exact else 0.9),
            "argmin ties move with rounding",
            {"equal": same},
        )
    found = np.load(GOLDEN / "generator_B.npz")
    generator = build_seeded("GPT-B").to(device)
    codes_BT, classes_B = _seeded_codes(device)
    with exactly(device):
        logits_BTV = generator(codes_BT, classes_B)[:, ::16, :64]
    far = float(np.abs(logits_BTV.cpu().numpy() - found["logits"]).max())
    yield _distance("GPT-B logits, fp32", far, EXACT)


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Compute in float32, convolutions too, which have a switch of their own."""
    torch.backends.cudnn.allow_tf32 = False
    with full_precision(device):
        yield
    torch.backends.cudnn.allow_tf32 = True


def _distance(what: str, far: float, limit: float) -> Row:
    words = f"at most {far:.1e} from the authors'"
    return Row(what, words, far < limit, f"limit {limit:g}", {"distance": far})


def _seeded_codes(device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw what the golden logits were computed of."""
    random = np.random.RandomState(5)
    codes_BT, classes_B = random.randint(16384, size=(2, 256)), random.randint(1000, size=2)
    return torch.from_numpy(codes_BT).to(device), torch.from_numpy(classes_B).to(device)


def tokens(settings: Settings) -> Iterator[Row]:
    """Draw greedily with GPT-B's golden weights, without and with guidance."""
    device = torch.device(settings.device)
    found = np.load(GOLDEN / "generator_B.npz")
    generator = build_seeded("GPT-B").to(device)
    assert isinstance(generator, LlamaGen)
    _, classes_B = _seeded_codes(device)
    for name, scale in (("nocfg", 1.0), ("cfg2_constant", 2.0)):
        expected = found[f"greedy24_{name}"]
        config = SamplingConfig(num_images=4, cfg_scale=scale)
        for title, exact in (("fp32", True), ("as stages run", False)):
            with exactly(device) if exact else nullcontext():
                rng = torch.Generator(device)
                codes = generate(generator, classes_B, config, rng, 24, greedy=True)
            same = float((codes.cpu().numpy() == expected).mean())
            yield Row(
                f"GPT-B greedy codes, guidance {scale:g}, {title}",
                f"{same:.1%} equal to the authors'",
                same == 1 if exact else None,
                "",
                {"equal": same},
            )


def graph_tokens(settings: Settings) -> Iterator[Row]:
    """Draw greedily with compiled steps, for two batches, and compare with steps as they are."""
    device, count = torch.device(settings.device), settings.size(24, 4)
    torch.manual_seed(0)
    name = "GPT-tiny" if settings.quick else "GPT-B"
    generator = build_generator(generator_architecture(name), settings.device).eval()
    nn.init.normal_(generator.output.weight, std=0.02)
    config = SamplingConfig(num_images=4, cfg_scale=2.0)
    # The compiler itself takes minutes on a CPU.
    compiled = CompiledSteps(generator, "eager" if settings.quick else "inductor")
    draw = partial(generate, generator, config=config, rng=torch.Generator(device), greedy=True)
    for first in (0, 100):
        classes_B = torch.arange(first, first + 4, device=device)
        with exactly(device):
            expected = draw(classes_B, num_tokens=count)
            codes = draw(classes_B, num_tokens=count, steps=compiled)
        same = float((codes == expected).float().mean())
        words = f"{same:.1%} equal to those without"
        what = f"{name} greedy codes with CUDA graphs, classes {first} to {first + 3}"
        yield Row(what, words, same == 1, "fp32", {"equal": same})


def steps(settings: Settings) -> Iterator[Row]:
    """Train tokenizer and generator for 20 steps, and compare losses with the CPU's in float32."""
    count = settings.size(20, 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codes = write_codes(folder)
        generator = partial(train_tiny_generator, codes=codes, dropout=0.0, class_dropout=0.0)
        stages: dict[str, Stage] = {"tokenizer": train_tiny_tokenizer, "generator": generator}
        for title, stage in stages.items():
            curve = partial(_losses, stage, count=count)
            reference = curve(folder / title, "cpu", precision="fp32")
            for precision, limit in (("fp32", LOSS_FP32), ("bf16", LOSS_BF16)):
                place = folder / f"{title}-{precision}"
                losses = curve(place, settings.device, precision=precision)
                pairs = zip(losses, reference, strict=True)
                far = max(abs(a - b) / abs(b) for a, b in pairs)
                yield Row(
                    f"{count} steps of a tiny {title}, {precision}",
                    f"losses at most {far:.1e} off the CPU's",
                    far < limit,
                    f"limit {limit:g}",
                    {"distance": far},
                )


def _losses(stage: Stage, folder: Path, device: str, *, count: int, precision: str) -> list[float]:
    tracker = MemoryTracker()
    runtime = Runtime(folder / "checkpoints", device)
    changes = {"steps": count, "log_every": 1, "precision": precision}
    stage(runtime, folder / "out", tracker=tracker, **changes)
    # The generator's game makes losses chaotic; reconstruction and cross-entropy are not.
    names = {key for key, _, _ in tracker.points}
    watched = "train/reconstruction_loss"
    watched = watched if watched in names else "train/loss"
    return [value for key, _, value in tracker.points if key == watched]


def resume(settings: Settings) -> Iterator[Row]:
    """Stop training half-way and go on: weights must be those of a run that was not stopped."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = [
            _trained(folder / title, settings.device, stop_at=stop_at)
            for title, stop_at in (("whole", 0), ("parts", 4))
        ]
    far = max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0])
    yield Row(
        "6 steps, stopped after 3 and resumed",
        "equal bits" if far == 0 else f"weights at most {far:.1e} off",
        far == 0,
        "",
        {"distance": far},
    )


def _trained(folder: Path, device: str, stop_at: int) -> dict[str, Tensor]:
    asked = iter(range(1, 1000))
    out = folder / "out"
    runtime = Runtime(folder / "checkpoints", device, should_stop=lambda: next(asked) == stop_at)
    try:
        train_tiny_tokenizer(runtime, out, steps=6, log_every=6)
    except Interrupted:
        train_tiny_tokenizer(runtime, out, steps=6, log_every=6)
    return load_file(out / "model.safetensors")


@torch.inference_mode()
def features(settings: Settings) -> Iterator[Row]:
    """Compare Inception's features of random images with the CPU's."""
    torch.manual_seed(0)
    network = Inception().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(network, nn.Module)
    shape = (settings.size(16, 1), 3, 256, 256)
    images = torch.randint(256, shape, dtype=torch.uint8)
    expected = network(images).pool
    device = torch.device(settings.device)
    network.to(device)
    for title, exact in (("fp32", True), ("as stages run", False)):
        with exactly(device) if exact else nullcontext():
            pool = network(images.to(device)).pool.cpu()
        far = float((pool - expected).norm() / expected.norm())
        limit = 1e-4 if exact else 5e-3
        yield Row(
            f"FID features, {title}",
            f"{far:.1e} off the CPU's",
            far < limit,
            f"limit {limit:g}; random weights",
            {"distance": far},
        )


def waits(settings: Settings) -> Iterator[Row]:
    """Look for what a training step waits for; without a GPU on the meta device."""
    device = settings.device if settings.device == "cuda" else "meta"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codes = write_codes(folder)
        stages: dict[str, Stage] = {
            # So long that the first picture comes behind the first line of the log.
            "tokenizer": partial(train_tiny_tokenizer, steps=64),
            "generator": partial(train_tiny_generator, codes=codes),
        }
        for title, stage in stages.items():
            run = partial(_placed, stage, folder / title / "out")
            waiting = first_wait(run, folder / title, device)
            late = waiting[-1:] == ["_finite"]
            where = "when it logs" if late else " > ".join(waiting) or "never"
            yield Row(f"first wait of a {title}'s steps", where, late)


def _placed(stage: Stage, out: Path, runtime: Runtime) -> None:
    stage(runtime, out)
