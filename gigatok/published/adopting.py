"""Adoption of a file of weights as a trained model, with all checks that are possible.

The content must be what was planned, every weight must have its place, and facts that weights do
not show (the number of heads) must agree with a published model of that size, or with the
description beside a `model.safetensors` of ours. That the file was trained as the trial says
remains the user's word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gigatok.config import AdoptedFile, Config
from gigatok.files.durable import write_text_durably
from gigatok.files.foreign_weights import listed
from gigatok.files.hashes import sha256_of
from gigatok.files.stored_weights import StoredWeights, read_weights
from gigatok.published.catalogue import (
    Architecture,
    computing_fields,
    hidden_differences,
    layouts_of,
)
from gigatok.published.fitting import LoadReport, Model, fill, fit, misfit

ORIGIN_FILE = "origin.json"
"""File beside the adopted weights that says where they come from."""
LONGEST = 1000
"""Characters of one fact in MLflow."""


def read_planned(file: AdoptedFile, architecture: Architecture) -> StoredWeights:
    """Read the weights of the file that the stage's key names, for a model of this kind.

    Raises:
        ValueError: the file is gone, has changed since, holds no weights, or is known to be of
            another model than the trial describes.
    """
    path = Path(file.path)
    if not path.is_file():
        raise ValueError(f"{path} is no file any more; put it back, or launch with another")
    # Hashed again: jobs may wait for days, and a key must never stand for other weights.
    found = sha256_of(path)
    if found != file.sha256:
        raise ValueError(
            f"{path} has changed since it was planned: sha256 {found}, planned {file.sha256}; "
            "launch again to adopt what is there now"
        )
    stored = read_weights(path, layouts_of(architecture))
    # Weights do not show everything, such as the number of heads.
    _check_architecture(architecture, file)
    return stored


def _check_architecture(architecture: Architecture, file: AdoptedFile) -> None:
    """Compare the trial's architecture with what is known of the file beside its weights.

    Raises:
        ValueError: the trial describes another model; all differences are listed.
    """
    differences = hidden_differences(architecture) + _described_differences(architecture, file)
    if differences:
        raise ValueError(
            f"{file.path} is not the model that the trial describes: " + "; ".join(differences)
        )


def adopt(
    name: str, model: Model, stored: StoredWeights, file: AdoptedFile, device: str = "cpu"
) -> LoadReport:
    """Fill the model that the trial describes, on the meta device, with the weights of the file.

    Raises:
        ValueError: weights are missing, unexpected, of another shape or not finite.
    """
    report = fit(name, model, stored)
    if not report.complete:
        raise ValueError(
            f"{file.path}: {misfit(report)}\n  give the trial the sizes of the model in the file, "
            "or adopt a file that holds the whole of this model and nothing else"
        )
    fill(model, stored, report, device)
    return report


def _described_differences(architecture: Architecture, file: AdoptedFile) -> list[str]:
    """List differences from the description that our own stages leave beside their weights."""
    path = Path(file.path)
    description = path.with_name("model.json")
    # Files of other people lie beside descriptions of other people, if any.
    if path.name != "model.safetensors" or not description.is_file():
        return []
    try:
        stored: dict[str, Any] = json.loads(description.read_text(encoding="utf-8"))[
            "architecture"
        ]
    except (ValueError, LookupError, TypeError) as error:
        return [f"{description} describes no model ({error!r}); put back what lay beside the file"]
    kind = type(architecture)
    # A generator's fields in a tokenizer's trial, or the other way round.
    if not stored.keys() <= kind.model_fields.keys():
        return [f"{description} describes another kind of model"]
    # Fields that the older description lacks take their defaults.
    theirs = computing_fields(kind.model_validate(stored))
    # Only what decides the outputs: other settings of training are in the weights already.
    mine = computing_fields(architecture)
    return [
        f"{key} is {mine.get(key)}, {description} says {theirs.get(key)}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]


def origin(
    file: AdoptedFile, report: LoadReport, architecture: Config, output_dir: Path
) -> Mapping[str, str]:
    """Write `origin.json` with all that is known of adopted weights; returns a short version."""
    whole = {
        "adopted": "not trained here: weights of a file",
        "file": Path(file.path).name,
        "sha256": file.sha256,
        "architecture": architecture.model_dump(mode="json"),
        "report": asdict(report),
    }
    # As text where JSON has no such value: the trainer's command line may hold anything.
    write_text_durably(output_dir / ORIGIN_FILE, json.dumps(whole, indent=1, default=str))
    facts = {
        "file": Path(file.path).name,
        "sha256": file.sha256,
        "layout": report.layout,
        "steps": "not stored" if report.steps is None else str(report.steps),
        "ignored": listed(report.misfits.ignored) or "nothing",
        "semantic_head": "in the file" if report.has_head else "not in the file",
    }
    return {name: fact[:LONGEST] for name, fact in facts.items()}
