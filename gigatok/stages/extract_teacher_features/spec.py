"""The stage that computes teacher features once, where training would do so in every step."""

from __future__ import annotations

from gigatok.config import Config, SplitConfig, TrialConfig
from gigatok.stages.base import Stage
from gigatok.stages.extract_teacher_features.cost import COSTS
from gigatok.stages.registry import register


class TeacherFeaturesConfig(Config):
    """Config of `extract_teacher_features`: what it reads of a trial."""

    train: SplitConfig
    teacher: str
    components: int
    # Decides whether features of mirror images are needed.
    augment: str


def _read(trial: TrialConfig) -> TeacherFeaturesConfig:
    return TeacherFeaturesConfig(
        train=trial.split("train"),
        teacher=trial.tokenizer.teacher,
        components=trial.tokenizer.teacher_components,
        augment=trial.tokenizer.augment,
    )


EXTRACT_TEACHER_FEATURES = register(
    Stage(
        name="extract_teacher_features",
        version=1,
        config=TeacherFeaturesConfig,
        read=_read,
        module="gigatok.stages.extract_teacher_features.run",
        label="teacher",
        costs=COSTS,
        # With random crops the features are new in every step, and training computes them.
        applies=lambda t: t.uses_cached_teacher,
        # Not the tokenizer, which is trained on them later.
        readable=lambda t: f"{t.data.name}-{t.tokenizer.teacher}",
        assets=lambda t: (t.data.name, t.tokenizer.teacher) if t.uses_cached_teacher else (),
    )
)
