"""Contract of a generator architecture: what training, sampling, probes and costs rely on.

B batch, T codes, V codebook_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gigatok.config import GeneratorArchitecture, TransformerSize
from gigatok.config.kinds.generators import PUBLISHED, GeneratorKind
from gigatok.contracts.base import Check, SmokeTrial, broken
from gigatok.contracts.tokenizer import counted
from gigatok.models.generator.base import Generator, build_generator
from gigatok.models.generator.drawing import draw
from gigatok.models.generator.layout import describe, generator_parameters
from gigatok.models.layers import flops

BATCH, TOKENS, CODES, CLASSES = 3, 9, 17, 5
VARIANTS: tuple[Mapping[str, Any], ...] = ({}, {"position": "rope_2d"})
"""Settings that are tried one after the other on an architecture that reads them."""
CLOSE = 1e-4
"""Largest difference of two ways to the same logits, whose sums may be in another order."""


def broken_promises(kind: GeneratorKind) -> list[str]:
    """List what a generator does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, kind, f"generator {kind.name}")


def smoke(kind: GeneratorKind) -> SmokeTrial:
    """Train it, draw images from it, and probe its features."""
    settings = {"generator.architecture": {"name": kind.name, **kind.example}}
    return SmokeTrial(("evaluate_generation", "linear_probe"), settings)


def architectures(kind: GeneratorKind, **changes: Any) -> Iterator[GeneratorArchitecture]:
    """Make small architectures with the kind's example: one for each variant that it has."""
    values = {
        "size": TransformerSize(width=16, layers=2, heads=2),
        "ffn_multiple_of": 8,
        "architecture": {"name": kind.name, **kind.example},
    }
    for variant in VARIANTS:
        if variant.keys() <= kind.config.reads:
            yield GeneratorArchitecture.model_validate({**values, **variant, **changes})


def built(config: GeneratorArchitecture, seed: int = 0) -> Generator:
    """Build a generator, always with the same weights of a seed."""
    torch.manual_seed(seed)
    generator = build_generator(config, CODES, CLASSES, TOKENS)
    with torch.no_grad():
        # Some start with an output of zeros, which would hide everything that is checked here.
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return generator


def codes_and_classes(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Draw codes (B, T) and classes (B,)."""
    random = torch.Generator().manual_seed(seed)
    codes_BT = torch.randint(CODES, (BATCH, TOKENS), generator=random)
    return codes_BT, torch.randint(CLASSES, (BATCH,), generator=random)


def settings(kind: GeneratorKind) -> Iterator[str]:
    """Check that settings survive being written, and set keys apart from the default's."""
    for config in architectures(kind):
        if GeneratorArchitecture.model_validate(config.model_dump(mode="json")) != config:
            yield "its settings are others after they were written and read"
        if kind.name != PUBLISHED.name and '"architecture":' not in config.identity:
            yield "keys do not hold its name; its config must not give `name` a default"


def shapes(kind: GeneratorKind) -> Iterator[str]:
    """Check shapes of logits, and of the features that a linear probe reads."""
    codes_BT, classes_B = codes_and_classes()
    for config in architectures(kind):
        generator = built(config).eval()
        logits = generator(codes_BT, classes_B)
        if logits.shape != (BATCH, TOKENS, CODES):
            yield f"logits are {tuple(logits.shape)}; they must be {(BATCH, TOKENS, CODES)}"
        depth, width = generator.depth, config.architecture.probed_width(config)
        for layer in range(1, depth + 1):
            seen = generator.features(codes_BT, layer)
            if seen.shape != (BATCH, TOKENS, width):
                yield f"features behind layer {layer} are {tuple(seen.shape)}; width is {width}"
        if not {id(block) for block in generator.blocks} <= {id(m) for m in generator.modules()}:
            yield "`blocks` holds something that is no part of it"


def causality(kind: GeneratorKind) -> Iterator[str]:
    """Check that a code changes the logits behind it, and no others."""
    codes_BT, classes_B = codes_and_classes()
    for config in architectures(kind):
        generator = built(config).eval()
        before = generator(codes_BT, classes_B)
        for place in (0, TOKENS // 2, TOKENS - 1):
            other_BT = codes_BT.clone()
            other_BT[:, place] = (other_BT[:, place] + 1) % CODES
            moved_T = (generator(other_BT, classes_B) - before).abs().amax((0, 2))
            if (moved_T[: place + 1] > CLOSE).any():
                yield f"the code at {place} changes logits that must not know it"
            if place + 1 < TOKENS and moved_T[place + 1] == 0:
                yield f"the code at {place} does not change the logits of the next one"


def classes(kind: GeneratorKind) -> Iterator[str]:
    """Check that the class matters, and that training can drop it."""
    codes_BT, classes_B = codes_and_classes()
    for config in architectures(kind):
        generator = built(config).eval()
        given = generator(codes_BT, classes_B)
        without = generator(codes_BT, generator.no_classes(codes_BT))
        if torch.equal(given, generator(codes_BT, (classes_B + 1) % CLASSES)):
            yield "another class gives the same logits"
        if torch.equal(given, without):
            yield "the null class gives the same logits as a class, so guidance does nothing"
    # Without other randomness, a share of 1 makes training read the null class alone.
    for config in architectures(kind, class_dropout=1.0, dropout=0.0):
        generator = built(config)
        dropped = generator.train()(codes_BT, classes_B)
        if not torch.equal(dropped, generator(codes_BT, generator.no_classes(codes_BT))):
            yield "training does not pass classes through `drop_classes`"


def sampling(kind: GeneratorKind) -> Iterator[str]:
    """Check that drawing code by code sees the logits of the forward pass."""
    codes_BT, classes_B = codes_and_classes()
    for config in architectures(kind):
        generator = built(config).eval()
        with torch.inference_mode():
            wanted_BTV = generator(codes_BT, classes_B)
            for words, found_BTV in _drawn(generator, codes_BT, classes_B):
                apart_T = ((found_BTV - wanted_BTV).abs().amax((0, 2)) > CLOSE).tolist()
                if True in apart_T:
                    place = apart_T.index(True)
                    yield f"{words}, code {place} has other logits than in the forward pass"


def _drawn(
    generator: Generator, codes_BT: Tensor, classes_B: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Yield logits (B, T, V) that were computed code by code, and how in words."""
    places = list(range(TOKENS))
    cache = generator.allocate_cache(BATCH)
    yield "drawn with a cache", _logits(generator, codes_BT, classes_B, cache, places)
    if (cache := generator.allocate_static_cache(BATCH)) is None:
        return
    on_device = [torch.tensor([place]) for place in places]
    for words in ("drawn with a static cache", "drawn with a static cache that was used before"):
        yield words, _logits(generator, codes_BT, classes_B, cache, on_device)


def _logits(
    generator: Generator, codes_BT: Tensor, classes_B: Tensor, cache: Any, places: list[Any]
) -> Tensor:
    found = [generator.first_logits(classes_B, cache)]
    for before, place in enumerate(places[1:]):
        found.append(generator.next_logits(codes_BT[:, before], place, cache))
    return torch.stack(found, dim=1)


def determinism(kind: GeneratorKind) -> Iterator[str]:
    """Check that seed and input decide everything, and that a state dict holds all of it."""
    codes_BT, classes_B = codes_and_classes()
    for config in architectures(kind):
        first, second, other = built(config), built(config), built(config, seed=5)
        results = []
        for generator in (first, second):
            torch.manual_seed(7)  # as the trainer does before each step
            results.append(generator.train()(codes_BT, classes_B))
        if not torch.equal(*results):
            yield "two of the same seed give other logits"
        other.load_state_dict(first.state_dict())
        if not torch.equal(*(g.eval()(codes_BT, classes_B) for g in (first, other))):
            yield "a copy by its state dict gives other logits"


def gradients(kind: GeneratorKind) -> Iterator[str]:
    """Check that gradients of the loss reach every parameter that is trained."""
    codes_BT, classes_B = codes_and_classes()
    for config in architectures(kind):
        generator = built(config)
        loss = F.cross_entropy(generator(codes_BT, classes_B).flatten(0, 1), codes_BT.flatten())
        named = {n: p for n, p in generator.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        pairs = zip(named, found, strict=True)
        without = [n for n, one in pairs if one is None or not one.isfinite().all()]
        if without:
            yield f"no finite gradient reaches {', '.join(without[:5])}"


def costs(kind: GeneratorKind) -> Iterator[str]:
    """Check parameters and FLOPs of the layout, and that nothing waits for the device."""
    for config in architectures(kind):
        count = sum(p.numel() for p in built(config).parameters())
        if (said := generator_parameters(config, CODES, CLASSES, TOKENS)) != count:
            yield f"its layout has {said} parameters, the module {count}"
        with torch.device("meta"):  # where any read of a value raises
            generator = build_generator(config, CODES, CLASSES, TOKENS).eval()
            codes_BT = torch.zeros(1, TOKENS, dtype=torch.int64)
            classes_B = codes_BT[:, 0]
        layout = describe(config, CODES, CLASSES, TOKENS)
        whole = counted(generator, codes_BT, classes_B)
        if whole != flops(layout.layers):
            yield f"an image takes {whole} FLOPs, its layout says {flops(layout.layers)}"
        drawn = counted(partial(draw, generator), classes_B)
        if drawn != layout.drawn:
            yield f"drawing an image takes {drawn} FLOPs, its layout says {layout.drawn}"


CHECKS: tuple[Check, ...] = (
    settings,
    shapes,
    causality,
    classes,
    sampling,
    determinism,
    gradients,
    costs,
)
