"""Fashion-MNIST: every container of it gives the same records, which are those of the release."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gigatok.config import SplitConfig
from gigatok.data import fashion_mnist, fashion_mnist_records

PIXELS = np.arange(4 * 784).reshape(4, 784) % 251
LABELS = (9, 2, 1, 0)
"""Two training images, then two of the test set."""


def idx_files() -> dict[str, bytes]:
    files = {}
    for split, part in (("train", slice(0, 2)), ("t10k", slice(2, 4))):
        images = PIXELS[part].astype(np.uint8).tobytes()
        files[f"{split}-images-idx3-ubyte"] = bytes(16) + images
        files[f"{split}-labels-idx1-ubyte"] = bytes(8) + bytes(LABELS[part])
    return files


def write_raw(folder: Path) -> Path:
    folder.mkdir()
    for name, content in idx_files().items():
        (folder / name).write_bytes(content)
    return folder


def write_compressed(folder: Path) -> Path:
    folder.mkdir()
    for name, content in idx_files().items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


def tar(below: str, kind: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name, plain in idx_files().items():
            packed = gzip.compress(plain)
            member = tarfile.TarInfo(f"{below}/{name}.gz")
            member.size = len(packed)
            archive.addfile(member, io.BytesIO(packed))
    return content.getvalue()


def write_tar(folder: Path) -> Path:
    folder.mkdir()
    archive = folder / "master.tar.gz"
    archive.write_bytes(tar("fashion-mnist-master/data/fashion", "gz"))
    return archive


def write_deb(folder: Path) -> Path:
    folder.mkdir()
    archive = folder / "dataset.deb"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",  # followed by a byte of padding
        "data.tar.xz": tar("./usr/share/datasets/fashion-mnist", "xz"),
    }
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        parts += [head.encode(), content, b"\n" * (len(content) % 2)]
    archive.write_bytes(b"".join(parts))
    return archive


@pytest.mark.parametrize("write", [write_raw, write_compressed, write_tar, write_deb])
def test_every_container_gives_the_same_records(write, tmp_path: Path) -> None:
    target = tmp_path / "records"
    fashion_mnist_records.write_records(write(tmp_path / "source"), target)
    rows = PIXELS.astype(np.uint8)
    expected = b"".join(
        bytes([label]) + row.tobytes() for label, row in zip(LABELS, rows, strict=True)
    )
    assert target.read_bytes() == expected


def test_what_is_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds neither train-labels-idx1-ubyte nor"):
        fashion_mnist_records.write_records(tmp_path, tmp_path / "records")
    (tmp_path / "no.deb").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="it is no Debian package"):
        fashion_mnist_records.write_records(tmp_path / "no.deb", tmp_path / "records")


@pytest.mark.network
def test_both_splits_are_those_of_the_release() -> None:
    train = fashion_mnist.load(
        SplitConfig(name="fashion_mnist", split="train", images=60_000, image_size=28)
    )
    val = fashion_mnist.load(
        SplitConfig(name="fashion_mnist", split="val", images=10_000, image_size=28)
    )
    # The first labels as the authors' README shows them: boot, pullover, two pairs of trousers.
    assert train.labels[:4].tolist() == [9, 0, 0, 3]
    assert val.labels[:4].tolist() == [9, 2, 1, 1]
    assert np.bincount(train.labels).tolist() == [6000] * 10
    # Mean and deviation of the training pixels, as many recipes normalise by them.
    assert train.originals.mean() / 255 == pytest.approx(0.2860, abs=1e-4)
    assert train.originals.std() / 255 == pytest.approx(0.3530, abs=1e-4)
