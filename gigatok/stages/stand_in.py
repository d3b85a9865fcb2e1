"""Stand-ins for stages whose plug-in is missing: they name what was run, and run nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from pydantic import ConfigDict

from gigatok.config import Config, TrialConfig
from gigatok.plugins import PluginError
from gigatok.runtime.context import Runtime
from gigatok.runtime.tracker import Tracker
from gigatok.stages.base import Stage
from gigatok.stages.registry import STAGES


class UnknownConfig(Config):
    """Config of a stage that is not known here: any fields."""

    model_config = ConfigDict(extra="allow")


def stand_in(name: str, version: int, inputs: Iterable[str]) -> None:
    """Put a stage into the registry that can be shown, but not planned or run."""
    always = dict.fromkeys(inputs, _never)
    # Past `register`, which must go on accepting the plug-in's own stage of that name.
    STAGES[name] = Stage(
        name, version, UnknownConfig, _unknown, __name__, name, None, always, applies=_never
    )


def run(
    config: Config,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> NoReturn:
    """Refuse: the code of the stage is not here.

    Raises:
        PluginError: always.
    """
    raise PluginError("the plug-in of this stage is missing here; install it")


def _never(trial: TrialConfig) -> bool:
    return False


def _unknown(trial: TrialConfig) -> NoReturn:
    raise PluginError("the plug-in of this stage is missing here; install it")
