"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DEFAULT_RUNS = Path("runs")
# Relative to where the command runs, as for a launch.
RunsDir = Annotated[
    Path, typer.Option(help="Where everything is kept; figures and reports go beside it.")
]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow, as sqlite:///PATH or a server; default: mlflow.db in the runs."),
]
TokenizerOption = Annotated[
    str,
    typer.Option(
        "--tokenizer",
        metavar="FOLDER_OR_ID",
        help="Folder of a complete stage, a saved folder, or a Hub id such as user/name.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="Such as cpu or cuda; default: a GPU if there is one."),
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16", "fp16"],
    typer.Option("--precision", help="fp32; or mixed precision, bf16 or fp16."),
]
