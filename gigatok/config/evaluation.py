"""How images and models are scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gigatok.config.base import Config
from gigatok.config.marks import SAME_COST


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

    @model_validator(mode="after")
    def _statistics_are_of_one_network(self) -> EvaluationConfig:
        if self.reference != "val" and (self.network, self.resolution) != ("inception", 299):
            raise ValueError(
                f"reference {self.reference} is of network inception at resolution 299, not of "
                f"{self.network} at {self.resolution}; take these, or reference val"
            )
        return self


HILL_CLIMB_SCALES = 8
"""For predicting costs: scales that a hill climb scores when it starts a unit from its end."""


class GuidanceConfig(Config):
    """Search for the guidance scale at which a generator scores best; off by default.

    The same for all trials of a sweep, the samples' seed too, or their scores do not compare.
    """

    search: Literal["none", "grid", "hill_climb"] = "none"
    """`grid`: a coarse grid, then golden section around its best. `hill_climb`, published: from
    `start` in steps of `step`, up and then down, until both neighbours are worse."""
    objective: Literal["gkid", "gfid"] = "gkid"
    """What is to be lowest. FID of few samples is mostly bias: below 10,000 take `gkid`."""
    low: Annotated[float, Field(ge=1)] = 1.0
    high: Annotated[float, Field(ge=1)] = 5.0
    """Largest scale; between `low` and this one, `hill_climb` stays too."""
    coarse: Annotated[int, Field(ge=3)] = 9
    """Scales of the coarse grid, both ends included."""
    refine: NonNegativeInt = 4
    """Further scales, around the best of the grid."""
    start: Annotated[float, Field(ge=1)] = 2.0
    step: Annotated[float, Field(ge=0.01)] = 0.25
    num_images: Annotated[int, Field(ge=4)] = 1000
    """Samples drawn at each scale; the best one is then scored with `sampling.num_images`."""
    seed: NonNegativeInt = 0
    """Of the samples that decide; those that are reported never are among them."""

    @property
    def most_scales(self) -> int:
        """Most scales that are scored; by a hill climb that is not badly led."""
        if self.search == "hill_climb":
            return HILL_CLIMB_SCALES
        return self.coarse + self.refine

    @model_validator(mode="after")
    def _space_is_not_empty(self) -> GuidanceConfig:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.search == "hill_climb" and not self.low <= self.start <= self.high:
            raise ValueError(
                f"start {self.start:g} must be from low {self.low:g} to high {self.high:g}"
            )
        return self


class ProbeConfig(Config):
    """Linear probe on the generator's middle layer (LARS, batch norm without affine)."""

    epochs: PositiveInt = 90
    lr: Annotated[PositiveFloat, SAME_COST] = 0.1
    """Per 256 images of batch."""
    batch_size: PositiveInt = 256
    warmup_epochs: Annotated[NonNegativeInt, SAME_COST] = 10
    layer: NonNegativeInt = 0
    """Counted from 1; 0 is the middle."""
    reference_dropout_quirk: bool = False
    """The generator's dropout stays on while its probe is trained, as in the reference: features
    are computed anew in every epoch."""


ProbedFeatures = Literal["none", "encoder", "latents", "decoder"]


class TokenizerProbeConfig(Config):
    """Linear probe on the tokenizer itself, trained as `probe` says; off by default."""

    features: ProbedFeatures = "none"
    """`encoder`: its states after the last norm, the reference's default; `latents`: the same,
    projected to `z_channels` (`--fix-dim`); `decoder`: the stream after `semantic_layer`.
    """
