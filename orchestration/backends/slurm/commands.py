"""SLURM's commands: how they are run, and what their complaints mean."""

from __future__ import annotations

import re
import subprocess

from orchestration.backends.base import DependencyOver, NoAnswer, QueueFull

ANSWER_SECONDS = 60.0
# Of slurm_strerror(3): "Unable to contact slurm controller", "Socket timed out on send/recv".
SILENCE = re.compile("contact slurm controller|timed out", re.IGNORECASE)
"""How sbatch complains where the scheduler, not the request, is at fault."""


def ask(*command: str) -> str:
    """Return what a command prints.

    Raises:
        NoAnswer: the scheduler does not answer it.
        ValueError: it fails; says how.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=ANSWER_SECONDS,
        ).stdout
    except subprocess.CalledProcessError as error:
        raise refusal(error.stderr.strip(), " ".join(command[:2])) from error
    # Silence is not refusal: the request may have reached the scheduler, hence another kind of
    # error.
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{command[0]}: {error}") from error
    except OSError as error:
        raise ValueError(f"{command[0]}: {error}; is this a host of the cluster?") from error


def lines_of(command: list[str], seconds: float = ANSWER_SECONDS) -> list[str] | None:
    """Return the lines that a command prints; None: it is not there, fails or is silent."""
    try:
        said = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=seconds,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [line for line in said.stdout.splitlines() if line.strip()]


def refusal(said: str, command: str = "sbatch") -> Exception:
    """Make an exception of a complaint of one of the scheduler's commands."""
    # The reasons of limits end in SubmitJobLimit or SubmitJobsLimit, by their level.
    if "SubmitJob" in said:
        return QueueFull(f"{command}: {said}")
    if SILENCE.search(said):
        return NoAnswer(f"{command}: {said}")
    kind = DependencyOver if "Job dependency problem" in said else ValueError
    return kind(f"{command} refuses: {said}")
