"""`init [FOLDER]`: the shipped sweeps as files to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigatok.files.durable import make_folder
from gigatok.text.command_lines import command
from orchestration.sweep.definition import SHIPPED_SCALES, SWEEPS_DIR

COPIED = ("*.yaml", "*.schema.json", "README.md", "profiles/*.yaml")
"""Sweeps, what editors complete them by, their grammar, and profiles of clusters.

Scales are left out: shipped ones are found from everywhere, and a copy would hide them, also when
a later version corrects one.
"""


def init(
    folder: Annotated[Path, typer.Argument(help="Made if it is not there.")] = Path("sweeps"),
) -> None:
    """Copy the shipped sweeps into a folder to edit; overwrites nothing."""
    files = [file for pattern in COPIED for file in sorted(SWEEPS_DIR.glob(pattern))]
    kept = [file for file in files if not _copied(file, folder / file.relative_to(SWEEPS_DIR))]
    print(f"{folder}: {len(files) - len(kept)} files written")
    if kept:
        print(f"kept, as they exist already: {', '.join(file.name for file in kept)}")
    example = folder / "decoder_scaling.yaml"
    scales = ", ".join(sorted(file.stem for file in SHIPPED_SCALES.glob("*.yaml")))
    print(f"Edit one, such as {example}, then:")
    print(f"  {command('orchestration', 'plan', example, '--scale', 'smoke')}")
    print(f"  {command('orchestration.launch', example, '--scale', 'smoke')}")
    print(f"The scales {scales} are shipped; {folder / 'scales'}/NAME.yaml adds one of yours.")


def _copied(file: Path, target: Path) -> bool:
    """Copy a file unless there is one; tells whether it did."""
    make_folder(target.parent)
    try:
        # `x` and no look before: nothing is overwritten, whoever writes at the same time.
        with target.open("xb") as copy:
            copy.write(file.read_bytes())
    except FileExistsError:
        return False
    return True
