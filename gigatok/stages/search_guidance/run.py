"""Find the guidance scale at which a generator scores best, and score it there.

gFID means little at one scale for all: the best scale depends on the model. So every trial is
searched alike (`gigatok.scores.guidance_search`), on samples that are used for nothing else. The
scores it reports are of other samples: those that `evaluate_generation` draws at its fixed scale.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gigatok.config import GuidanceConfig, SamplingConfig
from gigatok.data.pictures import image_grid
from gigatok.files.durable import Damaged, read_checked, remove, write_checked, write_text_durably
from gigatok.models.frozen.features import FeatureNetwork, build_feature_network
from gigatok.names import GUIDANCE_PREFIX
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.distributed import barrier
from gigatok.runtime.tracker import Tracker
from gigatok.scores.feature_sets import FeatureSet
from gigatok.scores.guidance_search import ScoredScale, at_edge, best, next_scale, to_csv
from gigatok.scores.sample_sets import Draw, Models, draw_set
from gigatok.scores.scoring import describe_kid, distribution_scores
from gigatok.stages.evaluate_generation.run import guidance, load_reference_of
from gigatok.stages.models import generator_of, tokenizer_of
from gigatok.stages.search_guidance.spec import SearchGuidanceConfig

if TYPE_CHECKING:
    from gigatok.runtime.tracker import Image

CURVE_FILE = "guidance.csv"
_SCORED_FILE = "scored.json"

_log = logging.getLogger(__name__)


def run(
    config: SearchGuidanceConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Search and score; leaves the curve as `guidance.csv`.

    Metrics: the best scale, and gFID and gKID there. Every scored scale is kept among the
    checkpoints, so a killed search repeats at most one.

    Raises:
        ValueError: the objective is KID, and the reference has no images.
    """
    scorer = _Scorer.build(config, inputs, tracker, runtime)
    tuning = config.guidance
    # The next scale is a function of those scored, so a resumed search goes the same way.
    while (scale := next_scale(tuning, scored := scorer.scored())) is not None:
        drawn = Draw(_at(config.sampling, scale, tuning.num_images), tuning.seed, "tuning")
        scorer.score(drawn, scored)
    chosen = best(tuning, scored)
    samples = config.sampling.num_images
    # Other samples than those that decided: the best of several scores is biased.
    scores = scorer.report(Draw(_at(config.sampling, chosen.cfg_scale, samples), config.seed))
    # The first process alone reports.
    if scores is None:
        return Scores()
    output_dir.mkdir(parents=True, exist_ok=True)
    write_text_durably(output_dir / CURVE_FILE, to_csv(scored))
    return _named(config, chosen, scores, scorer)


@dataclass(frozen=True)
class _Scorer:
    """Draws at a scale and compares with the reference; remembers what it has scored."""

    config: SearchGuidanceConfig
    models: Models
    network: FeatureNetwork
    reference: FeatureSet
    reference_name: str
    tracker: Tracker
    runtime: Runtime

    @staticmethod
    def build(
        config: SearchGuidanceConfig,
        inputs: Mapping[str, Path],
        tracker: Tracker,
        runtime: Runtime,
    ) -> _Scorer:
        """Load everything that is the same at all scales."""
        evaluation = config.evaluation
        network = build_feature_network(evaluation.network, evaluation.resolution, runtime.device)
        reference, name = load_reference_of(evaluation, inputs, network)
        if config.guidance.objective == "gkid" and reference.pool is None:
            raise ValueError(
                f"guidance.objective gkid needs images to compare with, and {name} holds "
                "statistics only; take guidance.objective gfid"
            )
        folders = tokenizer_of(inputs), generator_of(inputs)
        models = Models.load(*folders, config.sampling, runtime.device)
        return _Scorer(config, models, network, reference, name, tracker, runtime)

    @property
    def file(self) -> Path:
        """File in which the scored scales are kept."""
        return self.runtime.checkpoint_dir / _SCORED_FILE

    def scored(self) -> list[ScoredScale]:
        """Read the scales scored so far, in order; the same in all processes."""
        # Behind the barrier all processes read what the first has written.
        barrier()
        if not self.file.exists():
            return []
        try:
            return [ScoredScale.model_validate(point) for point in read_checked(self.file)]
        except Damaged as damaged:
            # All processes read the same file, so all begin anew.
            _log.warning("%s: %s; the search begins anew, and finds the same", self.file, damaged)
            return []

    def score(self, draw: Draw, before: Sequence[ScoredScale]) -> None:
        """Score one more scale and keep it behind those scored before."""
        # The first process alone has scores; the others wait at the barrier of `scored`.
        metrics = self._compare(draw, len(before))
        if metrics is None:
            return
        point = ScoredScale(
            cfg_scale=draw.sampling.cfg_scale,
            gfid=metrics["gfid"],
            gkid=metrics.get("gkid"),
            gkid_se=metrics.get("gkid_se"),
        )
        found = point.model_dump(exclude_none=True)
        # Before it is kept: a point may be logged twice, but never be missing.
        self.tracker.metrics({GUIDANCE_PREFIX + name: v for name, v in found.items()}, len(before))
        self.tracker.sync()
        if self.file.is_dir():
            remove(self.file)
        write_checked(self.file, [kept.model_dump() for kept in [*before, point]])

    def report(self, draw: Draw) -> Mapping[str, float] | None:
        """Scores of the samples that count; None in all processes but the first."""
        most = self.config.guidance.most_scales
        return self._compare(draw, most, "samples_at_best_guidance")

    def _compare(
        self, draw: Draw, scales: int, picture: str | None = None
    ) -> Mapping[str, float] | None:
        """Draw and compare, behind so many scales."""
        folder, guidance = self.runtime.checkpoint_dir / "drawn", self.config.guidance
        images = guidance.num_images
        # All of the search, so that the progress shown never jumps back.
        whole = guidance.most_scales * images + self.config.sampling.num_images
        part = _Part(self.tracker, scales * images, draw.sampling.num_images, whole)
        drawn = draw_set(draw, self.models, self.network, folder, part, self.runtime)
        if drawn is None:
            return None
        samples, features = drawn
        if picture is not None:
            # 8 rows of 8 samples.
            self.tracker.image(picture, image_grid(np.asarray(samples[:64]), columns=8), 0)
        return distribution_scores("g", features, self.reference, "").metrics


@dataclass(frozen=True)
class _Part:
    """A tracker to which a draw is a part of the whole search, as it is to who waits for it.

    Attributes:
        before: images of the draws before.
        images: of this draw, in all processes.
        whole: of all draws; more if a hill climb is badly led.
    """

    tracker: Tracker
    before: int
    images: int
    whole: int

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.tracker.metrics(values, step)

    def image(self, name: str, image: Image, step: int) -> None:
        self.tracker.image(name, image, step)

    def progress(self, done: int, total: int, unit: str, **values: float) -> None:
        drawn = self.before + self.images * done // total
        # A hill climb may need more scales than predicted.
        whole = max(self.whole, self.before + self.images)
        self.tracker.progress(drawn, whole, unit, **values)

    def sync(self) -> None:
        self.tracker.sync()


def _at(sampling: SamplingConfig, scale: float, images: int) -> SamplingConfig:
    return sampling.model_copy(update={"cfg_scale": scale, "num_images": images})


def _named(
    config: SearchGuidanceConfig, chosen: ScoredScale, found: Mapping[str, float], scorer: _Scorer
) -> Scores:
    """Scores at the best scale under their own names, with how the scale was found."""
    # Other names than those of the fixed scale: both are in the same table.
    names = {"gfid": "gfid_best", "gkid": "gkid_best", "gkid_se": "gkid_best_se"}
    values = {names[name]: value for name, value in found.items() if name in names}
    values["best_cfg_scale"] = chosen.cfg_scale
    tuning, sampling = config.guidance, config.sampling
    against = f"{scorer.network.name}, {sampling.num_images} samples"
    protocol = (
        f"{against} ({_schedule(sampling)}) vs {scorer.reference_name}; "
        f"scale of the lowest {_search(tuning)}"
    )
    protocols = dict.fromkeys(values, protocol)
    if "gkid_best" in values:
        protocols["gkid_best"] = f"{protocol}; {describe_kid(paired=False)}"
    protocols["best_cfg_scale"] = f"{_schedule(sampling)}, lowest {_search(tuning)}"
    if at_edge(tuning, chosen.cfg_scale):
        protocols["best_cfg_scale"] += "; at the edge of the space, a better one may lie beyond"
    return Scores(values, protocols)


def _schedule(sampling: SamplingConfig) -> str:
    """Guidance in words, whatever its scale."""
    # Any scale above 1 gives the words; the number is replaced.
    words = guidance(sampling.model_copy(update={"cfg_scale": 2.0}))
    return words.replace("guidance 2", "guidance at its best scale", 1)


def _search(tuning: GuidanceConfig) -> str:
    """Say in words how the scale is found."""
    how = f"hill climb from {tuning.start:g} in steps of {tuning.step:g}"
    if tuning.search == "grid":
        how = f"grid of {tuning.coarse} and {tuning.refine} golden sections"
    objective = {"gkid": "gKID", "gfid": "gFID"}[tuning.objective]
    space = f"in {tuning.low:g} to {tuning.high:g}"
    return f"{objective} of {tuning.num_images} other samples ({how}, {space})"
