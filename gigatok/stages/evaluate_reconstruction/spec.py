"""The stage that scores a tokenizer by its reconstructions."""

from __future__ import annotations

from gigatok.config import Config, EvaluationConfig, SplitConfig, TrialConfig
from gigatok.config.evaluation import SSIM_REFERENCE_WINDOW, SSIM_WINDOW
from gigatok.stages.adopt_tokenizer.spec import ADOPT_TOKENIZER
from gigatok.stages.base import Stage, where_had
from gigatok.stages.evaluate_reconstruction.cost import COSTS
from gigatok.stages.extract_reference_features.spec import EXTRACT_REFERENCE_FEATURES
from gigatok.stages.registry import register
from gigatok.stages.sections import with_fixed
from gigatok.stages.train_tokenizer.spec import TRAIN_TOKENIZER


class EvaluateReconstructionConfig(Config):
    """Config of `evaluate_reconstruction`: what it reads of a trial."""

    val: SplitConfig
    evaluation: EvaluationConfig


def _read(trial: TrialConfig) -> EvaluateReconstructionConfig:
    return EvaluateReconstructionConfig(
        # The images of `extract_reference_features`, in the same order: paired KID relies on it.
        val=trial.split("val", trial.evaluation.num_images),
        # Reconstructions are compared with their originals, whatever samples are compared with.
        evaluation=with_fixed(trial.evaluation, reference="val"),
    )


def _scores(trial: TrialConfig) -> tuple[str, ...]:
    names = ["rfid", "rkid", "rkid_se", "psnr", "effective_rank"]
    # Smaller images hold no window.
    windows = {"ssim": SSIM_WINDOW, "ssim_reference": SSIM_REFERENCE_WINDOW}
    names += [name for name, window in windows.items() if window <= trial.data.image_size]
    if trial.evaluation.network == "inception":  # the only network with spatial features
        names.append("rsfid")
    # Off at scale smoke: LPIPS needs a download.
    if trial.evaluation.lpips_network != "none":
        names.append("lpips")
    return tuple(names)


EVALUATE_RECONSTRUCTION = register(
    Stage(
        name="evaluate_reconstruction",
        version=3,
        config=EvaluateReconstructionConfig,
        read=_read,
        module="gigatok.stages.evaluate_reconstruction.run",
        label="reconstruction",
        costs=COSTS,
        inputs=where_had(TRAIN_TOKENIZER, ADOPT_TOKENIZER, EXTRACT_REFERENCE_FEATURES),
        assets=lambda t: (
            t.data.name,
            t.evaluation.network,
            f"lpips_{t.evaluation.lpips_network}",
        ),
        scores=_scores,
        judges=dict.fromkeys(("psnr", "ssim", "lpips", "rfid", "rkid"), TRAIN_TOKENIZER.name),
    )
)
