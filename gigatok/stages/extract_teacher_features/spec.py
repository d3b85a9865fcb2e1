"""The stage that computes teacher features once, where training would do so in every step."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

from gigatok.config import Config, SplitConfig, TrialConfig
from gigatok.config.kinds.teachers import FoundTeacher, TeacherName, teacher_assets, unread_name
from gigatok.stages.base import Stage
from gigatok.stages.extract_teacher_features.cost import COSTS
from gigatok.stages.registry import register


class TeacherFeaturesConfig(Config):
    """Config of `extract_teacher_features`: what it reads of a trial."""

    train: SplitConfig
    teacher: Annotated[str, TeacherName()]
    found_teacher: FoundTeacher | None = None
    components: int
    # Decides whether features of mirror images are needed.
    augment: str

    @property
    def told_elsewhere(self) -> frozenset[str]:
        """Path of a teacher, whose content was found."""
        return unread_name(self.teacher)


def _read(trial: TrialConfig) -> TeacherFeaturesConfig:
    return TeacherFeaturesConfig(
        train=trial.split("train"),
        teacher=trial.tokenizer.teacher,
        found_teacher=trial.tokenizer.found_teacher,
        components=trial.tokenizer.teacher_components,
        augment=trial.tokenizer.augment,
    )


def _readable(trial: TrialConfig) -> str:
    # Not the tokenizer, which is trained on them later.
    first, _, which = trial.tokenizer.teacher.partition(":")
    # The last part of a path or a repository: the whole has slashes, and this names a folder.
    return f"{trial.data.name}-{PurePath(which or first).name}"


def _assets(trial: TrialConfig) -> tuple[str, ...]:
    if not trial.uses_cached_teacher:
        return ()
    return (trial.data.name, *teacher_assets(trial.tokenizer.teacher))


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
        readable=_readable,
        assets=_assets,
    )
)
