"""JSON Schemas of sweep and scale files, for editors.

`python -m orchestration.sweep.schema` writes the shipped ones; `python -m orchestration schema`
writes those that know the plug-ins of a user's sweeps.

They complete and check keys and single values; conditions over several values are only checked by
`load_sweep`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gigatok.config import SECTIONS
from gigatok.names import METRICS
from gigatok.stages import STAGES
from orchestration.sweep.definition import SWEEPS_DIR
from orchestration.sweep.formulas.formulas import SHARE_WITHIN, solvable_keys
from orchestration.sweep.grid.axes import SEVERAL
from orchestration.sweep.search.block import GPU_HOURS
from orchestration.sweep.search.reading import (
    BUDGET_FIELDS,
    DIRECTIONS,
    SAMPLERS,
    pruner_fields,
)
from orchestration.sweep.settings.keys import (
    SIZE_FIELDS,
    Key,
    size_keys,
    trial_keys,
)
from orchestration.yaml.source import display
from orchestration.yaml.values import ABOVE_ZERO, COUNT, FLAG, MAX_WHOLE, RANDOM_SEED, one_of

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SEED: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_WHOLE}
# YAML reads an expression such as `3` or `true` as a number or a boolean.
_EXPRESSION: Schema = {"type": ["string", "number", "boolean"]}
# As references: each is allowed for dozens of keys.
_SIZE: Schema = {"$ref": "#/$defs/size"}
_RANGE: Schema = {"$ref": "#/$defs/range"}
_DIRECTION: Schema = {"$ref": "#/$defs/direction"}


def sweep_schema(*, knows_plugins: bool = False) -> Schema:
    """Build the schema of sweeps.

    Args:
        knows_plugins: the plug-ins that sweeps name are loaded. Otherwise of a sweep that names
            some only the names of its parts are checked.
    """
    parts = {**_sweep_parts(), "figure": _figure()}
    # As references: `at` repeats every part, and would double the file.
    refs: Schema = {name: {"$ref": f"#/$defs/{name}"} for name in parts}
    at = _mapping(refs, "What replaces the parts of the same names at this scale.")
    properties: Schema = {
        "question": _text("What the sweep asks, in one line."),
        "paper": _text("The table or figure of the paper that it answers to."),
        "scale": _text("A file of sweeps/scales: smoke, micro, mini, paper."),
        "plugins": _list({**_text("A module, or a path such as ./fsq.py."), "minLength": 1}),
        **refs,
        "at": {"type": ["object", "null"], "additionalProperties": at},
    }
    directions = one_of(DIRECTIONS).schema
    shared = {"target": _solve_entry(), "range": _range(), "direction": directions}
    definitions = {**parts, **shared, **_definitions()}
    document = _document("A sweep: one question", properties, ["question"], definitions)
    if knows_plugins:
        return document
    # Whatever is below a part may be a plug-in's: its keys, stages, metrics, names of data.
    without_plugins = {"properties": {"plugins": False}}
    return {
        **document,
        "properties": {name: {} for name in properties},
        "if": without_plugins,
        "then": {"properties": properties},
    }


def _sweep_parts() -> Schema:
    """Build the schemas of the parts of a sweep that `at` may replace."""
    # Run-time keys are left out of axes and cells: varying them varies no result.
    axis = _keys(lambda ref: {"type": "array", "items": ref, "minItems": 1}, runtime=False)
    cell = _keys(lambda ref: {"anyOf": [ref, {"type": "array", "items": ref}]}, runtime=False)
    seed = {"anyOf": [_SEED, {"type": "array", "items": _SEED}]}
    stages = {"type": "array", "items": {"enum": list(STAGES)}, "minItems": 1}
    seeds = {"type": "array", "items": _SEED, "minItems": 1, "uniqueItems": True}
    rule = _mapping({**cell, "seed": seed}, "A dropped combination: key -> value or values.")
    text = "An added combination: key -> value, or values for several of them; seeds of its own."
    added = _mapping({**cell, "seed": seed}, text)
    return {
        "axes": _mapping(axis, "key -> values; combined freely in axes, row by row in zip."),
        "zip": _list({"$ref": "#/$defs/axes"}),
        "exclude": _list(rule),
        "include": _list(added),
        "derive": {
            "description": "name -> expression over keys and quantities such as params.decoder.",
            "type": ["object", "null"],
            "additionalProperties": _EXPRESSION,
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        },
        "where": _list({**_EXPRESSION, "description": "Keeps the cells in which it is true."}),
        "solve": _mapping(
            {key: {"$ref": "#/$defs/target"} for key in solvable_keys()},
            "key -> the target at which it is solved.",
        ),
        "set": _mapping(_keys(lambda ref: ref), "key -> value; overrides the scale."),
        "seeds": {"anyOf": [seeds, _until_decided()]},
        "stages": {"anyOf": [{"const": "all"}, stages]},
        "claims": {
            "description": "name -> what the results will show: psnr rises with params.decoder.",
            "type": ["object", "null"],
            "additionalProperties": {"type": "string"},
        },
        "search": _search(),
    }


def _figure() -> Schema:
    """Build the schema of the axes that the figure of a sweep shows."""
    # Names of logged curves and keys of plug-ins are texts as well.
    y = {"type": ["string", "array"], "items": {"type": "string"}}
    words = {"x": "A metric, a key or step.", "by": "Key that colour and shape tell apart."}
    keys = {name: _text(text) for name, text in words.items()}
    panel = _text("Key with a panel for each of its values.")
    where = {"type": "object", "description": "Values by key that trials must have to be shown."}
    others = {"y": y, "panel": panel, "where": where}
    return _mapping({**keys, **others}, "Axes of the sweep's figure.")


def _until_decided() -> Schema:
    """Build the schema of seeds that are added until claims are decided."""
    parts = {"start": SEVERAL.schema, "until": {"const": "decided"}, "at_most": SEVERAL.schema}
    found = _mapping(parts, "Seeds are added to settings whose claims are undecided.")
    return {**found, "type": "object", "required": list(parts)}


def _search() -> Schema:
    """Build the schema of the `search` block."""
    space = _keys(
        lambda ref: {"anyOf": [{"type": "array", "items": ref, "minItems": 2}, _RANGE]},
        runtime=False,
    )
    objective = {"enum": [*METRICS, GPU_HOURS]}
    directed = dict.fromkeys(objective["enum"], _DIRECTION)
    pruner = {name: kind.schema for name, kind in pruner_fields().items()}
    budget = {name: kind.schema for name, kind in BUDGET_FIELDS.items()}
    parts: Schema = {
        "space": _mapping(space, "key -> a range {low, high, log, step}, or a list of values."),
        "sampler": {"enum": list(SAMPLERS)},
        "pruner": {"anyOf": [{"const": "none"}, _mapping(pruner, "When a trial ends early.")]},
        "objectives": {
            "anyOf": [
                {"type": "array", "items": objective, "minItems": 1},
                _mapping(directed, "name -> direction"),
            ]
        },
        "budget": _mapping(budget, "When no trial is begun any more."),
        "seed": RANDOM_SEED.schema,
        "at_once": COUNT.schema,
        "storage": _text("Optuna's URL; by default a file in the runs directory."),
        "transfer": _mapping(_keys(lambda ref: ref), "Where the best learning rate is checked."),
    }
    return _mapping(parts, "Trials are asked for one by one instead of being listed.")


def _range() -> Schema:
    """Build the schema of a range of numbers in the space of a search."""
    number = {"type": "number"}
    parts = {"low": number, "high": number, "log": FLAG.schema, "step": ABOVE_ZERO.schema}
    # An empty range is no range, so null is not allowed here as in other mappings.
    required = {"type": "object", "required": ["low", "high"]}
    return _mapping(parts, "Numbers from low to high.") | required


def _solve_entry() -> Schema:
    """Build the schema of one entry of `solve`."""
    whole = {"type": "integer"}
    between = {"type": "array", "items": whole, "minItems": 2, "maxItems": 2}
    parts = {"make": _EXPRESSION, "equal": _EXPRESSION}
    parts |= {"within": SHARE_WITHIN.schema, "between": between}
    entry = {**_mapping(parts, "`make` an expression `equal` a target."), "type": "object"}
    entry["required"] = ["make", "equal"]
    return entry


def scale_schema() -> Schema:
    """Build the schema of `sweeps/scales/*.yaml`."""
    sizes = {"type": "object", "additionalProperties": _SIZE}
    trial = _mapping({name: _section(f"{name}.") for name in SECTIONS}, "What every trial shares.")
    recipes = {"type": "object", "additionalProperties": _section("tokenizer.")}
    properties: Schema = {
        "description": _text("What the scale is for, in one line."),
        "sizes": {**sizes, "description": "Tokenizer encoder and decoder sizes by name."},
        "generator_sizes": {**sizes, "description": "Generator sizes by name."},
        "trial": trial,
        "recipes": {
            **recipes,
            "description": "Tokenizer name such as S-B or S-B-2d -> its own settings.",
        },
    }
    return _document("A scale: what S, B, L mean", properties, ["trial"], _definitions())


def _document(title: str, properties: Schema, required: list[str], definitions: Schema) -> Schema:
    top = {**_mapping(properties, title), "required": required}
    return {"$schema": _DIALECT, **top, "$defs": definitions}


def _mapping(properties: Schema, description: str) -> Schema:
    # Null as well: a part whose lines are all commented out is null in YAML.
    return {
        "description": description,
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": False,
    }


def _list(item: Schema) -> Schema:
    return {"type": ["array", "null"], "items": item}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _definitions() -> Schema:
    """Define every key of a trial, and the size."""
    size = _mapping({name: size_keys()[name].schema for name in SIZE_FIELDS}, "A transformer.")
    size |= {"type": "object", "required": list(SIZE_FIELDS)}
    return {"size": size, **{name: _value(key) for name, key in trial_keys().items()}}


def _value(key: Key) -> Schema:
    # Any text: the names of sizes differ between scales, which a schema cannot follow.
    named: Schema = {"type": "string", "description": "A size of the scale, such as S."}
    return {"anyOf": [named, _SIZE]} if key.is_size else key.schema


def _keys(wrap: Callable[[Schema], Schema], *, runtime: bool = True) -> Schema:
    """Map dotted keys to their wrapped schemas; on request without keys that may not vary."""
    return {
        name: wrap({"$ref": f"#/$defs/{name}"})
        for name, key in trial_keys().items()
        if runtime or not key.is_runtime
    }


def _section(prefix: str) -> Schema:
    """Build the nested mapping of all keys that begin with `prefix`."""
    properties: Schema = {}
    for name in trial_keys():
        if name.startswith(prefix):
            head, dot, _ = name.removeprefix(prefix).partition(".")
            ref = {"$ref": f"#/$defs/{name}"}
            properties[head] = _section(f"{prefix}{head}.") if dot else ref
    return _mapping(properties, f"Keys of {prefix.rstrip('.')}.")


def schema_files(*, knows_plugins: bool = False) -> dict[str, str]:
    """Map file names, beside the sweeps, to their contents."""
    sweep = sweep_schema(knows_plugins=knows_plugins)
    schemas = {"sweep.schema.json": sweep, "scale.schema.json": scale_schema()}
    return {name: json.dumps(schema, indent=1) + "\n" for name, schema in schemas.items()}


def write_schemas(folder: Path, *, knows_plugins: bool = False) -> None:
    """Write both schemas into a folder of sweeps, and say so."""
    for name, text in schema_files(knows_plugins=knows_plugins).items():
        (folder / name).write_text(text, encoding="utf-8")
        print(f"wrote {display(folder / name)}")


if __name__ == "__main__":
    write_schemas(SWEEPS_DIR)
