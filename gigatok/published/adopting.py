"""A file of weights as an already trained model: which file it is, and whether it is the one.

What can be checked is: the content is what was planned, every weight has its place, and what
weights do not show (the number of heads) agrees with a published model of that size, or with the
description beside a `model.safetensors` of ours. What remains is the user's word that the file
was trained as the trial says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gigatok.config import AdoptedFile, Config
from gigatok.files.download import sha256_of
from gigatok.files.durable import write_durably
from gigatok.files.foreign_weights import listed
from gigatok.files.stored_weights import StoredWeights, read_weights
from gigatok.published.catalogue import (
    Architecture,
    computing_fields,
    hidden_differences,
    layouts_of,
)
from gigatok.published.fitting import LoadReport, misfit

ORIGIN_FILE = "origin.json"
"""Beside the adopted weights: where they come from."""
LONGEST = 1000
"""Characters of one fact in MLflow."""


def read_planned(file: AdoptedFile, architecture: Architecture) -> StoredWeights:
    """The weights of the file that the stage's key names, for a model of this kind.

    Raises:
        ValueError: the file is gone, holds no weights, or is another one by now.
    """
    path = Path(file.path)
    if not path.is_file():
        raise ValueError(f"{path} is no file any more; put it back, or launch with another")
    found = sha256_of(path)
    if found != file.sha256:
        raise ValueError(
            f"{path} has changed since it was planned: sha256 {found}, planned {file.sha256}; "
            "launch again to adopt what is there now"
        )
    return read_weights(path, layouts_of(architecture))


def check_architecture(architecture: Architecture, file: AdoptedFile) -> None:
    """Compare with what is known of the file beside its weights.

    Raises:
        ValueError: the trial describes another model; all differences are listed.
    """
    differences = hidden_differences(architecture) + _described_differences(architecture, file)
    if differences:
        raise ValueError(
            f"{file.path} is not the model that the trial describes: " + "; ".join(differences)
        )


def check_fit(report: LoadReport, file: AdoptedFile) -> None:
    """Compare what the file holds with the model that the trial describes.

    Raises:
        ValueError: weights are missing, unexpected, of another shape or not finite.
    """
    if not report.complete:
        raise ValueError(
            f"{file.path}: {misfit(report)}\n  give the trial the sizes of the model in the file, "
            "or adopt a file that holds the whole of this model and nothing else"
        )


def _described_differences(architecture: Architecture, file: AdoptedFile) -> list[str]:
    """Differences from the description that our own stages leave beside their weights."""
    path = Path(file.path)
    description = path.with_name("model.json")
    if path.name != "model.safetensors" or not description.is_file():
        return []
    try:
        stored: dict[str, Any] = json.loads(description.read_text(encoding="utf-8"))[
            "architecture"
        ]
    except (ValueError, LookupError, TypeError) as error:
        return [f"{description} describes no model ({error!r}); put back what lay beside the file"]
    kind = type(architecture)
    if not stored.keys() <= kind.model_fields.keys():
        return [f"{description} describes another kind of model"]
    theirs = computing_fields(kind.model_validate(stored))
    mine = computing_fields(architecture)
    return [
        f"{key} is {mine.get(key)}, {description} says {theirs.get(key)}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]


def origin(
    file: AdoptedFile, report: LoadReport, architecture: Config, output_dir: Path
) -> Mapping[str, str]:
    """Write `origin.json`, all that is known of adopted weights; returns it in short, as text."""
    whole = {
        "adopted": "not trained here: weights of a file",
        "file": Path(file.path).name,
        "sha256": file.sha256,
        "architecture": architecture.model_dump(mode="json"),
        "report": asdict(report),
    }
    # The trainer's command line may hold anything.
    text = json.dumps(whole, indent=1, default=str)
    write_durably(output_dir / ORIGIN_FILE, lambda path: _write_text(path, text))
    facts = {
        "file": Path(file.path).name,
        "sha256": file.sha256,
        "layout": report.layout,
        "steps": "not stored" if report.steps is None else str(report.steps),
        "ignored": listed(report.misfits.ignored) or "nothing",
        "semantic_head": "in the file" if report.has_head else "not in the file",
    }
    return {name: fact[:LONGEST] for name, fact in facts.items()}


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
