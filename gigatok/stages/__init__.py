"""The graph of a trial: stage names, versions, typed configs and inputs. Imports no torch.

Each stage is one file here with `run(config, inputs, output_dir, tracker, runtime) -> Scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import Field, PositiveInt

from gigatok.config import (
    RUNTIME,
    CodesConfig,
    Config,
    EvaluationConfig,
    GeneratorArchitecture,
    GeneratorConfig,
    GuidanceConfig,
    ProbeConfig,
    ProbedFeatures,
    SamplingConfig,
    SplitConfig,
    TokenizerArchitecture,
    TokenizerConfig,
    TrialConfig,
)
from gigatok.data.file_hashes import known_sha256


class TeacherFeaturesConfig(Config):
    """Reads of `extract_teacher_features`."""

    train: SplitConfig
    teacher: str
    components: int
    augment: str


class ReferenceFeaturesConfig(Config):
    """Reads of `extract_reference_features`."""

    val: SplitConfig
    network: str
    resolution: int


class TrainTokenizerConfig(Config):
    """Reads of `train_tokenizer`."""

    train: SplitConfig
    tokenizer: TokenizerConfig
    seed: int


class AdoptedFile(Config):
    """A file of weights: what is in it is identity, where it lies is not."""

    path: str = Field(json_schema_extra=RUNTIME)
    sha256: str


class AdoptTokenizerConfig(Config):
    """Reads of `adopt_tokenizer`."""

    architecture: TokenizerArchitecture
    image_size: PositiveInt
    file: AdoptedFile


class AdoptGeneratorConfig(Config):
    """Reads of `adopt_generator`."""

    architecture: GeneratorArchitecture
    file: AdoptedFile


class EvaluateReconstructionConfig(Config):
    """Reads of `evaluate_reconstruction`."""

    val: SplitConfig
    evaluation: EvaluationConfig


class ExtractCodesConfig(Config):
    """Reads of `extract_codes`."""

    train: SplitConfig
    val: SplitConfig
    codes: CodesConfig


class TrainGeneratorConfig(Config):
    """Reads of `train_generator`."""

    generator: GeneratorConfig
    seed: int


class EvaluateGenerationConfig(Config):
    """Reads of `evaluate_generation`."""

    sampling: SamplingConfig
    evaluation: EvaluationConfig
    seed: int


class SearchGuidanceConfig(Config):
    """Reads of `search_guidance`; the scale of `sampling` is left at 1, since it is searched."""

    guidance: GuidanceConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    seed: int


class LinearProbeConfig(Config):
    """Reads of `linear_probe`."""

    probe: ProbeConfig
    seed: int


class ProbeTokenizerConfig(Config):
    """Reads of `probe_tokenizer`."""

    train: SplitConfig
    val: SplitConfig
    codes: CodesConfig
    features: ProbedFeatures
    probe: ProbeConfig
    seed: int


@dataclass(frozen=True)
class StageSpec:
    """One node of a trial's graph.

    Attributes:
        version: raised when the meaning of the outputs changes; part of the key.
        config: type of the stage's config.
        read: what the stage reads of a trial.
        inputs: the stages whose outputs it reads.
        label: short column head for tables.
        parallel: several processes share its work; otherwise one does all of it.
        applies: whether a trial can have it at all.
    """

    version: int
    config: type[Config]
    read: Callable[[TrialConfig], Config]
    inputs: Callable[[TrialConfig], tuple[str, ...]]
    label: str
    parallel: bool = False
    applies: Callable[[TrialConfig], bool] = lambda t: True


@lru_cache(maxsize=1024)
def _against_val(evaluation: EvaluationConfig) -> EvaluationConfig:
    """Reconstructions are compared with their originals, whatever samples are compared with."""
    return evaluation.model_copy(update={"reference": "val"})


@lru_cache(maxsize=1024)
def _without_scale(sampling: SamplingConfig) -> SamplingConfig:
    return sampling.model_copy(update={"cfg_scale": 1.0})


@lru_cache(maxsize=1024)
def _without_layer(probe: ProbeConfig) -> ProbeConfig:
    """The layer is one of the generator, and so is the dropout."""
    return probe.model_copy(update={"layer": 0, "reference_dropout_quirk": False})


def _adopted(file: str | None) -> AdoptedFile:
    assert file is not None
    path = Path(file).expanduser().resolve()
    return AdoptedFile(path=str(path), sha256=known_sha256(path))


TOKENIZER_COMPUTES = (
    "variant",
    "transformer_layer",
    "encoder",
    "decoder",
    "cnn",
    "num_latent_tokens",
    "codebook_size",
    "codebook_dim",
)
"""Fields of a tokenizer's architecture without which its weights mean nothing."""
GENERATOR_COMPUTES = ("size", "ffn_multiple_of", "position", "reference_rope_quirk")
"""The same of a generator's."""
_HEAD = ("semantic_weight", "semantic_layer", "teacher", "usage_window")
"""What the weights of a tokenizer hold beside, for training alone."""


@lru_cache(maxsize=1024)
def _trained_tokenizer(tokenizer: TokenizerArchitecture) -> TokenizerArchitecture:
    """Without what only training reads: all of it is in the weights already."""
    kept = {name: getattr(tokenizer, name) for name in (*TOKENIZER_COMPUTES, *_HEAD)}
    return TokenizerArchitecture(**kept)


@lru_cache(maxsize=1024)
def _trained_generator(generator: GeneratorArchitecture) -> GeneratorArchitecture:
    """Without what only training reads."""
    return GeneratorArchitecture(**{n: getattr(generator, n) for n in GENERATOR_COMPUTES})


def _tokenizer_stage(trial: TrialConfig) -> str:
    return "train_tokenizer" if trial.adopt.tokenizer is None else "adopt_tokenizer"


def _generator_stage(trial: TrialConfig) -> str:
    return "train_generator" if trial.adopt.generator is None else "adopt_generator"


def _sampled_and_compared(trial: TrialConfig) -> tuple[str, ...]:
    """What stages read that sample from the generator and compare with real images."""
    models = _tokenizer_stage(trial), _generator_stage(trial)
    return (
        (*models, "extract_reference_features") if trial.evaluation.reference == "val" else models
    )


def tokenizer_of(inputs: Mapping[str, Path]) -> Path:
    """The folder of the tokenizer among a stage's inputs, trained or adopted."""
    return inputs["adopt_tokenizer" if "adopt_tokenizer" in inputs else "train_tokenizer"]


def generator_of(inputs: Mapping[str, Path]) -> Path:
    """The folder of the generator among a stage's inputs, trained or adopted."""
    return inputs["adopt_generator" if "adopt_generator" in inputs else "train_generator"]


STAGES: dict[str, StageSpec] = {
    "extract_teacher_features": StageSpec(
        1,
        TeacherFeaturesConfig,
        lambda t: TeacherFeaturesConfig(
            train=t.split("train"),
            teacher=t.tokenizer.teacher,
            components=t.tokenizer.teacher_components,
            augment=t.tokenizer.augment,
        ),
        lambda t: (),
        "teacher",
        applies=lambda t: t.uses_cached_teacher,
    ),
    "extract_reference_features": StageSpec(
        2,
        ReferenceFeaturesConfig,
        lambda t: ReferenceFeaturesConfig(
            val=t.split("val", t.evaluation.num_images),
            network=t.evaluation.network,
            resolution=t.evaluation.resolution,
        ),
        lambda t: (),
        "reference",
    ),
    "train_tokenizer": StageSpec(
        2,
        TrainTokenizerConfig,
        lambda t: TrainTokenizerConfig(train=t.split("train"), tokenizer=t.tokenizer, seed=t.seed),
        lambda t: ("extract_teacher_features",) if t.uses_cached_teacher else (),
        "tokenizer",
        parallel=True,
        applies=lambda t: t.adopt.tokenizer is None,
    ),
    "adopt_tokenizer": StageSpec(
        1,
        AdoptTokenizerConfig,
        lambda t: AdoptTokenizerConfig(
            architecture=_trained_tokenizer(t.tokenizer),
            image_size=t.data.image_size,
            file=_adopted(t.adopt.tokenizer),
        ),
        lambda t: (),
        "adopted tokenizer",
        applies=lambda t: t.adopt.tokenizer is not None,
    ),
    "evaluate_reconstruction": StageSpec(
        2,
        EvaluateReconstructionConfig,
        lambda t: EvaluateReconstructionConfig(
            val=t.split("val", t.evaluation.num_images), evaluation=_against_val(t.evaluation)
        ),
        lambda t: (_tokenizer_stage(t), "extract_reference_features"),
        "reconstruction",
    ),
    "extract_codes": StageSpec(
        3,
        ExtractCodesConfig,
        lambda t: ExtractCodesConfig(train=t.split("train"), val=t.split("val"), codes=t.codes),
        lambda t: (_tokenizer_stage(t),),
        "codes",
    ),
    "train_generator": StageSpec(
        2,
        TrainGeneratorConfig,
        lambda t: TrainGeneratorConfig(generator=t.generator, seed=t.seed),
        lambda t: ("extract_codes",),
        "AR probe",
        parallel=True,
        applies=lambda t: t.adopt.generator is None,
    ),
    "adopt_generator": StageSpec(
        1,
        AdoptGeneratorConfig,
        lambda t: AdoptGeneratorConfig(
            architecture=_trained_generator(t.generator), file=_adopted(t.adopt.generator)
        ),
        lambda t: ("extract_codes",),
        "adopted AR probe",
        applies=lambda t: t.adopt.generator is not None,
    ),
    "evaluate_generation": StageSpec(
        1,
        EvaluateGenerationConfig,
        lambda t: EvaluateGenerationConfig(
            sampling=t.sampling, evaluation=t.evaluation, seed=t.seed
        ),
        _sampled_and_compared,
        "generation",
        parallel=True,
    ),
    "search_guidance": StageSpec(
        1,
        SearchGuidanceConfig,
        lambda t: SearchGuidanceConfig(
            guidance=t.guidance,
            sampling=_without_scale(t.sampling),
            evaluation=t.evaluation,
            seed=t.seed,
        ),
        _sampled_and_compared,
        "guidance",
        parallel=True,
        applies=lambda t: t.guidance.search != "none",
    ),
    "linear_probe": StageSpec(
        1,
        LinearProbeConfig,
        lambda t: LinearProbeConfig(probe=t.probe, seed=t.seed),
        lambda t: ("extract_codes", _generator_stage(t)),
        "linear probe",
    ),
    "probe_tokenizer": StageSpec(
        2,
        ProbeTokenizerConfig,
        lambda t: ProbeTokenizerConfig(
            train=t.split("train"),
            val=t.split("val"),
            codes=t.codes,
            features=t.tokenizer_probe.features,
            probe=_without_layer(t.probe),
            seed=t.seed,
        ),
        lambda t: (_tokenizer_stage(t),),
        "tokenizer probe",
        applies=lambda t: t.tokenizer_probe.features != "none",
    ),
}
"""Every stage, in an order in which each comes after its inputs."""
