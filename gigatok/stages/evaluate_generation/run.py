"""Sample images from the generator and score them against real images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gigatok.config import EvaluationConfig, SamplingConfig
from gigatok.config.kinds.samplers import PUBLISHED
from gigatok.config.schedules import GUIDANCE_SCHEDULES
from gigatok.data.pictures import image_grid
from gigatok.models.frozen.features import FeatureNetwork, build_feature_network
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.scores.feature_sets import FeatureSet
from gigatok.scores.reference_statistics import load_reference
from gigatok.scores.sample_sets import Draw, Models, draw_set
from gigatok.scores.scoring import distribution_scores, inception_scores, join, manifold_scores
from gigatok.stages.evaluate_generation.spec import EvaluateGenerationConfig
from gigatok.stages.extract_reference_features.run import ReferenceFeatures
from gigatok.stages.models import generator_of, tokenizer_of


def run(
    config: EvaluateGenerationConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Sample and score; leaves `samples.npy` and `labels.npy`.

    Metrics: gFID, gsFID, gKID, precision, recall, and the Inception Score where it can be had.
    """
    evaluation, sampling = config.evaluation, config.sampling
    network = build_feature_network(evaluation.network, evaluation.resolution, runtime.device)
    # Before any sampling, so that a missing file is reported at once.
    reference, name = load_reference_of(evaluation, inputs, network)
    folders = tokenizer_of(inputs), generator_of(inputs)
    models = Models.load(*folders, sampling, runtime.device)
    draw = Draw(sampling, config.seed)
    drawn = draw_set(draw, models, network, output_dir, tracker, runtime)
    # All processes draw a share, the first alone scores.
    if drawn is None:
        return Scores()
    samples, features = drawn
    # 8 rows of 8 samples.
    tracker.image("samples", image_grid(np.asarray(samples[:64]), columns=8), 0)
    protocol = f"{network.name}, {len(samples)} samples ({guidance(sampling)}) vs {name}"
    # Mean and covariance give gFID; the features themselves KID, precision and recall.
    return join(
        distribution_scores("g", features, reference, protocol),
        manifold_scores(features, reference, protocol),
        inception_scores(features, network),
    )


def guidance(config: SamplingConfig) -> str:
    """Say in words the sampling settings that a score depends on."""
    # Only what differs from plain sampling, as protocols are read side by side.
    parts = ["no guidance"]
    if config.cfg_scale > 1:
        parts = [f"{config.cfg_schedule} guidance {config.cfg_scale:g}"]
        if GUIDANCE_SCHEDULES[config.cfg_schedule].reads_start:
            parts[0] += f" from {config.cfg_start:g}"
    if config.sampler != PUBLISHED:
        parts.append(f"sampler {config.sampler.label}")
    reads = config.sampler.reads
    if config.temperature != 1 and "temperature" in reads:
        parts.append(f"temperature {config.temperature:g}")
    if config.top_k and "top_k" in reads:
        parts.append(f"top-k {config.top_k}")
    if config.top_p < 1 and "top_p" in reads:
        parts.append(f"top-p {config.top_p:g}")
    if config.precision != "fp32":
        parts.append(f"in {config.precision}")
    return ", ".join(parts)


def load_reference_of(
    evaluation: EvaluationConfig, inputs: Mapping[str, Path], network: FeatureNetwork
) -> tuple[FeatureSet, str]:
    """Load features of the real images, and say which images they are."""
    if evaluation.reference == "val":
        found = ReferenceFeatures.load(inputs["extract_reference_features"])
        return found.features, found.images
    statistics = load_reference(evaluation.reference, network)
    return statistics.features, statistics.name
