"""Trial: all sections together, and the checks across them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

from pydantic import ConfigDict, NonNegativeInt, model_validator

from gigatok.config.data import DataConfig, SplitConfig, split_config
from gigatok.config.evaluation import (
    EvaluationConfig,
    GuidanceConfig,
    ProbeConfig,
    TokenizerProbeConfig,
)
from gigatok.config.fields.base import Config
from gigatok.config.fields.marks import RUNTIME
from gigatok.config.generator import (
    GeneratorConfig,
    SamplingConfig,
    without_guidance,
)
from gigatok.config.kinds.architecture import TokenizerArchitecture
from gigatok.config.kinds.generators import PUBLISHED as PUBLISHED_GENERATOR
from gigatok.config.kinds.tokenizers import PUBLISHED as PUBLISHED_TOKENIZER
from gigatok.config.tokenizer import (
    LPIPS_SIDES,
    PATCHGAN_SIDE,
    CodesConfig,
    TokenizerConfig,
)
from gigatok.files.weight_files import unreadable
from gigatok.plugins import Registry, registry

C = TypeVar("C", bound=Config)

TEACHER_CACHE_IMAGES = 100_000
"""Most training images whose teacher features are cached; ImageNet's would be a terabyte."""

MOST_CODES = 2**20
"""Largest vocabulary that a trial may have.

The AR probe has a row of embedding and of logits for each code, and three codes in a row, whose
counts the n-gram scores keep, must fit into 64 bits.
"""


class AdoptConfig(Config):
    """Files of weights that replace training: published ones, or other people's."""

    tokenizer: str | None = None
    """File that `adopt_tokenizer` reads instead of running `train_tokenizer`."""
    generator: str | None = None
    """File that `adopt_generator` reads instead of running `train_generator`.

    It needs `tokenizer`: a generator knows only the codes of the tokenizer it was trained with.
    """

    @model_validator(mode="after")
    def _can_be_adopted(self) -> AdoptConfig:
        if self.generator is not None and self.tokenizer is None:
            raise ValueError(
                f"generator {self.generator} speaks the codes of the tokenizer that it was "
                "trained with: give adopt.tokenizer as well"
            )
        for name, file in (("tokenizer", self.tokenizer), ("generator", self.generator)):
            # Checked here although a stage reads it: a launch must fail now, and not after days in
            # a queue.
            if file is not None and not Path(file).expanduser().is_file():
                raise ValueError(f"{name} {file} is no file (relative paths: from {Path.cwd()})")
            if file is not None and (problem := unreadable(Path(file).expanduser())):
                raise ValueError(f"{name} {file} {problem}")
        return self


class AdoptedFile(Config):
    """A file of weights: its content is identity, the place where it lies is not."""

    path: Annotated[str, RUNTIME]
    """Path of the file."""
    sha256: str
    """Hash of its content, hexadecimal."""


SECTIONS: Registry[type[Config]] = registry("section")
"""Sections of a trial by name, the beginning of their keys: built-in ones first."""


class TrialConfig(Config):
    """Trial: everything that axes, `set` and `--set` can address.

    Sections that plug-ins have registered are extra fields, here only if a sweep or its scale
    gives one of their keys: a plug-in that is merely installed changes no trial.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Config]

    data: DataConfig
    """Data set."""
    tokenizer: TokenizerConfig
    """Tokenizer and its training."""
    codes: CodesConfig = CodesConfig()
    """Views of training images that are encoded for the generator."""
    generator: GeneratorConfig
    """Generator and its training."""
    sampling: SamplingConfig
    """Sampling of images that are scored."""
    evaluation: EvaluationConfig
    """Comparison of image sets."""
    guidance: GuidanceConfig = GuidanceConfig()
    """Search for the best guidance scale."""
    probe: ProbeConfig = ProbeConfig()
    """Linear probe on the generator's features."""
    tokenizer_probe: TokenizerProbeConfig = TokenizerProbeConfig()
    """Linear probe on the tokenizer's features."""
    adopt: AdoptConfig = AdoptConfig()
    """Files of weights that replace training."""
    seed: NonNegativeInt = 0
    """Seed of weights, batches and samples."""

    @model_validator(mode="after")
    def _sections_agree(self) -> TrialConfig:
        check_tokenizer(self)
        check_generator(self)
        return self

    def section(self, kind: type[C]) -> C:
        """Return a section that a plug-in has registered; its defaults if nothing gives its keys.

        Raises:
            ValueError: it is not registered.
        """
        for name, known in SECTIONS.items():
            if known is kind:
                return cast(C, getattr(self, name))
        raise ValueError(f"{kind.__name__} is no section of a trial; call register_section first")

    @property
    def added(self) -> Mapping[str, Config]:
        """Sections of plug-ins by name, those that were given."""
        return self.__pydantic_extra__

    # Hidden from type checkers, which would take any misspelt attribute for a section.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Find `measure_brightness` of the key `measure_brightness.gamma`, given or not."""
            here = name in self.__pydantic_extra__ or name in TrialConfig.model_fields
            if here or name not in SECTIONS:
                return super().__getattr__(name)
            return _defaults(SECTIONS[name])

    @property
    def effective_sampling(self) -> SamplingConfig:
        """Settings of sampling as they are used: without guidance if there is one class.

        Classifier-free guidance leads away from the mean over classes, which is that class then.
        """
        return self.sampling if self.data.num_classes > 1 else without_guidance(self.sampling)

    @property
    def uses_cached_teacher(self) -> bool:
        """True if teacher features are computed once for all training images, not in each step.

        This requires few images with few views each (no random crops).
        """
        if self.adopt.tokenizer is not None:
            return False
        # A mirrored view can be cached too; random crops are new in every step.
        countable = self.tokenizer.augment != "crop_flip"
        small = self.data.train_images <= TEACHER_CACHE_IMAGES
        return self.tokenizer.semantic_weight > 0 and countable and small

    def split(
        self, split: Literal["train", "val"], images: int | None = None, *, labels: bool = False
    ) -> SplitConfig:
        """Return the part of a split that a stage reads.

        Args:
            split: which.
            images: number of images, instead of the trial's.
            labels: the stage reads classes, too.
        """
        default = self.data.train_images if split == "train" else self.data.val_images
        return split_config(self.data, split, images or default, labels)


@cache  # one object for all trials, of which planning keeps the texts
def _defaults(kind: type[Config]) -> Config:
    return kind()


# Not by `register_section`: these may lack defaults, which a scale gives.
SECTIONS |= {
    name: field.annotation
    for name, field in TrialConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Config)
}


def register_section(name: str, settings: type[Config]) -> None:
    """Add a section to trials, such as the settings of a plug-in's stage.

    Args:
        name: beginning of its keys, as the stage's name in `measure_brightness.gamma`.
        settings: its keys with their types; `trial.section(settings)` reads them.

    Raises:
        ValueError: the name is taken or unfit, the class has a section already, or a field lacks
            a default.
    """
    if name in SECTIONS or hasattr(TrialConfig, name) or name in TrialConfig.model_fields:
        raise ValueError(f"a trial has {name!r} already; choose another name for the section")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"section {name!r}: a name is of small letters, digits and _")
    if settings in SECTIONS.values():
        raise ValueError(f"{settings.__name__} is a section already; derive another class")
    # Trials of sweeps that know nothing of the plug-in have the section, too.
    if lacking := [n for n, field in settings.model_fields.items() if field.is_required()]:
        raise ValueError(f"section {name!r}: {', '.join(lacking)} must have a default")
    SECTIONS[name] = settings


# Checks across sections: each message names its keys in full, so that `sweep.grid.sections` finds
# the line to blame.


def check_tokenizer(trial: TrialConfig) -> None:
    """Raise unless tokenizer, images and evaluation go together."""
    tokenizer, size = trial.tokenizer, trial.data.image_size
    tokenizer.architecture.check_images(tokenizer, size)
    if tokenizer.discriminator == "patchgan" and size < PATCHGAN_SIDE:
        raise ValueError(
            f"tokenizer.discriminator patchgan needs images of {PATCHGAN_SIDE} pixels or "
            f"more; data.image_size is {size}"
        )
    _check_perceptual_networks(trial)
    _check_codes(tokenizer)
    if (probed := trial.tokenizer_probe.features) != "none":
        tokenizer.probed_width(probed)
    _check_adopted(trial)
    _check_teacher(trial)
    _check_images(trial)


def _check_perceptual_networks(trial: TrialConfig) -> None:
    tokenizer, size = trial.tokenizer, trial.data.image_size
    network = tokenizer.perceptual_network if tokenizer.perceptual_weight else "none"
    for key, name, off in (
        ("tokenizer.perceptual_network", network, "tokenizer.perceptual_weight 0"),
        ("evaluation.lpips_network", trial.evaluation.lpips_network, "none"),
    ):
        if size < (side := LPIPS_SIDES.get(name, 0)):
            raise ValueError(
                f"{key} {name} needs images of {side} pixels or more; data.image_size is {size}: "
                f"give larger images, another network, or {off}"
            )


def _check_codes(tokenizer: TokenizerArchitecture) -> None:
    """Raise unless the AR probe can have a row for every code."""
    if tokenizer.vocabulary > MOST_CODES:
        raise ValueError(
            f"tokenizer.quantizer {tokenizer.quantizer.label} has {tokenizer.vocabulary:,} codes; "
            f"the AR probe holds at most {MOST_CODES:,}. Use fewer bits or levels, or several "
            "codes per token: {name: rvq, depth: 2}"
        )


def check_generator(trial: TrialConfig) -> None:
    """Raise unless the generator can hold the codes, and has the layer that is probed."""
    architecture = trial.generator.architecture
    architecture.check(trial.generator, trial.tokenizer, trial.data.image_size)
    if trial.probe.layer > (layers := architecture.probed_layers(trial.generator)):
        key = "size" if "size" in architecture.reads else "architecture"
        raise ValueError(
            f"probe.layer {trial.probe.layer} is beyond the {layers} layers of generator.{key}"
        )


def _check_adopted(trial: TrialConfig) -> None:
    """Raise unless adopted weights have their architecture."""
    # The authors' files are of these two; other architectures have no published weights.
    for file, section, published in (
        (trial.adopt.tokenizer, "tokenizer", PUBLISHED_TOKENIZER),
        (trial.adopt.generator, "generator", PUBLISHED_GENERATOR),
    ):
        if file is None:
            continue
        name = getattr(trial, section).architecture.name
        if name != published.name:
            raise ValueError(
                f"adopt.{section} takes weights of architecture {published.name}; "
                f"{section}.architecture is {name}"
            )


def _check_teacher(trial: TrialConfig) -> None:
    """Raise unless the features that principal components are found of are cached."""
    tokenizer = trial.tokenizer
    regularised = tokenizer.semantic_weight > 0 and trial.adopt.tokenizer is None
    if regularised and tokenizer.teacher_components and not trial.uses_cached_teacher:
        raise ValueError(
            "tokenizer.teacher_components needs the features of all training images "
            "beforehand, which are kept with tokenizer.augment none or flip and at most "
            f"{TEACHER_CACHE_IMAGES:,} images; otherwise give 0"
        )


def _check_images(trial: TrialConfig) -> None:
    """Raise unless there are as many images as the codebook is drawn of, and as are compared."""
    tokenizer, data, asked = trial.tokenizer, trial.data, trial.evaluation.num_images
    draws = tokenizer.codebook_init == "data" and tokenizer.has_codebook
    latents = data.train_images * tokenizer.tokens_per_image(data.image_size)
    if draws and trial.adopt.tokenizer is None and latents < tokenizer.vocabulary:
        raise ValueError(
            f"tokenizer.codebook_init data draws {tokenizer.vocabulary:,} codes from the "
            f"{latents:,} latents that data.train_images {data.train_images:,} have; give more "
            "images or fewer codes, or take tokenizer.codebook_init uniform"
        )
    if data.found is not None and asked > data.found.val.images:
        raise ValueError(
            f"evaluation.num_images {asked:,} are more than the {data.found.val.images:,} "
            f"validation images of {data.path}; lower evaluation.num_images"
        )
