"""Broken plug-ins: each is named, and nothing is harmed but what needs it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestration.sweep.definition import SweepError, load_sweep
from tests.orchestration.programs import ROOT, call
from tests.orchestration.test_from_outside import STRIPES
from tests.restoring import restored_registries

QUANTIZERS = '''
"""Quantizers whose modules are wrong."""

from dataclasses import replace
from typing import Literal

from gigatok.config.kinds.quantizers import QUANTIZERS, FiniteScalarConfig, register


class RangeConfig(FiniteScalarConfig):
    name: Literal["out_of_range"]


class ShapeConfig(FiniteScalarConfig):
    name: Literal["two_codes"]


class UndefinedConfig(FiniteScalarConfig):
    name: Literal["undefined"]


for config, name in (
    (RangeConfig, "OutOfRange"), (ShapeConfig, "TwoCodes"), (UndefinedConfig, "Undefined"),
):
    module = f"{__package__}.modules:{name}"
    register(replace(QUANTIZERS["fsq"], config=config, module=module))
'''
MODULES = """
from gigatok.models.quantizers.fsq import FiniteScalarQuantizer


class OutOfRange(FiniteScalarQuantizer):
    def quantise(self, z_MC):
        value, codes, losses = super().quantise(z_MC)
        return value, codes + 1000, losses


class TwoCodes(FiniteScalarQuantizer):
    def code(self, z_MC):
        return super().code(z_MC).repeat(1, 2)


class Undefined(FiniteScalarQuantizer):
    def quantise(self, z_MC):
        value, codes, losses = super().quantise(z_MC)
        return value * float("nan"), codes, losses
"""
STAGES = '''
"""A stage that raises, and one without a value. Only trials of the built-in things have them."""

from gigatok.config import Config
from gigatok.names import Metric
from gigatok.names import register as register_metric
from gigatok.runtime.context import Scores
from gigatok.stages import Costs, Disk, Stage, register


class RaisingConfig(Config):
    pass


class SilentConfig(Config):
    pass


def run(config, inputs, output_dir, tracker, runtime):
    if isinstance(config, RaisingConfig):
        1 / 0
    return Scores({"own_score": float("nan")}, {"own_score": "of nothing"})


register_metric(Metric("own_score", "own score"))
for name, kind in (("raise_error", RaisingConfig), ("score_nothing", SilentConfig)):
    register(
        Stage(
            name=name,
            version=1,
            config=kind,
            read=lambda t, kind=kind: kind(),
            module=__name__,
            label=name,
            costs=Costs(lambda t: 0, lambda t: Disk(0), lambda t: ()),
            applies=lambda t: (t.data.name, t.tokenizer.quantizer.name) == ("digits", "vq"),
            scores=lambda t: ("own_score",) if t.seed == 1 else (),
        )
    )
'''
NOT_ON_THE_NODE = """
import multiprocessing

if multiprocessing.parent_process() is not None:  # a worker of the local backend
    raise ImportError("libodd.so.1: cannot open shared object file")
"""


def stripes(name: str, old: str = "", new: str = "") -> str:
    """Change the data set `stripes` to one of another name, with a mistake."""
    return STRIPES.replace('"stripes"', f'"{name}"').replace(old, new)


PLUGINS = {
    "odd/__init__.py": QUANTIZERS,
    "odd/modules.py": MODULES,
    "odd_stages.py": STAGES,
    "floats.py": stripes("floats", "pixels.astype(np.uint8)", "pixels / np.float32(255)"),
    "short.py": stripes(
        "short", "pixels.astype(np.uint8), labels", "pixels[1:].astype(np.uint8), labels[1:]"
    ),
    "node.py": stripes("node") + NOT_ON_THE_NODE,
}
FSQ = "levels: [4, 4]"
SWEEP = f"""
question: What breaks?
scale: smoke
plugins: [./odd, ./odd_stages.py, ./floats.py, ./short.py, ./node.py]
set: {{tokenizer.encoder: S, tokenizer.decoder: S, tokenizer.semantic_weight: 0}}
zip:
  - tokenizer.quantizer:
      - {{name: vq}}
      - {{name: out_of_range, {FSQ}}}
      - {{name: two_codes, {FSQ}}}
      - {{name: undefined, {FSQ}}}
      - {{name: vq}}
      - {{name: vq}}
      - {{name: vq}}
    data.name: [digits, digits, digits, digits, floats, short, node]
stages: [extract_codes, raise_error, score_nothing]
"""
SOUND = """
question: Is all well?
scale: smoke
set: {tokenizer.encoder: S, tokenizer.decoder: S, tokenizer.semantic_weight: 0}
seeds: [7]
axes: {tokenizer.lr: [1.0e-3]}
stages: [extract_codes]
"""
"""Sweep without a plug-in, launched before."""


class Case(NamedTuple):
    """A stage that fails, and a part of what is said of it."""

    stage: str
    message: str


CASES = {
    "raises": Case("raise_error", "ZeroDivisionError: division by zero (plug-in ./odd_stages.py:"),
    "codes out of range": Case("train_tokenizer", "IndexError: "),
    "wrong shape": Case("train_tokenizer", "RuntimeError: The size of tensor a (16) must match"),
    "NaN": Case("train_tokenizer", "NonFiniteLoss: loss is nan"),
    "wrong type": Case("train_tokenizer", "data set floats, train: an image is float64"),
    "wrong count": Case("train_tokenizer", "data set short, train: 127 images and labels of"),
    "not on the node": Case("train_tokenizer", "plug-in ./node.py: ImportError: libodd.so.1"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a sound sweep was launched, and then one with broken plug-ins."""
    folder = tmp_path_factory.mktemp("work")
    for name, text in PLUGINS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "sound.yaml").write_text(SOUND)
    (folder / "broken.yaml").write_text(SWEEP)
    call(folder, "orchestration.launch", "sound.yaml")
    (folder / "before.json").write_text(json.dumps(runs_of_sound(folder)))
    call(folder, "orchestration.launch", "broken.yaml", code=1)
    return folder


@pytest.fixture(scope="module")
def stages(place: Path) -> list[dict[str, Any]]:
    status = json.loads(call(place, "orchestration", "status", "broken", "--json").stdout)
    return list(status["stages"].values())


@pytest.fixture(scope="module")
def logs(place: Path) -> str:
    return call(place, "orchestration", "logs", "broken").stdout


def runs_of_sound(folder: Path) -> list[list[str]]:
    """List the runs of the sound sweep in MLflow, with their states."""
    with sqlite3.connect(folder / "runs" / "mlflow.db") as store:
        query = (
            "select r.run_uuid, r.status from runs r join experiments e "
            "on r.experiment_id = e.experiment_id where e.name = 'sound' order by 1"
        )
        return [list(row) for row in store.execute(query)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_stage_that_fails_names_its_plugin(
    stages: list[dict[str, Any]], logs: str, case: str
) -> None:
    stage, message = CASES[case]
    failed = [one for one in stages if one["stage"] == stage and one["state"] == "FAILED"]
    (said,) = [one["why"] for one in failed if message in one["why"]]
    assert "plug-in ./" in said
    # What was tried is added behind the first line.
    assert said.partition("\n")[0] in logs


@pytest.mark.slow
def test_nothing_else_is_harmed(place: Path, stages: list[dict[str, Any]]) -> None:
    complete = sorted(one["stage"] for one in stages if one["state"] == "COMPLETE")
    assert complete == ["extract_codes", "score_nothing", "train_tokenizer"]
    assert [one["state"] for one in stages].count("FAILED") == len(CASES)
    assert json.loads((place / "before.json").read_text()) == runs_of_sound(place)
    assert "0 stages run, 2 reused" in call(place, "orchestration.launch", "sound.yaml").stdout


@pytest.mark.slow
def test_a_score_without_a_value_is_missing_and_not_0(place: Path) -> None:
    table = call(place, "analysis", "table", "broken", "--format", "csv").stdout
    heads, *rows = [line.split(",") for line in table.splitlines()]
    assert "0" not in [row[heads.index("own_score")] for row in rows if "own_score" in heads]


# Refused before anything runs


METRIC = "from gigatok.names import Metric, register\nregister(Metric('{}', 'score'))\n"
CLASH = "already; choose another name"
REFUSED = {
    "import": ({"a.py": "import nowhere\n"}, r"plug-in ./a\.py: ModuleNotFoundError: .*nowhere"),
    "syntax": ({"a.py": "def f(:\n"}, r"plug-in ./a\.py: SyntaxError: .*a\.py, line 1"),
    "metric": ({"a.py": METRIC.format("rfid")}, rf"plug-in ./a\.py: .*'rfid' {CLASH}"),
    "data set": ({"a.py": stripes("digits")}, rf"plug-in ./a\.py: .*'digits' {CLASH}"),
    "stage": (
        {"a.py": STAGES.replace("raise_error", "train_tokenizer")},
        rf"plug-in ./a\.py: .*'train_tokenizer' {CLASH}",
    ),
    "quantizer": (
        {"a.py": QUANTIZERS.replace("two_codes", "fsq")},
        r"plug-in ./a\.py: .*'fsq'.*\(.*a\.py, line \d+\)",
    ),
    "backend": (
        {"a.py": "from orchestration.backends import register\nregister('ray', __name__)\n"},
        rf"plug-in ./a\.py: .*'ray' {CLASH}.*a\.py, line 2",
    ),
    "two": (
        {"a.py": METRIC.format("own"), "b.py": METRIC.format("own")},
        rf"plug-in ./b\.py: .*'own' {CLASH}.*b\.py, line 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_loaded_is_a_problem_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    from gigatok import plugins

    files, message = REFUSED[case]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    names = ", ".join(f"./{name}" for name in files)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(SOUND.replace("scale: smoke", f"scale: smoke\nplugins: [{names}]"))
    monkeypatch.setattr(plugins, "LOADED", {})
    with restored_registries(), pytest.raises(SweepError, match=message):
        load_sweep(str(sweep), None, [])


@pytest.mark.slow
def test_another_version_on_the_node(tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    (site / "odd_lab-1.0.dist-info").mkdir(parents=True)
    work.mkdir()
    (site / "odd_lab.py").write_text(stripes("odd"))
    metadata = site / "odd_lab-1.0.dist-info" / "METADATA"
    (metadata.parent / "top_level.txt").write_text("odd_lab\n")
    sweep = SOUND.replace("weight: 0", "weight: 0, data.name: odd")
    (work / "odd.yaml").write_text(f"plugins: [odd_lab]\n{sweep}")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    metadata.write_text("Name: odd-lab\nVersion: 1.0\n")
    call(work, "orchestration.launch", "odd.yaml", variables=variables)
    metadata.write_text("Name: odd-lab\nVersion: 2.0\n")
    message = "plug-in odd_lab: odd-lab 2.0 is here, and the launch used odd-lab 1.0"
    refused = call(work, "orchestration", "resume", "odd", code=2, variables=variables)
    assert message in refused.stderr
    (folder,) = (work / "runs" / "stages" / "extract_codes").glob("[!.]*")
    worker = [sys.executable, "-m", "orchestration.worker", str(folder)]
    done = subprocess.run(worker, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, message in done.stderr) == (1, True)
