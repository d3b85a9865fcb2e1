"""Smoke trial: the smallest sweep with given settings, run for the check of a plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from gigatok.config import Config, TrialConfig
from gigatok.config.kinds.tokenizers import PUBLISHED, reads_of
from gigatok.contracts.base import SmokeTrial
from gigatok.stages import STAGES, Stage
from orchestration.execution.progress import Progress
from orchestration.study.launch import LaunchResult
from orchestration.study.study import Study
from orchestration.terminal import Terminal


@dataclass(frozen=True)
class CompleteStage:
    """Stage that a smoke trial has run.

    Attributes:
        inputs: stage -> its output folder.
        own: whether a plug-in has a part in it.
    """

    key: str
    stage: Stage
    trial: TrialConfig
    config: Config
    inputs: Mapping[str, Path]
    own: bool


@dataclass(frozen=True)
class SmokeRun:
    """End of a smoke trial.

    Attributes:
        uri: its tracking store; None: the sweep was refused.
        problems: why it was refused, or stages failed.
        stages: those that are complete.
    """

    uri: str | None = None
    problems: tuple[str, ...] = ()
    stages: tuple[CompleteStage, ...] = ()


def run_smoke(name: str, plugin: str, trial: SmokeTrial, folder: Path, runs: Path) -> SmokeRun:
    """Run a smoke trial.

    Args:
        name: of its sweep.
        plugin: module, or absolute path.
        trial: what runs.
        folder: holds the YAML of the sweep.
        runs: the runs directory; smoke trials in one share stages.
    """
    # A setting that no trial reads is refused, and an architecture may have no sizes.
    architecture = trial.settings.get("tokenizer.architecture", {"name": PUBLISHED.name})
    ends = [end for end in ("encoder", "decoder") if end in reads_of(architecture)]
    sizes = {f"tokenizer.{end}": "S" for end in ends}
    sweep = {
        "question": f"Does {name} work?",
        "scale": "smoke",
        "plugins": [plugin],
        "set": sizes | dict(trial.settings),
        "stages": list(trial.stages),
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    try:
        study = Study(file, runs=runs)
        # A detached backend is waited for.
        result = study.run(Terminal(watch=True), backend=trial.backend)
    # Planning calls functions of the plug-in, which may raise whatever they will.
    except Exception as error:
        return SmokeRun(problems=(f"{type(error).__name__}: {error}",))
    return _ended(result)


def _ended(result: LaunchResult) -> SmokeRun:
    progress = result.progress
    if progress is None or result.outcome == "interrupted":
        return SmokeRun(result.uri, (f"the smoke trial was {result.outcome}",))
    failures = tuple(
        f"stage {progress.plan.stages[key].stage}: {failure.message}"
        for key, failure in progress.failures.items()
    )
    return SmokeRun(result.uri, failures, tuple(_complete(progress)))


def _complete(progress: Progress) -> list[CompleteStage]:
    return [
        CompleteStage(
            key,
            STAGES[planned.stage],
            planned.trial,
            planned.config,
            {name: progress.folders[one].out for name, one in planned.inputs.items()},
            own=bool(progress.folders[key].spec().plugins),
        )
        for key, planned in progress.plan.stages.items()
        if progress.states[key] == "COMPLETE"
    ]
