import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.runs import provenance


@pytest.fixture
def repository(tmp_path):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    return tmp_path


def test_clean_repository(repository):
    state = provenance.git_state(repository)
    assert len(state["git_sha"]) == 40
    assert state["git_dirty"] is False
    assert state["git_patch"] is None


def test_dirty_repository_keeps_patch_and_lists_new_files(repository):
    (repository / "code.py").write_text("x = 2\n")
    (repository / "new.py").write_text("")
    state = provenance.git_state(repository)
    assert state["git_dirty"] is True
    assert "-x = 1\n+x = 2" in state["git_patch"]
    assert "?? new.py" in state["git_status"]


def test_long_patch_is_cut_and_says_so(repository):
    (repository / "code.py").write_text("y = 1\n" * 100_000)
    patch = provenance.git_state(repository)["git_patch"]
    assert len(patch) < provenance.PATCH_LIMIT + 100
    assert "characters left out" in patch


def test_no_repository_is_none(tmp_path, repository, monkeypatch):
    inside = repository / "copy"
    inside.mkdir()
    assert set(provenance.git_state(inside).values()) == {None}
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert set(provenance.git_state(repository).values()) == {None}


@pytest.mark.heavy
def test_collect_is_json_and_imports_nothing_heavy():
    code = (
        "import json, sys; from orchestration.runs import provenance; "
        "print(json.dumps(provenance.collect())); "
        "assert not {'torch', 'mlflow'} & set(sys.modules)"
    )
    root = Path(provenance.__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)
    facts = json.loads(out.stdout)
    assert facts["packages"]["torch"] is not None
    assert facts["python"] == sys.version.split()[0]
    assert facts["cpu"]
    assert facts["command"].startswith(sys.executable)


def test_package_that_is_missing_is_none():
    assert provenance.package_version("no-such-package") is None


def test_system_metrics_are_plausible():
    provenance.system_metrics()
    values = provenance.system_metrics()
    assert all(name.startswith("system/") for name in values)
    assert 0 <= values["system/cpu_utilization_percentage"] <= 100
    assert 10 < values["system/process_memory_megabytes"] < 1e5
    assert values["system/system_memory_available_megabytes"] > 10


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts")
def test_waiting_is_counted_from_the_attempt_on():
    began = time.perf_counter()
    provenance.count_waiting()
    waited = provenance.waited_seconds()
    assert waited is not None
    assert 0 <= waited <= time.perf_counter() - began, "what the process waited before is not its"
