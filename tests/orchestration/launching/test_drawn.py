"""A figure counts as drawn when all its files are there and of the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.launching.drawn import SUFFIXES, drawn_plan


@pytest.fixture
def figure(tmp_path: Path) -> Path:
    for suffix in SUFFIXES:
        (tmp_path / f"study-smoke{suffix}").write_text("content", encoding="utf-8")
    (tmp_path / "study-smoke.json").write_text(
        '{"sources": {"1": {"plan": "abc"}}}', encoding="utf-8"
    )
    return tmp_path / "study-smoke.png"


def test_a_whole_figure_tells_its_plan(figure: Path) -> None:
    assert drawn_plan(figure) == "abc"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_figure_of_which_a_file_is_missing_or_empty_is_none(figure: Path, suffix: str) -> None:
    figure.with_suffix(suffix).write_text("", encoding="utf-8")
    assert drawn_plan(figure) is None
    figure.with_suffix(suffix).unlink()
    assert drawn_plan(figure) is None


OTHERS = [
    *("[]", "{}", "3", "\0", '{"sources": 3}', '{"sources": {}}'),
    '{"sources": {"1": {"plan": "a"}, "2": {"plan": "b"}}}',
]


@pytest.mark.parametrize("text", OTHERS)
def test_another_file_of_that_name_is_no_figure(figure: Path, text: str) -> None:
    figure.with_suffix(".json").write_text(text, encoding="utf-8")
    assert drawn_plan(figure) is None
