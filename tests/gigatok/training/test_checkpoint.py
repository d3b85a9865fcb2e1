"""Checkpoints: loadable after a kill at any moment, refused where they do not fit, never code."""

from __future__ import annotations

import errno
import multiprocessing
import pickle
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gigatok.files.durable import facts_of, write_checked
from gigatok.training.checkpoint import INDEX_FILE, load_checkpoint, save_checkpoint
from tests.gigatok.damages import DAMAGES, flip


class Part:
    """Tensors and plain values, nested."""

    def __init__(self, value: float, size: int = 4) -> None:
        self.tensors = {"a": torch.full((size,), value), "b": {"c": torch.tensor(value)}}
        self.number: Any = value

    def state_dict(self) -> dict[str, Any]:
        return {"tensors": self.tensors, "number": self.number, "none": None, "list": [1, "x"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["none"] is None
        assert state["list"] == [1, "x"]
        assert state["tensors"]["a"] is self.tensors["a"]
        self.number = state["number"]


def test_parts_come_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 7, {"one": Part(1 / 3), "other": Part(2.0)})
    one, other = Part(0.0), Part(0.0)
    assert load_checkpoint(tmp_path, {"one": one, "other": other}) == 7
    assert one.number == 1 / 3
    assert torch.equal(one.tensors["b"]["c"], torch.tensor(1 / 3))
    assert torch.equal(other.tensors["a"], torch.full((4,), 2.0))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "absent", {"one": Part(0.0)}) is None


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    for step in (8, 9, 10):
        save_checkpoint(tmp_path, step, {"one": Part(float(step))})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000009", "step-000000010"]
    one = Part(0.0)
    assert load_checkpoint(tmp_path, {"one": one}) == 10
    assert one.number == 10.0


def test_another_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"model": nn.Linear(2, 3)})
    with pytest.raises(ValueError, match=r"does not fit.*model/0\.bias"):
        load_checkpoint(tmp_path, {"model": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))})
    with pytest.raises(ValueError, match=r"does not fit.*[Ss]ize"):
        load_checkpoint(tmp_path, {"model": nn.Linear(2, 4)})


def test_an_index_that_would_run_code_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"one": Part(1.0)})
    mark = tmp_path / "mark"

    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    checkpoint = tmp_path / "step-000000001"
    (checkpoint / ".metadata").write_bytes(pickle.dumps(Attack()))
    # Whoever can write an index can also write hashes that fit it.
    files = {path.name: facts_of(path) for path in checkpoint.iterdir() if path.name != INDEX_FILE}
    write_checked(checkpoint / INDEX_FILE, files)
    with pytest.raises(ValueError, match=r"the pickle asks for .* refused"):
        load_checkpoint(tmp_path, {"one": Part(0.0)})
    assert not mark.exists()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "state.json", INDEX_FILE])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"one": Part(float(step))})
    DAMAGES[damage](tmp_path / "step-000000002" / name)
    one = Part(0.0)
    assert load_checkpoint(tmp_path, {"one": one}) == 1
    assert one.number == 1.0
    (said,) = [r.getMessage() for r in caplog.records if r.name == "gigatok.training.checkpoint"]
    for part in ("step-000000002 is damaged", name, "goes on from step 1", "result is the same"):
        assert part in said
    # The step can be saved again, and nothing of the damaged one stays.
    save_checkpoint(tmp_path, 2, {"one": Part(2.5)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001", "step-000000002"]
    assert load_checkpoint(tmp_path, {"one": one}) == 2
    assert one.number == 2.5


def test_without_a_whole_checkpoint_training_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"one": Part(float(step))})
        flip(tmp_path / f"step-{step:09d}" / "__0_0.distcp")
    (tmp_path / "step-000000003").write_text("a file where a checkpoint belongs")
    (tmp_path / "step-old").mkdir()
    assert load_checkpoint(tmp_path, {"one": Part(0.0)}) is None
    (said,) = [r.getMessage() for r in caplog.records if r.name == "gigatok.training.checkpoint"]
    assert said.count("is damaged") == 3
    assert "starts anew from step 0" in said


def test_a_checkpoint_that_may_not_be_read_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, {"one": Part(1.0)})

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        load_checkpoint(tmp_path, {"one": Part(0.0)})
    assert (tmp_path / "step-000000001").is_dir()


def save_for_ever(folder: Path, start: int) -> None:
    for step in range(start, 10**6):
        save_checkpoint(folder, step, {"one": Part(float(step), size=10_000)})


@pytest.mark.heavy
def test_a_kill_at_any_moment_leaves_the_newest_loadable(tmp_path: Path) -> None:
    draw = random.Random(0)
    fork = multiprocessing.get_context("fork")
    newest = 0
    for _ in range(8):
        process = fork.Process(target=save_for_ever, args=(tmp_path, newest + 1))
        process.start()
        while (
            max((int(path.name[5:]) for path in tmp_path.glob("step-*")), default=0) < newest + 2
        ):
            time.sleep(0.001)
        time.sleep(draw.uniform(0.05, 0.25))
        process.kill()
        process.join()
        one = Part(0.0, size=10_000)
        step = load_checkpoint(tmp_path, {"one": one})
        assert step is not None
        assert step > newest
        assert one.number == step
        assert torch.equal(one.tensors["a"], torch.full((10_000,), float(step)))
        newest = step
