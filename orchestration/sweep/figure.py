"""The `figure` of a sweep: axes that its figure shows, checked when the sweep is read."""

from __future__ import annotations

from collections.abc import Collection

from gigatok.names import METRICS, PREFIX_DERIVED, FigureChoice
from orchestration.sweep.settings.keys import trial_keys
from orchestration.yaml.parts import Part
from orchestration.yaml.source import did_you_mean, listed

FIGURE_KEYS = ("x", "y", "by", "panel", "where")
_STEP = "step"


def read_figure(part: Part, varied: Collection[str], derived: Collection[str]) -> FigureChoice:
    """Read which axes the figure of a sweep shows; what is not given, the figure chooses.

    Args:
        part: `figure` of the sweep.
        varied: keys that the sweep varies; only they tell series or panels apart.
        derived: names of `derive`, which may be axes as well.
    """
    part.check_keys(FIGURE_KEYS, "figure")
    if not part.mapping(" such as {x: rfid, y: [gfid], by: tokenizer.semantic_weight}"):
        return FigureChoice()
    quantities = [PREFIX_DERIVED + name for name in derived]
    ys = part.part("y")
    # One metric may stand without a list.
    named = ys.items() if isinstance(ys.node.value, tuple) else [ys]
    return FigureChoice(
        x=_known(part.part("x"), [_STEP, *METRICS, *trial_keys(), *quantities]),
        y=tuple(name for item in named if (name := _known(item, METRICS, logged=True))),
        by=_known(part.part("by"), [*varied, *quantities]),
        panel=_known(part.part("panel"), [*varied, *quantities]),
        where=_conditions(part.part("where"), [*trial_keys(), *quantities]),
    )


def _conditions(part: Part, names: Collection[str]) -> tuple[str, ...]:
    """Read which trials are shown: a value, or a list of them, for each key."""
    made = []
    for name, given in part.mapping(" such as {tokenizer.encoder: S}").items():
        if name not in names:
            given.report_key(f"{name!r} is no key of a trial{did_you_mean(name, names)}")
        values = given.plain() if given.is_list else [given.plain()]
        made.append(f"{name}={','.join(map(_written, values))}")
    return tuple(made)


def _written(value: object) -> str:
    return "none" if value is None else str(value)


def _known(part: Part, names: Collection[str], *, logged: bool = False) -> str:
    """Read a name; report one that is unknown. Logged curves, as `train/loss`, are not listed."""
    name = part.text()
    if name and name not in names and not (logged and "/" in name):
        few = f"; there are {listed(names)}" if len(names) <= len(METRICS) else ""
        part.report(f"{name!r} is no axis of this sweep{did_you_mean(name, names)}{few}")
    return name
