"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Scale = Annotated[str | None, typer.Option(help="Of the launch; default: the newest.")]
