"""Check, before anything runs, that a file of weights can be read safely. Imports no torch.

A `.pt` file is a pickle, and a pickle can ask for any function to be called. Files of weights ask
for tensors and plain values only. The opcodes show what a file asks for, without running it. The
stage that has the model compares names and shapes of the weights later.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO

from safetensors import SafetensorError, safe_open

NUMPY_GLOBALS = {
    f"numpy.{core}.multiarray.{name}"
    for core in ("core", "_core")  # its home before and since NumPy 2
    for name in ("scalar", "_reconstruct")
} | {"numpy.ndarray", "numpy.dtype"}
"""Globals for numbers and arrays of NumPy, such as a step count or a random state."""
_TRAINERS = {"argparse.Namespace", "_codecs.encode", "collections.OrderedDict"}
_PLAIN = {"builtins.set", "builtins.bytearray", "builtins.complex", "collections.Counter"}
_TORCH = {"torch", "torch._utils", "torch._tensor", "torch.serialization", "torch.storage"}
"""Modules of torch that rebuild tensors; not `torch.nn`, whose modules are code."""
_PICKLES = 5
"""Pickles at the start of a file of torch before 1.6: three of format, content, storages."""
_ADVICE = (
    "save the weights alone, with torch.save(model.state_dict(), FILE) or as .safetensors, and "
    "adopt that file"
)


def unreadable(path: Path) -> str | None:
    """Say why a file of weights cannot be read, and what to do; None if it can."""
    # Size and time of change make the cache's key: a file that was replaced is read again.
    state = path.stat()
    return _unreadable(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _unreadable(path: Path, size: int, changed: int) -> str | None:
    """Check a file once while it stays the same: every trial that adopts it asks."""
    # This format holds tensors and nothing else, so only its header is read.
    if path.suffix == ".safetensors":
        return _not_safetensors(path)
    try:
        foreign = [name for name in _globals(path) if not _is_harmless(name)]
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        return f"is no file of torch.save, or is damaged ({error}); copy it again"
    if not foreign:
        return None
    # The first few say what kind of file it is.
    wanted = ", ".join(sorted(set(foreign))[:5])
    return f"asks for {wanted}, which could run code and which weights do not need; {_ADVICE}"


def _not_safetensors(path: Path) -> str | None:
    try:
        with safe_open(path, framework="numpy") as file:
            return None if file.keys() else f"holds no weights; {_ADVICE}"
    except SafetensorError as error:
        return f"is no .safetensors file, or is damaged ({error}); copy it again"


def _globals(path: Path) -> Iterator[str]:
    """Yield everything importable that a file of torch.save names, as `module.name`."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(_PICKLES):
                yield from _named(file)
        return
    with zipfile.ZipFile(path) as archive:
        # The folder in front carries the name under which the file was saved.
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if not pickles:
            raise ValueError("it is an archive without data.pkl")
        with archive.open(pickles[0]) as content:
            yield from _named(content)


def _named(pickle: IO[bytes]) -> Iterator[str]:
    """Yield the names in one pickle, up to its end."""
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).rpartition(" ")
            # Protocol 2 calls the built-ins by their home in Python 2.
            yield f"{module.replace('__builtin__', 'builtins')}.{name}"
        # Its operands lie on the stack, so the name cannot be read off the opcode alone.
        elif opcode.name == "STACK_GLOBAL":
            raise ValueError("its pickle is of protocol 4 or later, torch.save writes 2")


def _is_harmless(name: str) -> bool:
    module = name.rpartition(".")[0]
    return (
        module in _TORCH
        or name == "torch.nn.parameter.Parameter"
        or module == "numpy.dtypes"
        or name in NUMPY_GLOBALS | _TRAINERS | _PLAIN
    )
