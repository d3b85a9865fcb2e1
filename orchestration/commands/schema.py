"""The command `schema`: JSON Schemas for editors that know the plug-ins of a user's sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigatok.plugins import load_installed
from orchestration.sweep.definition import load_plugins
from orchestration.sweep.schema import write_schemas

SweepFiles = Annotated[
    list[Path], typer.Argument(help="Files of sweeps; their plug-ins are loaded.")
]


def schema(sweeps: SweepFiles) -> None:
    """Write schemas beside sweeps, with which editors check them and know their plug-ins."""
    load_installed()
    # All before the first is written: sweeps of one folder share its schema.
    for sweep in sweeps:
        load_plugins(sweep)
    for folder in dict.fromkeys(sweep.parent for sweep in sweeps):
        write_schemas(folder, knows_plugins=True)
