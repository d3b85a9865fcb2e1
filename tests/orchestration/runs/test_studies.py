"""What a study's name is, and which file it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigatok.names import MOST_NAME_BYTES, study_name
from orchestration.commands.syncing import launches_of
from orchestration.launching.launched import (
    LaunchRequest,
    all_launches,
    launched_keys,
    newest_launch,
    other_scales,
    record_launch,
)
from orchestration.plan.graph import make_plan
from orchestration.runs.state import Store
from orchestration.runs.studies import launched_names, origin_of, refuse_namesake
from orchestration.sweep.definition import SweepError, expand, load_sweep

TEXT = "question: {}\nscale: smoke\nset: {{tokenizer.encoder: S, tokenizer.decoder: S}}\n"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("sweeps/decoder_scaling.yaml", "decoder_scaling"),
        ("lr-0.1.yaml", "lr-0.1"),
        ("lr-0.1", "lr-0.1"),
        ("a.b.yml", "a.b"),
        ("lr=0.1% (final) ‘x’ #2.yaml", "lr=0.1% (final) ‘x’ #2"),
        ("größe", "größe"),
    ],
)
def test_a_name_is_the_file_without_yaml(given: str, name: str) -> None:
    assert study_name(given) == study_name(name) == name


@pytest.mark.parametrize(
    "given",
    ["...yaml", ".yaml", "..", "", ".hidden.yaml", "-w.yaml", "a.yaml.yaml", "a\n.yaml", " a.yaml",
     "a\u200b.yaml", "\udcff.yaml", "a\\b.yaml", "x" * (MOST_NAME_BYTES + 1) + ".yaml"],
)  # fmt: skip
def test_names_that_no_folder_and_no_command_could_carry_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="a study is named by its file"):
        study_name(given)


def test_a_hostile_file_is_refused_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "...yaml").write_text(TEXT.format("q"))
    with pytest.raises(SweepError, match=r"begins with '\.'"):
        load_sweep(tmp_path / "...yaml")


def launch(store: Store, file: Path, scale: str | None = None) -> None:
    sweep = load_sweep(file, scale)
    request = LaunchRequest(sweep=str(file), origin=origin_of(store, file), scale=scale)
    record_launch(make_plan(sweep, expand(sweep)), store, request)


def test_names_with_dots_are_told_apart(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for name in ("lr-0.1", "lr-0.2"):
        (tmp_path / f"{name}.yaml").write_text(TEXT.format(name))
        launch(store, tmp_path / f"{name}.yaml")
    (store.sweeps / ".stray").mkdir()
    assert launched_names(store) == ["lr-0.1", "lr-0.2"]
    assert newest_launch(store, "lr-0.1").question == "lr-0.1"
    assert newest_launch(store, str(tmp_path / "lr-0.2.yaml")).question == "lr-0.2"
    assert len(list(all_launches(store, "lr-0.1"))) == 1
    assert launched_keys(store)


def test_a_second_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    first, second = (tmp_path / folder / "sweep.yaml" for folder in ("baseline", "ablation"))
    for file in (first, second):
        file.parent.mkdir()
        file.write_text(TEXT.format(file.parent.name))
    launch(store, first)
    origin = newest_launch(store, "sweep").request.origin
    refuse_namesake(store, first, origin)
    for ask in (
        lambda: refuse_namesake(store, second, origin),
        lambda: newest_launch(store, str(second)),
    ):
        with pytest.raises(ValueError, match="another file of the same name"):
            ask()
    second.write_text(first.read_text())
    refuse_namesake(store, second, origin)  # a copy is the same study
    second.write_text(TEXT.format("changed"))
    first.unlink()
    refuse_namesake(store, second, origin)  # it was moved


def test_a_scale_is_asked_for_by_name(tmp_path: Path) -> None:
    store, file = Store(tmp_path / "runs"), tmp_path / "study.yaml"
    file.write_text(TEXT.format("q"))
    launch(store, file, "micro")
    launch(store, file, "smoke")
    newest = newest_launch(store, "study")
    assert newest.scale == "smoke"
    assert other_scales(store, newest) == ["micro"]
    assert newest_launch(store, "study", "micro").scale == "micro"
    with pytest.raises(ValueError, match=r"never launched at scale 'paper' .*smoke, micro"):
        newest_launch(store, "study", "paper")


def test_a_stray_folder_among_the_studies_keeps_nothing_from_being_sent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.sweeps / "lost+found").mkdir(parents=True)
    assert launched_names(store) == []
    (store.sweeps / "copied").mkdir()
    (store.sweeps / "copied" / "notes.json").write_text("{}")
    assert list(launches_of(store, [])) == []
    with pytest.raises(ValueError, match="never launched"):
        list(launches_of(store, ["copied"]))
