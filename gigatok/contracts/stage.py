"""Contract of a stage: what planner, costs, worker and tables rely on.

`broken_promises` asks the stage as an object about a small trial. `gigatok.contracts.running`
runs it, on the inputs of a smoke trial.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from importlib import import_module

from gigatok.config import Config, TrialConfig
from gigatok.contracts.base import Check, SmokeTrial, broken
from gigatok.data.asset_table import ASSETS
from gigatok.names import METRICS
from gigatok.stages import STAGES, Disk, Stage

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SIZE = {"width": 8, "layers": 1, "heads": 1}
TRIAL = TrialConfig.model_validate(
    {
        "data": {"name": "digits", "image_size": 16, "train_images": 64, "val_images": 32},
        "tokenizer": {
            "encoder": _SIZE,
            "decoder": _SIZE,
            "cnn": {"channels": 8, "multipliers": [1, 2], "z_channels": 8, "groups": 4},
            "num_latent_tokens": 4,
            "semantic_weight": 0,
            "perceptual_weight": 0,
            "steps": 4,
            "batch_size": 8,
            "lr": 1e-4,
        },
        "generator": {"size": _SIZE, "steps": 4, "batch_size": 8, "lr": 1e-4},
        "sampling": {"num_images": 16},
        "evaluation": {"num_images": 32, "network": "pixels", "lpips_network": "none"},
    }
)
"""Trial without downloads that stages are asked about."""


def broken_promises(stage: Stage) -> list[str]:
    """List what a stage says that it must not; empty: it keeps the contract."""
    return broken(CHECKS, stage, f"stage {stage.name}")


def smoke(stage: Stage) -> SmokeTrial | None:
    """Run it with all its inputs; None: the trials of a sweep do not have it by default."""
    return SmokeTrial(stages=(stage.name,)) if stage.applies(TRIAL) else None


def names(stage: Stage) -> Iterator[str]:
    """Check name, label and version."""
    if not _NAME.fullmatch(stage.name):
        yield f"its name is {stage.name!r}, also of folders; use small letters, digits and _"
    if not stage.label.strip():
        yield "its label is empty: tables have no head for it"
    if stage.version < 1:
        yield f"version is {stage.version}; it must be at least 1"


def config(stage: Stage) -> Iterator[str]:
    """Check that what the stage reads of a trial is data, whole, and without places."""
    if not stage.applies(TRIAL):
        return
    found = stage.read(TRIAL)
    if type(found) is not stage.config or not issubclass(stage.config, Config):
        yield f"read returns {type(found).__name__}, not a {stage.config.__name__}"
        return
    if stage.read(TRIAL) != found or stage.read(TRIAL.model_copy()) != found:
        yield "read returns another config when it is called again; keys would never repeat"
    written = json.loads(json.dumps(found.model_dump(mode="json")))
    if stage.config.model_validate(written) != found:
        yield "its config is another after it was written and read"
    if places := [text for text in _texts(json.loads(found.identity)) if text.startswith("/")]:
        yield f"its key holds the path {places[0]}; hash the content, and mark the path RUNTIME"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def reports(stage: Stage) -> Iterator[str]:
    """Check the names of scores, curves and assets."""
    if not stage.applies(TRIAL):
        return
    scores = stage.scores(TRIAL)
    if unknown := [name for name in scores if name not in METRICS]:
        yield f"scores are {', '.join(unknown)} without a description; register a Metric for each"
    if not all(isinstance(name, str) and name for name in stage.curves(TRIAL)):
        yield f"curves are {stage.curves(TRIAL)}; they must be names"
    if unknown := [name for name, judged in stage.judges.items() if judged not in STAGES]:
        yield f"what {', '.join(unknown)} judges is no stage"
    if stage.model is None and stage.trains:
        yield "it trains, and leaves no model"
    if not all(isinstance(name, str) for name in stage.assets(TRIAL)):
        yield f"assets are {stage.assets(TRIAL)}; they must be names, such as {next(iter(ASSETS))}"


def costs(stage: Stage) -> Iterator[str]:
    """Check that costs are numbers."""
    if not stage.applies(TRIAL):
        return
    flops, disk = stage.costs.flops(TRIAL), stage.costs.disk(TRIAL)
    if not (math.isfinite(flops) and flops >= 0):
        yield f"costs.flops is {flops}; it must be a number from 0"
    if not isinstance(disk, Disk) or min(disk.outputs, disk.working) < 0:
        yield f"costs.disk is {disk}; it must be a Disk of bytes from 0"
    memory = stage.costs.memory(TRIAL, 1)
    if memory is not None and memory < 0:
        yield f"costs.memory is {memory}; it must be bytes from 0, or None"
    hash(stage.costs.family(TRIAL))


def module(stage: Stage) -> Iterator[str]:
    """Check that the module can be imported and has `run`."""
    if not callable(getattr(import_module(stage.module), "run", None)):
        yield f"module {stage.module} has no function run(config, inputs, output_dir, ...)"


CHECKS: tuple[Check, ...] = (names, config, reports, costs, module)
