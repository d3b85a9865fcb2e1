"""Start of a command, independent of its environment. Imports nothing heavy.

The packages call `prepare` when `python -m` starts one of their modules, before anything else is
imported. A program that imports the packages keeps its own settings.
"""

from __future__ import annotations

# Only what Python itself has loaded by now: a random.py in the working folder would come first.
import atexit
import gc
import io
import os
import sys
from collections.abc import Mapping
from itertools import pairwise

PACKAGES = ("analysis", "dashboards", "gigatok", "orchestration")
FOR_CHILDREN = {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}
"""Environment variables of every Python process that we start.

Nothing is imported from its working folder, and names of files and pipes are UTF-8.
"""
OBJECTS_UNTIL_GARBAGE = 100_000
"""New objects after which a command looks for garbage among the youngest."""


def prepare(package: str, root: str) -> None:
    """Arrange the path of a process that `python -m` started, and all that `settle` does.

    Args:
        package: top package that is being imported.
        root: folder that the package was found in; first on `sys.path`, from where it is removed.
    """
    sys.path.remove(root)
    if not _is_started(package):
        return
    _leave_working_folder(root)
    settle()


def settle() -> None:
    """Arrange encoding, output, user and variables of a process that runs a command."""
    # By default 700: each import of ours makes thousands of objects, and all of them stay.
    gc.set_threshold(OBJECTS_UNTIL_GARBAGE)
    # At the end Python looks at every object three times before it gives back all memory anyway.
    atexit.register(gc.freeze)
    os.environ.update(FOR_CHILDREN)
    _use_utf8()
    tolerate_output()
    _name_user()
    # Commands draw into files only. A notebook's backend, which its terminals and batch jobs
    # inherit, may not be installed here: then matplotlib could not be imported.
    os.environ["MPLBACKEND"] = "agg"


def for_children(code: str, before: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Build the variables with which a Python process imports our packages from `code` only."""
    path = os.pathsep.join(filter(None, [code, before.get("PYTHONPATH", "")]))
    return {"PYTHONPATH": path, **FOR_CHILDREN}


def tolerate_output() -> None:
    """Make printing never fail: characters that the encoding lacks are written as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def hiding(folder: str) -> list[str]:
    """List names in a folder that `python -m`, typed there, would run instead of our packages."""
    names = [name for package in PACKAGES for name in (f"{package}.py", package)]
    found = [name for name in names if _is_module(os.path.join(folder, name))]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [] if found and os.path.samefile(folder, root) else found


def _is_module(path: str) -> bool:
    return os.path.isfile(path) or os.path.isfile(os.path.join(path, "__init__.py"))


def _is_started(package: str) -> bool:
    """Tell whether `python -m` started this package, not one that imports it."""
    words = pairwise(sys.orig_argv)
    module = next((name for flag, name in words if flag[:1] == "-" and flag[-1:] == "m"), "")
    return module.partition(".")[0] == package


def _leave_working_folder(root: str) -> None:
    """Import nothing from the user's folder: an `analysis.py` there is no part of this program.

    In a clone that is not installed, the working folder is where the packages are.
    """
    if not sys.flags.safe_path and sys.path[0] != root:
        del sys.path[0]


def _use_utf8() -> None:
    """Restart in Python's UTF-8 mode if the locale has another encoding.

    Names of files and of studies must be the same on every node, whatever its locale, and so must
    text that libraries write without naming an encoding. The mode cannot be switched on later.
    """
    if sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _name_user() -> None:
    """Give a user without an entry in the password file a name and a home: libraries need both."""
    import getpass
    from pathlib import Path

    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())
    # After the name: `expanduser` asks the password file again, as the user has no home.
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = _temporary_home()


def _temporary_home() -> str:
    """Return a folder of this user in the temporary one; a new one if another user has it."""
    import tempfile
    from pathlib import Path

    home = Path(tempfile.gettempdir()) / f"gigatok-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    return str(home) if home.stat().st_uid == os.getuid() else tempfile.mkdtemp(prefix="gigatok-")
