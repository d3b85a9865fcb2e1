"""Text is UTF-8 whatever the locale: no file and no pipe is opened without saying so.

Ruff's PLW1514 sees only what it can prove to be a path. This sees every call by its name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gigatok", "orchestration", "analysis", "dashboards")
OPENERS = {"open": "r", "fdopen": "r", "NamedTemporaryFile": "w+b", "TemporaryFile": "w+b"}
"""What opens a file, and the mode that it takes by default."""
MODE = re.compile(r"[rwxa][bt+]*")


def without_encoding(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and not _says_encoding(node) and _is_text(node):
            yield f"{node.lineno}: {ast.unparse(node)[:80]}"


def _says_encoding(call: ast.Call) -> bool:
    given = {word.arg: word.value for word in call.keywords}.get("encoding")
    return isinstance(given, ast.Constant) and given.value in ("utf-8", "ascii")


def _is_text(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in ("read_text", "write_text"):
        return True
    if any(word.arg in ("text", "universal_newlines", "encoding") for word in call.keywords):
        return name in ("run", "Popen", "check_output", "check_call", "call", *OPENERS)
    if ast.unparse(call.func) == "tarfile.open":  # binary, whatever its mode
        return False
    return name in OPENERS and _mode(call, OPENERS[name]).find("b") < 0


def _mode(call: ast.Call, default: str) -> str:
    """The mode among the arguments; binary where the call is of something else, as an image."""
    values = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
    texts = [one.value for one in values if isinstance(one, ast.Constant)]
    found = next((one for one in texts if MODE.fullmatch(str(one))), None)
    return (
        str(found)
        if found
        else "b"
        if values and isinstance(call.func, ast.Attribute)
        else default
    )


@pytest.mark.heavy
@pytest.mark.parametrize("package", PACKAGES)
def test_text_files_and_pipes_name_their_encoding(package: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{place}"
        for file in sorted((ROOT / package).rglob("*.py"))
        for place in without_encoding(file.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("path.write_text(text, encoding='latin-1')", True),
        ("open(path)", True),
        ("open(path, 'rb')", False),
        ("path.open()", True),
        ("path.open('a', buffering=1)", True),
        ("path.open('ab')", False),
        ("Image.open(file)", False),
        ("tarfile.open(fileobj=file)", False),
        ("tempfile.TemporaryFile(dir=x)", False),
        ("tempfile.NamedTemporaryFile('w')", True),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, encoding='utf-8')", False),
        ("subprocess.run(command, capture_output=True)", False),
    ],
)
def test_the_check_sees_what_it_should(code: str, is_found: bool) -> None:
    assert bool(list(without_encoding(code))) is is_found
