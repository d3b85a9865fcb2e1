"""Sections that plug-ins add to a trial."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import PositiveFloat

from gigatok.config import SECTIONS, Config, ProbeConfig, TrialConfig, register_section


class BrightnessSettings(Config):
    gamma: PositiveFloat = 1.0


class IncompleteSettings(Config):
    gamma: float


@pytest.fixture(autouse=True)
def sections() -> Iterator[None]:
    """Undo what a test registers."""
    before = dict(SECTIONS)
    yield
    SECTIONS.clear()
    SECTIONS.update(before)


def test_a_trial_has_the_defaults_of_a_section_that_nothing_gives() -> None:
    trial = TrialConfig.model_construct(probe=ProbeConfig(layer=1))
    with pytest.raises(ValueError, match="BrightnessSettings is no section of a trial"):
        trial.section(BrightnessSettings)
    assert not hasattr(trial, "brightness")
    register_section("brightness", BrightnessSettings)
    assert trial.section(BrightnessSettings) == BrightnessSettings()
    assert trial.added == {}
    assert trial.section(ProbeConfig).layer == 1


def test_a_trial_has_the_section_that_it_was_given() -> None:
    register_section("brightness", BrightnessSettings)
    given = BrightnessSettings(gamma=2.2)
    trial = TrialConfig.model_construct(brightness=given)
    assert trial.section(BrightnessSettings) is given
    assert trial.added == {"brightness": given}
    assert trial != TrialConfig.model_construct()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("probe", BrightnessSettings, "a trial has 'probe' already; choose another name"),
        ("seed", BrightnessSettings, "a trial has 'seed' already"),
        ("split", BrightnessSettings, "a trial has 'split' already"),
        ("my.section", BrightnessSettings, "a name is of small letters, digits and _"),
        ("brightness", ProbeConfig, "ProbeConfig is a section already"),
        ("brightness", IncompleteSettings, "section 'brightness': gamma must have a default"),
    ],
)
def test_a_section_that_would_not_work_is_refused(
    name: str, settings: type[Config], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        register_section(name, settings)
