from __future__ import annotations

import pytest

from gigatok.config.schedules import (
    GUIDANCE_SCHEDULES,
    SCHEDULES,
    register,
    register_guidance,
)


def test_names_are_given_once() -> None:
    with pytest.raises(ValueError, match="there is a schedule 'wsd' already"):
        register(SCHEDULES["wsd"])
    with pytest.raises(ValueError, match="there is a guidance schedule 'step' already"):
        register_guidance(GUIDANCE_SCHEDULES["step"])
