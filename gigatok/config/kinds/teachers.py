"""Semantic teachers by name, with what planning has to know of their features.

`register` is the door for teachers from outside; the six at the end of this file and the family
`hf:` of transformers' vision backbones come through it too. Standard library and pydantic only:
planning reads this.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, NamedTuple

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from gigatok.config.fields.base import Config
from gigatok.config.fields.marks import RUNTIME
from gigatok.config.fields.open_name import NameOf
from gigatok.plugins import Registry, registry

NONE = "none"
"""Value of `tokenizer.teacher` for no teacher."""
SIDE = 224
"""Side in pixels of the images that most vision transformers see."""
MEASURED = "gigatok.models.frozen.measured"
_PATHS = ("/", "./", "../", "~")
"""Beginnings of a path; anything else behind a colon is a name."""


@dataclass(frozen=True)
class TeacherCost:
    """Features that a teacher gives, and what it takes.

    Attributes:
        dim: channels of its features.
        grid: side of its feature grid.
        side: of the images that it sees, in pixels.
        flops: of one image.
        parameters: of its network.
    """

    dim: int
    grid: int
    side: int
    flops: int = 0
    parameters: int = 0


class FoundTeacher(Config):
    """Facts about a teacher that its name does not give, found when a trial is planned."""

    content: str = ""
    """Hash of its files, or its repository; empty: the name and the plug-in say what it is."""
    # Run-time: what it computes is known by name and content.
    cost: Annotated[TeacherCost, RUNTIME]
    """Shape of its features, and what it takes."""


@dataclass(frozen=True)
class TeacherKind:
    """Teacher, or family of teachers, that a trial can name.

    Attributes:
        name: value of `tokenizer.teacher`; of a family, what stands before the colon.
        module: `package.module:function` that builds it, imported when a stage runs. It returns
            a `Teacher` (`gigatok.models.frozen.teachers`), or any callable from images
            (B, 3, H, W) in [-1, 1] to a grid of features (B, D, G, G), such as a `torch.nn`
            module. Of a family it is given what stands behind the colon.
        cost: `package.module:NAME` without torch of its `TeacherCost`; None: `looks` finds it.
        side: side in pixels of the images that a callable sees; a `Teacher` knows its own.
        assets: weights that it reads, by their names in `gigatok.data.asset_table`.
        family: what stands behind the colon, for messages; empty: a single teacher.
        looks: module without torch whose `look(name) -> FoundTeacher` finds out what `cost` does
            not say, and whose `content(name) -> str` finds its content alone. By default the
            teacher is built and run once, in another process, and has no content to look at.
        example: of a family, the name of one with which the contract is checked
            (`gigatok.contracts.teacher`); empty: none can be had everywhere.
    """

    name: str
    module: str
    cost: str | None = None
    side: int = SIDE
    assets: tuple[str, ...] = ()
    family: str = ""
    looks: str = MEASURED
    example: str = ""

    @property
    def form(self) -> str:
        """Value of `tokenizer.teacher` in words: `dinov2`, `hf:REPO_OR_FOLDER`."""
        return f"{self.name}:{self.family}" if self.family else self.name


TEACHERS: Registry[TeacherKind] = registry("teacher")
"""Every teacher that `tokenizer.teacher` may name."""


def register(kind: TeacherKind) -> TeacherKind:
    """Add a teacher, and return it.

    Raises:
        ValueError: another teacher has the name, or the name cannot be told from a family's.
    """
    if kind.name == NONE:
        raise ValueError(f"a teacher cannot be called {NONE!r}, which says that there is none")
    if ":" in kind.name:
        raise ValueError(f"teacher {kind.name!r}: a colon stands behind the name of a family only")
    return TEACHERS.add(kind.name, kind)


class NamedTeacher(NamedTuple):
    """Teacher as a trial names it.

    Attributes:
        kind: the teacher, or its family.
        which: which one of a family; empty: a single teacher.
    """

    kind: TeacherKind
    which: str


def find_teacher(name: str) -> NamedTeacher:
    """Look up a teacher.

    Raises:
        ValueError: there is no teacher of that name.
    """
    first, _, which = name.partition(":")
    kind = TEACHERS.get(first)
    if kind is None or bool(kind.family) != bool(which):
        # Families last: they are no names.
        known = sorted(TEACHERS.values(), key=lambda kind: (bool(kind.family), kind.name))
        listed = ", ".join(kind.form for kind in known)
        raise ValueError(f"no teacher {name!r}; there are {listed}")
    return NamedTeacher(kind, which)


def is_path(which: str) -> bool:
    """Tell whether a teacher of a family is named by its path."""
    return which.startswith(_PATHS)


def without_path(name: str) -> str:
    """Name a teacher for others: of a path, the last part alone."""
    first, _, which = name.partition(":")
    return f"{first}:{Path(which).name}" if is_path(which) else name


@dataclass(frozen=True)
class TeacherName(NameOf):
    """Mark of a field that names a teacher, or `none`: `Annotated[str, TeacherName()]`.

    A path in it becomes absolute, because workers and `resume` run in other folders than the
    launch.
    """

    kind: str = "teacher"

    def check(self, name: str) -> str:
        """Return the name with an absolute path.

        Raises:
            ValueError: there is no teacher of that name.
        """
        if name == NONE:
            return name
        kind, which = find_teacher(name)
        return f"{kind.name}:{Path(which).expanduser().absolute()}" if is_path(which) else name

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """List the names, which messages and editors read, and the forms of families."""
        names = [kind.name for kind in TEACHERS.values() if not kind.family]
        families = [
            {"type": "string", "pattern": f"^{kind.name}:.", "description": kind.form}
            for kind in TEACHERS.values()
            if kind.family
        ]
        return {"anyOf": [{"type": "string", "enum": [*names, NONE]}, *families]}


def unread_name(name: str) -> frozenset[str]:
    """Name the field `teacher` if keys must leave it out: it tells a place, not a content."""
    return frozenset({"teacher"} if ":" in name else ())


def look_at(name: str) -> FoundTeacher | None:
    """Find out about a teacher what its registration does not say; None: it says all.

    Raises:
        ValueError: there is no such teacher, its files cannot be had, or it cannot be built.
    """
    if name == NONE:
        return None
    kind, _ = find_teacher(name)
    if kind.cost is not None:
        return None
    # Imported here: looking takes libraries that few plans need.
    found: FoundTeacher = import_module(kind.looks).look(name)
    return found


def teacher_cost(name: str, found: FoundTeacher | None = None) -> TeacherCost:
    """Return features and costs of a teacher.

    Args:
        name: value of `tokenizer.teacher`.
        found: what was found out already.

    Raises:
        ValueError: as `look_at`.
    """
    if name == NONE:
        return TeacherCost(0, 0, 0)
    # A draft of a trial has not been validated, and so has not looked yet.
    if (found := found or look_at(name)) is not None:
        return found.cost
    stated = find_teacher(name).kind.cost
    assert stated is not None, "otherwise it was looked at"
    cost: TeacherCost = resolve_name(stated)
    return cost


def teacher_assets(name: str) -> tuple[str, ...]:
    """Name the weights that a teacher reads."""
    if name == NONE:
        return ()
    kind, which = find_teacher(name)
    # A repository is an asset under the teacher's own name; a folder is here or it is not.
    return (name,) if which else kind.assets


_TEACHERS = "gigatok.models.frozen.teachers"
_PUBLISHED = "gigatok.models.frozen.published_teachers"
_COSTS = "gigatok.models.frozen.layout"
for _kind in (
    TeacherKind(
        "mobilenetv2",
        f"{_TEACHERS}:build_mobilenetv2",
        f"{_COSTS}:MOBILENETV2_COST",
        assets=("mobilenetv2",),
    ),
    TeacherKind(
        "resnet50",
        f"{_TEACHERS}:build_resnet50",
        f"{_COSTS}:RESNET50_COST",
        assets=("resnet50",),
    ),
    TeacherKind(
        "dinov2",
        f"{_PUBLISHED}:build_dinov2",
        f"{_COSTS}:DINOV2_COST",
        assets=("dinov2",),
    ),
    TeacherKind(
        "clip_dfn",
        f"{_PUBLISHED}:build_clip_dfn",
        f"{_COSTS}:CLIP_DFN_COST",
        assets=("clip_dfn",),
    ),
    TeacherKind(
        "siglip",
        f"{_PUBLISHED}:build_siglip",
        f"{_COSTS}:SIGLIP_COST",
        assets=("siglip",),
    ),
    TeacherKind("pixels", f"{_TEACHERS}:build_pixels", f"{_COSTS}:PIXELS_COST"),
    TeacherKind(
        "hf",
        "gigatok.models.frozen.hugging_face:build",
        family="REPO_OR_FOLDER",
        looks="gigatok.models.frozen.hugging_face_files",
    ),
):
    register(_kind)
