"""What keys rest on, written down: `python -m tests.orchestration.plan.pins` writes it anew.

Keys leave out defaults. So a changed default would give other results under the same key, unless
the version of every stage that reads it is raised. `golden/defaults.json` holds the defaults of
every stage at its version, `golden/keys.json` the keys of some shipped sweeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gigatok.config import Config
from gigatok.config.fields.identity import config_classes, identity_fields
from gigatok.stages import BUILT_IN, STAGES
from orchestration.plan.graph import Plan, make_plan
from orchestration.sweep.definition import expand, load_sweep

GOLDEN = Path(__file__).parent / "golden"
SWEEPS = ("decoder_scaling", "tokenizer_scaling")
SCALES = ("smoke", "micro", "mini", "paper")
NO_DEFAULT = "(no default)"
"""In place of the canonical text of a default: such a field is in every key."""

Pins = dict[str, Any]


def plan(name: str = "decoder_scaling", scale: str = "smoke", *overrides: str) -> Plan:
    """Plan a shipped sweep."""
    sweep = load_sweep(name, scale, overrides)
    return make_plan(sweep, expand(sweep))


def keys_of(planned: Plan) -> dict[str, dict[str, str]]:
    """Map trials to the keys of their stages."""
    return {trial.trial.name: dict(trial.stages) for trial in planned.trials}


def current_keys() -> Pins:
    """Compute the keys of the pinned sweeps."""
    return {f"{s}@{scale}": keys_of(plan(s, scale)) for s in SWEEPS for scale in SCALES}


def current_defaults() -> Pins:
    """Collect version and defaults of every built-in stage."""
    return {
        name: {
            "version": STAGES[name].version,
            "defaults": dict(sorted(defaults_of(STAGES[name].config))),
        }
        for name in BUILT_IN
    }


def defaults_of(kind: type[Config], prefix: str = "") -> Iterator[tuple[str, str]]:
    """List the fields of a config that keys cover, nested ones too, with their defaults."""
    for field in identity_fields(kind):
        name = prefix + field.name
        yield name, NO_DEFAULT if field.default is None else field.default
        if field.discriminator and field.default_class:
            yield f"{name}[default]", field.default_class.__name__
        members = list(dict.fromkeys(config_classes(kind.model_fields[field.name].annotation)))
        for member in members:
            assert issubclass(member, Config)
            inner = f"{name}[{member.__name__}]" if len(members) > 1 else name
            yield from defaults_of(member, inner + ".")


def problems(pinned: Pins, current: Pins) -> list[str]:
    """Say which stages have other defaults than were pinned, and what to do.

    A new field with a default is no problem: keys leave it out, so results stay valid. A field
    that is gone stays pinned: should it come back, its default must be the same.
    """
    found = []
    for stage, now in current.items():
        then = pinned.get(stage)
        if then is None:
            continue
        changed = changes(then["defaults"], now["defaults"])
        if changed and then["version"] == now["version"]:
            found.append(
                f"{stage}: {'; '.join(changed)}. Its keys leave out defaults, so old results "
                f"would pass for new ones: raise the stage's version (now {now['version']}) in "
                f"gigatok/stages/{stage}/spec.py, then run `python -m {__package__}.pins`"
            )
        elif then["version"] != now["version"]:
            found.append(
                f"{stage}: version {now['version']} is not pinned (pinned is {then['version']}); "
                f"run `python -m {__package__}.pins`"
            )
    return found


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List the pinned defaults that are others now."""
    both = (name for name in then if name in now and then[name] != now[name])
    return [f"the default of {name} was {then[name]}, is {now[name]}" for name in both]


def read(name: str) -> Pins:
    """Read a pinned table; empty where there is none yet."""
    file = GOLDEN / name
    pins: Pins = json.loads(file.read_text()) if file.is_file() else {}
    return pins


def main() -> None:
    """Pin today's keys and defaults, unless a default has changed without a new version.

    Raises:
        SystemExit: it has; says which.
    """
    pinned, current = read("defaults.json"), current_defaults()
    same_version = {
        stage: pins
        for stage, pins in pinned.items()
        if stage in current and pins["version"] == current[stage]["version"]
    }
    if wrong := problems(same_version, current):
        raise SystemExit("\n".join(wrong))
    for stage, pins in same_version.items():
        gone = pins["defaults"]
        current[stage]["defaults"] = dict(sorted({**gone, **current[stage]["defaults"]}.items()))
    for name, table in (("defaults.json", current), ("keys.json", current_keys())):
        (GOLDEN / name).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
