"""Data and models of stages as MLflow knows them: dataset inputs, and logged models.

Nothing here imports MLflow or torch: the shipper sends these values, and no weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gigatok.config import Config, SplitConfig
from gigatok.config.kinds.data_sets import find_data_set
from gigatok.stages import STAGES
from orchestration.plan.identity import canonical, digest
from orchestration.runs.state import StageFolder


@dataclass(frozen=True)
class DatasetInput:
    """Images that a run reads.

    Attributes:
        name: data set and split, such as `digits train`.
        digest: hash of what makes the images what they are.
        source: JSON of the split's config.
        images: number of images.
        context: `train` or `val`.
    """

    name: str
    digest: str
    source: str
    images: int
    context: str


@dataclass(frozen=True)
class TrainedModel:
    """Model that a complete stage left in its folder.

    Attributes:
        name: unique in its experiment, in characters that MLflow allows.
        kind: `tokenizer` or `generator`.
        tags: stage key, and the place below the runs directory.
    """

    name: str
    kind: str
    tags: dict[str, str]


def datasets(config: Config) -> Iterator[DatasetInput]:
    """Yield the images that a stage reads, by the splits in its config."""
    for field in type(config).model_fields:
        split = getattr(config, field)
        if isinstance(split, SplitConfig):
            what = json.dumps(canonical(split), sort_keys=True)
            # Of a data set by name, the content is known by its fingerprint alone.
            content = find_data_set(split.name).fingerprint or ""
            name = f"{split.title} {split.split}"
            yield DatasetInput(name, digest(what + content), what, split.images, split.split)


def trained_model(folder: StageFolder, stage: str) -> TrainedModel | None:
    """Describe the model that a stage leaves; None: it leaves none."""
    model = STAGES[stage].model
    if model is None:
        return None
    key = folder.path.name.rpartition("-")[2]
    # MLflow forbids `/ : . % ' "` in names of models.
    name = re.sub(r"[^\w+ -]", "_", f"{model} {folder.name}")
    tags = {"gigatok.stage_key": key, "gigatok.folder": f"{stage}/{folder.name}/out"}
    return TrainedModel(name, model, tags)
