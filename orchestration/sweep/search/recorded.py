"""A search as plain data: what the record of a launch keeps, so that later trials mean the same.

A search asks for trials while it runs, for days. Their meaning must not follow an edited YAML, an
edited scale, or a default of newer code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gigatok.config import TrialConfig
from orchestration.sweep.grid.axes import read_axes, read_overrides, read_seeds
from orchestration.sweep.search.block import Search
from orchestration.sweep.search.reading import read_search
from orchestration.sweep.settings.keys import trial_keys
from orchestration.sweep.settings.scales import scale_of
from orchestration.yaml.parts import Part
from orchestration.yaml.source import Node, Place, Problem, SweepError


def scale_with_defaults(search: Search) -> dict[str, Any]:
    """Write the scale of a search so that it gives every key, those that have a default too."""
    scale = search.scale
    defaults = {
        name: key.default
        for name, key in trial_keys().items()
        if name not in scale.trial
        and not key.field.is_required()
        # Those of plug-ins are fixed by their versions, and may be missing where it goes on.
        and name.partition(".")[0] in TrialConfig.model_fields
    }
    return {**scale.written, "trial": {**(scale.written.get("trial") or {}), **defaults}}


def read_recorded(
    parts: Mapping[str, Any], scale_name: str, scale: Mapping[str, Any], overrides: Sequence[str]
) -> Search:
    """Read a search from what was recorded of it.

    Args:
        parts: of the sweep at its scale.
        scale_name: name of the scale.
        scale: its content, with defaults.
        overrides: texts of `--set`.

    Raises:
        SweepError: this code does not take what was recorded.
    """
    problems: list[Problem] = []
    place = Place("the record of the launch")
    checked = scale_of(scale_name, Part(_node(scale, place), problems))
    given = read_overrides(overrides, checked, problems)
    sweep = Part(_node(parts, place), problems)
    axes = read_axes(sweep, checked, given)
    seeds = read_seeds(given.seed or sweep.part("seeds"))
    search = read_search(sweep, axes, seeds, checked, given.settings)
    if problems or search is None:
        raise SweepError("search as it was launched", problems)
    return search


def _node(value: Any, place: Place) -> Node:
    """Wrap plain data as if a file held it."""
    if isinstance(value, Mapping):
        value = {key: _node(item, place) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        value = tuple(_node(item, place) for item in value)
    return Node(value, place, place)
