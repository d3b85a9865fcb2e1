"""`new-plugin`: a copy of the example plug-in under a name of its own, to begin with."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from gigatok.text.command_lines import command

PACKAGE = Path(__file__).resolve().parents[1]
TEMPLATES = (PACKAGE / "template", PACKAGE.parent / "examples" / "plugin")
"""The example in an installed wheel, and in a checkout."""
EXAMPLE = "gigatok_example"
SUFFIXES = (".py", ".toml", ".yaml", ".md")
_REGISTERED = re.compile(
    # Names that the example registers, as they stand in code, and not in sentences.
    r'(?<=")(stripes|ternary|brightness)(?=")'
    r"|(?<=name: )(stripes|ternary)\b"
    r"|\b(measure_brightness)\b"
)


def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of its Python package.")],
    folder: Annotated[
        Path | None, typer.Option(help="New folder that it goes into; default: its name.")
    ] = None,
) -> None:
    """Start a plug-in: copy the example with its names replaced; nothing is overwritten."""
    place = Path(name) if folder is None else folder
    create(name, place)
    print(f"{place}: a data set, a quantizer, a metric, a stage and a figure. Next:")
    print(f"  {command('gigatok', 'check', place / name)}")
    print(f"  pip install -e {place}")
    print(f"  {command('orchestration.launch', f'{place / name}_ternary.yaml')}")


def create(name: str, place: Path) -> None:
    """Copy the example into a new folder.

    Args:
        name: of the package; the names of what it registers begin with it.
        place: the folder.

    Raises:
        ValueError: no package can have the name, or one has it, or the folder is there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(
            f"{name!r} cannot be the name of a package: use small letters, digits and _, "
            "such as my_lab"
        )
    if find_spec(name) is not None:
        raise ValueError(f"there is a Python package {name!r} already; choose another name")
    # Nothing is ever overwritten.
    if place.exists():
        raise ValueError(f"{place} is there already; give --folder, a new one")
    template = next(path for path in TEMPLATES if path.is_dir())
    sources = [
        path
        for path in sorted(template.rglob("*"))
        # An installed example leaves caches and metadata, which are no part of it.
        if path.suffix in SUFFIXES and ".egg-info" not in str(path)
    ]
    place.mkdir(parents=True)
    for source in sources:
        target = place / _renamed(source.relative_to(template).as_posix(), name)
        target.parent.mkdir(exist_ok=True)
        target.write_text(_renamed(source.read_text(encoding="utf-8"), name), encoding="utf-8")


def _renamed(text: str, name: str) -> str:
    """Replace the names of the example in a path or the text of a file."""
    text = _REGISTERED.sub(lambda found: f"{name}_{found[0]}", text)
    # The figure shows the sweep of this name.
    text = re.sub(r"^ternary\.yaml$", f"{name}_ternary.yaml", text)
    return text.replace(EXAMPLE, name).replace(EXAMPLE.replace("_", "-"), name.replace("_", "-"))
