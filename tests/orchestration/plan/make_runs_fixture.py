"""Make a small runs directory that later versions must reuse.

    python -m tests.orchestration.plan.make_runs_fixture runs_2

It lies in `tests/orchestration/fixtures/` beside the sweeps that made it, and
`test_upgrades.py` plans these against it. Its keys are those of the version that made it: making
it anew means giving up all results that users have, so a later version adds another instead, with
sweeps of its own: `runs_2` was made when three stages had been raised since `runs_1`.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from orchestration.launching.history import newest_launch
from orchestration.launching.launched import sealed
from orchestration.runs.state import Store

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "orchestration" / "fixtures"
SWEEPS = ("trained", "adopted")
"""In this order: the second adopts the weights that the first leaves."""
_PLAN = re.compile(r'\{"format":\d+,"sha256":"\w+","plan":(.*)\}', re.S)
KEPT_BYTES = 4096
"""Outputs up to this size are kept. Planning reads none: complete stages need no inputs."""


def main(
    name: Annotated[str, typer.Argument(help="Folder of the fixture, which has the sweeps.")],
) -> None:
    """Launch the sweeps of a fixture, and keep what planning reads of their runs directory."""
    fixture = FIXTURES / name
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        for sweep in SWEEPS:
            shutil.copy(fixture / f"{sweep}.yaml", place)
            launch(place, sweep)
            if sweep == "trained":
                collect_weights(place)
        for part in ("weights", "runs"):
            shutil.rmtree(fixture / part, ignore_errors=True)
        shutil.copytree(place / "weights", fixture / "weights")
        for file in kept(place / "runs"):
            target = fixture / file.relative_to(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(scrubbed(file.read_text(encoding="utf-8"), place), encoding="utf-8")
    check(fixture)
    size = sum(file.stat().st_size for file in fixture.rglob("*") if file.is_file())
    print(f"{fixture.relative_to(ROOT)}: {size / 1024:.0f} KiB")


def launch(place: Path, sweep: str) -> None:
    """Run a sweep with this code, in a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GIGATOK_CACHE": str(place / "cache")}
    command = [sys.executable, "-m", "orchestration.launch", f"{sweep}.yaml", "--yes"]
    subprocess.run([*command, "--no-patch"], cwd=place, env=environment, check=True)


def collect_weights(place: Path) -> None:
    """Put the trained 1d models where the second sweep looks for them."""
    (place / "weights").mkdir()
    plan = newest_launch(Store(place / "runs"), "trained")
    (trial,) = (stages for name, stages in plan.trials.items() if "2d" not in name)
    for model in ("tokenizer", "generator"):
        (folder,) = (place / "runs/stages" / f"train_{model}").glob(f"*{trial[f'train_{model}']}")
        shutil.copy(folder / "out/model.safetensors", place / f"weights/{model}.safetensors")


def kept(runs: Path) -> Iterator[Path]:
    """Find the files that planning reads, and small outputs beside them."""
    yield from sorted(runs.glob("sweeps/*/*.json"))
    for folder in sorted(file.parent for file in runs.glob("stages/*/*/spec.json")):
        yield from (folder / name for name in ("spec.json", "DONE"))
        outputs = (file for file in sorted(folder.rglob("out/*")) if file.is_file())
        text = (file for file in outputs if file.suffix in (".json", ".csv"))
        yield from (file for file in text if file.stat().st_size <= KEPT_BYTES)


def scrubbed(text: str, place: Path) -> str:
    """Make the paths in a record relative to the folder of the fixture."""
    paths = {str(place): "", os.path.relpath(place, ROOT): ""}
    for path, short in paths.items():
        text = text.replace(f"{path}/", short)
    # A recorded plan names the hash of its own text.
    plan = _PLAN.fullmatch(text)
    return sealed(plan[1]) if plan else text


def check(fixture: Path) -> None:
    """Refuse a fixture whose records say anything about this machine.

    Raises:
        SystemExit: one does; says which and what.
    """
    words = {socket.gethostname(), getpass.getuser(), tempfile.gettempdir(), str(Path.home())}
    words |= {str(ROOT), sys.prefix}
    for file in (*fixture.rglob("*.json"), *fixture.rglob("DONE"), *fixture.rglob("*.csv")):
        text = file.read_text(encoding="utf-8")
        if found := [word for word in words if f'"{word}"' in text or f"{word}/" in text]:
            raise SystemExit(f"{file} names {', '.join(found)}")


if __name__ == "__main__":
    typer.run(main)
