"""Costs of teachers whose registration says none: each is built and run once. No torch here."""

from __future__ import annotations

from math import isqrt
from typing import Any

from gigatok.config.kinds.teachers import FoundTeacher, TeacherCost, find_teacher
from gigatok.models.traced import Input, Subject, TraceError, traced
from gigatok.plugins import owner_of

_BUILD = "gigatok.models.frozen.teachers:build_measured"


def look(name: str) -> FoundTeacher:
    """Measure the features of a teacher that a plug-in has registered, and what they take.

    Raises:
        ValueError: it cannot be built, or run.
    """
    kind, _ = find_teacher(name)
    owned = owner_of("teacher", kind.name)
    # With the code's identity, so that an edited plug-in is measured again.
    cost = measure(name, kind.side, _BUILD, name, owned and owned.identity)
    return FoundTeacher(cost=cost)


def content(name: str) -> str:
    """Say nothing: the plug-in's own identity is in the keys."""
    return ""


def measure(name: str, side: int, build: str, *arguments: Any) -> TeacherCost:
    """Build a teacher in another process, and count what features of an image take.

    Args:
        name: value of `tokenizer.teacher`.
        side: of the images that it sees, in pixels.
        build: `package.module:function` that returns a `Teacher`.
        arguments: of that function.

    Raises:
        ValueError: it cannot be built, or run.
    """
    subject = Subject(build, (Input((3, side, side)),), arguments, call="features")
    try:
        counts = traced(subject)
    except TraceError as error:
        # Behind the kind of error, which is ours, stands what it means to a user.
        reason = str(error).partition("ValueError: ")[2] or error
        raise ValueError(f"teacher {name} cannot be used: {reason}") from error
    ((tokens, dim),) = counts.outputs
    return TeacherCost(dim, isqrt(tokens), side, counts.flops, counts.parameters)
