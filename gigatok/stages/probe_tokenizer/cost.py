"""Cost of a linear probe on the tokenizer."""

from __future__ import annotations

from gigatok.config import TokenizerArchitecture, TrialConfig
from gigatok.config.kinds.tokenizers import PUBLISHED
from gigatok.models.layers import linear
from gigatok.models.tokenizer.layout import tokenizer_flops
from gigatok.stages.base import Costs, Disk
from gigatok.stages.extract_codes.cost import views
from gigatok.stages.families import data_family, variant_family
from gigatok.stages.linear_probe.cost import classifier_flops, features_bytes


def flops(trial: TrialConfig) -> int:
    """Count the features of all views, and the training of the classifier."""
    config, data = trial.tokenizer, trial.data
    read = _probed(config, trial.tokenizer_probe.features, data.image_size)
    # Each view is read once, whatever the number of epochs.
    read_images = views(trial) * data.train_images + data.val_images
    return read_images * read + classifier_flops(trial, _width(trial))


def disk(trial: TrialConfig) -> Disk:
    """Count the features while they are needed."""
    return Disk(0, features_bytes(trial, _width(trial)))


def _width(trial: TrialConfig) -> int:
    return trial.tokenizer.probed_width(trial.tokenizer_probe.features)


def _probed(config: TokenizerArchitecture, features: str, image_size: int) -> int:
    """Count the forward pass of one image up to the features."""
    parts = tokenizer_flops(config, image_size)
    z, tokens = config.cnn.z_channels, config.tokens_per_image(image_size)
    if config.architecture != PUBLISHED:
        # At most: how far into its parts it has to go is not known.
        return parts.encode + (parts.decoder if features == "decoder" else 0)
    if features == "encoder":
        # Everything but the projection behind the last norm.
        return parts.cnn_encoder + parts.to_tokens - linear(tokens, config.encoder.width, z).flops
    if features == "latents":
        return parts.cnn_encoder + parts.to_tokens
    # The whole decoder runs, of which the stream after one layer is taken.
    return parts.encode + parts.project_out + parts.to_grid


COSTS = Costs(
    flops, disk, lambda t: (data_family(t), variant_family(t), t.tokenizer_probe.features)
)
