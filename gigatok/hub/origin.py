"""Origin of a trained tokenizer: its trials, data, code, and scores with their protocols.

Read from the records that a run leaves beside the weights, as JSON, since nothing here knows how
sweeps are run:

    <runs>/stages/<stage>/<name>-<key>/   spec.json, DONE, attempts/NNN.json; out/ has the weights
    <runs>/sweeps/<study>/<plan>.json     trials, and the stages of each

Whatever is missing or unreadable stays unknown, since weights can be copied without their records.
Names of machines and users, commands and paths are not read: the origin is meant to be published.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from gigatok.config.kinds.teachers import without_path
from gigatok.names import METRICS

Record = Mapping[str, Any]


class _Fact(BaseModel):
    """Base of what a config.json holds: fields of a later version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Use(_Fact):
    """Trial that has the tokenizer."""

    sweep: str
    scale: str
    trial: str


class MeasuredScore(_Fact):
    """Score of a tokenizer; without a value it was not measured, and the protocol says why."""

    metric: str
    value: float | None
    protocol: str
    stage: str
    """Folder of the stage that measured it, as `<stage>/<name>-<key>`."""


class Origin(_Fact):
    """Known facts of where a tokenizer comes from; None and empty: not known."""

    name: str | None = None
    """Readable name, such as `S-B`."""
    stage: str | None = None
    key: str | None = None
    uses: tuple[Use, ...] = ()
    seed: int | None = None
    data: str | None = None
    """Training images in words."""
    training: Mapping[str, Any] = {}
    """Section `tokenizer` of the trial."""
    adopted: Mapping[str, str] = {}
    """Facts about the file of weights that took the place of training."""
    commit: str | None = None
    changed: bool | None = None
    """Whether the code differed from its commit."""
    packages: Mapping[str, str | None] = {}
    finished: str | None = None
    """Day on which the weights were complete (UTC)."""
    scores: tuple[MeasuredScore, ...] = ()


def read_origin(stage: Path) -> Origin:
    """Read the origin of the tokenizer that a stage made.

    Args:
        stage: folder of the stage, which holds `spec.json`.
    """
    spec, done = _read(stage / "spec.json"), _read(stage / "DONE")
    config = spec.get("config", {})
    # Of the attempt that finished: earlier ones may have run with other code.
    attempt = _read(stage / "attempts" / f"{done.get('attempt', 0):03d}.json")
    provenance = attempt.get("provenance", {})
    plans = list(_plans_with(stage, spec.get("key")))
    return Origin(
        name=spec.get("readable"),
        stage=spec.get("stage"),
        key=spec.get("key"),
        uses=tuple(_uses(plans, spec)),
        seed=config.get("seed"),
        data=_describe(config.get("train")),
        training=_training(config),
        adopted=done.get("origin", {}),
        commit=provenance.get("git_sha"),
        changed=provenance.get("git_dirty"),
        packages=provenance.get("packages", {}),
        finished=_day(done.get("finished")),
        scores=_scores(stage, plans, spec),
    )


def _read(file: Path) -> Record:
    """Read a record; empty if it is missing or damaged."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _plans_with(stage: Path, key: str | None) -> Iterator[Record]:
    """Yield the recorded plans of the runs directory that have this stage, oldest first."""
    if key is None:
        return
    plans = []
    # <runs>/stages/<stage>/<folder>: three levels up are the runs.
    for file in (stage.absolute().parents[2] / "sweeps").glob("*/*.json"):
        # As bytes first: a plan of ten thousand trials takes a second to parse.
        if key.encode() in file.read_bytes():
            plans.append(_read(file).get("plan", {}))
    yield from sorted(plans, key=lambda plan: plan.get("launched", 0))


def _trials(plan: Record, spec: Record) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the trials of a plan that have the tokenizer: name, and stage -> key."""
    for name, keys in plan.get("trials", {}).items():
        if keys.get(spec["stage"]) == spec["key"]:
            yield name, keys


def _uses(plans: list[Record], spec: Record) -> list[Use]:
    uses = [
        Use(sweep=plan["sweep"], scale=plan["scale"], trial=name)
        for plan in plans
        for name, _ in _trials(plan, spec)
    ]
    # Each launch of a sweep records its plan, and changed plans have most trials in common.
    return list(dict.fromkeys(uses))


def _scores(stage: Path, plans: list[Record], spec: Record) -> tuple[MeasuredScore, ...]:
    """Collect the scores of the stages that judge this tokenizer and nothing else."""
    # A dict as an ordered set: trials of several plans share stages.
    folders = {
        stage.absolute().parents[1] / found["stage"] / f"{found['readable']}-{key}": None
        for plan in plans
        for _, keys in _trials(plan, spec)
        for key in keys.values()
        if _judges(found := plan["stages"].get(key, {}), spec["stage"])
    }
    scores = [score for folder in (stage, *folders) for score in _measured(folder)]
    # Metrics of plug-ins that are not loaded come last, in the order in which they were found.
    order = list(METRICS)
    place = {name: number for number, name in enumerate(order)}
    return tuple(sorted(scores, key=lambda score: place.get(score.metric, len(order))))


def _judges(stage: Record, tokenizer: str) -> bool:
    """Tell whether a stage reads the tokenizer and no generator, whose scores are its own."""
    # Generators by their names' ending: nothing here knows the stages of the run.
    inputs = stage.get("inputs", {})
    return tokenizer in inputs and not any(name.endswith("_generator") for name in inputs)


def _measured(folder: Path) -> Iterator[MeasuredScore]:
    """Yield the scores of a complete stage; one without a value has a protocol with the reason."""
    # DONE is written last, so a stage without it has no scores yet.
    done, stage = _read(folder / "DONE"), f"{folder.parent.name}/{folder.name}"
    values, protocols = done.get("metrics", {}), done.get("protocol", {})
    for name in dict.fromkeys((*values, *protocols)):
        protocol = protocols.get(name, "not recorded")
        yield MeasuredScore(metric=name, value=values.get(name), protocol=protocol, stage=stage)


def _describe(split: Record | None) -> str | None:
    """Describe images as the protocols of scores do; without the path of a folder of images."""
    if split is None:
        return None
    return f"{split['images']} {split['split']} images of {split['name']}@{split['image_size']}"


def _training(config: Record) -> dict[str, Any]:
    """Return the settings of training; of a teacher's path, the last part."""
    settings = dict(config.get("tokenizer", {}))
    if isinstance(teacher := settings.get("teacher"), str):
        settings["teacher"] = without_path(teacher)
    return settings


def _day(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
