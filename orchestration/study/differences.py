"""Differences between two trials or stages: config, data, code, environment, results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gigatok.config.kinds.data_sets import DATA_SETS
from gigatok.names import study_name
from gigatok.stages import STAGES
from orchestration.launching.history import oldest_first
from orchestration.launching.launched import LaunchedPlan
from orchestration.runs.stage_records import Spec
from orchestration.runs.state import StageFolder, Store
from orchestration.yaml.source import did_you_mean, listed

ENVIRONMENT = ("host", "device", "gpus", "cpu_count", "platform", "python")
CODE = ("git_sha", "git_dirty")
MISSING = "–"
RESULT = "result "
"""Begins the name of a fact that is a result."""
Rows = dict[str, tuple[Any, Any]]
"""Fact that differs -> its two values."""


def compare_runs(store: Store, a: str, b: str, sweep: str | None = None) -> dict[str, Rows]:
    """Compare two trials, starts of keys, or folders of stages: stage -> what differs.

    Raises:
        ValueError: nothing, or more than one thing, is called so.
    """
    return compare(find_stages(store, a, sweep), find_stages(store, b, sweep))


def compare(ours: Mapping[str, StageFolder], theirs: Mapping[str, StageFolder]) -> dict[str, Rows]:
    """Compare stages of one name; two stages of different kinds are one row each."""
    # A user who names one folder each wants those two compared, even across kinds.
    if len(ours) == len(theirs) == 1 and set(ours) != set(theirs):
        (one,), (two,) = ours, theirs
        return {f"{one} / {two}": differences(facts(ours[one]), facts(theirs[two]))}
    found: dict[str, Rows] = {}
    for stage in STAGES:
        if stage in ours and stage in theirs:
            mine, other = ours[stage], theirs[stage]
            # Trials share stages: a shared one is the same, and its records need not be read.
            same = mine.path == other.path
            found[stage] = {} if same else differences(facts(mine), facts(other))
        elif stage in ours or stage in theirs:
            here = "there" if stage in ours else MISSING
            found[stage] = {"stage": (here, MISSING if here == "there" else "there")}
    return found


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Rows:
    """Collect the facts that are not the same; a missing one shows as a dash."""
    names = dict.fromkeys([*mine, *theirs])
    return {
        name: (mine.get(name, MISSING), theirs.get(name, MISSING))
        for name in names
        if mine.get(name, MISSING) != theirs.get(name, MISSING)
    }


def spec_parts(folder: StageFolder) -> dict[str, Any]:
    """Say what the key of a stage that was made is made of, flat; empty: its spec is lost."""
    spec = folder.known_spec()
    if spec is None:
        return {}
    # A spec names folders of inputs, whose names end in the key.
    inputs = {name: where.rpartition("-")[2] for name, where in spec.inputs.items()}
    return key_parts(spec.version, _with_new_options(spec), inputs)


def _with_new_options(spec: Spec) -> Mapping[str, Any]:
    """Add options that are newer than a record at their defaults, which keys leave out."""
    try:
        return STAGES[spec.stage].config.model_validate(spec.config).model_dump(mode="json")
    except (KeyError, ValueError):  # of a stage, or a setting, that this code does not know
        return spec.config


def key_parts(
    version: int, config: Mapping[str, Any], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Flatten what a key is made of: version, config, keys of inputs, the data's fingerprint."""
    read = {f"input {name}": key for name, key in inputs.items()}
    parts = {"version": version, **dict(_flat("", dict(config))), **read}
    for name, value in config.items():
        if isinstance(value, dict) and {"name", "split"} <= value.keys():
            known = DATA_SETS.get(str(value["name"]))  # a record may name one of a later version
            fingerprint = known.fingerprint if known else MISSING
            # A user's own images have theirs in the config of the split, which is listed already.
            parts |= {f"data {name}": fingerprint} if fingerprint else {}
    return parts


def facts(folder: StageFolder) -> dict[str, Any]:
    """Collect everything recorded of a stage: its key's parts, code, environment, results."""
    attempt, done = folder.last_attempt(), folder.done()
    provenance = attempt.provenance if attempt else {}
    found = {"key": folder.key, **spec_parts(folder)}
    found |= {f"code {name}": provenance[name] for name in CODE if name in provenance}
    found |= {name: provenance[name] for name in ENVIRONMENT if name in provenance}
    packages = provenance.get("packages") or {}
    found |= {f"package {name}": version for name, version in packages.items()}
    if attempt and attempt.micro_batch is not None:
        found["micro_batch"] = attempt.micro_batch
    found["state"] = folder.state()
    if done is not None:
        found |= {f"{RESULT}{name}": value for name, value in done.metrics.items()}
    return found


def find_stages(store: Store, name: str, sweep: str | None) -> dict[str, StageFolder]:
    """Find the stage or stages that are meant: a folder, the start of a key, or a trial's name.

    Raises:
        ValueError: nothing, or more than one thing, is called so.
    """
    # A folder first: it is exact, and may even lie in another runs directory.
    path = Path(name)
    if (path / "spec.json").is_file():
        return {path.parent.name: StageFolder.at(path)}
    # The start of a key counts only if a single key begins so: otherwise it may be a trial's name.
    by_key = [
        (stage, folder)
        for stage in STAGES
        for key, folder in store.index(stage).items()
        if key.startswith(name)
    ]
    if len(by_key) == 1:
        return dict(by_key)
    trials: dict[str, tuple[LaunchedPlan, Mapping[str, str]]] = {}
    # The newest launch wins where sweeps share a trial's name, since it comes last.
    for plan in oldest_first(store):
        if sweep is None or study_name(sweep) == plan.sweep:
            trials |= {trial: (plan, stages) for trial, stages in plan.trials.items()}
    if name in trials:
        plan, stages = trials[name]
        folders = plan.folders(store)
        return {stage: folders[key] for stage, key in stages.items()}
    if by_key:
        raise ValueError(f"{name}: {len(by_key)} keys begin so; give more of it")
    raise ValueError(
        f"{name}: no trial, key or stage folder in {store.root}; trials: "
        f"{listed(list(trials)[:20])}{did_you_mean(name, trials)}"
    )


def _flat(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    # An empty mapping is a value, too: without a row, its difference to a filled one would not
    # show.
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, part)
    else:
        yield prefix, value
