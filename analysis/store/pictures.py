"""Pictures that trials logged, from MLflow's artifacts."""

from __future__ import annotations

from pathlib import Path

from analysis.store import artifacts


def logged_picture(
    uri: str, run_id: str, stage: str, name: str, within: Path | None = None
) -> bytes | None:
    """The PNG of a trial's stage; None where it logged none.

    Raises:
        artifacts.Outside: it lies on this machine, but not within that folder.
    """
    return artifacts.read(uri, run_id, f"pictures/{stage}/{name}.png", within)
