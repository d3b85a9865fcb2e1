"""`new-plugin`: a copy of the example that clashes with nothing, and keeps all promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.figures.parts.registry import FIGURES
from gigatok import plugins
from gigatok.commands.new_plugin import create
from gigatok.contracts.base import examine
from orchestration.sweep.definition import expand, load_sweep
from tests.orchestration.programs import call
from tests.restoring import restored_registries

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "plugin" / "gigatok_example"


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a test registers."""
    monkeypatch.setattr(plugins, "LOADED", {})
    with restored_registries():
        yield


@pytest.mark.heavy
def test_copies_and_the_example_are_loaded_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create("first_lab", tmp_path / "mine")
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    create("second_lab", tmp_path / "theirs")
    names = ["first_lab", str(tmp_path / "theirs" / "second_lab"), str(EXAMPLE)]
    loaded = plugins.load(names, tmp_path)
    assert [set(one.entries) for one in loaded] == [
        {"data set", "quantizer", "metric", "stage"}
    ] * 3
    plugins.load_module("first_lab.figures")
    assert "figure" in plugins.entries_of(loaded[0])
    assert "first_lab_brightness" in FIGURES


@pytest.mark.heavy
def test_a_copy_keeps_all_promises(tmp_path: Path) -> None:
    create("new_lab", tmp_path / "new")
    (loaded,) = plugins.load([str(tmp_path / "new" / "new_lab")], tmp_path)
    for kind, names in loaded.entries.items():
        for name in names:
            assert examine(kind, name).broken == ()


@pytest.mark.heavy
def test_its_sweep_can_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create("planned_lab", tmp_path / "new")
    monkeypatch.syspath_prepend(str(tmp_path / "new"))
    sweep = load_sweep(str(tmp_path / "new" / "planned_lab_ternary.yaml"), None, [])
    assert len(expand(sweep).trials) == 2
    assert sweep.stages[-1] == "planned_lab_measure_brightness"


@pytest.mark.parametrize("name", ["My-Lab", "class", "numpy", "../lab", ""])
def test_names_that_no_package_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be the name of a package|already"):
        create(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(ValueError, match=r"new is there already; give --folder"):
        create("new_lab", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.heavy
def test_the_command_says_what_comes_next(tmp_path: Path) -> None:
    shown = call(tmp_path, "gigatok", "new-plugin", "new_lab").stdout
    assert "python -m gigatok check new_lab/new_lab" in shown
    assert "is there already" in call(tmp_path, "gigatok", "new-plugin", "new_lab", code=2).stderr
