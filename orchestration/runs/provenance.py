"""Provenance of a stage: the machine and the code that ran it. Recorded, never hashed.

Imports no torch: the launcher and the commands use it too.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from gigatok.names import SYSTEM_PREFIX
from gigatok.text.credentials import shown_command
from gigatok.text.masking import mask_secrets

PATCH_LIMIT = 200_000
"""Characters of a patch that are kept."""
RECORD = "provenance.json"
"""File in a snapshot of the code that holds the git state of the copied code."""
_ROOT = Path(__file__).resolve().parents[2]
# Versions that can change a number or a file format; other packages only fill the record.
_PACKAGES = (
    "torch",
    "numpy",
    "pydantic",
    "scipy",
    "safetensors",
    "pillow",
    "transformers",
    "scikit-learn",
    "mlflow",
    "ray",
    "submitit",
    "optuna",
)
JOB_VARIABLES = "GIGATOK_JOB_VARIABLES"
"""Environment variable of a worker: names of those that say which job it is, by commas."""
_MIB = 2.0**20
# Git reads its repository from these variables before it looks at the folder.
_GIT_PLACES = {
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
}


def collect() -> dict[str, Any]:
    """Collect facts about this process as JSON data; an unknown fact is None."""
    psutil.cpu_percent()  # The first call only sets the start of the next one's interval.
    return {
        **imported_state(),
        "host": socket.gethostname(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "memory_mb": round(psutil.virtual_memory().total / _MIB),
        "gpus": gpu_names(),
        "device": device_name(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "command": shown_command([sys.executable, *sys.argv]),
        "job": {key: os.environ[key] for key in _job_variables() if key in os.environ},
    }


def _job_variables() -> list[str]:
    """List the variables by which a worker's backend, or Ray, says which job it is."""
    return ["RAY_JOB_ID", *os.environ.get(JOB_VARIABLES, "").split(",")]


@cache
def imported_state() -> dict[str, Any]:
    """Read the git state of the code that this process, or the one it was forked from, imported.

    Read once, as early as possible: a process runs the code that it imported, even if the files
    have changed since. It takes no argument on purpose: for a cache, `f()` and `f(default)` are
    two different keys.
    """
    return git_state()


def git_state(root: Path = _ROOT) -> dict[str, Any]:
    """Read commit, changes against it and their patch; all None if `root` is no repository.

    Files that git does not track are listed in `git_status` but are not part of the patch.
    Anything in the patch that looks like a secret is masked. A snapshot of the code
    (`orchestration.backends.snapshot`) holds the state of the code that was copied.
    """
    record = root / RECORD
    if record.is_file():
        state: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return state
    found = _git(root, "rev-parse", "--show-toplevel", "HEAD")
    top, _, sha = (found or "").strip().partition("\n")
    # A copy of the code inside somebody else's repository has no commit of its own.
    if found is None or Path(top).resolve() != root.resolve():
        return dict.fromkeys(("git_sha", "git_dirty", "git_status", "git_patch"))
    status = _git(root, "status", "--porcelain")
    patch = _git(root, "diff", "HEAD", "--no-ext-diff", "--no-color") if status else None
    return {
        "git_sha": sha,
        "git_dirty": None if status is None else bool(status),
        "git_status": _limited(status) if status else None,
        "git_patch": _limited(_masked(patch)) if patch else None,
    }


def code_version(state: Mapping[str, Any]) -> str:
    """Shorten a git state: nine digits of the commit, with a + if the tree differed from it."""
    sha = state.get("git_sha")
    if sha is None:
        return "unknown code"
    return f"{sha[:9]}{'+' if state.get('git_dirty') else ''}"


def system_metrics() -> dict[str, float]:
    """Measure the load of machine and process, named as the system tab of MLflow's UI expects.

    Memory is in MiB. GPU values appear once torch has initialised CUDA in this process.
    """
    memory = psutil.virtual_memory()
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "process_memory_megabytes": psutil.Process().memory_info().rss / _MIB,
        "system_memory_usage_percentage": memory.percent,
        "system_memory_available_megabytes": memory.available / _MIB,
        **_gpu_metrics(),
    }
    return {SYSTEM_PREFIX + name: float(value) for name, value in values.items()}


def peak_memory() -> int:
    """Return the most bytes that this process held at once: of its GPU, or else of the machine.

    For a GPU it is what torch's allocator had reserved; the driver's context comes on top.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return int(cuda.max_memory_reserved())
    # `ru_maxrss` is in KiB on Linux and in bytes on macOS (getrusage(2)).
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def process_seconds() -> float:
    """Measure the age of this process: it has imported, and waited for the lease."""
    return max(0.0, time.time() - psutil.Process().create_time())


_waited_before: dict[str, float] = {}
"""Thread -> seconds that it had waited before the attempt began."""


def count_waiting() -> None:
    """Start the count of `waited_seconds`.

    A process is older than its attempt: it imports torch and waits for the lease. Time waited then
    is no part of the attempt; counted in, it made run times negative.
    """
    _waited_before.clear()
    _waited_before.update(_waited_by_thread())


def waited_seconds() -> float | None:
    """Count the seconds since `count_waiting` in which a ready thread found no free processor.

    Returns the value of the thread that waited most; None if the system does not count.
    """
    # The maximum, not the sum: threads that wait at the same time delay the stage once.
    waited = _waited_by_thread().items()
    return max((all_ - _waited_before.get(thread, 0.0) for thread, all_ in waited), default=None)


def _waited_by_thread() -> dict[str, float]:
    """Read the seconds that each thread spent in the run queue (Linux); empty elsewhere."""
    found = {}
    for folder in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # a thread that has just ended, or a kernel that does not count
            found[folder.name] = (
                # Second field of schedstat: nanoseconds spent waiting on a run queue.
                int((folder / "schedstat").read_text(encoding="utf-8").split()[1]) / 1e9
            )
    return found


def user_name() -> str:
    """Name the user who runs this process; by number where a container's user has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def cpu_name() -> str | None:
    """Read the model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None) or platform.machine() or None


def gpu_names() -> list[str]:
    """List the model names of the machine's NVIDIA GPUs, by the driver's own listing."""
    # Without nvidia-smi or CUDA: starting either takes seconds and some of the GPU's memory.
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]


def device_name() -> str:
    """Name the device that this process computes on: the GPU's model, or else the CPU's."""
    # An empty list of visible devices is how backends start a stage on the CPU of a GPU machine.
    names = [] if os.environ.get("CUDA_VISIBLE_DEVICES") == "" else gpu_names()
    return names[0] if names else cpu_name() or "CPU"


def _gpu_metrics() -> dict[str, float]:
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    # While another thread is importing torch, `cuda` may be there before its functions are.
    if cuda is None or not getattr(cuda, "is_initialized", bool)():
        return {}
    values: dict[str, float] = {}
    for index in range(cuda.device_count()):
        free, total = cuda.mem_get_info(index)
        values[f"gpu_{index}_memory_usage_megabytes"] = (total - free) / _MIB
        values[f"gpu_{index}_memory_usage_percentage"] = 100.0 * (total - free) / total
        values[f"gpu_{index}_process_memory_megabytes"] = cuda.memory_reserved(index) / _MIB
    return values


def _git(root: Path, *arguments: str) -> str | None:
    # A git hook or another tool may have pointed these variables to a repository of its own.
    outside = {name: text for name, text in os.environ.items() if name not in _GIT_PLACES}
    # Without optional locks: workers that ask at the same time must not block each other.
    environment = {**outside, "GIT_OPTIONAL_LOCKS": "0"}
    # Git refuses a folder that belongs to another user, as a checkout that a team shares. The code
    # in it is running already: asking for its commit trusts nobody further.
    trusted = f"safe.directory={root.resolve()}"
    try:
        answer = subprocess.run(
            ["git", "-c", trusted, "-C", str(root), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _masked(patch: str) -> str:
    """Mask secrets before the patch is cut: a cut could leave half a secret that no rule knows."""
    looked_at = 2 * PATCH_LIMIT  # the rest is cut off in any case, and may be very long
    return mask_secrets(patch[:looked_at]) + patch[looked_at:]


def _limited(text: str) -> str:
    if len(text) <= PATCH_LIMIT:
        # Says how much is missing: a patch that ends early would apply and give other code.
        return text
    return text[:PATCH_LIMIT] + f"\n... {len(text) - PATCH_LIMIT} characters left out\n"


@cache
def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that affect results; read once, as it is slow."""
    return {name: package_version(name) for name in _PACKAGES}


def package_version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
