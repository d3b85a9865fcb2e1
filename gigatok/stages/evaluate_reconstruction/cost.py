"""Cost of reconstructing images and scoring them."""

from __future__ import annotations

from gigatok.config import TrialConfig
from gigatok.models.frozen.layout import lpips_head_flops, lpips_layer
from gigatok.models.tokenizer.layout import tokenizer_flops
from gigatok.stages.base import Costs, Disk
from gigatok.stages.extract_reference_features.cost import features_flops
from gigatok.stages.families import data_family, variant_family


def flops(trial: TrialConfig) -> int:
    """Count encoding, decoding, features, and LPIPS on both images."""
    side, network = trial.data.image_size, trial.evaluation.lpips_network
    parts = tokenizer_flops(trial.tokenizer, side)
    per_image = parts.encode + parts.decoder + features_flops(trial)
    if network != "none":
        # The network runs on both images, the heads once on the pair.
        per_image += 2 * lpips_layer(network, side, side).flops + lpips_head_flops(network)
    return trial.evaluation.num_images * per_image


def disk(trial: TrialConfig) -> Disk:
    """Count uint8 reconstructions."""
    return Disk(3 * trial.data.image_size**2 * trial.evaluation.num_images)


def family(trial: TrialConfig) -> tuple[str, ...]:
    """Name what the time of a FLOP depends on."""
    evaluation = trial.evaluation
    # Their speed at the same FLOPs is not that of the tokenizer.
    networks = evaluation.network, f"lpips-{evaluation.lpips_network}"
    return data_family(trial), variant_family(trial), *networks


COSTS = Costs(flops, disk, family)
