"""The stage that probes a generator's features."""

from __future__ import annotations

from gigatok.config import Config, ProbeConfig
from gigatok.stages.adopt_generator.spec import ADOPT_GENERATOR
from gigatok.stages.base import Stage, where_had
from gigatok.stages.extract_codes.spec import EXTRACT_CODES
from gigatok.stages.linear_probe.cost import COSTS
from gigatok.stages.registry import register
from gigatok.stages.train_generator.spec import TRAIN_GENERATOR


class LinearProbeConfig(Config):
    """Config of `linear_probe`: what it reads of a trial."""

    probe: ProbeConfig
    seed: int


LINEAR_PROBE = register(
    Stage(
        name="linear_probe",
        version=1,
        config=LinearProbeConfig,
        # The generator and its size are known by the keys of the inputs.
        read=lambda t: LinearProbeConfig(probe=t.probe, seed=t.seed),
        module="gigatok.stages.linear_probe.run",
        label="linear probe",
        costs=COSTS,
        # Images are not read: codes hold the labels as well.
        inputs=where_had(EXTRACT_CODES, TRAIN_GENERATOR, ADOPT_GENERATOR),
        # A single class leaves nothing to tell apart.
        applies=lambda t: t.data.num_classes > 1,
        scores=lambda t: ("probe_accuracy",),
    )
)
