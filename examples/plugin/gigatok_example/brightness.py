"""A metric and the stage that measures it: how bright reconstructions are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gigatok.config import Config, SplitConfig, TrialConfig
from gigatok.names import Metric
from gigatok.names import register as register_metric
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.stages import STAGES, Costs, Disk, Stage, register, where_had

# Tables, figures, MLflow and the page print it by this description.
register_metric(Metric("brightness", "brightness", unit="of originals", digits=3))


class BrightnessConfig(Config):
    """Config of the stage: what it reads of a trial, and so what its key is made of."""

    val: SplitConfig


def read(trial: TrialConfig) -> BrightnessConfig:
    """Take from a trial what the stage reads."""
    return BrightnessConfig(val=trial.split("val", trial.evaluation.num_images))


def run(
    config: BrightnessConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Compare the reconstructions that another stage left with their originals."""
    from gigatok.data.splits import load_split  # imports torch, which planning must not

    originals = load_split(config.val)
    pixels = originals.centred(np.arange(len(originals)))
    made = np.load(inputs["evaluate_reconstruction"] / "reconstructions.npy")
    return Scores(
        {"brightness": float(made.mean()) / float(pixels.mean())},
        {"brightness": f"mean of all pixels, {len(originals)} val images"},
    )


register(
    Stage(
        name="measure_brightness",
        version=1,  # raise it when `run` computes something else
        config=BrightnessConfig,
        read=read,
        module=__name__,  # where `run` is
        label="brightness",
        costs=Costs(flops=lambda t: 0, disk=lambda t: Disk(0), family=lambda t: ()),
        inputs=where_had(STAGES["evaluate_reconstruction"]),
        scores=lambda t: ("brightness",),
    )
)
