"""Defaults are pinned: a changed one fails until the version of the stage is raised."""

from __future__ import annotations

from copy import deepcopy

from tests.orchestration.plan.pins import current_defaults, problems, read


def test_no_default_has_changed_without_a_new_version() -> None:
    found = problems(read("defaults.json"), current_defaults())
    assert not found, "\n".join(found)


def test_a_changed_default_names_the_stage_and_says_what_to_do() -> None:
    pinned, current = current_defaults(), current_defaults()
    current["linear_probe"]["defaults"]["probe.epochs"] = "91"
    (text,) = problems(pinned, current)
    assert text.startswith("linear_probe: the default of probe.epochs was 90, is 91")
    assert "raise the stage's version (now 1) in gigatok/stages/linear_probe/spec.py" in text


def test_a_new_version_has_to_be_pinned() -> None:
    pinned, current = current_defaults(), current_defaults()
    current["linear_probe"]["defaults"]["probe.epochs"] = "91"
    current["linear_probe"]["version"] += 1
    (text,) = problems(pinned, current)
    assert "version 2 is not pinned" in text
    assert problems(current, deepcopy(current)) == []


def test_new_fields_and_fields_that_are_gone_change_no_key() -> None:
    pinned, current = current_defaults(), current_defaults()
    current["linear_probe"]["defaults"]["probe.quirk"] = "false"
    del current["linear_probe"]["defaults"]["probe.layer"]
    assert problems(pinned, current) == []


def test_a_default_for_what_had_none_is_a_change() -> None:
    pinned, current = current_defaults(), current_defaults()
    current["linear_probe"]["defaults"]["seed"] = "0"
    (text,) = problems(pinned, current)
    assert "the default of seed was (no default), is 0" in text
