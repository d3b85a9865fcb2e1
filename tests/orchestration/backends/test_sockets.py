from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from orchestration.backends import sockets


@pytest.mark.parametrize(
    ("length", "is_kept"), [(20, True), (73, True), (74, False), (119, False)]
)
def test_a_folder_that_is_too_long_for_sockets_is_not_taken(
    length: int, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as top:
        folder = Path(top) / ("t" * (length - len(top) - 1))
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        found = sockets.short_folder(below=30)
        assert (found == str(folder)) is is_kept
        assert len(found) + 30 < sockets.LONGEST_SOCKET
        with sockets.temporary_files_in(found):
            assert tempfile.gettempdir() == found
        assert tempfile.gettempdir() == str(folder)


def test_the_user_is_told_when_sockets_can_lie_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * 119)
    monkeypatch.setattr(sockets, "OTHERS", (str(tmp_path / "missing"),))
    with pytest.raises(ValueError, match="set TMPDIR to a folder with a short path"):
        sockets.short_folder(below=30)
