"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

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
