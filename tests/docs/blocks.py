"""Fenced blocks of the documentation, and the commands in them."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "sweeps" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
_FENCE = re.compile(
    r"^(?P<marks>(?:<!--.*?-->\n)*)```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@cache
def generated() -> ModuleType:
    """Load `docs/generated.py`, which finds the parsers of our commands for the site.

    By its path: an installed package may be called `docs`.
    """
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: path of the page in the repository.
        line: of its fence, counted from 1.
        kind: what stands behind the fence, such as `bash`.
        runs: whether a comment `<!-- run -->` above it asks for a real run.
        text: its content.
    """

    page: str
    line: int
    kind: str
    runs: bool
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*kinds: str) -> list[Block]:
    """Collect the blocks of these kinds from all pages."""
    return [block for page in PAGES for block in _blocks_of(page) if block.kind in kinds]


def _blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text[: match.start("kind")].count("\n") + 1
        runs = "<!-- run -->" in match["marks"]
        yield Block(str(page.relative_to(ROOT)), line, match["kind"], runs, match["text"])


def commands(block: Block) -> Iterator[list[str]]:
    """Split a block into the words of its simple commands, without variables set in front."""
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if set(word) <= set("&|;"):
                if words:
                    yield words
                words = []
            elif words or not _ASSIGNMENT.match(word):
                words.append(word)
