"""Reference statistics in the `.npz` files of the ADM evaluator (guided diffusion).

A file holds `mu`, `sigma` (pooled) and `mu_s`, `sigma_s` (spatial) of all its images, and some of
those images, uint8 (N, H, W, 3), as `arr_0`. Or it holds `arr_0` alone: then these images are all.
KID, precision and recall need images; they are absent without `arr_0`.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from gigatok.files.hashes import sha256_of
from gigatok.models.frozen.features import FeatureNetwork
from gigatok.scores.feature_sets import FeatureSet, FeatureStream
from gigatok.scores.gaussians import Gaussian

VARIABLES = {"adm_imagenet256": "GIGATOK_ADM_IMAGENET256"}
"""Name in `evaluation.reference` -> variable that names the user's file.

`adm_imagenet256` is `VIRTUAL_imagenet256_labeled.npz`, which published gFIDs are computed against.
"""
# Images held at a time, 50 MB of 256 pixels.
_CHUNK = 256
_UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""Errors of NumPy and zipfile for a file that is something else, cut short or damaged."""
_ASYMMETRY = 1e-3
"""Largest difference of a covariance from its transpose, relative to its largest value."""


@dataclass(frozen=True)
class ReferenceStatistics:
    """Features of a file of reference statistics, and its name for protocols."""

    features: FeatureSet
    name: str


def load_reference(name: str, network: FeatureNetwork) -> ReferenceStatistics:
    """Load the statistics of a named reference; its images go through the network.

    Raises:
        ValueError: the variable is not set, the file holds something else or cannot be read, or
            its statistics are of another network.
    """
    path = _path(name)
    try:
        features = _read(path, network)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} ({VARIABLES[name]}) holds no reference statistics: {error}; take "
            "VIRTUAL_imagenet256_labeled.npz of the ADM evaluator"
        ) from error
    return ReferenceStatistics(features, f"{name} (sha256 {sha256_of(path)[:8]})")


def _read(path: Path, network: FeatureNetwork) -> FeatureSet:
    with _opened(path) as file:
        held = set(file.files)
        if "arr_0" not in held and not {"mu", "sigma"} <= held:
            raise ValueError(
                f"it holds {', '.join(sorted(held)) or 'nothing'}; reference statistics have "
                "arr_0, or mu and sigma, or both"
            )
        # Names of the ADM evaluator; the `_s` are of its spatial features.
        pooled = _gaussian(file, "mu", "sigma")
        spatial = _gaussian(file, "mu_s", "sigma_s")
    # Before the images: a wrong file is refused at once, and not after minutes of features.
    _check_channels(network, pooled, spatial)
    images = _features(path, network) if "arr_0" in held else None
    # Statistics of the file win over those of its few images, if it has any.
    if images is not None and pooled is None:
        spatial = images.spatial
    return FeatureSet(None if images is None else images.pool, spatial, pooled)


def _path(name: str) -> Path:
    variable = VARIABLES[name]
    given = os.environ.get(variable)
    if not given:
        raise ValueError(
            f"evaluation.reference {name} needs {variable}: the .npz of reference statistics "
            "(or take evaluation.reference val)"
        )
    path = Path(given).expanduser()
    if not path.is_file():
        raise ValueError(f"{variable} is {given}, which is not a file")
    return path


def _opened(path: Path) -> NpzFile:
    # NumPy refuses pickled arrays by default, so the file cannot run code.
    file = np.load(path)
    if not isinstance(file, NpzFile):
        raise ValueError("it is no .npz file but a single array")
    return file


def _gaussian(file: Mapping[str, Any], mean: str, covariance: str) -> Gaussian | None:
    if mean not in file or covariance not in file:
        return None
    centre, spread = (np.asarray(file[key], np.float64) for key in (mean, covariance))
    if centre.ndim != 1 or spread.shape != (len(centre), len(centre)):
        raise ValueError(
            f"{mean} is of shape {centre.shape} and {covariance} of {spread.shape}, expected "
            "(D,) and (D, D)"
        )
    if not (np.isfinite(centre).all() and np.isfinite(spread).all()):
        raise ValueError(f"{mean} or {covariance} holds values that are not finite")
    # `eigh` reads one triangle only, and would not notice.
    if np.abs(spread - spread.T).max() > _ASYMMETRY * np.abs(spread).max():
        raise ValueError(f"{covariance} is not symmetric")
    return Gaussian.from_covariance(centre, spread)


def _features(path: Path, network: FeatureNetwork) -> FeatureSet:
    """Compute the features of `arr_0` with a few images in memory at a time: ADM's are 2 GB."""
    with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as file:
        shape = _read_shape(file)
        if shape[0] < 2:
            raise ValueError(f"arr_0 holds {shape[0]} images; a covariance needs at least 2")
        # Streamed out of the archive: `np.load` would unpack all images into memory.
        stream = FeatureStream(network, shape[0])
        size = shape[1] * shape[2] * shape[3]
        for start in range(0, shape[0], _CHUNK):
            count = min(_CHUNK, shape[0] - start)
            # A copy that can be written: torch warns about arrays over read-only memory.
            pixels = np.frombuffer(bytearray(file.read(count * size)), np.uint8)
            if len(pixels) < count * size:
                raise ValueError("arr_0 ends early")
            stream.add(pixels.reshape(count, *shape[1:]))
    return stream.result()


def _read_shape(file: IO[bytes]) -> tuple[int, ...]:
    """Read the shape of the `.npy` that follows; leaves the file where its data begin."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    if len(shape) != 4 or shape[3] != 3 or fortran or dtype != np.uint8:
        raise ValueError(f"arr_0 is {dtype} {shape}, expected uint8 (N, H, W, 3), 0 to 255")
    return tuple(shape)


def _check_channels(
    network: FeatureNetwork, pooled: Gaussian | None, spatial: Gaussian | None
) -> None:
    """Check the channels of the statistics against an image's: the file names no network."""
    # One black image shows the widths; nothing else of a network tells them.
    features = network.apply(torch.zeros(1, 3, 32, 32))
    for gaussian, found, what in zip(
        (pooled, spatial), features, ("pooled", "spatial"), strict=True
    ):
        if gaussian is not None and found is not None and found.shape[1] != len(gaussian.mean):
            raise ValueError(
                f"the {what} statistics have {len(gaussian.mean)} channels, "
                f"{network.name} has {found.shape[1]}"
            )
