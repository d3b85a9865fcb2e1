"""Cost of training a generator, and of scoring one."""

from __future__ import annotations

from gigatok.config import TrialConfig
from gigatok.costs.memory import generator_training_memory
from gigatok.costs.optimizers import optimizer_costs
from gigatok.costs.training import generator_training_flops
from gigatok.models.generator.layout import (
    generator_flops,
    generator_layout,
    generator_parameters,
)
from gigatok.stages.base import Costs, Disk
from gigatok.stages.families import data_family, training_family
from gigatok.stages.training import trained_disk


def flops(trial: TrialConfig) -> int:
    """Count all steps and the scores."""
    config, codes, tokens = trial.generator, trial.tokenizer.vocabulary, _tokens(trial)
    recompute = config.activation_checkpointing
    step = generator_training_flops(config, codes, tokens, recompute=recompute)
    # The number of classes changes the embedding alone, which takes no products.
    update = optimizer_costs(config, generator_layout(config, codes, 0, tokens)).flops
    # A step is counted per image, its update once.
    return config.steps * (config.batch_size * step + update) + scoring_flops(trial)


def scoring_flops(trial: TrialConfig) -> int:
    """Count losses on the validation images and on as many of training."""
    data, codes = trial.data, trial.tokenizer.vocabulary
    # Forward passes only.
    scored = data.val_images + min(data.val_images, data.train_images)
    return scored * generator_flops(trial.generator, codes, _tokens(trial))


def disk(trial: TrialConfig) -> Disk:
    """Count the model and its checkpoints."""
    config, codes = trial.generator, trial.tokenizer.vocabulary
    classes, tokens = trial.data.num_classes, _tokens(trial)
    parameters = generator_parameters(config, codes, classes, tokens)
    moments = optimizer_costs(config, generator_layout(config, codes, classes, tokens)).moments
    return trained_disk(config, parameters, moments)


def memory(trial: TrialConfig, world: int) -> int:
    """Find the peak of a step."""
    codes, classes = trial.tokenizer.vocabulary, trial.data.num_classes
    return generator_training_memory(trial.generator, codes, classes, _tokens(trial), world)


def _tokens(trial: TrialConfig) -> int:
    return trial.tokenizer.sequence_length(trial.data.image_size)


COSTS = Costs(flops, disk, lambda t: (data_family(t), *training_family(t.generator)), memory)
