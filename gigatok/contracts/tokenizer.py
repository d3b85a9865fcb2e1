"""Contract of a tokenizer architecture: what training, scores, codes and costs rely on.

B batch, T tokens, S codes, C channels of the quantizer, H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gigatok.config import CNNConfig, ProbedFeatures, TokenizerArchitecture, TransformerSize
from gigatok.config.kinds.tokenizers import PUBLISHED, TokenizerKind
from gigatok.contracts.base import Check, SmokeTrial, broken
from gigatok.models.layers import flops
from gigatok.models.tokenizer.base import Tokenizer, build_tokenizer
from gigatok.models.tokenizer.layout import tokenizer_layout, tokenizer_parameters

BATCH, SIDE, TEACHER_DIM, TEACHER_GRID = 3, 16, 12, 4
SIZE = TransformerSize(width=16, layers=2, heads=2)
CNN = CNNConfig(
    channels=8,
    multipliers=(1, 2),
    resblocks=1,
    mid_blocks=0,
    z_channels=16,
    groups=4,
    patch_size=2,
)
VARIANTS: tuple[Mapping[str, Any], ...] = (
    {},
    *({"variant": "2d", "transformer_layer": n} for n in ("vit", "qformer", "double_attention")),
)
"""Settings that are tried one after the other on an architecture that reads them."""
CLOSE = 1e-4
"""Largest difference of two ways to the same images, whose sums may be in another order."""


def broken_promises(kind: TokenizerKind) -> list[str]:
    """List what a tokenizer does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, kind, f"tokenizer {kind.name}")


def smoke(kind: TokenizerKind) -> SmokeTrial:
    """Train it, and score its reconstructions and its codes."""
    settings: dict[str, Any] = {"tokenizer.architecture": {"name": kind.name, **kind.example}}
    if "semantic_weight" not in kind.config.reads:
        settings["tokenizer.semantic_weight"] = 0
    return SmokeTrial(("evaluate_reconstruction", "extract_codes"), settings)


def architectures(kind: TokenizerKind) -> Iterator[TokenizerArchitecture]:
    """Make small architectures with the kind's example: one for each variant that it has."""
    reads = kind.config.reads
    values = {
        **{"encoder": SIZE, "decoder": SIZE, "cnn": CNN, "num_latent_tokens": 8},
        **{"codebook_size": 32, "codebook_dim": 4, "usage_window": 64, "init": "fan_in"},
        **{"teacher": "pixels", "teacher_components": TEACHER_DIM, "semantic_layer": 1},
        "semantic_weight": 0.5 if "semantic_weight" in reads else 0,
        "architecture": {"name": kind.name, **kind.example},
    }
    for variant in VARIANTS:
        if variant.keys() <= reads:
            yield TokenizerArchitecture.model_validate({**values, **variant})


def built(config: TokenizerArchitecture, seed: int = 0) -> Tokenizer:
    """Build a tokenizer, always with the same weights of a seed."""
    torch.manual_seed(seed)
    semantic = config.semantic_weight > 0
    options = {"teacher_dim": TEACHER_DIM, "teacher_grid": TEACHER_GRID} if semantic else {}
    return build_tokenizer(config, SIDE, **options)


def images(seed: int = 1, count: int = BATCH) -> Tensor:
    """Draw noise in [-1, 1], (B, 3, H, W)."""
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, SIDE, SIDE, generator=random) * 2 - 1


def settings(kind: TokenizerKind) -> Iterator[str]:
    """Check that settings survive being written, and set keys apart from the default's."""
    for config in architectures(kind):
        if TokenizerArchitecture.model_validate(config.model_dump(mode="json")) != config:
            yield "its settings are others after they were written and read"
        if kind.name != PUBLISHED.name and '"architecture":' not in config.identity:
            yield "keys do not hold its name; its config must not give `name` a default"
        config.architecture.check_images(config, SIDE)


def shapes(kind: TokenizerKind) -> Iterator[str]:
    """Check shapes, and type and range of codes."""
    for config in architectures(kind):
        tokenizer = built(config).eval()
        image_BCHW = images()
        tokens, (vocabulary, dim, depth) = config.tokens_per_image(SIDE), config.code_shape
        codes_BS = tokenizer.encode(image_BCHW)
        wanted: dict[str, tuple[Tensor, tuple[int, ...]]] = {
            "latents": (tokenizer.encode_latents(image_BCHW), (BATCH, tokens, dim)),
            "codes": (codes_BS, (BATCH, tokens * depth)),
            "decoded images": (tokenizer.decode(codes_BS), tuple(image_BCHW.shape)),
            "images of `forward`": (tokenizer(image_BCHW)[0], tuple(image_BCHW.shape)),
        }
        for what, (tensor, shape) in wanted.items():
            if tensor.shape != shape:
                yield f"{what} are {tuple(tensor.shape)}; they must be {shape}"
        if codes_BS.dtype != torch.int64 or not 0 <= codes_BS.min() <= codes_BS.max() < vocabulary:
            yield f"codes are no int64 from 0 to {vocabulary - 1}"


def reconstruction(kind: TokenizerKind) -> Iterator[str]:
    """Check that a forward pass is encoding and decoding, of each image by itself."""
    for config in architectures(kind):
        tokenizer = built(config).eval()
        image_BCHW = images()
        whole, codes_BS = tokenizer(image_BCHW), tokenizer.encode(image_BCHW)
        if not torch.equal(whole.codes_BS, codes_BS):
            yield "`forward` finds other codes than `encode`"
        elif not torch.allclose(whole.reconstruction_BCHW, tokenizer.decode(codes_BS), atol=CLOSE):
            yield f"`forward` makes images that differ from decoded codes by more than {CLOSE}"
        alone = tokenizer(image_BCHW[:1])
        if not torch.allclose(
            alone.reconstruction_BCHW, whole.reconstruction_BCHW[:1], atol=CLOSE
        ):
            yield "in eval mode an image's reconstruction depends on the rest of its batch"
        if whole.losses is not None:
            yield "there are losses outside training"


def determinism(kind: TokenizerKind) -> Iterator[str]:
    """Check that seed and input decide everything, and that a state dict holds all of it."""
    for config in architectures(kind):
        first, second, other = built(config), built(config), built(config, seed=5)
        image_BCHW = images()
        results = []
        for tokenizer in (first, second):
            torch.manual_seed(7)  # as the trainer does before each step
            results.append(tokenizer.train()(image_BCHW).reconstruction_BCHW)
        if not torch.equal(*results):
            yield "two of the same seed make other images"
        other.load_state_dict(first.state_dict())
        ends = [tokenizer.eval()(image_BCHW)[0] for tokenizer in (first, other)]
        if not torch.equal(*ends):
            yield "a copy by its state dict makes other images"


def gradients(kind: TokenizerKind) -> Iterator[str]:
    """Check that gradients reach every parameter that is trained, and the last layer."""
    for config in architectures(kind):
        tokenizer = built(config)
        out = tokenizer(images())
        if out.losses is None:
            yield "there are no losses in training; pass on those of the quantizer"
        total = out.reconstruction_BCHW.square().sum() + sum((out.losses or {}).values())
        if config.semantic_weight > 0:
            if out.semantic_BNS is None:
                yield "there are no features for the teacher, which `semantic_weight` asks for"
                continue
            if out.semantic_BNS.shape != (BATCH, TEACHER_GRID**2, TEACHER_DIM):
                yield f"features for the teacher are {tuple(out.semantic_BNS.shape)}"
            total = total + out.semantic_BNS.square().sum()
        named = {n: p for n, p in tokenizer.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        pairs = zip(named, found, strict=True)
        without = [name for name, one in pairs if one is None or not one.isfinite().all()]
        if without:
            yield f"no finite gradient reaches {', '.join(without[:5])}"
        if all(parameter is not tokenizer.last_layer for parameter in named.values()):
            yield "`last_layer` is no parameter that is trained"
        if not {id(block) for block in tokenizer.blocks} <= {id(m) for m in tokenizer.modules()}:
            yield "`blocks` holds something that is no part of it"


def shortcut(kind: TokenizerKind) -> Iterator[str]:
    """Check the grids around the bottleneck of an architecture that reads `shortcut_end`."""
    if "shortcut_end" not in kind.config.reads:
        return
    for config in architectures(kind):
        out = built(config)(images(), shortcut=True)
        grids = out.spatial_BCHW, out.rec_spatial_BCHW
        if grids[0] is None or grids[1] is None or grids[0].shape != grids[1].shape:
            yield "it reads `shortcut_end`, and has no two grids of one shape"
        if out.shortcut_BCHW is None or out.shortcut_BCHW.shape != images().shape:
            yield "it reads `shortcut_images`, and makes none of them"


def probing(kind: TokenizerKind) -> Iterator[str]:
    """Check the features that a linear probe may read."""
    for config in architectures(kind):
        tokenizer = built(config).eval()
        for where in get_args(ProbedFeatures):
            try:
                width = config.probed_width(where) if where != "none" else 0
            except ValueError:
                continue  # it says that there is nothing to see
            if width and (seen := tokenizer.probe_features(images(), where)).shape != (
                BATCH,
                width,
            ):
                yield f"features {where} are {tuple(seen.shape)}; must be {(BATCH, width)}"


def costs(kind: TokenizerKind) -> Iterator[str]:
    """Check parameters and FLOPs of the layout, and that nothing waits for the device."""
    for config in architectures(kind):
        layout = tokenizer_layout(config, SIDE, TEACHER_DIM)
        count = sum(p.numel() for p in built(config).parameters())
        if (predicted := tokenizer_parameters(config, SIDE, TEACHER_DIM).total) != count:
            yield f"its layout has {predicted} parameters, the module {count}"
        with torch.device("meta"):  # where any read of a value raises
            tokenizer = built(config).eval().requires_grad_(False)
            image_BCHW = torch.randn(1, 3, SIDE, SIDE)
            codes_BS = torch.zeros(1, config.sequence_length(SIDE), dtype=torch.int64)
        encoding = counted(tokenizer.encode, image_BCHW)
        if encoding != flops(layout.encode):
            yield f"encoding takes {encoding} FLOPs, its layout says {flops(layout.encode)}"
        decoding = counted(tokenizer.decode, codes_BS)
        if decoding != flops(layout.decoder):
            yield f"decoding takes {decoding} FLOPs, its layout says {flops(layout.decoder)}"


def counted(run: Callable[..., object], *inputs: Tensor) -> int:
    """Count FLOPs with attention in its plain form, which the counter knows on every device."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run(*inputs)
    return int(counter.get_total_flops())


CHECKS: tuple[Check, ...] = (
    settings,
    shapes,
    reconstruction,
    determinism,
    gradients,
    shortcut,
    probing,
    costs,
)
