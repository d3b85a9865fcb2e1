"""A user's own teacher, from a plug-in or a folder of transformers: keys, plan, run, refusals."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.launching.launched import LaunchRequest, as_launched, restored
from orchestration.plan.graph import Plan, make_plan
from orchestration.plan.identity import canonical
from orchestration.runs.state import Store
from orchestration.sweep.definition import SweepError, expand, load_sweep
from tests.gigatok.models.frozen.test_hugging_face import change, save, vit

ROOT = Path(__file__).resolve().parents[2]
EDGES = """
from gigatok.config.kinds.teachers import TeacherKind, register


def edges():
    '''Differences of neighbouring pixels, averaged over 4 x 4 cells.'''
    import torch.nn.functional as F

    return lambda images: F.adaptive_avg_pool2d(images.diff(dim=2)[..., 1:].abs(), 4)


register(TeacherKind("edges", f"{__name__}:edges", side=16))
"""
SWEEP = """
question: Do edges regularise?
scale: smoke
plugins: [../own/edges.py]
axes: {tokenizer.decoder: [S]}
set: {tokenizer.encoder: S, tokenizer.teacher: edges}
stages: [train_tokenizer]
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    save(vit(), folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One for the module: a network is measured once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIGATOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def plan_of(teacher: str, *overrides: str) -> Plan:
    own = (f"tokenizer.teacher={teacher}", "tokenizer.decoder=S")
    sweep = load_sweep("decoder_scaling", "smoke", (*own, *overrides))
    return make_plan(sweep, expand(sweep))


def keys_of(teacher: str, *overrides: str) -> dict[str, str]:
    return dict(plan_of(teacher, *overrides).trials[0].stages)


READS_TEACHER = {"extract_teacher_features", "train_tokenizer"}


@pytest.mark.heavy
def test_keys_hold_the_content_of_a_folder(network: Path, tmp_path: Path) -> None:
    before = keys_of(f"hf:{network}")
    assert before.keys() >= READS_TEACHER
    moved = Path(shutil.copytree(network, tmp_path / "moved"))
    assert keys_of(f"hf:{moved}") == before
    change(moved / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    after = keys_of(f"hf:{moved}")
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed == before.keys() - {"extract_reference_features"}
    # Random crops are never cached: training reads the teacher itself.
    online = "tokenizer.augment=crop_flip"
    assert keys_of(f"hf:{network}", online) != keys_of(f"hf:{moved}", online)


@pytest.mark.heavy
def test_a_teacher_that_is_not_read_is_not_looked_at(tmp_path: Path) -> None:
    off = "tokenizer.semantic_weight=0"
    assert keys_of(f"hf:{tmp_path}/nowhere", off) == keys_of(f"hf:{tmp_path}/nobody", off)


@pytest.mark.heavy
def test_a_recorded_plan_is_read_without_its_teacher(network: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(network, tmp_path / "gone"))
    planned = plan_of(f"hf:{folder}")
    launched = as_launched(planned, LaunchRequest(sweep="decoder_scaling"))
    shutil.rmtree(folder)
    again = restored(launched, Store(tmp_path / "runs"))
    assert again.stages.keys() == planned.stages.keys()
    config = again.trials[0].trial.config.tokenizer
    assert config.teacher_cost.dim == 16
    assert "cost" not in canonical(config)["found_teacher"]


def test_a_missing_folder_is_a_problem_of_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"tokenizer\.teacher: .* has no config\.json") as refused:
        plan_of(f"hf:{tmp_path}/nowhere")
    assert "--set" in str(refused.value)


def test_a_misspelt_teacher_has_a_nearest_one() -> None:
    with pytest.raises(SweepError, match=r"got 'dinov3'; must be .*; did you mean 'dinov2'\?"):
        plan_of("dinov3")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with a sweep, beside one with its plug-in."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "edges.py").write_text(EDGES)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "edges.yaml").write_text(SWEEP)
    return tmp_path / "work"


def command(place: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(place: Path) -> dict[str, Any]:
    shown = command(place, "orchestration", "plan", "edges.yaml", "--json")
    return {s["stage"]: (key, s["state"]) for key, s in json.loads(shown)["stages"].items()}


@pytest.mark.slow
def test_a_teacher_of_a_plugin_runs_and_is_reused_until_it_changes(place: Path) -> None:
    assert "2 stages run" in command(place, "orchestration.launch", "edges.yaml")
    before = planned(place)
    assert {state for _, state in before.values()} == {"COMPLETE"}
    (folder,) = (place / "runs" / "stages" / "extract_teacher_features").glob("digits-*")
    features = json.loads((folder / "out" / "teacher.json").read_text())
    assert features == {"grid": 4, "dim": 3, "teacher": "edges"}
    (place.parent / "own" / "edges.py").write_text(EDGES.replace("abs()", "square()"))
    after = planned(place)
    assert {name for name in after if after[name] != before[name]} == READS_TEACHER
    # What was trained stays of use when the plug-in is gone.
    shutil.rmtree(place.parent / "own")
    shutil.rmtree(place / "runs" / "plugins")
    assert "2 complete" in command(place, "orchestration", "status", "edges")


@pytest.mark.slow
def test_a_folder_of_transformers_runs(place: Path, network: Path) -> None:
    text = SWEEP.replace("teacher: edges", "teacher: hf:./vit").replace("plugins", "# plugins")
    (place / "edges.yaml").write_text(text)
    shutil.copytree(network, place / "vit")
    shown = command(place, "orchestration.launch", "edges.yaml")
    assert "2 stages run" in shown
    (folder,) = (place / "runs" / "stages" / "extract_teacher_features").glob("digits-*")
    assert re.match(r"digits-vit-\w{16}$", folder.name)
    features = json.loads((folder / "out" / "teacher.json").read_text())
    assert (features["grid"], features["dim"]) == (4, 16)
    # Moved: nothing runs again.
    (place / "vit").rename(place / "elsewhere")
    (place / "edges.yaml").write_text(text.replace("./vit", "./elsewhere"))
    assert {state for _, state in planned(place).values()} == {"COMPLETE"}


@pytest.mark.slow
def test_a_teacher_that_fails_is_named_before_anything_runs(place: Path) -> None:
    broken = EDGES.replace("images.diff", "images.differ")
    (place.parent / "own" / "edges.py").write_text(broken)
    shown = command(place, "orchestration", "plan", "edges.yaml", code=2)
    assert "teacher edges cannot be used" in shown
    assert "has no attribute 'differ'" in shown
