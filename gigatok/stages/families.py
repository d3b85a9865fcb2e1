"""Words for what must agree before the time of one stage predicts that of another."""

from __future__ import annotations

from gigatok.config import TrainingConfig, TrialConfig


def data_family(trial: TrialConfig) -> str:
    """Name data set and resolution."""
    # Reading and decoding images takes time, but no FLOPs.
    return f"{trial.data.name}-{trial.data.image_size}"


def variant_family(trial: TrialConfig) -> str:
    """Name the kind of tokenizer."""
    return trial.tokenizer.architecture.family(trial.tokenizer)


def training_family(config: TrainingConfig) -> tuple[str, ...]:
    """Name the settings of training that change its speed at the same FLOPs."""
    switches = {
        "compiled": config.compile,
        "recomputed": config.activation_checkpointing,
        "fsdp": config.parallel == "fsdp",
    }
    # Switches that are off leave no word.
    return config.precision, *(name for name, on in switches.items() if on)
