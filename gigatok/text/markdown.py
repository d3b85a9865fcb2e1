"""Text of others inside Markdown. Uses the standard library only.

A question, a name or an error message is text, not markup: an image in it would make every
reader's browser fetch an address of the author's choice.
"""

from __future__ import annotations

import re

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_SHOWDOWN = re.compile(r"([\\`*_{}\[\]()>#+.!~=|-])")


def plain(text: object) -> str:
    """Escape a text so that Markdown shows it as it is, on one line."""
    # CommonMark lets every ASCII punctuation be escaped, so none has to be known by its meaning:
    # images, links, HTML, formulas and the directives of Streamlit all begin with one.
    return _PUNCTUATION.sub(r"\\\1", " ".join(str(text).split()))


def inert(text: object) -> str:
    """Escape only what could make an image, a link or HTML, for text that is read as a file."""
    return re.sub(r"([\\\[<])", r"\\\1", " ".join(str(text).split()))


def for_mlflow(text: object) -> str:
    """Escape a text so that MLflow's UI shows it as it is, on one line."""
    # MLflow renders with Showdown, which shows the backslash before any other character.
    words = " ".join(str(text).split()).replace("&", "&amp;")
    return _SHOWDOWN.sub(r"\\\1", words).replace("<", "&lt;")
