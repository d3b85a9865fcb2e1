"""Our models against plain ones of the same architecture and weights, on the CPU.

    python -m tests.benchmarks.models --rounds 3 --threads 1

Both take turns, and each row is of one batch. Times are seconds of CPU, the least of all rounds,
so that other work on the machine disturbs them little; with several threads read the ratio only.
The last column is the largest difference, as a share of the largest output, or how many codes
differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from gigatok.config import SamplingConfig, TokenizerConfig
from gigatok.models.frozen.inception import Inception
from gigatok.runtime.memory import keep_freed_memory
from gigatok.scores.sampling import generate
from gigatok.stages.train_tokenizer.losses import tokenizer_losses
from gigatok.training.saved import place
from tests.benchmarks.measuring import (
    CODEBOOK_SIZE,
    IMAGE_SIZE,
    NUM_CLASSES,
    NUM_TOKENS,
    TEACHER_DIM,
    build_generator,
    build_tokenizer,
    generator_architecture,
    show,
    tokenizer_architecture,
)
from tests.benchmarks.plain.generator import PlainGenerator
from tests.benchmarks.plain.inception import PlainInception
from tests.benchmarks.plain.tokenizer import PlainTokenizer

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """Task that both models do: ours, then the plain one."""

    name: str
    ours: Run
    plain: Run


def main(
    only: Annotated[list[str] | None, typer.Option(help="part of a row's name")] = None,
    rounds: int = 3,
    threads: int = 1,
    tokens: int = NUM_TOKENS,
) -> None:
    """Measure all rows, or those whose names hold one of the given parts."""
    keep_freed_memory()  # for both, as in a stage: the kernel's part is not what is compared
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shown = []
    for make in (tokenizer_rows, training_rows, feature_rows, lambda: sampling_rows(tokens)):
        for row in make():
            if only is None or any(part in row.name for part in only):
                shown.append(measured(row, rounds))
                # At once: a whole run takes minutes.
                print(*shown[-1], sep=" · ", flush=True)
    show("Ours against plain", ["task", "ours", "plain", "ratio", "difference"], shown)


def measured(row: Row, rounds: int) -> list[str]:
    """Let both do the task in turn; one round before is not counted."""
    ours, plain = row.ours(), row.plain()
    seconds = [(cpu_seconds(row.ours), cpu_seconds(row.plain)) for _ in range(rounds)]
    fast, slow = (min(times) for times in zip(*seconds, strict=True))
    if ours.dtype == torch.int64:
        apart = f"{int((ours != plain).sum())} codes"
    else:
        apart = f"{float((ours - plain).abs().max() / plain.abs().max()):.1e}"
    return [row.name, f"{fast:.3f} s", f"{slow:.3f} s", f"{slow / fast:.2f}", apart]


def cpu_seconds(run: Run) -> float:
    """Measure the CPU time of this process, all threads together."""
    start = time.process_time()
    run()
    return time.process_time() - start


def tokenizers() -> tuple[nn.Module, PlainTokenizer]:
    """Build S-S twice, with the same random weights."""
    config = tokenizer_architecture("S-S")
    ours = place(build_tokenizer(config, "cpu"), "cpu")
    plain = PlainTokenizer(config, IMAGE_SIZE, TEACHER_DIM)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def tokenizer_rows() -> list[Row]:
    """Encode and decode, and extract codes."""
    models = [model.eval() for model in tokenizers()]
    rows = []
    for batch in (1, 4):
        image_BCHW = torch.rand(batch, 3, IMAGE_SIZE, IMAGE_SIZE) * 2 - 1

        def codes(model: nn.Module, image_BCHW: Tensor = image_BCHW) -> Tensor:
            with torch.inference_mode():
                return model.encode(image_BCHW)  # type: ignore[operator, no-any-return]

        def both(model: nn.Module, codes: Callable[[nn.Module], Tensor] = codes) -> Tensor:
            with torch.inference_mode():
                return model.decode(codes(model))  # type: ignore[operator, no-any-return]

        for name, run in (("encode + decode", both), ("codes", codes)):
            rows.append(pair(f"S-S {name}, batch {batch}", run, *models))
    return rows


def pair(name: str, run: Callable[[nn.Module], Tensor], ours: nn.Module, plain: nn.Module) -> Row:
    """Make a row of one function of a model."""
    return Row(name, lambda: run(ours), lambda: run(plain))


def training_rows() -> list[Row]:
    """Take the forward and backward passes of a training step; optimizers are the same."""
    config = TokenizerConfig(
        **tokenizer_architecture("S-S").model_dump(),
        steps=1,
        batch_size=2,
        lr=1e-4,
        perceptual_weight=0,
    )
    image_BCHW = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE) * 2 - 1
    teacher_BPS = torch.randn(2, NUM_TOKENS, TEACHER_DIM)

    def tokenizer_step(model: nn.Module) -> Tensor:
        losses = tokenizer_losses(config, model.train()(image_BCHW), image_BCHW, teacher_BPS, None)
        return gradients(model, losses["loss"])

    codes_BT = torch.randint(CODEBOOK_SIZE, (2, NUM_TOKENS))
    classes_B = torch.randint(NUM_CLASSES, (2,))

    def generator_step(model: nn.Module) -> Tensor:
        logits_BTV = model.eval()(codes_BT, classes_B)  # without dropouts both compute the same
        return gradients(model, F.cross_entropy(logits_BTV.flatten(0, 1), codes_BT.flatten()))

    return [
        pair("S-S training step without LPIPS, batch 2", tokenizer_step, *tokenizers()),
        pair("GPT-B training step, batch 2", generator_step, *generators()),
    ]


def gradients(model: nn.Module, loss: Tensor) -> Tensor:
    """Run backward; return the loss and the norm of the gradient."""
    model.zero_grad()
    loss.backward()
    return torch.stack([loss.detach(), nn.utils.clip_grad_norm_(model.parameters(), 1e9)])


def feature_rows() -> list[Row]:
    """Compute features of FID; random weights do, as time does not depend on them."""
    network = Inception().eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = PlainInception(network)
    images = torch.randint(256, (4, 3, 299, 299)).float()

    def features(model: nn.Module) -> Tensor:
        with torch.inference_mode():
            found = model(images)
            return found if isinstance(found, Tensor) else found.pool  # type: ignore[no-any-return]

    return [pair("Inception features, batch 4", features, network, plain)]


def generators() -> tuple[nn.Module, PlainGenerator]:
    """Build GPT-B twice, with the same random weights, of which the logits are not all 0."""
    config = generator_architecture("GPT-B")
    ours = build_generator(config, "cpu").eval()
    nn.init.normal_(ours.output.weight, std=0.02)
    plain = PlainGenerator(config, CODEBOOK_SIZE, NUM_CLASSES, NUM_TOKENS)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def sampling_rows(tokens: int) -> list[Row]:
    """Draw the likeliest codes, without and with guidance."""
    ours, plain = generators()
    plain.num_tokens = tokens
    classes_B = torch.randint(NUM_CLASSES, (8,))

    def draw(scale: float) -> Tensor:
        config, random = SamplingConfig(cfg_scale=scale, num_images=8), torch.Generator()
        return generate(ours, classes_B, config, random, tokens, greedy=True)  # type: ignore[arg-type]

    return [
        Row(
            f"GPT-B {tokens} codes, batch 8, guidance {'no' if scale == 1 else scale}",
            lambda scale=scale: draw(scale),
            lambda scale=scale: plain.generate(classes_B, scale),
        )
        for scale in (1.0, 1.5)
    ]


if __name__ == "__main__":
    typer.run(main)
