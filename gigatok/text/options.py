"""Options of commands that say where runs are: the same words in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Relative to where the command runs, as for a launch.
RunsDir = Annotated[
    Path, typer.Option(help="Where everything is kept; figures and reports go beside it.")
]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow, as sqlite:///PATH or a server; default: mlflow.db in the runs."),
]
