"""Settings of scores: comparison of image sets, guidance search and linear probes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gigatok.config.fields.base import Config
from gigatok.config.fields.marks import SAME_COST
from gigatok.config.kinds.tokenizers import ProbedFeatures

SSIM_WINDOW, SSIM_REFERENCE_WINDOW = 11, 7
"""Sides of the windows of `ssim` and `ssim_reference`; smaller images have no such score."""


class EvaluationConfig(Config):
    """Comparison of image sets."""

    # Four at least: precision and recall look for a third neighbour.
    num_images: Annotated[int, Field(ge=4)]
    """Validation images: reconstructed for rFID, and the reference of rFID and gFID."""
    network: Literal["inception", "pixels"] = "inception"
    """Feature network; `pixels`: raw pixels at `resolution`, without download, for tests."""
    resolution: PositiveInt = 299
    """Side to which images are resized for the network; 299 is the standard."""
    lpips_network: Literal["vgg", "alex", "none"] = "vgg"
    """Network of LPIPS; `none`: LPIPS is not measured."""
    reference: Literal["val", "adm_imagenet256"] = "val"
    """Reference of generated images: validation images, or the ADM evaluator's statistics.

    Published gFIDs use those statistics; `$GIGATOK_ADM_IMAGENET256` names the file.
    """

    @model_validator(mode="after")
    def _statistics_are_of_one_network(self) -> EvaluationConfig:
        if self.reference != "val" and (self.network, self.resolution) != ("inception", 299):
            raise ValueError(
                f"reference {self.reference} is of network inception at resolution 299, not of "
                f"{self.network} at {self.resolution}; take these, or reference val"
            )
        return self


HILL_CLIMB_SCALES = 8
"""Number of scales that a hill climb scores from a usual start, for predicting costs."""


class GuidanceConfig(Config):
    """Search for the guidance scale at which a generator scores best; off by default.

    It must be the same for all trials of a sweep, including the samples' seed, or their scores
    cannot be compared.
    """

    decisive: ClassVar[tuple[str, ...]] = ("search",)
    search: Literal["none", "grid", "hill_climb"] = "none"
    """Method of the search.

    `grid`: a coarse grid, then golden section around its best scale. `hill_climb`: from `start` in
    steps of `step`, up and then down, until both neighbours are worse, as the authors do
    (`sample_c2i_cfg_search.py`).
    """
    objective: Literal["gkid", "gfid"] = "gkid"
    """Score to minimise. FID of few samples is mostly bias: below 10,000 use `gkid`."""
    # A scale of 1 is no guidance.
    low: Annotated[float, Field(ge=1)] = 1.0
    """Smallest scale that is tried."""
    high: Annotated[float, Field(ge=1)] = 5.0
    """Largest scale; `hill_climb` also stays between `low` and `high`."""
    coarse: Annotated[int, Field(ge=3)] = 9
    """Scales of the coarse grid, both ends included."""
    refine: NonNegativeInt = 4
    """Further scales around the best one of the grid."""
    start: Annotated[float, Field(ge=1)] = 2.0
    """First scale of `hill_climb`."""
    step: Annotated[float, Field(ge=0.01)] = 0.25
    """Distance between neighbouring scales of `hill_climb`."""
    num_images: Annotated[int, Field(ge=4)] = 1000
    """Samples drawn at each scale; the best scale is then scored with `sampling.num_images`."""
    seed: NonNegativeInt = 0
    """Seed of the samples that decide; reported scores use other samples."""

    @property
    def unread(self) -> frozenset[str]:
        """Settings of the other search; of none, all."""
        of_grid, of_hill_climb = frozenset({"coarse", "refine"}), frozenset({"start", "step"})
        every = frozenset(type(self).model_fields) - {"search"}
        return {"none": every, "grid": of_hill_climb, "hill_climb": of_grid}[self.search]

    @property
    def most_scales(self) -> int:
        """Most scales that are scored; for a hill climb, from a usual start."""
        if self.search == "hill_climb":
            return HILL_CLIMB_SCALES
        return self.coarse + self.refine

    @model_validator(mode="after")
    def _space_is_not_empty(self) -> GuidanceConfig:
        # Checked even if the search is off: a mistake must not wait until it is switched on.
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.search == "hill_climb" and not self.low <= self.start <= self.high:
            raise ValueError(
                f"start {self.start:g} must be from low {self.low:g} to high {self.high:g}"
            )
        return self


LBFGS_PASSES = 700
"""Passes of a usual fit by L-BFGS, for predicting costs."""


class ProbeConfig(Config):
    """Linear probe on the generator's middle layer (reference: `autoregressive/lin_probe`).

    A batch norm without affine parameters and a linear layer.
    """

    decisive: ClassVar[tuple[str, ...]] = ("method",)
    method: Literal["lars", "lbfgs"] = "lars"
    """How it is trained.

    `lars`: over `epochs`, as the reference does; short runs end far from the best classifier.
    `lbfgs`: to the optimum, on all views at once, which have to fit into memory.
    """
    # 90 epochs, 10 of warm-up and a rate of 0.1 per 256 images are the reference's.
    epochs: PositiveInt = 90
    """Passes over the training images."""
    lr: Annotated[PositiveFloat, SAME_COST] = 0.1
    """Learning rate per 256 images of batch."""
    batch_size: PositiveInt = 256
    """Images per step of the probe."""
    warmup_epochs: Annotated[NonNegativeInt, SAME_COST] = 10
    """Epochs over which the learning rate rises."""
    layer: NonNegativeInt = 0
    """Layer that is probed, counted from 1; 0 is the middle one."""
    reference_dropout_quirk: bool = False
    """Keep the generator's dropout on while its probe is trained, as the reference does.

    Features are then computed again in every epoch.
    """

    @property
    def unread(self) -> frozenset[str]:
        """Settings that say nothing of a fit to the optimum."""
        of_lars = frozenset({"epochs", "lr", "batch_size", "warmup_epochs"})
        return of_lars if self.method == "lbfgs" else frozenset()

    def passes(self, views: int) -> int:
        """Count the times that a classifier sees each training image; of `lbfgs`, usually."""
        return self.epochs if self.method == "lars" else LBFGS_PASSES * views

    @model_validator(mode="after")
    def _optimum_is_of_fixed_features(self) -> ProbeConfig:
        if self.method == "lbfgs" and self.reference_dropout_quirk:
            raise ValueError(
                "method lbfgs needs features that stay, and reference_dropout_quirk draws them "
                "anew in every epoch; take method lars, or leave the dropout off"
            )
        return self


class TokenizerProbeConfig(Config):
    """Linear probe on the tokenizer, trained with the settings of `probe`; off by default."""

    features: ProbedFeatures = "none"
    """Features that are probed, as in the reference (`tokenizer/lin_probe`).

    `encoder`: its states after the last norm, the reference's default. `latents`: the same,
    projected to `z_channels` (`--fix-dim`). `decoder`: the stream after `semantic_layer`.
    """
