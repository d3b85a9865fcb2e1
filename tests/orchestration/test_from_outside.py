"""A stage, a metric, a data set and a backend from outside the repository, in one sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gigatok.config import Config
from gigatok.names import METRICS, Metric
from gigatok.names import register as register_metric
from gigatok.stages import STAGES, Costs, Disk, Stage, register

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).resolve().parents[2]
MODULE = '''
"""How bright reconstructions are, beside their originals."""

import numpy as np
from pydantic import PositiveFloat

from gigatok.config import Config, SplitConfig, register_section
from gigatok.data.splits import load_split
from gigatok.names import Metric
from gigatok.names import register as register_metric
from gigatok.runtime.context import Scores
from gigatok.stages import STAGES, Costs, Disk, Stage, register, where_had


class BrightnessSettings(Config):
    gamma: PositiveFloat = 1.0


class BrightnessConfig(Config):
    val: SplitConfig
    settings: BrightnessSettings


def read(trial):
    val = trial.split("val", trial.evaluation.num_images)
    return BrightnessConfig(val=val, settings=trial.section(BrightnessSettings))


def run(config, inputs, output_dir, tracker, runtime):
    originals = load_split(config.val)
    pixels = originals.centred(np.arange(len(originals)))
    made = np.load(inputs["evaluate_reconstruction"] / "reconstructions.npy")
    means = [float(((x / 255) ** config.settings.gamma).mean()) for x in (made, pixels)]
    return Scores({"brightness": means[0] / means[1]})


register_section("measure_brightness", BrightnessSettings)
register_metric(Metric("brightness", "brightness ratio"))
register(
    Stage(
        name="measure_brightness",
        version=1,
        config=BrightnessConfig,
        read=read,
        module=__name__,
        label="brightness",
        costs=Costs(
            lambda t: 1000 * t.section(BrightnessSettings).gamma, lambda t: Disk(0), lambda t: ()
        ),
        inputs=where_had(STAGES["evaluate_reconstruction"]),
        scores=lambda t: ("brightness",),
    )
)
'''
STRIPES = '''
"""Striped images in ten classes, which need no file."""

import numpy as np

from gigatok.config.kinds.data_sets import DataSet, register
from gigatok.data.image_sets import Images, check_count

RULE = "ten kinds of stripes, made by rule 1"
register(DataSet("stripes", 10, fingerprint=RULE, module=__name__))


def load(config):
    check_count(config, 1000)
    labels = np.arange(config.images) % 10
    rows = np.arange(config.image_size)[None, :] * (labels[:, None] + 1) % 16 * 16
    pixels = np.broadcast_to(
        rows[:, :, None, None], (config.images, config.image_size, config.image_size, 3)
    )
    return Images(pixels.astype(np.uint8), labels, 10, config.image_size)
'''
BACKEND = '''
"""A backend that says what it submits, and lets this machine run it."""

from orchestration.backends import BACKENDS, local
from orchestration.backends.base import BackendSpec

BACKENDS["talkative"] = __name__


def connect(jobs, profile, store):
    backend = local.connect(jobs, profile, store)
    submit = backend.submit

    def say_and_submit(folder, request):
        print("talkative submits", folder.name, flush=True)
        return submit(folder, request)

    backend.submit = say_and_submit
    return backend


BACKEND = BackendSpec(connect)
'''
SWEEP = """
question: Are reconstructions as bright as their originals?
scale: smoke
axes: {tokenizer.decoder: [S]}
set: {tokenizer.encoder: S, data.name: stripes}
stages: [measure_brightness]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder, beside one with the module, which every Python process imports."""
    (tmp_path / "own").mkdir()
    own = {"brightness": MODULE, "stripes": STRIPES, "talkative": BACKEND}
    for name, text in own.items():
        (tmp_path / "own" / f"{name}.py").write_text(text)
    (tmp_path / "own" / "sitecustomize.py").write_text(f"import {', '.join(own)}\n")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "bright.yaml").write_text(SWEEP)
    return tmp_path / "work"


def command(place: Path, *arguments: str) -> str:
    paths = os.pathsep.join([str(ROOT), str(place.parent / "own")])
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_is_registered_serves_like_the_built_ins(place: Path) -> None:
    planned = command(place, "orchestration", "plan", "bright.yaml", "--stages")
    assert "brightness" in planned
    shown = command(place, "orchestration.launch", "bright.yaml", "--backend", "talkative")
    assert shown.count("talkative submits") == 5
    assert "brightness ratio" in shown
    table = command(place, "analysis", "table", "bright", "--format", "csv")
    assert any(",brightness," in row for row in table.splitlines())
    again = json.loads(command(place, "orchestration", "plan", "bright.yaml", "--json"))
    states = [stage["state"] for stage in again["stages"].values()]
    assert states == ["COMPLETE"] * 5


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test registers."""
    monkeypatch.setattr("gigatok.stages.registry.STAGES", dict(STAGES))


def stage(name: str, *inputs: str) -> Stage:
    return Stage(
        name=name,
        version=1,
        config=Config,
        read=lambda t: Config(),
        module=__name__,
        label=name,
        costs=Costs(lambda t: 0, lambda t: Disk(0), lambda t: ()),
        inputs={name: lambda t: True for name in inputs},
    )


@pytest.mark.usefixtures("stages")
def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="there is a stage 'linear_probe' already"):
        register(stage("linear_probe"))
    with pytest.raises(ValueError, match="there is a metric 'rfid' already"):
        register_metric(Metric("rfid", "another"))
    assert METRICS["rfid"].label == "rFID"


@pytest.mark.usefixtures("stages")
def test_inputs_come_first() -> None:
    with pytest.raises(ValueError, match=r"'second' reads first, which is not registered"):
        register(stage("second", "first"))
    register(stage("first", "linear_probe"))
    register(stage("second", "first"))


def test_the_built_in_stages_come_after_their_inputs() -> None:
    seen: set[str] = set()
    for name, found in STAGES.items():
        assert found.inputs.keys() <= seen, name
        seen.add(name)
