"""How images and models are scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from gigatok.config.base import Config


class EvaluationConfig(Config):
    """How image sets are compared."""

    num_images: Annotated[int, Field(ge=4)]
    """Validation images: reconstructed for rFID, and the reference of rFID and gFID."""
    network: Literal["inception", "pixels"] = "inception"
    """`pixels`: raw pixels at `resolution` as features; no download, for tests."""
    resolution: PositiveInt = 299
    """Side to which images are resized for the network; 299 is the standard."""
    lpips_network: Literal["vgg", "alex", "none"] = "vgg"
    """`none`: LPIPS is not measured."""
    reference: Literal["val", "adm_imagenet256"] = "val"
    """What generated images are compared with: the validation images, or the ADM evaluator's file
    of statistics, which `$GIGATOK_ADM_IMAGENET256` names (published gFIDs)."""


class ProbeConfig(Config):
    """Linear probe on the generator's middle layer (spec: LARS, BN without affine)."""

    epochs: PositiveInt = 90
    lr: PositiveFloat = 0.1
    """Per 256 images of batch."""
    batch_size: PositiveInt = 256
    warmup_epochs: NonNegativeInt = 10
    layer: NonNegativeInt = 0
    """Counted from 1; 0 is the middle."""


ProbedFeatures = Literal["none", "encoder", "latents", "decoder"]


class TokenizerProbeConfig(Config):
    """Linear probe on the tokenizer itself, trained as `probe` says (spec 7); off by default."""

    features: ProbedFeatures = "none"
    """`encoder`: its states after the last norm, the reference's default; `latents`: the same,
    projected to `z_channels` (`--fix-dim`); `decoder`: the stream after `semantic_layer`.
    """
