"""Workers run the code that their server imported, not what the files have become since."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.runs import provenance

ROOT = Path(__file__).resolve().parents[3]
LAUNCHER = """
import sys
from pathlib import Path
with open(sys.argv[1], "a") as file:
    file.write(f"{__name__} ")
if __name__ == "__main__":
    from orchestration.backends import workers
    from orchestration.runs.state import StageFolder
    workers._PRELOAD = []  # torch takes seconds, and no stage is run here
    folder = StageFolder(Path(sys.argv[2]))
    (worker,) = workers.start_workers(folder, workers.Slot(1, ""), [{}], Path(sys.argv[2], "log"))
    worker.join()
    assert sys.modules["__main__"].__file__ == __file__
"""


@pytest.mark.heavy
def test_a_worker_does_not_run_the_launcher_again(tmp_path: Path) -> None:
    script, seen = tmp_path / "launcher.py", tmp_path / "seen"
    script.write_text(LAUNCHER)
    command = [sys.executable, str(script), str(seen), str(tmp_path)]
    subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert seen.read_text() == "__main__ "
    assert "Traceback" in (tmp_path / "log").read_text()  # it ran: there is no stage to find


def test_the_state_of_the_code_is_asked_for_once() -> None:
    provenance.imported_state.cache_clear()
    provenance.imported_state()
    provenance.collect()
    assert provenance.collect()["git_sha"] == provenance.imported_state()["git_sha"]
    assert provenance.imported_state.cache_info().misses == 1
