"""What SLURM calls the elements of an array."""

from __future__ import annotations

import pytest

from orchestration.backends.slurm_queue import elements


@pytest.mark.parametrize(
    ("name", "handles"),
    [
        ("17", ["17"]),
        ("17_4", ["17_4"]),
        ("17_[4]", ["17_4"]),
        ("4_[1%1]", ["4_1"]),
        ("17_[0,4-6%2]", ["17_0", "17_4", "17_5", "17_6"]),
        ("17_[0,4-", []),
        ("17_[0-3,...]", []),
        ("17.batch", []),
    ],
)
def test_every_element_is_named(name: str, handles: list[str]) -> None:
    assert elements(name) == handles
