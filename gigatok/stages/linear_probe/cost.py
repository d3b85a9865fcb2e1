"""Cost of a linear probe on the generator."""

from __future__ import annotations

from gigatok.config import TrialConfig
from gigatok.costs.memory import FLOAT
from gigatok.models.generator.layout import generator_flops
from gigatok.models.layers import linear
from gigatok.stages.base import Costs, Disk
from gigatok.stages.extract_codes.cost import views
from gigatok.stages.families import data_family


def flops(trial: TrialConfig) -> int:
    """Count the features, and the training of the classifier."""
    generator, probe, data = trial.generator, trial.probe, trial.data
    tokens = trial.tokenizer.sequence_length(data.image_size)
    # 0 stands for the middle layer.
    layer = probe.layer or middle_layer(generator.architecture.probed_layers(generator))
    read = generator_flops(generator, trial.tokenizer.vocabulary, tokens, layer)
    # With dropout, features of one random view per image are computed again in each epoch.
    times = probe.epochs if probe.reference_dropout_quirk else views(trial)
    read_images = times * data.train_images + data.val_images
    return read_images * read + classifier_flops(trial, _width(trial))


def middle_layer(depth: int) -> int:
    """Return the layer that is probed by default, counted from 1."""
    return max(depth // 2, 1)


def _width(trial: TrialConfig) -> int:
    return trial.generator.architecture.probed_width(trial.generator)


def classifier_flops(trial: TrialConfig, width: int) -> int:
    """Count a classifier's training and its score; its inputs need no gradients."""
    data = trial.data
    # Forward (1) and gradient of the weights (1) in each pass; features need no gradient.
    passes = 2 * trial.probe.passes(views(trial)) * data.train_images + data.val_images
    return passes * linear(1, width, data.num_classes).flops


def features_bytes(trial: TrialConfig, width: int) -> int:
    """Count float32 features of all views, which live in a file."""
    return FLOAT * views(trial) * trial.data.train_images * width


def disk(trial: TrialConfig) -> Disk:
    """Count the features while they are needed; with dropout none are kept."""
    if trial.probe.reference_dropout_quirk:
        return Disk(0)
    return Disk(0, features_bytes(trial, _width(trial)))


COSTS = Costs(flops, disk, lambda t: (data_family(t),))
