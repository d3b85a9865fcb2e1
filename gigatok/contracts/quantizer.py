"""Contract of a quantizer: what tokenizer, training, costs and AR probe rely on.

B batch, T tokens, S codes, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gigatok.config import TokenizerArchitecture, TransformerSize
from gigatok.config.kinds.quantizers import PUBLISHED, QuantizerKind
from gigatok.contracts.base import Check, SmokeTrial, broken
from gigatok.models.layers import flops, parameters
from gigatok.models.quantizers.base import Quantizer, build_quantizer, entries_of
from gigatok.models.quantizers.layout import quantizer_layout

BATCH, TOKENS = 4, 16


def broken_promises(kind: QuantizerKind) -> list[str]:
    """List what a quantizer does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, kind, f"quantizer {kind.name}")


def smoke(kind: QuantizerKind) -> SmokeTrial:
    """Train a tokenizer with it, and encode images."""
    return SmokeTrial(
        stages=("extract_codes",),
        settings={"tokenizer.quantizer": {"name": kind.name, **kind.example}},
    )


def architecture(kind: QuantizerKind) -> TokenizerArchitecture:
    """Make a small architecture with the quantizer's example."""
    size = TransformerSize(width=8, layers=1, heads=1)
    values = {"encoder": size, "decoder": size, "semantic_weight": 0, "usage_window": 256}
    codebook = {"codebook_size": 16, "codebook_dim": 4}
    quantizer = {"name": kind.name, **kind.example}
    return TokenizerArchitecture.model_validate({**values, **codebook, "quantizer": quantizer})


def built(kind: QuantizerKind, seed: int = 0) -> Quantizer:
    """Build the example, always with the same weights."""
    torch.manual_seed(seed)
    return build_quantizer(architecture(kind))


def latents(quantizer: Quantizer, seed: int = 1) -> Tensor:
    """Draw latents of unit scale, (B, T, C)."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, TOKENS, quantizer.shape.dim, generator=random)


def settings(kind: QuantizerKind) -> Iterator[str]:
    """Check that settings survive being written, and set keys apart from the default's."""
    config = architecture(kind)
    if TokenizerArchitecture.model_validate(config.model_dump(mode="json")) != config:
        yield "its settings are others after they were written and read"
    if kind.name != PUBLISHED.name and '"quantizer":' not in config.identity:
        yield "keys do not hold its name; a quantizer's config must not give `name` a default"
    vocabulary, dim, depth = config.code_shape
    if min(vocabulary, dim, depth) < 1:
        yield f"code_shape is {tuple(config.code_shape)}; all three must be at least 1"


def codes(kind: QuantizerKind) -> Iterator[str]:
    """Check number, type and range of codes, and that all ways to them agree."""
    quantizer = built(kind)
    z_BTC = latents(quantizer)
    found = quantizer.nearest(z_BTC)
    vocabulary, _, depth = quantizer.shape
    if found.shape != (BATCH, TOKENS * depth) or found.dtype != torch.int64:
        yield (
            f"codes of {BATCH} images of {TOKENS} tokens are {found.dtype} "
            f"{tuple(found.shape)}; they must be int64 {(BATCH, TOKENS * depth)}"
        )
    if not 0 <= found.min() <= found.max() < vocabulary:
        yield f"codes lie in {found.min()} to {found.max()}; allowed are 0 to {vocabulary - 1}"
    for training in (True, False):
        if not torch.equal(quantizer.train(training)(z_BTC).codes_BS, found):
            yield f"forward (training: {training}) finds other codes than `nearest`"
    with torch.autocast("cpu", torch.bfloat16):
        if not torch.equal(quantizer.nearest(z_BTC), found):
            yield "autocast changes codes, so that a code would hang on rounding"


def vectors(kind: QuantizerKind) -> Iterator[str]:
    """Check that codes stand for the vectors that decoders were trained on, each for its own."""
    quantizer = built(kind).eval()
    z_BTC = latents(quantizer)
    value, codes_BS, _ = quantizer(z_BTC)
    entry = quantizer.get_codebook_entry(codes_BS)
    if entry.shape != z_BTC.shape:
        yield f"vectors are {tuple(entry.shape)}; latents are {tuple(z_BTC.shape)}"
    elif (value - entry).abs().max() > 1e-5:
        yield "the output differs from the vectors of its codes by more than 1e-5"
    vocabulary, dim, depth = quantizer.shape
    if depth == 1:
        every = quantizer.get_codebook_entry(torch.arange(vocabulary)[None])
        if len(torch.unique(every.view(-1, dim), dim=0)) < vocabulary:
            yield "two codes stand for one vector"
        if not every.isfinite().all():
            yield "a code's vector is not finite"


def gradients(kind: QuantizerKind) -> Iterator[str]:
    """Check that gradients reach the latents."""
    quantizer = built(kind)
    z_BTC = latents(quantizer).requires_grad_()
    value, _, losses = quantizer(z_BTC)
    if losses is None:
        yield "there are no losses in training; an empty dict says that none are needed"
    total = value.square().sum() + sum((losses or {}).values())
    (gradient,) = torch.autograd.grad(total, z_BTC)
    if not gradient.isfinite().all() or gradient.abs().sum() == 0:
        yield "the gradient of the latents is zero or not finite"


def losses(kind: QuantizerKind) -> Iterator[str]:
    """Check names and values of the losses, and that they are over the batch only if said so."""
    quantizer = built(kind)
    z_BTC, config = latents(quantizer), quantizer.config
    terms = quantizer(z_BTC).losses or {}
    named = config.quantizer.losses(config)
    if tuple(terms) != named:
        yield f"losses are {', '.join(terms)}; its config names {', '.join(named)}"
    if any(term.shape != () or not term.isfinite() for term in terms.values()):
        yield "a loss is no finite number"
    if quantizer.eval()(z_BTC).losses is not None:
        yield "there are losses outside training"
    halves = [quantizer.train()(half).losses or {} for half in z_BTC.chunk(2)]
    means = {name: torch.stack([half[name] for half in halves]).mean() for name in terms}
    apart = [name for name in terms if not torch.isclose(means[name], terms[name], rtol=1e-4)]
    if apart and config.quantizer.batch_loss(config) is None:
        yield (
            f"{', '.join(apart)} of a batch is not the mean of its halves, so micro-batches would "
            "change results; let `batch_loss` of its config name the setting"
        )


def determinism(kind: QuantizerKind) -> Iterator[str]:
    """Check that seed and input decide everything, and that a state dict holds all of it."""
    first, second, other = built(kind), built(kind), built(kind, seed=5)
    z_BTC = latents(first)
    one, two = first(z_BTC), second(z_BTC)
    if not torch.equal(one.z_BTC, two.z_BTC) or not torch.equal(one.codes_BS, two.codes_BS):
        yield "two of the same seed give other outputs"
    other.load_state_dict(first.state_dict())
    if not torch.equal(other.eval()(z_BTC).z_BTC, first.eval()(z_BTC).z_BTC):
        yield "a copy by its state dict gives other outputs"
    if other.usage() != first.usage():
        yield "a copy by its state dict has another usage"


def usage(kind: QuantizerKind) -> Iterator[str]:
    """Check that the window holds the codes of training, and of nothing else."""
    quantizer = built(kind).eval()
    z_BTC = latents(quantizer)
    quantizer(z_BTC)
    if quantizer.usage() != 0:
        yield "evaluation counts as use of codes"
    entries = entries_of(quantizer.train()(z_BTC).codes_BS, quantizer.shape)
    wanted = len(torch.unique(entries)) / quantizer.shape.entries
    if abs(quantizer.usage() - wanted) > 1e-6:
        yield f"usage is {quantizer.usage():.4f} after codes that are {wanted:.4f} of all"


def codebooks(kind: QuantizerKind) -> Iterator[str]:
    """Check that a start from latents, and restarts of unused entries, leave it working."""
    quantizer = built(kind)
    random = torch.Generator().manual_seed(0)
    count = max(quantizer.rows_needed, TOKENS)
    z_MC = torch.randn(count, quantizer.shape.dim, generator=random)
    quantizer.initialise(z_MC, random)
    z_BTC = latents(quantizer)
    quantizer(z_BTC)
    quantizer.restart(z_BTC, random)
    found = quantizer.nearest(z_BTC)
    if not 0 <= found.min() <= found.max() < quantizer.shape.vocabulary:
        yield "codes are out of range after initialise and restart"
    if not quantizer.get_codebook_entry(found).isfinite().all():
        yield "vectors are not finite after initialise and restart"


def costs(kind: QuantizerKind) -> Iterator[str]:
    """Check parameters and FLOPs of the layout, and that nothing waits for the device."""
    config = architecture(kind)
    # On the meta device any read of a value raises.
    with torch.device("meta"):
        quantizer = build_quantizer(config)
        z_BTC = torch.randn(1, TOKENS, quantizer.shape.dim)
    layout = quantizer_layout(config, TOKENS)
    count = sum(p.numel() for p in quantizer.parameters())
    if parameters(layout.codebook) != count:
        yield f"its layout has {parameters(layout.codebook)} parameters, the module {count}"
    for what, run, predicted in (
        ("finding codes", quantizer.nearest, flops(layout.codebook)),
        ("a step of training", quantizer, flops(layout.codebook + layout.losses)),
    ):
        with FlopCounterMode(display=False) as counter:
            run(z_BTC)
        if (found := counter.get_total_flops()) != predicted:
            yield f"{what} takes {found} FLOPs, its layout says {predicted}"


CHECKS: tuple[Check, ...] = (
    settings,
    codes,
    vectors,
    gradients,
    losses,
    determinism,
    usage,
    codebooks,
    costs,
)
