"""`score`: one folder of images against another."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from gigatok.commands.options import DeviceOption
from gigatok.commands.progress import bar, chosen_device
from gigatok.names import quantity
from gigatok.runtime.context import Scores

INFINITE = "infinite: at least one image is reproduced exactly"


def score(
    images: Annotated[Path, typer.Argument(help="Folder of the images to score.")],
    reference: Annotated[Path, typer.Argument(help="Folder of the images to compare with.")],
    metrics: Annotated[
        str,
        typer.Option(
            help="Of pairs with the same name: rfid, rsfid, rkid, psnr, ssim, ssim_reference, "
            "lpips; of any two sets: gfid, gsfid, gkid.",
        ),
    ] = "rfid,psnr,ssim,lpips",
    size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Scale all images by their short side to this, and crop the centre."
        ),
    ] = None,
    network: Annotated[
        Literal["inception", "pixels"],
        typer.Option(
            help="Network of FID and KID: inception; or pixels, to try it out without weights."
        ),
    ] = "inception",
    resolution: Annotated[
        int,
        typer.Option(min=1, help="Side that images have in that network; FID is defined at 299."),
    ] = 299,
    lpips: Annotated[
        Literal["vgg", "alex"], typer.Option(help="Network of LPIPS: vgg or alex.")
    ] = "vgg",
    device: DeviceOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.")
    ] = False,
) -> None:
    """Score a folder of images against another: FID, KID, PSNR, SSIM, LPIPS, with protocols."""
    # Imported here: torch takes seconds, and `--help` needs none.
    from gigatok.folders.scoring import FolderScoring, score_folders

    names = tuple(name.strip() for name in metrics.split(",") if name.strip())
    scoring = FolderScoring(names, size, network, resolution, lpips, chosen_device(device))
    with bar("scoring") as show:
        found = score_folders(images, reference, scoring, show)
    if as_json:
        # `allow_nan=False`: JSON has no infinity, and `_rows` turns it into null.
        print(json.dumps(_rows(found), allow_nan=False))
    else:
        Console(markup=False, highlight=False).print(_table(found))


def _rows(scores: Scores) -> dict[str, dict[str, Any]]:
    """Give each metric its value and its protocol; null without a value, and where infinite."""
    rows: dict[str, dict[str, Any]] = {}
    for name, protocol in scores.protocol.items():
        value = scores.metrics.get(name)
        if value is not None and not math.isfinite(value):
            value, protocol = None, f"{protocol}; {INFINITE}"
        rows[name] = {"value": value, "protocol": protocol}
    return rows


def _table(scores: Scores) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("metric", "value", "protocol"):
        table.add_column(head, justify="right" if head == "value" else "left", overflow="fold")
    for name, protocol in scores.protocol.items():
        value = scores.metrics.get(name)
        text = "–" if value is None else quantity(name).text(value)
        is_infinite = value is not None and not math.isfinite(value)
        table.add_row(
            quantity(name).heading, text, f"{protocol}; {INFINITE}" if is_infinite else protocol
        )
    return table
