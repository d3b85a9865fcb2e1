"""Catalogue of the published models: build them, load the authors' checkpoints, inspect files.

Names are the paper's: tokenizers encoder-decoder, with `-2d` for the baseline; generators GPT-B to
GPT-XXXL, with `-2d` for axial rotary positions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gigatok.config import COMPUTES, GeneratorArchitecture, TokenizerArchitecture, marked
from gigatok.files.foreign_weights import listed
from gigatok.files.stored_weights import (
    GENERATOR_LAYOUTS,
    TOKENIZER_LAYOUTS,
    StoredWeights,
    read_weights,
)
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.published.fitting import LoadReport, Model, fill, fit, with_head_of
from gigatok.published.sizes import GENERATOR_SIZES, TOKENIZER_SIZES

# Of all published models: ImageNet at 256 pixels, 256 tokens, 16384 codes.
IMAGE_SIZE, NUM_CLASSES, NUM_TOKENS, CODEBOOK_SIZE = 256, 1000, 256, 16384

HIDDEN = ("heads", "groups", "reference_rope_quirk")
"""Fields of an architecture that the shapes of its weights do not show."""
_ALIKE = {"qformer", "double_attention"}
"""Layers of the 2D tokenizer with the same weights that compute different things."""

Architecture = TokenizerArchitecture | GeneratorArchitecture
Source = Path | str | Mapping[str, Any]
"""File, or content that was loaded from one: a checkpoint or a state dict."""


@dataclass(frozen=True)
class Published:
    """Published model.

    Attributes:
        architecture: its architecture, with the training options of its weights.
        parameters: number of parameters as the authors count, with the training-only head.
        origin: the authors' config file, or model class.
    """

    architecture: Architecture
    parameters: int
    origin: str


def _tokenizer(name: str, **options: Any) -> TokenizerArchitecture:
    # The paper names a tokenizer by the sizes of its two transformers.
    encoder, decoder = (TOKENIZER_SIZES[letter] for letter in name.split("-"))
    return TokenizerArchitecture(encoder=encoder, decoder=decoder, **options)


def _generator(letter: str, *, rope: bool) -> GeneratorArchitecture:
    position: Any = "rope_2d" if rope else "learned"
    # LlamaGen's class (`gpt.py`) multiplies the class token's query and key by 0.
    return GeneratorArchitecture(
        size=GENERATOR_SIZES[letter], position=position, reference_rope_quirk=rope
    )


# Counts of the authors' modules, built from their config files; the README rounds them.
_B_L = 621_637_131
PUBLISHED: dict[str, Published] = {
    "S-S": Published(_tokenizer("S-S"), 136_073_227, "VQ_SS256"),
    "S-B": Published(_tokenizer("S-B"), 232_399_627, "VQ_SB256"),
    "B-L": Published(_tokenizer("B-L"), _B_L, "VQ_BL256"),
    # The three B-L differ in their discriminator and losses, not in shapes.
    "B-L-dino": Published(_tokenizer("B-L"), _B_L, "VQ_BL256_dino_disc"),
    "B-L-entropy": Published(
        _tokenizer("B-L", entropy_weight=0.005, rotation_trick=False),
        _B_L,
        "VQ_BL256_train_new",
    ),
    "XL-XXL": Published(_tokenizer("XL-XXL", entropy_weight=0.005), 2_893_970_443, "VQ_XLXXL256"),
    # Its config file leaves the kind of layer out; the authors' default is the Q-Former's.
    "S-S-2d": Published(
        _tokenizer("S-S", variant="2d", transformer_layer="qformer"), 135_548_427, "VQ_SS256_2d"
    ),
    "S-B-2d": Published(_tokenizer("S-B", variant="2d"), 197_132_555, "VQ_SB256_2d"),
    "B-L-2d": Published(
        _tokenizer("B-L", variant="2d", entropy_weight=0.005), 491_410_187, "VQ_BL256_2d"
    ),
    "GPT-B": Published(_generator("B", rope=False), 111_085_824, "gpt_1d.py"),
    "GPT-L": Published(_generator("L", rope=False), 343_174_144, "gpt_1d.py"),
    "GPT-XL": Published(_generator("XL", rope=False), 775_028_480, "gpt_1d.py"),
    "GPT-XXL": Published(_generator("XXL", rope=False), 1_411_367_424, "gpt_1d.py"),
    "GPT-XXXL": Published(_generator("XXXL", rope=False), 3_893_685_760, "gpt_1d.py"),
    # Rotations instead of a table: 257 * 768 parameters less than GPT-B.
    "GPT-B-2d": Published(_generator("B", rope=True), 110_888_448, "gpt.py"),
    "GPT-L-2d": Published(_generator("L", rope=True), 342_910_976, "gpt.py"),
    "GPT-XL-2d": Published(_generator("XL", rope=True), 774_699_520, "gpt.py"),
    "GPT-XXL-2d": Published(_generator("XXL", rope=True), 1_410_972_672, "gpt.py"),
}
"""Name, as `build` and `load` take it -> model."""


def build(name: str) -> Model:
    """Build a published model with fresh weights, in training mode.

    Under `torch.device("meta")` nothing is allocated.

    Raises:
        ValueError: no model has that name.
    """
    return _construct(find(name).architecture)


def load(name: str, source: Source, device: str = "cpu") -> Model:
    """Load a published model with the weights of a checkpoint, in float32 and eval mode.

    If the checkpoint has no semantic head, the model has none. A warning lists weights of the
    checkpoint that are for training only.

    Raises:
        ValueError: no model has that name, the file cannot be read, or weights are missing,
            unexpected, of another shape or not finite; all kinds are listed.
    """
    model, report = load_with_report(name, source, device)
    if report.misfits.ignored:
        warnings.warn(f"ignored: {listed(report.misfits.ignored)}", stacklevel=2)
    return model


def load_with_report(name: str, source: Source, device: str = "cpu") -> tuple[Model, LoadReport]:
    """Load as `load` does, without its warning, and report how the weights fitted.

    Raises:
        ValueError: as for `load`.
    """
    stored = read_weights(source, layouts_of(find(name).architecture))
    model, report = _fit(name, stored)
    return fill(model, stored, report, device), report


def inspect(name: str, stored: StoredWeights) -> LoadReport:
    """Report how weights fit a published model, without filling it.

    Raises:
        ValueError: no model has that name.
    """
    return _fit(name, stored)[1]


def find(name: str) -> Published:
    """Look up a published model.

    Raises:
        ValueError: there is no such model.
    """
    if name not in PUBLISHED:
        raise ValueError(f"no published model {name!r}; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def layouts_of(architecture: Architecture) -> Sequence[str]:
    """Return the keys under which a file may hold a model's weights, in the authors' order."""
    is_tokenizer = isinstance(architecture, TokenizerArchitecture)
    return TOKENIZER_LAYOUTS if is_tokenizer else GENERATOR_LAYOUTS


def _construct(architecture: Architecture) -> Model:
    if isinstance(architecture, TokenizerArchitecture):
        return GigaTok(architecture, IMAGE_SIZE)
    return LlamaGen(architecture, CODEBOOK_SIZE, NUM_CLASSES, NUM_TOKENS)


def _fit(name: str, stored: StoredWeights) -> tuple[Model, LoadReport]:
    """Build the model without memory, with a head if the weights have one, and compare them."""
    architecture = find(name).architecture
    if isinstance(architecture, TokenizerArchitecture):
        architecture = with_head_of(architecture, stored)
    # On the meta device: comparing shapes must not allocate 12 GB.
    with torch.device("meta"):
        model = _construct(architecture)
    return model, fit(name, model, stored)


def hidden_differences(architecture: Architecture) -> list[str]:
    """List differences from a published architecture that weights cannot show.

    For example another number of heads: every weight would fit, and the model would compute
    nonsense.
    """
    mine = computing_fields(architecture)
    for name, published in PUBLISHED.items():
        theirs = computing_fields(published.architecture)
        # The published model of the same shapes: all else is equal, only hidden fields may differ.
        if mine.keys() == theirs.keys() and all(
            mine[key] == value or _is_hidden(key, {mine[key], value})
            for key, value in theirs.items()
        ):
            return [
                f"{key} is {mine[key]}, that of the published {name} is {value}"
                for key, value in theirs.items()
                if mine[key] != value
            ]
    return []


def _is_hidden(key: str, values: set[Any]) -> bool:
    # `encoder.heads` -> `heads`.
    return key.rpartition(".")[2] in HIDDEN or (key == "transformer_layer" and values <= _ALIKE)


def computing_fields(architecture: Architecture) -> dict[str, Any]:
    """Return the fields that decide what weights compute, by dotted key."""
    # Without the settings of a codebook that the quantizer does not have.
    names = set(marked(type(architecture), COMPUTES)) - architecture.unread
    if isinstance(architecture, TokenizerArchitecture):
        # 1D tokenizers do not read the kind of layer, 2D ones not the number of latent tokens.
        names.remove("transformer_layer" if architecture.variant == "1d" else "num_latent_tokens")
    flat: dict[str, Any] = {}
    for name, value in architecture.model_dump(include=names).items():
        # Sizes and the CNN are sections of one level, everything else is a value.
        parts = value if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{part}".rstrip("."): one for part, one in parts.items()}
    # A size's letter is only a name, that of a quantizer its kind.
    letters = {key for key in flat if key.endswith(".name")} - {
        "quantizer.name",
        "architecture.name",
    }
    return {key: value for key, value in flat.items() if key not in letters}


def codebook_norms(tensors: Mapping[str, Tensor]) -> tuple[float, float, float] | None:
    """Return the smallest, median and largest row length of a codebook; None without one."""
    codebook = tensors.get("quantize.embedding.weight")
    if codebook is None:
        return None
    # Rows are normalised when they are read, so their stored length drifts freely.
    lengths = codebook.float().norm(dim=-1)
    return lengths.min().item(), lengths.median().item(), lengths.max().item()
