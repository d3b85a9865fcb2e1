"""Hashes (sha256) of files that are too large to read in every plan. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from gigatok.config import AdoptedFile
from gigatok.data.assets import cache_dir
from gigatok.files.hashes import sha256_of

_SHA256 = re.compile("[0-9a-f]{64}")


def adopted_file(file: str) -> AdoptedFile:
    """Describe a file of weights that a trial names."""
    path = Path(file).expanduser().resolve()
    return AdoptedFile(path=str(path), sha256=known_sha256(path))


def known_sha256(file: Path) -> str:
    """Return the sha256 of a file, computed once while path, size and time of change stay."""
    state = file.stat()
    facts = f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
    folder = cache_dir() / "sha256"
    note = folder / hashlib.sha256(facts.encode()).hexdigest()
    # An empty note, as a power cut leaves it, would be taken for the file's identity.
    if note.is_file() and _SHA256.fullmatch(
        known := note.read_text(encoding="utf-8", errors="replace")
    ):
        return known
    digest = sha256_of(file)
    with suppress(OSError):  # without a cache the next plan only takes longer
        folder.mkdir(parents=True, exist_ok=True)
        part = note.with_name(f".{note.name}.{os.getpid()}")
        part.write_text(digest, encoding="utf-8")
        part.replace(note)
    return digest
