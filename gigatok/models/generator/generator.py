"""The published generator: a LLaMA-style GPT over codes, conditioned on a class (LlamaGen).

The sequence is [class, t_0, ..., t_(T-2)] and predicts t_0 ... t_(T-1). Positions are learned and
absolute, or rotations by the row and column of each code (`gigatok.models.generator.rope`). Of a
quantizer with several codes per token, T counts all of them (`gigatok.models.quantizers.base`).
Parameters are named as in the published checkpoints.

B batch, T tokens, D width, V codebook_size, H heads, d head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import GeneratorArchitecture
from gigatok.models.generator.base import Generator
from gigatok.models.generator.layout import ffn_width
from gigatok.models.generator.rope import Rotation, axial_rotation, grid_side, rotate
from gigatok.models.packed import packed
from gigatok.models.recompute import run_layer

NORM_EPS = 1e-5  # of LlamaGen's RMSNorm


Place = int | Tensor
"""Position of the one token that is read with a cache; a tensor is int64 (1,)."""


class LayerCache(NamedTuple):
    """Keys and values of a layer, allocated for the whole sequence."""

    keys_BHTd: Tensor
    values_BHTd: Tensor

    def append(self, k_BH1d: Tensor, v_BH1d: Tensor, position: Place) -> tuple[Tensor, Tensor]:
        """Store one position, and return all up to it; all there are, if it is a tensor."""
        if isinstance(position, Tensor):
            self.keys_BHTd.index_copy_(2, position, k_BH1d)
            self.values_BHTd.index_copy_(2, position, v_BH1d)
            return self.keys_BHTd, self.values_BHTd
        self.keys_BHTd[:, :, position] = k_BH1d[:, :, 0]
        self.values_BHTd[:, :, position] = v_BH1d[:, :, 0]
        filled = position + 1
        return self.keys_BHTd[:, :, :filled], self.values_BHTd[:, :, :filled]


class Cache(NamedTuple):
    """State of drawing codes: the layers as they read one position, and what each keeps."""

    layers: nn.ModuleList
    output: nn.Module
    kept: list[LayerCache]

    @property
    def tensors(self) -> list[Tensor]:
        """Tensors that are written while codes are drawn."""
        return [tensor for layer in self.kept for tensor in layer]


class Reading(NamedTuple):
    """Circumstances in which a block reads its tokens: all at once, or one with a cache.

    A rotation is of the positions that are read; keys are cached rotated.
    """

    rotation: Rotation | None = None
    cache: LayerCache | None = None
    position: Place = 0
    """Place of the one token that is read with a cache."""
    mask_1T: Tensor | None = None
    """Positions of the cache that are seen, if its place is a tensor: attention reads all."""


class CausalAttention(nn.Module):
    """Causal self-attention; `wqkv` stacks the rows of q, k and v."""

    def __init__(self, config: GeneratorArchitecture) -> None:
        super().__init__()
        d = config.size.width
        self.heads = config.size.heads
        self.dropout = config.dropout
        self.wqkv = nn.Linear(d, 3 * d, bias=False)
        self.wo = nn.Linear(d, d, bias=False)

    def forward(self, x_BTD: Tensor, reading: Reading) -> Tensor:
        """Attend to the past; with a cache, x is one token."""
        # (B, T, D) -> (B, H, T, d) each.
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.wqkv(x_BTD).chunk(3, dim=-1)
        )
        rotation, cache, position, mask_1T = reading
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.append(k, v, position)
        x_BHTd = F.scaled_dot_product_attention(q, k, v, mask_1T, is_causal=cache is None)
        out_BTD = self.wo(x_BHTd.transpose(1, 2).flatten(2))
        return F.dropout(out_BTD, self.dropout, self.training)


class FeedForward(nn.Module):
    """MLP with a gate (SwiGLU)."""

    def __init__(self, config: GeneratorArchitecture) -> None:
        super().__init__()
        d = config.size.width
        hidden = ffn_width(d, config.ffn_multiple_of)
        self.dropout = config.dropout
        self.w1 = nn.Linear(d, hidden, bias=False)
        self.w3 = nn.Linear(d, hidden, bias=False)
        self.w2 = nn.Linear(hidden, d, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply to each token: (B, T, D) -> (B, T, D)."""
        out_BTD = self.w2(F.silu(self.w1(x_BTD)) * self.w3(x_BTD))
        return F.dropout(out_BTD, self.dropout, self.training)


class GeneratorBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: GeneratorArchitecture) -> None:
        super().__init__()
        self.attention = CausalAttention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = nn.RMSNorm(config.size.width, NORM_EPS)
        self.ffn_norm = nn.RMSNorm(config.size.width, NORM_EPS)

    def forward(self, x_BTD: Tensor, reading: Reading) -> Tensor:
        """Update the stream, (B, T, D)."""
        x = x_BTD + self.attention(self.attention_norm(x_BTD), reading)
        out: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return out


class ClassEmbedding(nn.Module):
    """Table with a row per class, and a last one for "no class"."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, classes_B: Tensor) -> Tensor:
        """Look up: (B,) -> (B, D)."""
        out: Tensor = self.embedding_table(classes_B)
        return out


class LlamaGen(Generator):
    """LLaMA-style transformer over codes.

    Args:
        config: architecture.
        codebook_size: size of the vocabulary.
        num_classes: classes; `null_class` is the next index.
        num_tokens: codes per image.
        activation_checkpointing: recompute blocks in the backward pass.

    Raises:
        ValueError: rotary positions, and the codes are no square grid or the heads too narrow.
    """

    positional_embedding: nn.Parameter | None

    def __init__(
        self,
        config: GeneratorArchitecture,
        codebook_size: int,
        num_classes: int,
        num_tokens: int,
        *,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            config,
            codebook_size,
            num_classes,
            num_tokens,
            activation_checkpointing=activation_checkpointing,
        )
        d = config.size.width
        self.cls_embedding = ClassEmbedding(num_classes, d)
        self.tok_embeddings = nn.Embedding(codebook_size, d)
        self.positional_embedding = None
        if config.position == "learned":
            # One row more than inputs: the published tables have it, nothing reads it.
            self.positional_embedding = nn.Parameter(torch.randn(num_tokens + 1, d) * d**-0.5)
        else:
            self.grid_side = grid_side(num_tokens, d // config.size.heads)
        self.layers = nn.ModuleList(GeneratorBlock(config) for _ in range(config.size.layers))
        self.norm = nn.RMSNorm(d, NORM_EPS)
        self.output = nn.Linear(d, codebook_size, bias=False)
        self._initialise()

    @property
    def blocks(self) -> list[nn.Module]:
        """Transformer blocks."""
        return [*self.layers]

    def _initialise(self) -> None:
        # In the order of registration, which every seeded run depends on.
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        # As in LlamaGen: the first predictions are uniform.
        nn.init.zeros_(self.output.weight)

    def forward(self, codes_BT: Tensor, classes_B: Tensor) -> Tensor:
        """Compute teacher-forced logits (B, T, V): position t predicts `codes_BT[:, t]`.

        The last code is predicted but never read. In training, classes are dropped at random.
        """
        x_BTD = self._embed(codes_BT, self.drop_classes(classes_B))
        reading = Reading(self._rotation(torch.arange(x_BTD.shape[1], device=x_BTD.device)))
        for layer in self.layers:
            x_BTD = run_layer(layer, x_BTD, reading, recompute=self.activation_checkpointing)
        logits: Tensor = self.output(self.norm(x_BTD))
        return logits

    def features(self, codes_BT: Tensor, layer: int, classes_B: Tensor | None = None) -> Tensor:
        """Compute the residual stream (B, T, D) after `layer`, counted from 1.

        Position 0 is the class, by default the null class as linear probing wants it; the last
        code is not read.

        Raises:
            ValueError: no such layer.
        """
        if not 1 <= layer <= len(self.layers):
            raise ValueError(f"layer {layer} is not one of 1 to {len(self.layers)}")
        if classes_B is None:
            classes_B = self.no_classes(codes_BT)
        x_BTD = self._embed(codes_BT, classes_B)
        reading = Reading(self._rotation(torch.arange(x_BTD.shape[1], device=x_BTD.device)))
        for block in self.layers[:layer]:
            x_BTD = block(x_BTD, reading)
        return x_BTD

    def allocate_cache(self, batch_size: int) -> Cache:
        """Allocate caches for a batch of sequences, in the type of the embeddings.

        The weights are packed for the batch, so they must not change while it is drawn.
        """
        layers, output = packed(self.layers, batch_size), packed(self.output, batch_size)
        return Cache(layers, output, self._kept(batch_size))

    def allocate_static_cache(self, batch_size: int) -> Cache:
        """Allocate caches that can be used again, beside the layers as they are."""
        # Not packed: the compiler knows no packed tensors.
        return Cache(self.layers, self.output, self._kept(batch_size))

    def _kept(self, batch_size: int) -> list[LayerCache]:
        weight, size = self.tok_embeddings.weight, self.config.size
        shape = (batch_size, size.heads, self.num_tokens, size.width // size.heads)
        # Zeros: behind a mask, positions that are not yet drawn are multiplied by 0.
        return [LayerCache(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in self.layers]

    def first_logits(self, classes_B: Tensor, cache: Cache) -> Tensor:
        """Compute logits (B, V) of code 0, and fill position 0 of the cache; drops no class."""
        return self._cached(self.cls_embedding(classes_B), cache, position=0)

    def next_logits(self, codes_B: Tensor, position: Place, cache: Cache) -> Tensor:
        """Compute logits (B, V) of code `position`, at least 1, given the code before it."""
        return self._cached(self.tok_embeddings(codes_B), cache, position)

    def _cached(self, x_BD: Tensor, cache: Cache, position: Place) -> Tensor:
        if self.positional_embedding is not None:
            x_BD = x_BD + self.positional_embedding[position]
        mask_1T = None
        if isinstance(position, Tensor):
            places_1 = position
            mask_1T = torch.arange(self.num_tokens, device=x_BD.device)[None] <= position
        else:
            places_1 = torch.arange(position, position + 1, device=x_BD.device)
        rotation = self._rotation(places_1)
        x_B1D = x_BD.unsqueeze(1)
        for layer, kept in zip(cache.layers, cache.kept, strict=True):
            x_B1D = layer(x_B1D, Reading(rotation, kept, position, mask_1T))
        logits: Tensor = cache.output(self.norm(x_B1D)).squeeze(1)
        return logits

    def _embed(self, codes_BT: Tensor, classes_B: Tensor) -> Tensor:
        prefix_B1D = self.cls_embedding(classes_B).unsqueeze(1)
        # (B, 1, D) and (B, T - 1, D): the last code would predict nothing.
        x_BTD = torch.cat([prefix_B1D, self.tok_embeddings(codes_BT[:, :-1])], dim=1)
        if self.positional_embedding is not None:
            x_BTD = x_BTD + self.positional_embedding[: x_BTD.shape[1]]
        return F.dropout(x_BTD, self.config.dropout, self.training)

    def _rotation(self, places_T: Tensor) -> Rotation | None:
        """Rotate the inputs at these places; place 0 is the class.

        Computed afresh, which is cheap: a table kept here would have to survive construction on
        the meta device, casts of the model and sharding.
        """
        if self.positional_embedding is not None:
            return None
        head_width = self.config.size.width // self.config.size.heads
        class_scale = 0.0 if self.config.reference_rope_quirk else 1.0
        return axial_rotation(places_T - 1, self.grid_side, head_width, class_scale)
