"""Launches of a runs directory: found by the name of their sweep, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gigatok.names import study_name
from orchestration.forecast.budget import newest_refusal
from orchestration.launching.launched import LaunchedPlan, parse_launch, record_file, restored
from orchestration.plan.graph import Plan
from orchestration.runs.records import UnreadableRecord, report_unreadable
from orchestration.runs.state import Store
from orchestration.runs.studies import launched_names, refuse_namesake, study_folder


def newest_launch(store: Store, sweep: str, scale: str | None = None) -> LaunchedPlan:
    """Read the plan of a sweep, given by its name or its file, that was launched last.

    Args:
        store: the runs directory.
        sweep: name or file.
        scale: of the launch; None: any.

    Raises:
        ValueError: the sweep was never launched into this runs directory, or not at this scale,
            or what was launched under this name is another file.
    """
    name = study_name(sweep)
    # Without a scale the iterator reads the newest record only, which is all that `status` needs:
    # records of large plans take megabytes.
    launches = list(all_launches(store, name)) if scale else all_launches(store, name)
    newest = next((one for one in launches if scale in (None, one.scale)), None)
    if newest is None and (found := list(dict.fromkeys(one.scale for one in launches))):
        scales = ", ".join(found)
        raise ValueError(f"{name}: never launched at scale {scale!r} into {store.root}; {scales}")
    if newest is None:
        raise ValueError(_never_launched(store, sweep, name))
    # A bare name means whatever was launched under it; a file that exists must be the same file.
    if Path(sweep).is_file():
        refuse_namesake(store, Path(sweep), newest.request.origin)
    return newest


def _never_launched(store: Store, sweep: str, name: str) -> str:
    """Say why there is no launch of a sweep, and what to do."""
    if damaged := _files(store, name):
        return (
            f"{name}: no record of its launches can be read ({damaged[0]}); launch the sweep "
            "again to write it: complete stages are reused"
        )
    known = launched_names(store) or ["none"]
    text = (
        f"{sweep}: never launched into {store.root} (launched there: {', '.join(known)}); "
        "launch it first, or point --runs-dir at another folder"
    )
    refusal = newest_refusal(store, name)
    return text if refusal is None else f"{text}. It was refused: {'; '.join(refusal.reasons)}"


def find_plan(store: Store, sweep: str, plan_key: str) -> LaunchedPlan:
    """Read the record of a plan by its key.

    Raises:
        ValueError: there is none.
        UnreadableRecord: it cannot be read.
    """
    launched = parse_launch(record_file(store, sweep, plan_key))
    if launched is None:
        raise ValueError(f"plan {plan_key} of {sweep} was never launched into {store.root}")
    return launched


def known_plan(store: Store, sweep: str, plan_key: str) -> Plan | None:
    """Restore a plan by its key; None where it was never launched, or its record is damaged.

    Raises:
        ValueError: this code does not take what was recorded.
    """
    launched = _read(record_file(store, sweep, plan_key))
    return None if launched is None else restored(launched, store)


def other_scales(store: Store, launched: LaunchedPlan) -> list[str]:
    """List the other scales at which the sweep was launched, the newest first."""
    scales = (one.scale for one in all_launches(store, launched.sweep))
    return [scale for scale in dict.fromkeys(scales) if scale != launched.scale]


def all_launches(store: Store, sweep: str) -> Iterator[LaunchedPlan]:
    """Read every plan of a sweep that was launched, the newest first.

    A record that cannot be read is named once on stderr.
    """
    yield from (launched for launched in map(_read, _files(store, sweep)) if launched is not None)


def _read(file: Path) -> LaunchedPlan | None:
    """Read the record of a plan; None where there is none, or none that can be read."""
    try:
        return parse_launch(file)
    except UnreadableRecord as error:
        report_unreadable(file, error)
        return None


def oldest_first(store: Store) -> list[LaunchedPlan]:
    """Read every launch of every sweep, the oldest first."""
    plans = [plan for sweep in launched_names(store) for plan in all_launches(store, sweep)]
    return sorted(plans, key=lambda plan: plan.launched)


def newest_launches(store: Store) -> Iterator[LaunchedPlan]:
    """Read the newest launch of every sweep."""
    for sweep in launched_names(store):
        # The newest that can be read: a damaged record does not hide the launches before it.
        yield from islice(all_launches(store, sweep), 1)


def launched_keys(store: Store) -> set[str]:
    """Collect the keys of the stages of every plan that was ever launched here.

    Raises:
        UnreadableRecord: one of the plans cannot be read, so that any stage may be of it.
    """
    files = (file for sweep in launched_names(store) for file in _files(store, sweep))
    # No record is skipped here: `gc` deletes stages that no plan names, and a plan that cannot be
    # read may name any of them.
    return {key for plan in map(parse_launch, files) if plan is not None for key in plan.stages}


def _files(store: Store, sweep: str) -> list[Path]:
    """List the records of a sweep's plans, readable or not, the newest first."""
    files = study_folder(store, sweep).glob("*.json")
    # Of a link its own time: what it leads to may be gone.
    return sorted(files, key=lambda file: file.lstat().st_mtime, reverse=True)
