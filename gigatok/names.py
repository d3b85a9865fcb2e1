"""Every metric, parameter and tag name: the contract between who writes runs and who reads them.

Standard library only, so that `analysis` and `orchestration` can import it at no cost.
"""

from __future__ import annotations

import operator
import re
from collections import ChainMap
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import PurePath
from typing import Any, Literal

from gigatok.plugins import Registry, owner_of, registry

_SEED_WORD = re.compile(r" ?\bseed=\d+$")
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


def setting_name(trial: str) -> str:
    """Drop the seed, its last word, from a trial's name: what is left names its setting."""
    return _SEED_WORD.sub("", trial)


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
    """Quantity that a stage reports, and the only rule for how figures and tables print it.

    Attributes:
        name: key in MLflow and in the results table.
        label: words of figures and tables.
        unit: unit of the stored value, "" for a pure number.
        better: direction of an improvement; None where neither is.
        digits: decimals of a printed value.
        standard_error: key of the metric's standard error, where it has one.
        factor: printed value over stored value; a fraction is printed in percent.
        printed_unit: unit of the printed value, where `factor` makes it another one.
        log_from: an axis is logarithmic from this ratio of its largest to its smallest value on.
        share: it is a fraction of a whole: its intervals and its axes end at 0 and 1.
        column: result tables show it: `expected`, and a trial without it is reported, or only
            where it was `measured`; None: they do not. In the order of registration.
        headline: it stays in a table that has no room for all.
    """

    name: str
    label: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    digits: int = 3
    standard_error: str | None = None
    factor: float = 1.0
    printed_unit: str = ""
    log_from: float = 10.0
    share: bool = False
    column: Literal["expected", "measured"] | None = "measured"
    headline: bool = False

    @property
    def title(self) -> str:
        """Label and unit, such as `PSNR (dB)`."""
        unit = self.printed_unit or self.unit
        return f"{self.label} ({unit})" if unit else self.label

    @property
    def heading(self) -> str:
        """Title with an arrow that points to better values, such as `rFID ↓`."""
        return self.title + {"lower": " ↓", "higher": " ↑", None: ""}[self.better]

    @property
    def unit_behind(self) -> str:
        """Unit as it stands behind a printed number; empty where there is none to print."""
        # KID stands as it is logged, times 1000; its heading says so.
        unit = self.printed_unit or self.unit
        return f" {unit}" if unit not in ("", "x1000") else ""

    @property
    def difference_unit(self) -> str:
        """Unit as it stands behind a difference: 19 % and 100 % differ by 81 points."""
        return " points" if self.printed_unit == "%" else self.unit_behind

    def signed(self, difference: float, more_digits: int = 0) -> str:
        """Format a difference of stored values with its sign, without its unit."""
        # The minus sign is the mathematical one, as wide as the plus; a hyphen could break lines.
        text = f"{difference * self.factor:+.{self.digits + more_digits}f}"
        return text.replace("-", "−")

    def text(self, value: float) -> str:
        """Format a stored value for print, without its unit."""
        shown, digits = value * self.factor, self.digits
        if self.unit == PARAMETERS:  # three significant digits tell sizes apart, from 0.1 M to 3 B
            digits = 2 if abs(shown) < 10 else 1 if abs(shown) < 100 else 0
        return f"{shown:.{digits}f}"


PARAMETERS = "parameters"
"""Unit of a count of weights."""
NEVER_LOG = float("inf")


# Reported and stored, but no column of result tables.
_detail = partial(Metric, column=None)
# Weights: printed in millions, on logarithmic axes only.
_count = partial(Metric, unit=PARAMETERS, digits=0, factor=1e-6, printed_unit="M", log_from=1.0)
# A fraction of which more is better: printed in percent.
_share = partial(
    Metric,
    better="higher",
    digits=1,
    factor=100.0,
    printed_unit="%",
    log_from=NEVER_LOG,
    share=True,
)

METRICS: Registry[Metric] = registry("metric")
"""Every metric by name."""


def register(metric: Metric) -> Metric:
    """Add a metric, and return it.

    Raises:
        ValueError: another metric has the name.
    """
    return METRICS.add(metric.name, metric)


def with_computed(scores: Mapping[str, float]) -> dict[str, float]:
    """Add the tokenizer's parameters at inference to scores that have its counts."""
    # Not among the scores of the stage: those that were measured before would lack it.
    found = dict(scores)
    if {"params_total", "params_head"} <= found.keys():
        found["params_tokenizer"] = found["params_total"] - found["params_head"]
    return found


def own_metrics() -> list[dict[str, Any]]:
    """Describe the metrics that plug-ins have registered, as plain data."""
    return [asdict(m) for m in METRICS.values() if owner_of("metric", m.name) is not None]


def learn_metrics(described: Iterable[Mapping[str, Any]]) -> None:
    """Add metrics that a plug-in described where it was loaded; those known here stay."""
    for one in described:
        METRICS.setdefault(str(one["name"]), Metric(**one))


for _metric in (
    # train_tokenizer
    # At inference, which is what a user of the tokenizer runs; `with_computed` takes it from the
    # other counts.
    _count("params_tokenizer", "params at inference", column="expected"),
    _count("params_total", "params with training head", column=None),
    _count("params_encoder", "encoder params", column=None),
    _count("params_decoder", "decoder params", column=None),
    _count("params_head", "training-only params", column=None),
    # evaluate_reconstruction
    Metric("rfid", "rFID", "", "lower", 2, column="expected"),
    _detail("rsfid", "rsFID", "", "lower", 2),
    Metric("rkid", "rKID", "x1000", "lower", 1, "rkid_se", column="expected"),
    _detail("rkid_se", "rKID s.e.", "x1000", None, 1),
    Metric("psnr", "PSNR", "dB", "higher", 2, column="expected", headline=True),
    _detail("ssim", "SSIM", "", "higher"),
    _detail("ssim_reference", "SSIM (reference's)", "", "higher"),
    Metric("lpips", "LPIPS", "", "lower", column="expected"),
    _detail("effective_rank", "effective rank", "dimensions", None, 2),
    # extract_codes, on the validation codes
    _share("codebook_usage", "codebook usage", column="expected"),
    _detail("codebook_perplexity", "code perplexity", "codes", "higher", 0),
    _detail("unigram_entropy", "unigram entropy", "nats/token", log_from=NEVER_LOG),
    _detail("bigram_entropy", "bigram entropy", "nats/token", log_from=NEVER_LOG),
    _detail("trigram_entropy", "trigram entropy", "nats/token", log_from=NEVER_LOG),
    # train_generator
    _count("params_generator", "generator params", column=None),
    Metric("ar_val_loss", "AR val loss", "nats/token", "lower", column="expected", headline=True),
    _detail("ar_train_loss", "AR train loss", "nats/token", "lower"),
    # Losses of a token do not compare between numbers of tokens or codes; bits of an image do.
    Metric("ar_bits_per_image", "AR bits/image", "bits", "lower", 1),
    # evaluate_generation
    Metric("gfid", "gFID", "", "lower", 2, column="expected", headline=True),
    _detail("gsfid", "gsFID", "", "lower", 2),
    Metric("gkid", "gKID", "x1000", "lower", 1, "gkid_se", column="expected", headline=True),
    _detail("gkid_se", "gKID s.e.", "x1000", None, 1),
    _detail("inception_score", "IS", "", "higher", 2),
    _detail("precision", "precision", "", "higher", 2, share=True),
    _detail("recall", "recall", "", "higher", 2, share=True),
    # search_guidance
    Metric("gfid_best", "gFID, best guidance", "", "lower", 2),
    Metric("gkid_best", "gKID, best guidance", "x1000", "lower", 1, "gkid_best_se"),
    _detail("gkid_best_se", "gKID s.e., best guidance", "x1000", None, 1),
    Metric("best_cfg_scale", "best guidance", "", None, 2),
    # linear_probe
    _share("probe_accuracy", "probe acc.", column="expected"),
    # probe_tokenizer
    _share("tokenizer_probe_accuracy", "tokenizer probe acc.", column=None),
):
    register(_metric)

_AXES = (
    Metric("step", "training step", digits=0, log_from=NEVER_LOG),
    Metric("number", "trial, in the order of asking", digits=0, log_from=NEVER_LOG),
    Metric("importance", "importance", "share", log_from=NEVER_LOG, share=True),
    # Only published: stored in the unit that is printed.
    Metric("params_transformer", "transformer params", "M", digits=0, log_from=1.0),
    Metric("perceptual_loss", "perceptual loss", "", "lower"),
    Metric("decode_share", "time in decoder", "%", digits=1, log_from=NEVER_LOG, share=True),
    # Logged while a guidance search runs
    Metric("guidance/cfg_scale", "guidance scale", log_from=NEVER_LOG),
    Metric("guidance/gkid", "gKID while searching", "x1000", "lower", 1),
    Metric("guidance/gfid", "gFID while searching", "", "lower", 2),
    # Settings
    Metric("tokenizer.lr", "tokenizer learning rate", log_from=1.0),
    Metric("generator.lr", "generator learning rate", log_from=1.0),
    Metric("tokenizer.steps", "tokenizer training steps", digits=0),
    Metric("tokenizer.semantic_layer", "aligned decoder layer", digits=0, log_from=NEVER_LOG),
    Metric("tokenizer.semantic_weight", "semantic weight", log_from=NEVER_LOG),
    Metric("tokenizer.teacher", "teacher"),
    Metric("tokenizer.entropy_weight", "entropy weight"),
    Metric("num_latent_tokens", "latent tokens", digits=0, log_from=1.0),
)


@dataclass(frozen=True)
class Size:
    """Quantity of a trial over which trends and laws are taken: what it costs or may carry.

    Attributes:
        metric: its name, heading and unit.
        reads: columns of a trial that it is made of: scores, config keys, `computed.` params.
        of: makes it of their values; where one is missing it is missing.
    """

    metric: Metric
    reads: tuple[str, ...]
    of: Callable[..., float]


PREFIX_COMPUTED = "computed."
"""Param of a trial: `computed.NAME`, a quantity that follows from its config, by the name that
expressions of sweeps have for it."""
# On logarithmic axes only: laws are powers of sizes.
_size = partial(Metric, digits=0, log_from=1.0)
SIZES: dict[str, Size] = {
    size.metric.name: size
    for size in (
        Size(METRICS["params_tokenizer"], ("params_tokenizer",), float),
        Size(METRICS["params_generator"], ("params_generator",), float),
        Size(
            _size("flops_train", "FLOPs to train the tokenizer", "FLOPs"),
            (f"{PREFIX_COMPUTED}flops.train",),
            float,
        ),
        Size(
            _size("flops_total", "FLOPs of all stages", "FLOPs"),
            (f"{PREFIX_COMPUTED}flops.total",),
            float,
        ),
        Size(_size("tokens", "tokens", "tokens/image"), (f"{PREFIX_COMPUTED}tokens",), float),
        Size(
            _size("images_seen", "images seen by the tokenizer", "images"),
            ("tokenizer.steps", "tokenizer.batch_size"),
            operator.mul,
        ),
        Size(_size("train_images", "training images", "images"), ("data.train_images",), float),
        Size(
            _size("bits_per_image", "bits/image", "bits"),
            (f"{PREFIX_COMPUTED}bits_per_image",),
            float,
        ),
        Size(
            _size("bits_per_pixel", "bits/pixel", "bits", digits=3),
            (f"{PREFIX_COMPUTED}bits_per_image", "data.image_size"),
            lambda bits, side: bits / side**2,
        ),
    )
}
"""Everything that trends and fits are over, besides the numeric keys that a sweep varies and what
it derives. To add one, add it here; what begins with `computed.` is logged with every trial."""

# A view and not a copy: metrics may be registered later.
QUANTITIES: Mapping[str, Metric] = ChainMap(
    METRICS,
    {name: size.metric for name, size in SIZES.items()},
    {metric.name: metric for metric in _AXES},
)
"""Everything with a heading of its own: the metrics, and what else an axis or a table shows."""


def quantity(key: str) -> Metric:
    """Look up how a metric, a logged name or a config key is printed; unknown ones as they are."""
    name = key.removeprefix(TRAIN_PREFIX)  # a curve is printed as the score of the same name
    # A config key is written as users write it.
    return QUANTITIES.get(name) or Metric(name, name if "." in name else name.replace("_", " "))


@dataclass(frozen=True)
class FigureChoice:
    """Axes that the figure of a study shows; the figure chooses what is left empty.

    Attributes:
        x: a metric, a config key or `step`.
        y: metrics, or logged curves over `step`; a chart for each.
        by: config key that colour and shape tell apart.
        panel: config key with a panel for each of its values.
        where: `KEY=VALUE` or `KEY=VALUE,VALUE`, which the trials must meet to be shown.
    """

    x: str = ""
    y: tuple[str, ...] = ()
    by: str = ""
    panel: str = ""
    where: tuple[str, ...] = ()


STEADIER = {"rfid": "rkid", "gfid": "gkid", "gfid_best": "gkid_best"}
"""FID to the KID that is shown instead where both were measured: at few images FID is mostly bias
(Binkowski et al., arXiv 1801.01401), and KID has a standard error of its own."""


def steadier(names: Sequence[str], measured: Container[str]) -> tuple[str, ...]:
    """Show KID instead of FID; of several names either all, so that a plane shows one distance.

    Args:
        names: metrics to show.
        measured: metrics that have a value. A FID stays where it was measured and its KID was not.
    """
    kids = tuple(STEADIER.get(name, name) for name in names)
    pairs = zip(names, kids, strict=True)
    lacking = any(kid not in measured and fid in measured for fid, kid in pairs)
    return tuple(names) if lacking else kids


def result_columns() -> list[str]:
    """List the metrics that the result table of a sweep shows, in its order."""
    return [metric.name for metric in METRICS.values() if metric.column]


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
TAG_FIGURE = "gigatok.figure"
"""JSON of the `FigureChoice` of a sweep; empty where it leaves the figure to choose."""
TAG_GRAPH = "gigatok.graph"
"""JSON of the sweep's graph: stage -> the stages whose outputs it reads, in the order they run."""
TAG_METRICS = "gigatok.metrics"
"""JSON list of the metrics that plug-ins define, on a sweep run: readers may lack the plug-ins."""
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
TAG_FORECAST = "gigatok.forecast"
"""On a sweep run, JSON of the time left: `end` seconds (null: not known) from `made` on, UNIX
seconds, and the sentence that the launcher showed as `line`."""
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
CLAIMS_FILE = "claims.json"
"""On a sweep run, file with the claims of the sweep and when each was made."""
ARTIFACTS = "mlartifacts"
"""Folder beside a sqlite database in which the files of its runs lie."""
MLFLOW_MODE = "workflowType=machine_learning"
"""In an address of MLflow's UI, which opens in its mode for language models otherwise."""
TAG_TOKEN = "gigatok.token"
"""Unique per run, chosen before it is created: finds the run of a launcher killed meanwhile."""
PREFIX_STAGE_RUN = "gigatok.stage_run."
"""On a trial: `gigatok.stage_run.<stage>` is the id of the MLflow run of that stage."""
PREFIX_STAGE_KEY = "gigatok.stage_key."
"""On a trial: `gigatok.stage_key.<stage>` is the key of the stage."""
PREFIX_PROTOCOL = "gigatok.protocol."
"""`gigatok.protocol.<metric>`: network, images, split, guidance. Never mix two.

A trial has those that differ from its sweep's run, and those of metrics that it lacks.
"""
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
