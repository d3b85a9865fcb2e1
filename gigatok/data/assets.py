"""Fetching of assets into `$GIGATOK_CACHE`: once, verified, and safe in several processes."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from gigatok.data.asset_table import (
    ASSETS,
    Asset,
    HubModel,
    KnownFile,
    Variable,
    copied,
    find_asset,
)
from gigatok.files.hashes import sha256_of
from gigatok.files.mirrors import AssetError, Mirror, cached_model, fetch_model

_UNREADABLE = (ValueError, KeyError, OSError, EOFError, tarfile.TarError, zipfile.BadZipFile)
"""Errors by which an archive shows that it is damaged or another one."""
console = Console(stderr=True, highlight=False, markup=False)


def cache_dir() -> Path:
    """Return `$GIGATOK_CACHE`, or `gigatok` in the user's cache folder."""
    if chosen := os.environ.get("GIGATOK_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gigatok"


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


def fetch_all(names: Iterable[str]) -> dict[str, Path]:
    """Fetch assets; each is tried even if another cannot be had.

    Raises:
        AssetError: says of every asset that failed what was tried, and how to supply it by hand.
    """
    found, problems = {}, []
    for name in names:
        try:
            found[name] = fetch(name)
        except AssetError as error:
            # Go on: the other files are of use whatever becomes of this one.
            problems.append(str(error))
    if problems:
        raise AssetError("\n".join(problems))
    return found


def fetch(name: str) -> Path:
    """Return the file or folder of an asset, fetched on first use. Safe in several processes.

    The cache is looked at first, then the user's own copy (environment variable), an archive in
    the cache's `archives` folder, and the mirrors in their order.

    Raises:
        ValueError: there is no asset of that name.
        AssetError: the file cannot be obtained, or is another one.
    """
    asset = find_asset(name)
    if asset is None:
        raise ValueError(f"no asset {name!r}; there are {', '.join(sorted(ASSETS))}")
    if isinstance(asset, HubModel):
        return _own_copy(asset.variable) or _fetch_model(name, asset)
    if (cached := _cached(asset)) is not None:
        return cached
    with _workplace(asset.archives[0]) as folder:
        # Looked at again: another process may have made it while this one waited for the lock.
        return _cached(asset) or _supplied(name, asset, folder) or _download(name, asset, folder)


def is_here(name: str) -> bool:
    """Tell whether an asset is in a cache or supplied by the user; reads nothing."""
    asset = find_asset(name)
    assert asset is not None, name
    if asset.variable is not None and (given := os.environ.get(asset.variable.name)):
        return Path(given).expanduser().exists()
    if isinstance(asset, HubModel):
        return cached_model(asset.repository, asset.revision) is not None
    files = [cache_dir() / known.file for known in asset.files]
    files += [cache_dir() / "archives" / archive for archive in asset.archives]
    # Not hashed: a plan asks this each time, and `fetch` finds damage before it is used.
    return any(file.exists() for file in files)


@contextmanager
def _workplace(name: str) -> Iterator[Path]:
    """Give one process at a time an empty folder in the cache."""
    # Imported here: planning asks only what is in the cache, and needs no lock.
    from filelock import FileLock

    cache = cache_to_write("partial").parent
    folder = cache / "partial" / name
    # Assets of one archive share a lock: the second process finds its file taken out already.
    with FileLock(cache / f"{name}.lock"):
        # Left by a process that was killed; behind the lock nobody else can be using it.
        shutil.rmtree(folder, ignore_errors=True)
        # On the disk of the cache: files are renamed into it, which is atomic.
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _cached(asset: Asset) -> Path | None:
    """Return the verified file in the cache, or None."""
    for known in asset.files:
        path = cache_dir() / known.file
        if path.is_file():
            if _is(path, known):
                return path
            console.print(f"{path} is damaged (sha256 differs); fetching it again", soft_wrap=True)
    return None


def _supplied(name: str, asset: Asset, folder: Path) -> Path | None:
    """Return the verified file that the user supplied; None if there is none."""
    for archive in asset.archives:
        given = cache_dir() / "archives" / archive
        if given.is_file():
            return _install(name, asset, given, folder)
    own = _own_copy(asset.variable)
    if own is None:
        return None
    # Another file of the same weights cannot be made into `made`; it is used as it is.
    if asset.twin is not None and own.is_file() and _is(own, asset.twin):
        return own
    return _install(name, asset, own, folder)


def _own_copy(variable: Variable | None) -> Path | None:
    """Return what the user's variable names; None if it is not set."""
    if variable is None or not (given := os.environ.get(variable.name)):
        return None
    path = Path(given).expanduser()
    if not path.exists():
        raise AssetError(
            f"{variable.name} is {given}, which does not exist; it takes {variable.accepts}"
        )
    return path


def _download(name: str, asset: Asset, folder: Path) -> Path:
    """Try the mirrors in their order; the first that gives the right file is enough."""
    problems = []
    for mirror in asset.mirrors:
        console.print(f"fetching {name} (about {asset.size_mb} MB): {mirror}", soft_wrap=True)
        try:
            # A folder of its own: pooch would take a wrong file of the mirror before for its own.
            with tempfile.TemporaryDirectory(dir=folder) as place:
                archive = mirror.fetch(Path(place))
                _check(archive, mirror.sha256)
                _install_siblings(name, mirror, archive, folder)
                return _install(name, asset, archive, folder)
        except (AssetError, OSError) as error:
            problems.append(f"  {mirror}: {error}")
    raise _not_fetched(name, asset, problems)


def _install_siblings(name: str, mirror: Mirror, archive: Path, folder: Path) -> None:
    """Make the other assets that an archive holds: it is gone afterwards."""
    for sibling, asset in ASSETS.items():
        if sibling == name or not isinstance(asset, Asset):
            continue
        if mirror in asset.mirrors and _cached(asset) is None:
            _install(sibling, asset, archive, folder)


def _fetch_model(name: str, model: HubModel) -> Path:
    if (cached := cached_model(model.repository, model.revision)) is not None:
        return cached
    size = "size unknown" if model.size_mb is None else f"about {model.size_mb} MB"
    console.print(f"fetching {name} ({size}): {model.repository}")
    try:
        return fetch_model(model.repository, model.revision)
    except AssetError as error:
        raise _not_fetched(name, model, [f"  {model.repository}: {error}"]) from error


def _not_fetched(name: str, asset: Asset | HubModel, problems: list[str]) -> AssetError:
    lines = (f"cannot fetch {name} ({asset.purpose}):", *problems, by_hand(asset))
    return AssetError("\n".join(lines))


def _install(name: str, asset: Asset, source: Path, folder: Path) -> Path:
    """Make the cached file of an archive or a copy; it appears only if its hash is right."""
    known, unpack = asset.made, asset.unpack
    if asset.twin is not None and source.is_file() and _is(source, asset.twin):
        known, unpack = asset.twin, copied
    # Its own name: the archive may be called the same, and lies in the same folder.
    made = folder / f"made-{known.file}"
    try:
        unpack(source, made)
    except _UNREADABLE as error:
        raise AssetError(f"{source.name} does not hold {name}: {error}") from error
    _check(made, known.sha256, source)
    return made.replace(cache_dir() / known.file)


def _is(path: Path, known: KnownFile) -> bool:
    return sha256_of(path).startswith(known.sha256)


def _check(path: Path, sha256: str | None, origin: Path | None = None) -> None:
    """Raise unless a file has the expected sha256."""
    if sha256 is None:
        return
    found = sha256_of(path)
    if not found.startswith(sha256):
        made = f"what {origin} holds" if origin else path.name
        raise AssetError(f"{made} is not the expected file: sha256 {found}, expected {sha256}")


def by_hand(asset: Asset | HubModel) -> str:
    """Say how to supply an asset without the network, or from a copy that the user has."""
    ways = []
    if isinstance(asset, Asset):
        made, cache = asset.made, cache_dir()
        ways.append(f"put {made.file} (sha256 {made.sha256}) into {cache}")
        # A registry and its client give the same archive.
        archives = {mirror.archive: mirror.sha256 for mirror in asset.mirrors}
        for archive, sha256 in archives.items():
            known = f" (sha256 {sha256})" if sha256 else ""
            ways.append(f"put the archive {archive}{known} into {cache / 'archives'}")
    if asset.variable is not None:
        ways.append(f"set {asset.variable.name} to {asset.variable.accepts}")
    elif isinstance(asset, HubModel):
        ways.append("copy the Hub's cache ($HF_HOME) from a machine that has fetched it")
    return "To supply it by hand, " + ",\n  or ".join(ways) + "."
