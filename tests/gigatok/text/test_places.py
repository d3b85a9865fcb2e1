from __future__ import annotations

from pathlib import Path

import pytest

from gigatok.text.places import as_seen, beside


def test_results_are_next_to_the_runs_and_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "here" / "below"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    assert as_seen(beside(Path("runs"), "figures")) == "figures"
    assert as_seen(beside(tmp_path / "here" / "runs", "figures")) == "../figures"
    far = beside(tmp_path / "runs", "figures")
    assert as_seen(far) == str(tmp_path / "figures")
