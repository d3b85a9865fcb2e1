"""A user's own images, from a folder to the figure: keys, plan, doctor, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gigatok.config import TrialConfig
from orchestration.commands.upkeep.doctor import images
from orchestration.launching.launched import LaunchRequest, as_launched, restored
from orchestration.launching.preview import image_lines
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import SweepError, expand, load_sweep
from tests.gigatok.own_images import (
    CLASSES,
    WRITERS,
    pictures,
    squares,
    write_flat,
    write_folders,
    write_npz,
)

ROOT = Path(__file__).resolve().parents[2]
READS_VAL_ALONE = {"extract_reference_features"}
READS_TRAIN = {"extract_teacher_features", "train_tokenizer"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))


def plan_of(path: Path, *overrides: str, scale: str = "smoke") -> Plan:
    own = ("data.name=folder", f"data.path={path}", "tokenizer.decoder=S")
    sweep = load_sweep("decoder_scaling", scale, (*own, *overrides))
    return make_plan(sweep, expand(sweep))


def keys_of(path: Path) -> dict[str, str]:
    return dict(plan_of(path).trials[0].stages)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {stage for stage in before if before[stage] != after.get(stage)}


def split_folders(root: Path) -> Path:
    write_folders(root / "train", pictures(160))
    write_folders(root / "val", pictures(70, seed=1))
    return root


def change_a_pixel(folder: Path) -> None:
    file = min(folder.rglob("*.bmp"))
    picture = Image.open(file).convert("RGB")
    red, green, blue = np.asarray(picture)[0, 0].tolist()
    picture.putpixel((0, 0), (red ^ 1, green, blue))
    picture.save(file)


@pytest.mark.heavy
@pytest.mark.parametrize("writer", sorted({*WRITERS, "npz"}))
def test_keys_are_the_same_in_every_container(tmp_path: Path, writer: str) -> None:
    # Arrays are of one size, and of pixels that were decoded.
    made = squares(400) if writer == "npz" else pictures(400)
    write = {**WRITERS, "npz": write_npz}[writer]
    expected = keys_of(write_folders(tmp_path / "expected", made))
    assert keys_of(write(tmp_path / "found", made)) == expected


@pytest.mark.heavy
def test_a_changed_pixel_changes_the_stages_that_read_it(tmp_path: Path) -> None:
    root = split_folders(tmp_path / "set")
    before = keys_of(root)
    change_a_pixel(root / "val")
    after = keys_of(root)
    assert changed(before, after) == before.keys() - READS_TRAIN
    change_a_pixel(root / "train")
    assert changed(after, keys_of(root)) == before.keys() - READS_VAL_ALONE


@pytest.mark.heavy
def test_other_labels_change_only_the_stages_that_read_classes(tmp_path: Path) -> None:
    labelled = keys_of(write_folders(tmp_path / "labelled", pictures(400)))
    flat = keys_of(write_flat(tmp_path / "flat", pictures(400)))
    reads_classes = {"extract_codes", "train_generator", "evaluate_generation", "linear_probe"}
    assert changed(labelled, flat) == reads_classes


@pytest.mark.heavy
def test_a_recorded_plan_is_read_without_its_images(tmp_path: Path) -> None:
    planned = plan_of(write_flat(tmp_path / "set", pictures(400)))
    launched = as_launched(planned, LaunchRequest(sweep="decoder_scaling"))
    shutil.rmtree(tmp_path / "set")
    again = restored(launched, Store(tmp_path / "runs"))
    assert again.stages.keys() == planned.stages.keys()
    assert image_lines(again) == image_lines(planned)


@pytest.mark.heavy
def test_a_plan_says_how_many_images_and_classes_there_are(tmp_path: Path) -> None:
    lines = image_lines(plan_of(write_folders(tmp_path / "set", pictures(400))))
    assert lines == [
        f"images in {tmp_path / 'set'}: 400 of 7 classes (class folders), 320 to train and 80 to "
        "validate"
    ]


@pytest.mark.heavy
def test_a_plan_warns_of_what_may_not_be_meant(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "set" / "train", pictures(160)).parent
    write_flat(root / "val", pictures(70))
    write_flat(root / "test", pictures(3))
    (root / "train" / "notes.txt").touch()
    lines = image_lines(plan_of(root, "data.image_size=32"))
    text = "\n".join(lines[1:])
    assert re.search(r"\d+ have a side below data.image_size 32 and are enlarged", text)
    assert "one class: generation is unconditional; sampling.cfg_scale" in text
    assert "70 images are in both splits" in text
    assert "left out, as they are in neither split: 3 images" in text
    assert "left out, as they are no images: 1 .txt" in text


@pytest.mark.heavy
def test_one_class_has_neither_guidance_nor_probes(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "set", pictures(400))
    asked = ("guidance.search=grid", "tokenizer_probe.features=encoder", "sampling.cfg_scale=3")
    (trial,) = plan_of(root, *asked).trials
    absent = {"linear_probe", "probe_tokenizer", "search_guidance"}
    assert not absent & trial.stages.keys()
    assert "evaluate_generation" in trial.stages
    config: TrialConfig = trial.trial.config
    assert config.effective_sampling.cfg_scale == 1
    assert dict(plan_of(root).trials[0].stages) == dict(trial.stages)


# Refusals


def problems_of(*overrides: str, scale: str = "smoke") -> str:
    with pytest.raises(SweepError) as error:
        load_sweep("decoder_scaling", scale, ("tokenizer.decoder=S", *overrides))
    return str(error.value)


def test_a_folder_needs_a_path_and_a_path_needs_a_folder(tmp_path: Path) -> None:
    text = problems_of("data.name=folder")
    assert "--set data.name=folder: data.name" in text
    assert "give data.path" in text
    text = problems_of(f"data.path={tmp_path}")
    assert f"--set data.path={tmp_path}: data.path" in text
    assert "is for name folder; name is digits" in text


def test_a_formula_over_classes_that_are_not_there_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_text(
        "question: q\nscale: smoke\nset: {data.name: folder, data.path: nowhere}\n"
        "axes: {tokenizer.encoder: [S], tokenizer.decoder: [S]}\nwhere: [params.generator > 0]\n"
    )
    with pytest.raises(SweepError, match="nowhere"):
        load_sweep(file)


def test_a_path_without_images_is_refused_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in (("empty", "it is empty"), ("nowhere", "no such file or folder")):
        text = problems_of("data.name=folder", f"data.path={tmp_path / name}")
        assert f"--set data.path={tmp_path / name}: data.path" in text
        assert reason in text


def test_too_few_images_name_the_keys_to_lower(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(140))
    text = problems_of("data.name=folder", f"data.path={root}")
    assert "train_images 128 are more than the 112" in text
    assert "lower data.train_images" in text
    assert "val_images 64 are more than the 28" in text
    assert "lower data.val_images" in text
    few = ("data.train_images=100", "data.val_images=20")
    text = problems_of("data.name=folder", f"data.path={root}", *few)
    assert "evaluation.num_images 64 are more than the 28 validation images" in text
    assert plan_of(root, *few, "evaluation.num_images=20").trials


def test_unreadable_images_are_named_before_anything_starts(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(20))
    for name in ("one.png", "two.jpg"):
        (root / CLASSES[0] / name).write_bytes(b"no image")
    text = problems_of("data.name=folder", f"data.path={root}")
    assert "2 of 22 images cannot be read" in text
    assert "ant/one.png (8 bytes that are no image)" in text
    assert "ant/two.jpg" in text


def test_doctor_looks_at_images(tmp_path: Path) -> None:
    good, *warnings = images(write_flat(tmp_path / "set", pictures(20)))
    assert (good.level, good.name) == ("ok", "images")
    assert "20 of 1 class (flat folder), 16 to train and 4 to validate" in good.text
    assert [finding.level for finding in warnings] == ["warning"]
    (bad,) = images(tmp_path / "nowhere")
    assert bad.level == "missing"
    assert "no such file or folder" in bad.text


@pytest.mark.heavy
def test_looking_imports_nothing_heavy(tmp_path: Path) -> None:
    write_flat(tmp_path / "set", pictures(20))
    values = "name='folder', path='set', image_size=8, train_images=9, val_images=3"
    code = (
        f"import sys; from gigatok.config import DataConfig; DataConfig({values}); "
        "print([name for name in ('torch', 'ray', 'mlflow', 'pyarrow') if name in sys.modules])"
    )
    assert run_code(tmp_path, "-c", code).stdout.strip() == "[]"


# The whole path


@pytest.mark.slow
def test_from_a_folder_to_the_figure_and_again_from_elsewhere(tmp_path: Path) -> None:
    made = pictures(400)
    folder = write_folders(tmp_path / "birds", made)
    for junk in ("._ant.png", ".DS_Store", "__MACOSX/ant/1.png"):
        (folder / junk).parent.mkdir(parents=True, exist_ok=True)
        (folder / junk).write_bytes(b"junk")
    assert launched(tmp_path, folder) == {"reused": 0, "stages": 8}
    assert (tmp_path / "figures" / "decoder_scaling-smoke.png").stat().st_size > 0
    # Moved, and in other containers: nothing runs.
    folder.rename(tmp_path / "moved")
    assert launched(tmp_path, tmp_path / "moved") == {"reused": 8, "stages": 8}
    for name in ("shards", "packed", "parquet"):
        where = WRITERS[name](tmp_path / name, made)
        assert launched(tmp_path, where) == {"reused": 8, "stages": 8}
    # Without classes, tokenizers and what scores them are reused; there is no probe.
    flat = write_flat(tmp_path / "flat", made)
    assert launched(tmp_path, flat) == {"reused": 4, "stages": 7}
    # The record of a launch can be read although its images are gone.
    shutil.rmtree(flat)
    status = run(tmp_path, "orchestration", "status", "decoder_scaling", "--json")
    assert status.returncode == 0, status.stderr


def launched(folder: Path, images: Path) -> dict[str, int]:
    """Launch one trial of a sweep at scale smoke; counts its stages."""
    own = ("--set", "data.name=folder", "--set", f"data.path={images}")
    sweep = ("decoder_scaling", "--scale", "smoke", "--set", "tokenizer.decoder=S", *own)
    planned = run(folder, "orchestration", "plan", *sweep, "--json")
    assert planned.returncode == 0, planned.stderr
    stages = json.loads(planned.stdout)["stages"].values()
    done = run(folder, "orchestration.launch", *sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    reused = sum(stage["state"] == "COMPLETE" for stage in stages)
    return {"reused": reused, "stages": len(stages)}


def run(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_code(folder, "-m", module, *arguments)


def run_code(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
