"""Configs, frozen and typed: a trial, and the part that each stage reads. Imports no torch.

`TrialConfig` holds the keys of axes, `set` and `--set`. Stage configs hold exactly what one stage
reads, because a stage's key is the hash of its config: a field that a stage does not read must not
be in it. Fields marked `RUNTIME` change how a stage runs but not its result; they are left out of
the key.
"""

from __future__ import annotations

from gigatok.config.data import DataConfig, FoundImages, FoundSplit, ImageFolder, SplitConfig
from gigatok.config.evaluation import (
    EvaluationConfig,
    GuidanceConfig,
    ProbeConfig,
    TokenizerProbeConfig,
)
from gigatok.config.fields.base import Config, Fraction, TransformerSize
from gigatok.config.fields.marks import (
    COMPUTES,
    FOUND,
    RUNTIME,
    SAME_COST,
    SAME_FLOPS,
    TRAINING_ONLY,
    FieldMark,
    marked,
)
from gigatok.config.fields.open_union import NamedConfig
from gigatok.config.generator import (
    GeneratorArchitecture,
    GeneratorConfig,
    SamplingConfig,
)
from gigatok.config.kinds.architecture import TokenizerArchitecture
from gigatok.config.kinds.generators import GeneratorKindConfig
from gigatok.config.kinds.quantizers import (
    CodebookConfig,
    CodeShape,
    QuantizerConfig,
)
from gigatok.config.kinds.tokenizers import (
    CNNConfig,
    ProbedFeatures,
    TokenizerKindConfig,
    finest_level,
)
from gigatok.config.schedules import GuidanceKind, ScheduleKind
from gigatok.config.tokenizer import (
    LPIPS_SIDES,
    PATCHGAN_SIDE,
    AdversarialConfig,
    CodesConfig,
    ShortcutConfig,
    TokenizerConfig,
)
from gigatok.config.training import TrainingConfig
from gigatok.config.trial import (
    SECTIONS,
    TEACHER_CACHE_IMAGES,
    AdoptConfig,
    AdoptedFile,
    TrialConfig,
    register_section,
)

__all__ = [
    "COMPUTES",
    "FOUND",
    "LPIPS_SIDES",
    "PATCHGAN_SIDE",
    "RUNTIME",
    "SAME_COST",
    "SAME_FLOPS",
    "SECTIONS",
    "TEACHER_CACHE_IMAGES",
    "TRAINING_ONLY",
    "AdoptConfig",
    "AdoptedFile",
    "AdversarialConfig",
    "CNNConfig",
    "CodeShape",
    "CodebookConfig",
    "CodesConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "FieldMark",
    "FoundImages",
    "FoundSplit",
    "Fraction",
    "GeneratorArchitecture",
    "GeneratorConfig",
    "GeneratorKindConfig",
    "GuidanceConfig",
    "GuidanceKind",
    "ImageFolder",
    "NamedConfig",
    "ProbeConfig",
    "ProbedFeatures",
    "QuantizerConfig",
    "SamplingConfig",
    "ScheduleKind",
    "ShortcutConfig",
    "SplitConfig",
    "TokenizerArchitecture",
    "TokenizerConfig",
    "TokenizerKindConfig",
    "TokenizerProbeConfig",
    "TrainingConfig",
    "TransformerSize",
    "TrialConfig",
    "finest_level",
    "marked",
    "register_section",
]
