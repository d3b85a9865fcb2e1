"""SLURM's commands: how they are run, and what their complaints mean."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from subprocess import CompletedProcess

from orchestration.backends.base import DependencyOver, NoAnswer, QueueFull

ANSWER_SECONDS = 60.0
# Of slurm_strerror(3): "Unable to contact slurm controller", "Socket timed out on send/recv".
SILENCE = re.compile("contact slurm controller|timed out", re.IGNORECASE)
"""How sbatch complains where the scheduler, not the request, is at fault."""


def run(
    command: Sequence[str], seconds: float | None = None, environment: dict[str, str] | None = None
) -> CompletedProcess[str]:
    """Run a command and keep what it prints, whatever its exit code.

    Args:
        command: the words.
        seconds: after which it is given up; None: never.
        environment: of the command; None: that of this process.

    Raises:
        OSError: there is no such command.
        TimeoutExpired: it was given up.
    """
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=seconds,
        env=environment,
    )


def ask(*command: str, seconds: float = ANSWER_SECONDS) -> str:
    """Return what a command prints.

    Raises:
        NoAnswer: the scheduler does not answer it.
        ValueError: it fails; says how.
    """
    try:
        said = run(command, seconds)
    # Silence is not refusal: the request may have reached the scheduler, hence another kind of
    # error.
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{command[0]}: {error}") from error
    except OSError as error:
        raise ValueError(f"{command[0]}: {error}; is this a host of the cluster?") from error
    if said.returncode:
        raise refusal(said.stderr.strip(), " ".join(command[:2]))
    return said.stdout


def lines_of(command: list[str], seconds: float = ANSWER_SECONDS) -> list[str] | None:
    """Return the lines that a command prints; None: it is not there, fails or is silent."""
    try:
        return [line for line in ask(*command, seconds=seconds).splitlines() if line.strip()]
    except (OSError, ValueError):
        return None


def refusal(said: str, command: str = "sbatch") -> Exception:
    """Make an exception of a complaint of one of the scheduler's commands."""
    # The reasons of limits end in SubmitJobLimit or SubmitJobsLimit, by their level.
    if "SubmitJob" in said:
        return QueueFull(f"{command}: {said}")
    if SILENCE.search(said):
        return NoAnswer(f"{command}: {said}")
    kind = DependencyOver if "Job dependency problem" in said else ValueError
    return kind(f"{command} refuses: {said}")
