"""Features of the validation images, the reference of rFID and gFID, computed once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gigatok.data.image_sets import in_batches, read_ahead
from gigatok.data.splits import load_split
from gigatok.models.frozen.features import build_feature_network
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.scores.feature_sets import FeatureSet, FeatureStream
from gigatok.scores.scoring import describe
from gigatok.stages.extract_reference_features.spec import ReferenceFeaturesConfig

BATCH = 64  # images per forward pass


@dataclass(frozen=True)
class ReferenceFeatures:
    """Features of the reference images, and which images they are."""

    features: FeatureSet
    images: str

    @staticmethod
    def load(folder: Path) -> ReferenceFeatures:
        """Read what this stage left."""
        images = json.loads((folder / "reference.json").read_text(encoding="utf-8"))["images"]
        return ReferenceFeatures(FeatureSet.load(folder), images)


def run(
    config: ReferenceFeaturesConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Compute features; leave a `FeatureSet` and `reference.json`. No metrics."""
    network = build_feature_network(config.network, config.resolution, runtime.device)
    images = load_split(config.val)
    stream = FeatureStream(network, len(images))
    batches = in_batches(len(images), BATCH)
    # The next batch is decoded in a thread while the network runs.
    for done, pixels in enumerate(runtime.until_stopped(read_ahead(images.centred, batches))):
        stream.add(pixels)
        tracker.progress(done * BATCH + len(pixels), len(images), "image")
    stream.result().save(output_dir)
    (output_dir / "reference.json").write_text(
        json.dumps({"images": describe(config.val)}), encoding="utf-8"
    )
    # Nothing to score: the images are real.
    return Scores()
