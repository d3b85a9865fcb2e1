"""Text of users as text of LaTeX."""

from __future__ import annotations

import re

# In one pass over the text: replaced one after the other, a backslash made by one rule would be
# escaped by the next.
_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "→": r"$\to$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "²": "$^2$",
    "∞": r"$\infty$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
}
_CHARACTER = re.compile("|".join(re.escape(c) for c in _LATEX))


def escaped(text: str) -> str:
    """Write text so that LaTeX prints it as it is."""
    return _CHARACTER.sub(lambda match: _LATEX[match[0]], text)
