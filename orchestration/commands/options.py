"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Scale = Annotated[str | None, typer.Option(help="Of the launch; default: the newest.")]
# Relative to where the command runs, as for a launch.
RunsDir = Annotated[Path, typer.Option(help="Where everything is kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
