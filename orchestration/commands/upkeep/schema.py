"""The command `schema`: JSON Schemas for editors that know the plug-ins of a user's sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigatok.plugins import load_installed
from orchestration.sweep.definition import load_plugins
from orchestration.sweep.schema import write_schemas

SweepFiles = Annotated[
    list[str], typer.Argument(help="Files of sweeps; their plug-ins are loaded.")
]


def schema(sweeps: SweepFiles) -> None:
    """Write schemas beside sweeps, with which editors check them and know their plug-ins."""
    load_installed()
    files = [Path(sweep) for sweep in sweeps]
    # All before the first is written: sweeps of one folder share its schema.
    for file in files:
        load_plugins(file)
    for folder in dict.fromkeys(file.parent for file in files):
        write_schemas(folder, knows_plugins=True)
