"""Logins inside URLs: taken out before a URL is kept or handed on, hidden where one is shown.

`http://user:password@host` is how a tracking server is given, `postgresql://…` a database. Such a
URL reaches command lines, records and messages, all of which others can read: the login must not.
Standard library only.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

_LOGIN = re.compile(r"(?<=://)[^/?#]*@")
"""Between scheme and host, as the standard has it; a password may hold an @ of its own."""
_LOGIN_TO_HIDE = re.compile(r"(?<=://)(?!/)([^/:@]*)(:?).*@", re.S)
"""The same, but generous: a password whose / or # was not escaped is hidden as well.

Not where a path follows at once, as in `sqlite:///FILE`.
"""
_LOGIN_IN_TEXT = re.compile(r"(?<=://)(?!/)([^\s/:@\"'<>]{0,99})(:?)[^\s\"'<>]{0,300}@")
"""A text goes on after a URL: nothing beyond white space or quotes belongs to it."""
_SECRET_PARAMETER = re.compile(
    r"(?<=[?&])((?:[a-z_]*passw(?:or)?d|passwd|pwd|token|secret|api_?key)=)[^&#\s'\"<>]*", re.I
)


def shown(uri: str) -> str:
    """Hide the password of one URL, which is all of the text; the user's name stays."""
    return _SECRET_PARAMETER.sub(r"\1***", _LOGIN_TO_HIDE.sub(_hidden, uri))


def hide_passwords(text: str) -> str:
    """Hide the passwords of all URLs within a message or a log."""
    return _SECRET_PARAMETER.sub(r"\1***", _LOGIN_IN_TEXT.sub(_hidden, text))


def shown_command(words: Iterable[str]) -> str:
    """Quote a command line for the shell, its passwords hidden."""
    # Word by word: inside one, the password of a URL may hold spaces and quotes.
    return shlex.join(map(shown, words))


def without_login(uri: str) -> str:
    """Remove user name, password and secret parameters from a URL: what may be kept of it."""
    plain = _SECRET_PARAMETER.sub("", _LOGIN.sub("", uri))
    return re.sub(r"[?&]+(?=#|$)", "", re.sub(r"(?<=[?&])&+", "", plain))


def has_secret(uri: str) -> bool:
    """Tell whether a URL carries a password, or a name alone, which may be a token."""
    return shown(uri) != uri


def login(uri: str) -> tuple[str, str] | None:
    """Read user name and password out of a URL; None where it has no login."""
    parts = urlsplit(uri)
    if parts.username is None:
        return None
    return unquote(parts.username), unquote(parts.password or "")


def mlflow_variables(uri: str) -> dict[str, str]:
    """Give the login of a URL as the environment variables that MLflow's client reads.

    MLflow repeats the URL that it was given in its errors and logs, and processes show their
    arguments to everybody on the machine; an environment is its owner's alone.
    """
    found = login(uri) if uri.startswith(("http://", "https://")) else None
    if found is None:
        return {}
    return dict(zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), found, strict=True))


def _hidden(found: re.Match[str]) -> str:
    name, has_password = found.groups()
    # A name without password is a token.
    return f"{name}:***@" if has_password else "***@"
