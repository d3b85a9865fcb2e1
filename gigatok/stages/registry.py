"""The stages by name. Importing the module that describes a stage registers it."""

from __future__ import annotations

from gigatok.plugins import Registry, registry
from gigatok.stages.base import Stage

STAND_IN = "gigatok.stages.stand_in"
"""Module of stages whose plug-in was missing when a record named them."""
STAGES: Registry[Stage] = registry("stage")
"""Every stage; each comes after its inputs, since a stage is registered after them."""


def register(stage: Stage) -> Stage:
    """Add a stage, and return it.

    Raises:
        ValueError: another stage has the name, or an input is not registered.
    """
    # Never replaced silently: keys and records know a stage by its name alone.
    known = STAGES.get(stage.name)
    if known is not None and known.module != STAND_IN:
        raise ValueError(f"there is a stage {stage.name!r} already; choose another name")
    # Inputs come first, so the registry is in an order in which stages can run.
    if missing := [name for name in stage.inputs if name not in STAGES]:
        raise ValueError(
            f"stage {stage.name!r} reads {', '.join(missing)}, which is not registered: import "
            f"the module that registers it first; there are {', '.join(STAGES)}"
        )
    STAGES[stage.name] = stage
    return stage
