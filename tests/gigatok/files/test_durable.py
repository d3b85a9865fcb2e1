"""What was saved outlives a power cut: in a model of a disk, and on real ones where allowed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gigatok.data.archives.streamed import Arrays, StreamProgress, open_streamed
from gigatok.data.file_hashes import known_sha256
from gigatok.files.durable import (
    Damaged,
    make_folder,
    read_checked,
    steps,
    sync_tree,
    write_checked,
    write_durably,
)
from gigatok.training.checkpoint import load_checkpoint, save_checkpoint
from tests.gigatok.damages import DAMAGES
from tests.gigatok.synced_disk import SyncedDisk
from tests.loop_disk import LoopDisk, loop_disk


class Part:
    """One tensor and one number."""

    def __init__(self, value: float) -> None:
        self.tensor, self.number = torch.full((1000,), value), value

    def state_dict(self) -> dict[str, Any]:
        return {"tensor": self.tensor, "number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


def save(folder: Path, step: int) -> None:
    save_checkpoint(folder, step, {"one": Part(float(step))})


def load(folder: Path) -> int:
    """The step of what is loaded, which is as it was saved; 0 for nothing."""
    one = Part(0.0)
    step = load_checkpoint(folder, {"one": one}) or 0
    assert one.number == step
    assert (one.tensor == step).all()
    return step


@pytest.mark.parametrize("names_survive", [False, True])
def test_a_saved_checkpoint_outlives_a_cut_at_any_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names_survive: bool
) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    saved: list[int] = [0]

    def cut() -> None:
        disk.leave(tmp_path / f"cut-{len(saved)}")
        saved.append(saved[-1])

    disk = SyncedDisk(root, names_survive, monkeypatch, cut)
    for step in (1, 2, 3, 4):
        save(root / "made" / "checkpoints", step)
        saved[-1] = step
    cut()
    monkeypatch.undo()
    disk.close()
    assert len(saved) > 4 * 5
    for number, at_least in enumerate(saved[:-1], start=1):
        assert load(tmp_path / f"cut-{number}" / "made" / "checkpoints") in (
            at_least,
            at_least + 1,
        )


def test_a_tree_and_new_folders_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    disk = SyncedDisk(root, False, monkeypatch, lambda: None)
    make_folder(root / "out")
    write_durably(root / "new" / "deep" / "record", lambda path: path.write_text("kept"))
    (root / "out" / "images").mkdir()
    (root / "out" / "images" / "1.png").write_bytes(b"picture")
    (root / "out" / "broken").symlink_to("nowhere")
    disk.leave(tmp_path / "before")
    sync_tree(root / "out")
    disk.leave(tmp_path / "after")
    disk.close()
    assert (tmp_path / "before" / "new" / "deep" / "record").read_text() == "kept"
    assert not (tmp_path / "before" / "out" / "images").exists()
    assert (tmp_path / "after" / "out" / "images" / "1.png").read_bytes() == b"picture"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checked_record_shows_damage(tmp_path: Path, damage: str) -> None:
    content = [{"scale": 1 / 3, "none": None}, "é"]
    file = tmp_path / "record.json"
    write_checked(file, content)
    assert read_checked(file) == content
    DAMAGES[damage](file)
    with pytest.raises(Damaged, match=r"record\.json"):
        read_checked(file)


def test_only_steps_are_steps(tmp_path: Path) -> None:
    for name in ("step-000000002", "step-1000000000", "step-000000001.tmp", "step-x", "step-7"):
        (tmp_path / name).touch()
    assert list(steps(tmp_path)) == [2, 10**9]
    assert steps(tmp_path / "absent") == {}


def test_an_empty_note_is_no_hash_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights.pt"
    file.write_bytes(b"weights")
    digest = known_sha256(file)
    (note,) = (tmp_path / "cache" / "sha256").iterdir()
    for damaged in (b"", bytes(64)):
        note.write_bytes(damaged)
        assert known_sha256(file) == digest
    assert note.read_text() == digest


TENSORS = {"labels": ("int64", (6,)), "codes": ("int16", (2, 6, 2048))}


def streamed(folder: Path) -> tuple[Arrays, StreamProgress]:
    """A file of six pieces, each two stretches of it."""
    arrays = open_streamed(folder / "codes.safetensors", TENSORS)
    return arrays, StreamProgress(folder, arrays, lambda n: [view[n] for view in arrays["codes"]])


def fill(arrays: Arrays, pieces: slice) -> None:
    for number in range(6)[pieces]:
        arrays["codes"][:, number] = number + 1


def test_progress_goes_on_behind_what_is_whole(tmp_path: Path) -> None:
    arrays, progress = streamed(tmp_path)
    assert progress.read() == 0
    fill(arrays, slice(5))
    for pieces in (2, 4, 5, 5):
        progress.save(pieces)
    assert list(steps(tmp_path)) == [5]
    assert streamed(tmp_path)[1].read() == 5
    arrays["codes"][1, 3, 7] = 0  # in the second stretch between two saves
    _, again = streamed(tmp_path)
    assert again.read() == 2
    fill(arrays, slice(2, 3))
    again.save(3)
    assert list(steps(tmp_path)) == [3]
    assert streamed(tmp_path)[1].read() == 3
    again.clear()
    assert streamed(tmp_path)[1].read() == 0


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["codes.safetensors", "step-000000006"])
def test_damaged_pieces_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    arrays, progress = streamed(tmp_path)
    fill(arrays, slice(6))
    progress.save(3)
    progress.save(6)
    DAMAGES[damage](tmp_path / name)
    arrays, again = streamed(tmp_path)
    done = again.read()
    assert done < 6
    # Without the record, nothing says that there ever was something.
    assert caplog.messages or (name, damage) == ("step-000000006", "missing")
    fill(arrays, slice(done, 6))
    again.save(6)
    assert streamed(tmp_path)[1].read() == 6


@pytest.fixture(params=["ext4", "xfs"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LoopDisk]:
    with loop_disk(tmp_path, request.param) as made:
        yield made


@pytest.mark.heavy
def test_a_real_disk_keeps_what_was_saved(disk: LoopDisk) -> None:
    for step in (1, 2, 3):
        save(disk.root / "made" / "checkpoints", step)
        arrays, progress = streamed(disk.root / "codes")
        fill(arrays, slice(progress.read(), step))
        progress.save(step)
        fill(arrays, slice(step, step + 2))  # never said to be there
        arrays.clear()
        del arrays, progress
        gc.collect()  # a mapped file would keep the disk from being unmounted
        disk.cut_power()
        disk.unmount()
        disk.mount()
        assert load(disk.root / "made" / "checkpoints") == step
        arrays, progress = streamed(disk.root / "codes")
        assert progress.read() == step
        assert (arrays["codes"][:, :step] == np.arange(1, step + 1)[:, None]).all()
        arrays.clear()
        del arrays, progress
        gc.collect()
