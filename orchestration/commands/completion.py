"""Names that a shell completes: sweeps, and of launched ones their trials and stages."""

from __future__ import annotations

from pathlib import Path

import typer

from gigatok.stages import STAGES
from orchestration.runs.state import Store
from orchestration.runs.studies import launched_names
from orchestration.sweep.definition import SWEEPS_DIR


def sweep_files(incomplete: str) -> list[str]:
    """List the shipped sweeps by name, and the YAML files of the folder that was typed."""
    shipped = [file.stem for file in SWEEPS_DIR.glob("*.yaml")]
    own = [str(file) for file in Path(incomplete + "x").parent.glob("*.yaml")]
    return _starting(incomplete, shipped + own)


def launched_sweeps(context: typer.Context, incomplete: str) -> list[str]:
    """List the sweeps that were launched into the runs directory."""
    return _starting(incomplete, launched_names(_store(context)))


def trials(context: typer.Context, incomplete: str) -> list[str]:
    """List the trials of the newest launch of the sweep that was typed."""
    from orchestration.launching.history import newest_launch

    try:
        launched = newest_launch(_store(context), context.params["sweep"])
    except (ValueError, OSError):
        return []  # nobody reads a message in the middle of typing
    return _starting(incomplete, list(launched.trials))


def stages(incomplete: str) -> list[str]:
    """List the kinds of stages."""
    return _starting(incomplete, list(STAGES))


def _store(context: typer.Context) -> Store:
    return Store(Path(context.params["runs_dir"]))


def _starting(incomplete: str, names: list[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
