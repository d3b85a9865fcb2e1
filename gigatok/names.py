"""Every metric, parameter and tag name: the contract between who writes runs and who reads them.

Standard library only, so that `analysis` and `orchestration` can import it at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

MOST_NAME_BYTES = 150
"""Of a study's name: file systems allow 255 for a file, and figures and records add to it."""


def study_name(given: str) -> str:
    """Name of the study that a user means by its name or by its YAML file.

    Only `.yaml` and `.yml` end a name, so a name may hold dots, as in `lr-0.1`. A name never ends
    so itself: asking for the name of a name gives it back, wherever it comes from.

    Raises:
        ValueError: a study cannot be called so.
    """
    path = PurePath(given)
    name = path.stem if path.suffix in (".yaml", ".yml") else path.name
    if (fault := _name_fault(name)) is not None:
        raise ValueError(
            f"{given!r}: a study is named by its file without .yaml, and {name!r} {fault}; "
            "folders, MLflow and figures carry the name, so rename the file: letters, digits, "
            "spaces and signs but '/', such as lr-0.1.yaml"
        )
    return name


def is_study_name(name: str) -> bool:
    """Tell whether a study can be called so."""
    return _name_fault(name) is None


def _name_fault(name: str) -> str | None:
    """Say why a study cannot be called so; None: it can."""
    if not name:
        return "is empty"
    if name[0] in ".-":  # a hidden folder, or `..`; an option of every command
        return f"begins with {name[0]!r}"
    if name != name.strip() or not name.isprintable():
        return "holds characters that cannot be seen"
    if "/" in name or "\\" in name:
        return "holds a slash"
    if name.endswith((".yaml", ".yml")):
        return "still ends like a YAML file"
    if len(name.encode()) > MOST_NAME_BYTES:
        return f"has more than {MOST_NAME_BYTES} bytes"
    return None


@dataclass(frozen=True)
class Metric:
    """A final score of a stage.

    Attributes:
        name: key in MLflow and in the results table.
        label: what figures and tables print.
        unit: physical unit, "" for a pure number.
        better: which direction is an improvement; None where neither is.
        digits: decimals that a table prints.
        standard_error: key of the metric's standard error, where it has one.
    """

    name: str
    label: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    digits: int = 3
    standard_error: str | None = None


_METRICS = (
    # train_tokenizer
    Metric("params_total", "params", "parameters", None, 0),
    Metric("params_encoder", "encoder params", "parameters", None, 0),
    Metric("params_decoder", "decoder params", "parameters", None, 0),
    Metric("params_head", "training-only params", "parameters", None, 0),
    # evaluate_reconstruction
    Metric("rfid", "rFID", "", "lower", 2),
    Metric("rsfid", "rsFID", "", "lower", 2),
    Metric("rkid", "rKID", "x1000", "lower", 1, "rkid_se"),
    Metric("rkid_se", "rKID s.e.", "x1000", None, 1),
    Metric("psnr", "PSNR", "dB", "higher", 2),
    Metric("ssim", "SSIM", "", "higher"),
    Metric("ssim_reference", "SSIM (reference's)", "", "higher"),
    Metric("lpips", "LPIPS", "", "lower"),
    Metric("effective_rank", "effective rank", "dimensions", None, 2),
    # extract_codes, on the validation codes
    Metric("codebook_usage", "codebook usage", "", "higher"),
    Metric("codebook_perplexity", "code perplexity", "codes", "higher", 0),
    Metric("unigram_entropy", "unigram entropy", "nats/token", None),
    Metric("bigram_entropy", "bigram entropy", "nats/token", None),
    Metric("trigram_entropy", "trigram entropy", "nats/token", None),
    # train_generator
    Metric("params_generator", "AR params", "parameters", None, 0),
    Metric("ar_val_loss", "AR val loss", "nats/token", "lower"),
    Metric("ar_train_loss", "AR train loss", "nats/token", "lower"),
    Metric("ar_bits_per_image", "AR bits/image", "bits", "lower", 1),
    # evaluate_generation
    Metric("gfid", "gFID", "", "lower", 2),
    Metric("gsfid", "gsFID", "", "lower", 2),
    Metric("gkid", "gKID", "x1000", "lower", 1, "gkid_se"),
    Metric("gkid_se", "gKID s.e.", "x1000", None, 1),
    Metric("inception_score", "IS", "", "higher", 1),
    Metric("precision", "precision", "", "higher"),
    Metric("recall", "recall", "", "higher"),
    # search_guidance
    Metric("best_cfg_scale", "best guidance", "", None, 2),
    Metric("gfid_best", "gFID, best guidance", "", "lower", 2),
    Metric("gkid_best", "gKID, best guidance", "x1000", "lower", 1, "gkid_best_se"),
    Metric("gkid_best_se", "gKID s.e., best guidance", "x1000", None, 1),
    # linear_probe
    Metric("probe_accuracy", "probe acc.", "", "higher"),
    # probe_tokenizer
    Metric("tokenizer_probe_accuracy", "tokenizer probe acc.", "", "higher"),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}

RESULT_COLUMNS: list[str] = [
    "params_total",
    "rfid",
    "rkid",
    "psnr",
    "lpips",
    "codebook_usage",
    "ar_val_loss",
    "gfid",
    "gkid",
    "gfid_best",
    "gkid_best",
    "best_cfg_scale",
    "probe_accuracy",
]
"""Metrics that the result table of a sweep shows, in this order."""

OPTIONAL_COLUMNS = {"gfid_best", "gkid_best", "best_cfg_scale"}
"""Columns of stages that are off by default: no table misses them."""


def register(metric: Metric) -> Metric:
    """Add a metric, and return it; result tables show it behind the others, where it was measured.

    Raises:
        ValueError: another metric has the name.
    """
    if metric.name in METRICS:
        raise ValueError(f"there is a metric {metric.name!r} already; choose another name")
    METRICS[metric.name] = metric
    RESULT_COLUMNS.append(metric.name)
    OPTIONAL_COLUMNS.add(metric.name)
    return metric


STATES = ("WAITING", "RUNNING", "COMPLETE", "FAILED", "UPSTREAM_FAILED", "PRUNED")
"""`PRUNED`: only trials need it that a search has given up."""

TRAIN_PREFIX = "train/"
"""Prefix of the curves that a training stage logs: `train/loss`, `train/lr`, ..."""
CODE_USES = "val/codes_by_uses"
"""Histogram of codebook usage, as a curve: at step n, how many codes are used n to 2n - 1 times
(at step 0: never) on the validation images."""
GUIDANCE_PREFIX = "guidance/"
"""Prefix of the curve of a guidance search, a step per scored scale in the order of scoring:
`guidance/cfg_scale`, `guidance/gfid`, `guidance/gkid`, `guidance/gkid_se`."""
SYSTEM_PREFIX = "system/"
"""Prefix that the MLflow UI shows on its system-metrics tab."""

# MLflow tags. A run is a sweep, a trial or a stage; trials and stages are children of a sweep.
TAG_KIND = "gigatok.kind"
TAG_SWEEP = "gigatok.sweep"
TAG_SCALE = "gigatok.scale"
TAG_PLAN = "gigatok.plan_key"
TAG_TRIAL = "gigatok.trial"
"""Readable name of the trial, such as `S-B`, unique inside its plan."""
TAG_TRIAL_KEY = "gigatok.trial_key"
TAG_STAGE = "gigatok.stage"
TAG_STAGE_KEY = "gigatok.stage_key"
TAG_STATE = "gigatok.state"
TAG_QUESTION = "gigatok.question"
TAG_AXES = "gigatok.axes"
"""JSON list of the config keys that the sweep varies."""
TAG_GRAPH = "gigatok.graph"
"""JSON of the sweep's graph: stage -> the stages whose outputs it reads, in the order they run."""
TAG_LAUNCHED = "gigatok.launched"
"""UNIX seconds of the newest launch of a sweep run: readers take the newest by default."""
TAG_GIT_SHA = "gigatok.git_sha"
TAG_GIT_DIRTY = "gigatok.git_dirty"
TAG_HOST = "gigatok.host"
TAG_ATTEMPTS = "gigatok.attempts"
TAG_MICRO_BATCH = "gigatok.micro_batch"
TAG_LAUNCH_COMMAND = "gigatok.command"
TAG_ERROR = "gigatok.error"
TAG_PROGRESS = "gigatok.progress"
"""JSON of how far a running stage is: `done` of `total` `unit`, `first_done` at `first_time`, and
`time`, its last sign of life; times in UNIX seconds."""
TAG_HELD = "gigatok.held"
"""Why a gate holds a trial; empty when it does not any more."""
TAG_REFUSED = "gigatok.refused"
"""On a sweep run: why the newest launch that was refused was; empty since one was not."""
TAG_PREDICTED_SECONDS = "gigatok.predicted.seconds"
TAG_PREDICTED_LOW, TAG_PREDICTED_HIGH = "gigatok.predicted.low", "gigatok.predicted.high"
TAG_PREDICTED_MEMORY = "gigatok.predicted.memory_bytes"
TAG_PREDICTED_FLOPS = "gigatok.predicted.flops"
TAG_PREDICTED_FROM = "gigatok.predicted.from"
TAG_ACTUAL_SECONDS, TAG_ACTUAL_MEMORY = "gigatok.actual.seconds", "gigatok.actual.memory_bytes"
"""On a stage run: what its launch expected, resting on which record (`uncalibrated`: none, and no
seconds), and what it took where it ran in one go. Seconds of the worker, bytes per device. On a
sweep run `gigatok.predicted.seconds` is that of all its stages together, where all have one."""
TAG_RETIRED = "gigatok.retired"
ARTIFACTS = "mlartifacts"
"""Folder beside a sqlite database in which the files of its runs lie."""
TAG_TOKEN = "gigatok.token"
"""Unique per run, chosen before it is created: finds the run of a launcher killed meanwhile."""
PREFIX_STAGE_RUN = "gigatok.stage_run."
"""On a trial: `gigatok.stage_run.<stage>` is the id of the MLflow run of that stage."""
PREFIX_STAGE_KEY = "gigatok.stage_key."
"""On a trial: `gigatok.stage_key.<stage>` is the key of the stage."""
PREFIX_PROTOCOL = "gigatok.protocol."
"""`gigatok.protocol.<metric>`: network, images, split, guidance. Never mix two."""
PREFIX_ORIGIN = "gigatok.origin."
"""On the run of a stage that adopted weights, `gigatok.origin.sha256` and the like; on its trial
with the stage between: `gigatok.origin.adopt_tokenizer.sha256`."""
PREFIX_SEARCH = "gigatok.search."
"""Of a search. On the sweep: study, sampler, pruner, best (JSON), importances (JSON) and transfer
(JSON); on a trial: study, number, state (Optuna's) and reason."""
KIND_SWEEP, KIND_TRIAL, KIND_STAGE = "sweep", "trial", "stage"

PREFIX_DERIVED = "derived."
"""Param of a trial: `derived.NAME`, what the sweep's `derive` says of it."""
PARAM_SEED = "seed"
PARAM_TOKENIZER = "tokenizer"
"""Param of a trial: the paper's name of the tokenizer, encoder-decoder, such as `S-B`."""
