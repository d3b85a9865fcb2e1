"""The main commands where nothing around them is as expected, all at once.

A user without name and home, in a folder that cannot be written and holds modules of the same
names as ours; no UTF-8, no git, sockets' paths too long, matplotlib set up for something else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 54321
"""A user id without an entry in the password file."""
SWEEP = """question: Welche Größe reicht – bei gleicher Rate?
scale: smoke
axes: {tokenizer.decoder: [S]}
set: {tokenizer.encoder: S}
stages: [evaluate_reconstruction]
"""
OWN = "import pathlib, sys; pathlib.Path({mark!r}).touch(); sys.exit('a module of the user')\n"
SHADOWS = ("analysis.py", "dashboards.py", "gigatok/__init__.py", "random.py", "socket.py")


@dataclass(frozen=True)
class Place:
    """Where the user works: a read-only folder, and another for the results.

    Attributes:
        mark: the file that a module of the user would make if it were run.
        variables: the whole environment.
        change: what changes the user; empty where the tests themselves are a plain user's.
    """

    cwd: Path
    out: Path
    mark: Path
    variables: dict[str, str]
    change: tuple[str, ...]

    def run(self, module: str, *arguments: str) -> str:
        """Run a command that must succeed and must not import from the working folder."""
        options = ("-P",) if module == "analysis" else ()  # as doctor says; see `hiding`
        done = subprocess.run(
            [*self.change, sys.executable, *options, "-m", module, *arguments],
            cwd=self.cwd,
            env=self.variables,
            capture_output=True,
            check=False,
        )
        output = (done.stdout + done.stderr).decode("utf-8", errors="replace")
        assert done.returncode == 0, output
        assert "Traceback" not in output
        assert not self.mark.exists(), "a module of the user was run"
        return output


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    # Not below pytest's folder, which other users may not enter.
    with tempfile.TemporaryDirectory(prefix="gigatok-hostile-") as top:
        yield from _made(Path(top))


def _made(top: Path) -> Iterator[Place]:
    top.chmod(0o755)
    cwd, out, temporary = top / "project", top / "out", top / ("t" * 110)
    for folder in (cwd, out, temporary):
        folder.mkdir()
    mark = out / "run"
    for name in SHADOWS:
        (cwd / name).parent.mkdir(exist_ok=True)
        (cwd / name).write_text(OWN.format(mark=str(mark)), encoding="utf-8")
    (cwd / "größe.yaml").write_text(SWEEP, encoding="utf-8")
    (cwd / "matplotlibrc").write_text("text.usetex: True\n", encoding="utf-8")
    variables = {
        "PATH": "/nonexistent",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    change = _as_nobody()
    for folder in (out, temporary) if change else ():
        os.chown(folder, NOBODY, NOBODY)
    cwd.chmod(0o555)
    yield Place(cwd, out, mark, variables, tuple(change))
    cwd.chmod(0o755)


def _as_nobody() -> list[str]:
    """Words before a command that run it as a user without a name; empty if we may not do so.

    That user may read all files, because root's own checkout can lie where only root may look.
    Python's packages must be open to everybody all the same: Alembic asks access(2), which knows
    only the user and not what the user is allowed besides.
    """
    tool = shutil.which("setpriv")
    if os.getuid() != 0 or tool is None:
        return []
    capability = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    change = [tool, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *capability]
    check = "import os, sys; sys.exit(not os.access(sys.prefix, os.R_OK | os.X_OK))"
    # No stderr: a Python that cannot be started says so, and that is an answer too.
    may = subprocess.run(
        [*change, sys.executable, "-c", check], stderr=subprocess.DEVNULL, check=False
    )
    return change if may.returncode == 0 else []


@pytest.fixture(scope="module")
def launched(place: Place) -> str:
    return place.run("orchestration.launch", "größe.yaml", "--runs-dir", str(place.out / "runs"))


def test_a_launch_completes_and_draws_beside_its_runs(place: Place, launched: str) -> None:
    assert "0 failed" in launched
    assert place.change or os.getuid() or "CI" not in os.environ, "CI cannot change the user"
    assert "not drawn" not in launched
    assert (place.out / "figures" / "größe-smoke.png").stat().st_size > 10_000
    assert "or python -P -m analysis" in launched
    assert [path.name for path in (place.out / "runs" / "sweeps").iterdir()] == ["größe"]


@pytest.mark.parametrize(
    "command", ["plan", "status", "explain", "logs", "gc --dry-run", "doctor"]
)
def test_commands_answer(place: Place, launched: str, command: str) -> None:
    name, *options = command.split()
    sweep = [] if name in ("gc", "doctor") else ["größe.yaml"]
    output = place.run(
        "orchestration", name, *sweep, *options, "--runs-dir", str(place.out / "runs")
    )
    assert output.isascii(), "what ASCII lacks is escaped"


def test_analysis_reads_and_draws(place: Place, launched: str) -> None:
    store = ("größe.yaml", "--tracking-uri", f"sqlite:///{place.out / 'runs' / 'mlflow.db'}")
    assert "PSNR" in place.run("analysis", "table", *store)
    place.run("analysis", "figures", *store, "--out", str(place.out / "figures"))
    place.run("analysis", "report", *store, "--out", str(place.out / "reports"))
    origin = json.loads((place.out / "figures" / "größe-smoke.json").read_text(encoding="utf-8"))
    assert origin["title"].startswith("Welche Größe reicht –")
    assert (place.out / "figures" / "größe-smoke.png").stat().st_size > 10_000
