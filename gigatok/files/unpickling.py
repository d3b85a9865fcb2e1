"""Readers for pickles of arrays and for indexes of checkpoints that cannot run code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

Admitted = dict[tuple[str, str], tuple[str, str]]
"""(module, name) in the pickle -> its present place."""

_ADMITTED: Admitted = {
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
    # NumPy 2 moved the function that rebuilds an array; old pickles name its old home.
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    # Python 2 byte strings written by protocol 2.
    ("_codecs", "encode"): ("_codecs", "encode"),
}
"""Every global that a pickle of dicts, lists, bytes and arrays needs, and its present place."""


_CHECKPOINT = {
    "torch.distributed.checkpoint.metadata": (
        "Metadata",
        "MetadataIndex",
        "ChunkStorageMetadata",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch": ("Size", "float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8"),
    "torch.serialization": ("_get_layout",),
    "pathlib": ("PosixPath",),
    "pathlib._local": ("PosixPath",),  # its home in Python 3.13
}
_ADMITTED_IN_CHECKPOINTS = {
    (module, name): (module, name) for module, names in _CHECKPOINT.items() for name in names
}
"""Every global in the index that torch.distributed.checkpoint writes for tensors."""


class _Unpickler(pickle.Unpickler):
    """Unpickler that resolves admitted globals and nothing else."""

    def __init__(self, file: IO[bytes], admitted: Admitted, purpose: str) -> None:
        # As bytes: Python 2 wrote pixels as strings, which are no text in any encoding.
        super().__init__(file, encoding="bytes")
        self._admitted = admitted
        self._purpose = purpose

    def find_class(self, module: str, name: str) -> Any:
        """Resolve an admitted global."""
        # A list of what is admitted, not of what is dangerous: the latter would never be complete.
        if (module, name) not in self._admitted:
            raise ValueError(
                f"the pickle asks for {module}.{name}, which {self._purpose} do not need; refused"
            )
        return super().find_class(*self._admitted[module, name])


def load_arrays(path: Path) -> Any:
    """Read a pickle made of dicts, lists, numbers, strings and NumPy arrays.

    Byte strings of Python 2 are returned as `bytes`, but keys of dicts become text.

    Raises:
        ValueError: the pickle refers to anything else (nothing of it is executed), or the file is
            not a pickle.
    """
    with path.open("rb") as file:
        try:
            content = _Unpickler(file, _ADMITTED, "plain arrays").load()
        except (pickle.UnpicklingError, EOFError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a pickle of arrays: {error}") from error
    return _with_text_keys(content)


def load_checkpoint_metadata(path: Path) -> Any:
    """Read the index of a torch.distributed.checkpoint that holds tensors only.

    Raises:
        ValueError: the index refers to anything else; nothing of it is executed.
    """
    with path.open("rb") as file:
        return _Unpickler(file, _ADMITTED_IN_CHECKPOINTS, "checkpoints").load()


def _with_text_keys(content: Any) -> Any:
    """Turn the byte-string keys that Python 2 left in nested dicts into text."""
    # Only dicts nest in what is read here; arrays and lists are leaves.
    if not isinstance(content, dict):
        return content
    return {
        key.decode() if isinstance(key, bytes) else key: _with_text_keys(value)
        for key, value in content.items()
    }
