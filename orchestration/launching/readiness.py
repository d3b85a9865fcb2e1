"""Checks before a launch starts anything, and downloads that its stages need."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from gigatok.data.assets import fetch_all
from gigatok.data.supplies import absent
from gigatok.files.mirrors import AssetError
from gigatok.stages.assets import required_assets
from orchestration.backends.base import Backend
from orchestration.execution.progress import Progress
from orchestration.plan.graph import Plan
from orchestration.policy.profile import Profile

# Room for records and logs only; the outputs of stages are forecast and checked against the
# budget.
SMALLEST_FREE_BYTES = 64 * 2**20


def check_writable(runs_dir: Path) -> None:
    """Refuse a runs directory that cannot be written, before anything is planned around it.

    Raises:
        ValueError: cannot be created or written, or has no space.
    """
    advice = "name a folder that you can write to and that has space"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        # Writing is the only test that holds: root passes every check of permissions, and a full
        # disk or a quota shows with the first byte.
        with tempfile.TemporaryFile(dir=runs_dir) as probe:
            probe.write(b" ")
        free = shutil.disk_usage(runs_dir).free
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"--runs-dir {runs_dir}: {reason}; {advice}") from error
    if free < SMALLEST_FREE_BYTES:
        raise ValueError(
            f"--runs-dir {runs_dir}: No space left on device: {free / 2**20:.0f} MiB free, "
            f"{SMALLEST_FREE_BYTES / 2**20:.0f} MiB needed at least; {advice}"
        )


def make_ready(plan: Plan, progress: Progress, backend: Backend, profile: Profile) -> None:
    """Fetch what a plan needs, warm the backend up, and refuse what it could never give.

    Raises:
        Infeasible: says what was asked and what there is. The backend is closed.
        ValueError: something cannot be fetched, or the backend does not answer. It is closed.
    """
    try:
        prefetch(plan)
        backend.warm_up()
        check_requests(progress, backend, profile)
    except BaseException:
        # Nobody else would: `Runner.run` closes a backend, and a refused launch never gets there.
        backend.close()
        raise


def check_requests(progress: Progress, backend: Backend, profile: Profile) -> None:
    """Refuse what the backend could never give to the stages that are left.

    Raises:
        Infeasible: says what was asked and what there is.
        ValueError: the backend does not answer.
    """
    states = progress.states.items()
    stages = {progress.plan.stages[key].stage for key, state in states if state == "WAITING"}
    # Each distinct request once: to SLURM every check is a question to the scheduler.
    for request in {repr(request): request for request in map(profile.request, stages)}.values():
        backend.check(request)


def prefetch(plan: Plan) -> dict[str, Path]:
    """Fetch the data and networks that a plan reads: name -> file or folder.

    Raises:
        ValueError: something cannot be fetched; says how to supply it by hand.
    """
    # In the launcher: nodes of a cluster often have no way to the internet, and workers would
    # wait for each other to fetch the same file.
    stages = plan.stages.values()
    return fetch_all(required_assets((stage.stage, stage.trial) for stage in stages))


def fetch_inputs(plan: Plan) -> dict[str, Path]:
    """Fetch what a plan reads, and look for what only the user can supply.

    Raises:
        ValueError: something cannot be had; all of it is named.
    """
    problems = [
        f"not on this machine: {text}"
        for text in absent(stage.config for stage in plan.stages.values())
    ]
    try:
        found = prefetch(plan)
    except AssetError as error:
        problems.insert(0, str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return found
