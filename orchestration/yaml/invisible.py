"""Characters that look like a space, or like nothing, but that YAML takes for text.

They come with text that was copied from a web page or a PDF, and an editor does not show them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_BLANKS = (
    "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"  # no-break, thin, ideographic … spaces
    "\u200b-\u200f\u2060\ufeff\u00ad"  # of no width: joiners, marks of direction, soft hyphen
)
_BLANK = re.compile(f"[{_BLANKS}]")
_MISLEADING = re.compile(
    f"^[ ]*[{_BLANKS}]"  # where indentation or a value seems to begin
    f"|[{_BLANKS}][ ]*$"  # where it seems to end
    f"|(?<=[:,#-])[ ]*[{_BLANKS}]|[{_BLANKS}][ ]*(?=#)",  # beside what must have a space
    re.MULTILINE,
)
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Blank:
    """Character that only looks like a space: its position in a text, and a message about it."""

    start: int
    said: str


def misleading_blank(text: str) -> Blank | None:
    """Find a blank that changes the meaning of unquoted text; None: there is none.

    Inside a sentence, for example before a French question mark, it is ordinary text.
    """
    found = _MISLEADING.search(text)
    return None if found is None else any_blank(text, found.start())


def any_blank(text: str, start: int = 0) -> Blank | None:
    """Find the first character of this kind at or after a position; None: there is none."""
    found = _BLANK.search(text, start)
    if found is None:
        return None
    name = f"U+{ord(found[0]):04X} ({unicodedata.name(found[0], '').lower()})"
    advice = "which YAML takes for text; put an ordinary space, or nothing, there"
    return Blank(found.start(), f"no ordinary space but {name}, {advice}")


def unprintable(text: str) -> str | None:
    r"""Find a character that no file can hold, or that controls a terminal; None: there is none.

    YAML does not allow them in a file, but produces them from escapes such as "\e" and "\ud800".
    """
    found = _UNPRINTABLE.search(text)
    if found is None:
        return None
    what = "is no character" if found[0] >= "\ud800" else "is a control character"
    return f"U+{ord(found[0]):04X} {what}; leave it out"
