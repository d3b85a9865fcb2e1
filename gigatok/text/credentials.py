"""Logins inside URLs: removed before a URL is kept or passed on, hidden when one is shown.

A tracking server is given as `http://user:password@host`, a database as `postgresql://…`. Such a
URL reaches command lines, records and messages, which others can read; the login must not. Uses
the standard library only.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

_LOGIN = re.compile(r"(?<=://)[^/?#]*@")
"""Login between scheme and host (RFC 3986); a password may hold an @ of its own."""
_LOGIN_TO_HIDE = re.compile(r"(?<=://)(?!/)([^/:@]*)(:?).*@", re.S)
"""Login, matched generously: a password whose / or # was not escaped is hidden as well.

No match if a path follows at once, as in `sqlite:///FILE`.
"""
_LOGIN_IN_TEXT = re.compile(r"(?<=://)(?!/)([^\s/:@\"'<>]{0,99})(:?)[^\s\"'<>]{0,300}@")
"""Login inside a text, which goes on after the URL: white space and quotes end the match."""
_SECRET_PARAMETER = re.compile(
    r"(?<=[?&])((?:[a-z_]*passw(?:or)?d|passwd|pwd|token|secret|api_?key)=)[^&#\s'\"<>]*", re.I
)


def shown(uri: str) -> str:
    """Hide the password of a URL that is the whole text; the user's name stays."""
    return _SECRET_PARAMETER.sub(r"\1***", _LOGIN_TO_HIDE.sub(_hidden, uri))


def hide_passwords(text: str) -> str:
    """Hide the passwords of all URLs within a message or a log."""
    return _SECRET_PARAMETER.sub(r"\1***", _LOGIN_IN_TEXT.sub(_hidden, text))


def shown_command(words: Iterable[str]) -> str:
    """Quote a command line for the shell, its passwords hidden."""
    # Word by word: inside one, the password of a URL may hold spaces and quotes.
    return shlex.join(map(shown, words))


def without_login(uri: str) -> str:
    """Remove user name, password and secret parameters from a URL; the rest may be kept."""
    plain = _SECRET_PARAMETER.sub("", _LOGIN.sub("", uri))
    return re.sub(r"[?&]+(?=#|$)", "", re.sub(r"(?<=[?&])&+", "", plain))


def has_secret(uri: str) -> bool:
    """Tell whether a URL carries a password, or a name alone, which may be a token."""
    return shown(uri) != uri


def login(uri: str) -> tuple[str, str] | None:
    """Read user name and password out of a URL; None if it has no login."""
    parts = urlsplit(uri)
    if parts.username is None:
        return None
    return unquote(parts.username), unquote(parts.password or "")


def mlflow_variables(uri: str) -> dict[str, str]:
    """Convert the login of a URL to the environment variables that MLflow's client reads.

    MLflow repeats its URL in errors and logs, and everybody on a machine can see the arguments of
    processes. An environment is readable by its owner alone.
    """
    # Databases take their login from the URL itself.
    found = login(uri) if uri.startswith(("http://", "https://")) else None
    if found is None:
        return {}
    return dict(zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), found, strict=True))


def _hidden(found: re.Match[str]) -> str:
    name, has_password = found.groups()
    # A name without password is a token.
    return f"{name}:***@" if has_password else "***@"
