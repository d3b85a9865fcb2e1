"""Settings that no trial reads, because other settings of the trial make them meaningless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gigatok.config import Config
from orchestration.sweep.grid.expansion import Trial
from orchestration.sweep.settings.settings import RANK_SET, Setting
from orchestration.yaml.source import Problem, listed

MOST_NAMED = 12
"""Settings of a section that a message names as those that are read."""


def unread_problems(trials: Sequence[Trial], given: Mapping[str, Setting]) -> list[Problem]:
    """Report what a sweep sets and none of its trials reads.

    A setting of the scale is none of the user's, and one that some trials read is no mistake.
    Nor is one that turns something off: a scale's `semantic_weight` has to be 0 for an
    architecture that does not read it.

    Args:
        trials: all of the sweep.
        given: key -> its first setting.
    """
    names = {key.partition(".")[0] for key in given}
    # Trials share their sections, of which there are few.
    sections = {n: list({id(s): s for t in trials if (s := getattr(t.config, n, None))}.values())
                for n in names}  # fmt: skip
    return [
        Problem(setting.place, setting.where, _why(key, holders))
        for key, setting in given.items()
        if setting.rank >= RANK_SET
        and (holders := sections[key.partition(".")[0]])
        and all(_is_in_vain(section, key.split(".")[1]) for section in holders)
    ]


def _is_in_vain(section: Config, field: str) -> bool:
    return field in section.unread and getattr(section, field) not in (0, None, "none")


def _why(key: str, sections: Sequence[Config]) -> str:
    """Say which other settings make a key meaningless, and which apply beside them."""
    name, first = key.partition(".")[0], sections[0]
    chosen = " and ".join(
        f"{name}.{field} is {' or '.join(dict.fromkeys(_named(s, field) for s in sections))}"
        for field in first.decisive
    )
    text = f"no trial reads it where {chosen}"
    read = [field for field in type(first).model_fields if field not in first.unread]
    if len(read) <= MOST_NAMED:
        text += f": of {name} only {listed(read)} {'apply' if len(read) > 1 else 'applies'} then"
    changed = " or ".join(f"{name}.{field}" for field in first.decisive)
    return f"{text}; leave it out, or choose another {changed}"


def _named(section: Config, field: str) -> str:
    value = getattr(section, field)
    return str(getattr(value, "name", value))
