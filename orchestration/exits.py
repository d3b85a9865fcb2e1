"""Outcomes of a launch, and exit codes of every command."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["done", "queued", "failed", "held", "declined", "interrupted"]
"""End of a launch here. `queued`: jobs go on without it; `held`: by a gate; `declined`: the user
did not want the jobs queued after all."""

EXIT_FAILED, EXIT_WRONG, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 3, 130
"""0: done · 1: a stage failed · 2: the request was wrong · 3: refused · 130: interrupted."""
EXIT_CODES: dict[Outcome, int] = {
    "done": 0,
    "queued": 0,
    "failed": EXIT_FAILED,
    "held": EXIT_REFUSED,
    "declined": EXIT_REFUSED,
    "interrupted": EXIT_INTERRUPTED,
}
