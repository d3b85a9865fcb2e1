"""The files under `deploy/`: what they name exists, and what Ray is asked to run is a launch."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.policy.profile import Profile
from orchestration.runs.state import Store
from tests.docs.test_commands import check
from tests.orchestration.backends.ray.ray_cluster import ray_cluster
from tests.orchestration.programs import environment

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

SWEEP = """
question: Does a short study run?
scale: smoke
axes: {tokenizer.decoder: [S, B]}
set: {tokenizer.encoder: S}
stages: [evaluate_reconstruction]
"""


def ray_job() -> tuple[dict[str, Any], dict[str, Any]]:
    """The profile's ConfigMap and the RayJob."""
    config_map, job = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (config_map["kind"], job["kind"]) == ("ConfigMap", "RayJob")
    return config_map, job


def pods() -> list[dict[str, Any]]:
    """Pod specs of head and workers."""
    cluster = ray_job()[1]["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_image_gets_every_package() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY")]
    files = {name for names in copied for name in names}
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert files >= {name.rstrip("*") for name in packages}
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("file", ["Dockerfile", "skypilot.yaml"])
def test_extras_exist(file: str) -> None:
    text = (DEPLOY / file).read_text(encoding="utf-8")
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', text)
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()


def test_what_is_run_is_a_launch() -> None:
    sky = yaml.safe_load((DEPLOY / "skypilot.yaml").read_text(encoding="utf-8"))
    for command in (ray_job()[1]["spec"]["entrypoint"], sky["run"].splitlines()[-1]):
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "orchestration.launch"]
        check(words)


def test_all_pods_share_the_runs_and_can_run_a_stage() -> None:
    config_map, job = ray_job()
    profile = Profile.model_validate(yaml.safe_load(config_map["data"]["profile.yaml"]))
    entrypoint = shlex.split(job["spec"]["entrypoint"])
    runs = Path(entrypoint[entrypoint.index("--runs-dir") + 1])
    for pod in pods():
        (container,) = pod["containers"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        claims = {v["name"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        assert any(runs.is_relative_to(mounted[name]) for name in claims)
        assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
    limits = pods()[1]["containers"][0]["resources"]["limits"]
    asked = profile.default
    assert asked.memory_gb is not None
    assert float(limits["cpu"]) >= asked.cpus
    assert float(limits["nvidia.com/gpu"]) >= asked.gpus
    assert float(limits["memory"].removesuffix("Gi")) >= asked.memory_gb


@pytest.mark.slow
def test_a_job_of_a_ray_cluster_runs_the_study(tmp_path: Path) -> None:
    """The manifest's command as KubeRay submits it, with a sweep of seconds and without GPUs."""
    (tmp_path / "profile.yaml").write_text("default: {cpus: 1}\n")
    (tmp_path / "short.yaml").write_text(SWEEP)
    command = ray_job()[1]["spec"]["entrypoint"]
    for here, there in {
        "python": sys.executable,
        "decoder_scaling": str(tmp_path / "short.yaml"),
        "mini": "smoke",
        "/etc/gigatok": str(tmp_path),
        "/shared": str(tmp_path),
    }.items():
        command = command.replace(here, there, 1)
    with ray_cluster({"num_cpus": 0, "include_dashboard": True}, {"num_cpus": 2}) as cluster:
        address = f"http://{cluster.head_node.webui_url}"
        submit = ["job", "submit", "--address", address, "--", *shlex.split(command)]
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ray"), *submit],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    folders = list(Store(tmp_path / "runs").stage_folders())
    assert {folder.spec().stage for folder in folders} >= {"train_tokenizer"}
    assert all(folder.is_complete() for folder in folders)
