"""Safetensors files that are filled piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from gigatok.data.archives.streamed import flush, open_streamed

TENSORS = {
    "labels": ("int64", (5,)),
    "codes": ("int16", (2, 5, 3)),
    "odd": ("uint8", (3, 3)),
    "last": ("float32", (2,)),
}


def test_safetensors_reads_what_was_streamed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "codes.safetensors"
    arrays = open_streamed(path, TENSORS)
    random = np.random.default_rng(0)
    expected = {n: random.integers(100, size=s).astype(d) for n, (d, s) in TENSORS.items()}
    arrays["codes"][1, 2:] = expected["codes"][1, 2:]
    arrays["codes"][0] = expected["codes"][0]
    arrays["codes"][1, :2] = expected["codes"][1, :2]
    for name in ("labels", "odd", "last"):
        arrays[name][:] = expected[name]
    flush(arrays)
    found = load_file(path)
    assert set(found) == set(TENSORS)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_file_with_the_same_tensors_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    arrays = open_streamed(path, TENSORS)
    arrays["codes"][1] = 7
    flush(arrays)
    again = open_streamed(path, TENSORS)
    assert (again["codes"][1] == 7).all()
    assert not again["codes"][0].any()


def test_a_file_with_other_tensors_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    save_file({"codes": np.full((2, 5, 3), 7, np.int16)}, path)
    arrays = open_streamed(path, TENSORS)
    assert not any(array.any() for array in arrays.values())
    smaller = open_streamed(path, {**TENSORS, "last": ("float32", (1,))})
    assert smaller["last"].shape == (1,)
