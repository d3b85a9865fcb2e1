"""Cost of every stage of a plan: FLOPs, memory, disk, and time if it was measured.

FLOPs, memory of tensors and disk are closed forms of the trial's own config. Seconds rest on
records (`orchestration.costs.calibration`) of the same device and threads. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from operator import attrgetter

from gigatok.config import TrialConfig
from gigatok.stages import STAGES
from orchestration.costs.calibration import Calibration, Need, Site
from orchestration.plan.graph import Plan, PlannedStage
from orchestration.runs.records import Prediction

NOMINAL_FLOPS_PER_SECOND = 4e10
"""FLOP/s of one core, as measured at scale micro; uncalibrated, only the order counts."""
# About what imports and data take in a small stage.
NOMINAL_FIXED_SECONDS = 3.0

Sites = Callable[[str], Site]
"""Function from a stage's name to the site on which it will run."""


@dataclass(frozen=True)
class StageNeeds:
    """Needs of a stage on any device; None: its plug-in does not say.

    Attributes:
        flops: FLOPs of the whole stage.
        unit_flops: FLOPs at standard amounts of images and steps: tells sizes apart.
        family: facts that must agree for times to be comparable.
        memory_bytes: tensors at their peak, per device; None: no closed form.
        output_bytes: files that stay on disk.
        working_bytes: files that are removed at the end.
    """

    flops: float | None
    unit_flops: float | None
    family: str
    memory_bytes: int | None
    output_bytes: int | None
    working_bytes: int | None


@dataclass(frozen=True)
class Cost:
    """Predicted cost of a stage.

    Attributes:
        flops: FLOPs of the whole stage; None: not known.
        memory_bytes: peak per device: tensors in closed form, plus the rest of the process if that
            was measured; None: not known.
        disk_bytes: most at once, checkpoints included; None: not known.
        seconds: from the worker's start to its end; None: uncalibrated.
        low: lower end of the range of about 95 % of such predictions.
        high: upper end of that range.
        record: the measurement that the time rests on; None: uncalibrated.
        measured: whether that is of the same network; the time is extrapolated from another one
            otherwise.
        work: the needs that this was computed from.
    """

    flops: float | None
    memory_bytes: int | None
    disk_bytes: int | None
    seconds: float | None
    low: float | None
    high: float | None
    record: str | None
    measured: bool
    work: StageNeeds

    def prediction(self) -> Prediction:
        """Convert the cost to the record that is kept with the stage."""
        return Prediction(
            family=self.work.family,
            unit_flops=self.work.unit_flops,
            flops=self.flops,
            tensor_bytes=self.work.memory_bytes,
            memory_bytes=self.memory_bytes,
            disk_bytes=self.disk_bytes,
            seconds=self.seconds,
            low=self.low,
            high=self.high,
            record=self.record,
        )

    @property
    def ordering_seconds(self) -> float:
        """Predicted seconds, or seconds at nominal rates, which serve for ordering only."""
        return self.nominal_seconds if self.seconds is None else self.seconds

    @property
    def nominal_seconds(self) -> float:
        """Seconds at nominal rates: they compare stages of one kind, measured or not."""
        return NOMINAL_FIXED_SECONDS + (self.flops or 0.0) / NOMINAL_FLOPS_PER_SECOND

    @property
    def measured_seconds(self) -> float | None:
        """Predicted seconds if they rest on records of the same network; else None."""
        return self.seconds if self.measured else None

    @property
    def uncounted(self) -> bool:
        """Tell whether sums leave it out: no closed form, and no record of its time."""
        return self.flops is None and self.seconds is None


# Sections keep these texts, and thousands of trials share a few sections.
_built_in_cost_identity = attrgetter(
    *(f"{name}.cost_identity" for name in TrialConfig.model_fields if name != "seed")
)


def _cost_identity(trial: TrialConfig) -> tuple[str, ...]:
    added = tuple([section.cost_identity for section in trial.added.values()])
    return (*_built_in_cost_identity(trial), *added)


def nominal_sites(stage: str) -> Site:
    """Return a site without a device, on which everything is uncalibrated."""
    return Site("", 1)


def predict(
    plan: Plan, calibration: Calibration | None = None, sites: Sites = nominal_sites
) -> dict[str, Cost]:
    """Predict the cost of every stage by key, in the plan's order.

    Args:
        plan: the graph; equal configs are computed once.
        calibration: the records of the runs directory.
        sites: function from a kind of stage to the site on which it will run.
    """
    predictor = Predictor(calibration or Calibration(), sites)
    return {key: predictor.cost(stage) for key, stage in plan.stages.items()}


def seconds_for_order(costs: Mapping[str, Cost]) -> dict[str, float]:
    """Map every stage to the seconds by which the scheduler orders stages."""
    return {key: cost.ordering_seconds for key, cost in costs.items()}


class Predictor:
    """Predictor of stage costs; stages that differ in nothing that costs share one cost."""

    def __init__(self, calibration: Calibration, sites: Sites) -> None:
        self._calibration = calibration
        self._sites = cache(sites)
        self._costs: dict[tuple[str, int], Cost] = {}
        self._numbers: dict[tuple[str, ...], int] = {}
        self._known: dict[int, tuple[int, TrialConfig]] = {}

    def cost(self, planned: PlannedStage) -> Cost:
        """Predict the cost of one stage of a plan."""
        # Ten thousand trials have a few dozen different costs.
        at = (planned.stage, self._number(planned.trial))
        if at not in self._costs:
            self._costs[at] = self._cost(planned.stage, planned.trial)
        return self._costs[at]

    def _number(self, trial: TrialConfig) -> int:
        """Number trials of equal cost alike."""
        found = self._known.get(id(trial))
        if found is None:
            # Once for all stages of a trial. The trial is kept: another could get its id.
            number = self._numbers.setdefault(_cost_identity(trial), len(self._numbers))
            found = self._known[id(trial)] = number, trial
        return found[0]

    def _cost(self, stage: str, trial: TrialConfig) -> Cost:
        site = self._sites(stage)
        work = stage_work(stage, trial, site.processes)
        need = Need(stage, work.family, work.unit_flops, work.flops)
        found = self._calibration.estimate(need, site)
        # Libraries and waste differ by device, so they are measured there.
        beyond = None if found is None else found.peak_memory
        memory, disk = work.memory_bytes, work.output_bytes
        if beyond is not None:
            memory = (memory or 0) + beyond
        return Cost(
            flops=work.flops,
            memory_bytes=memory,
            disk_bytes=None if disk is None else disk + (work.working_bytes or 0),
            seconds=None if found is None else found.seconds,
            low=None if found is None else found.low,
            high=None if found is None else found.high,
            record=None if found is None else found.record,
            measured=found is not None and found.measured,
            work=work,
        )


def stage_work(stage: str, trial: TrialConfig, world: int = 1) -> StageNeeds:
    """Compute the needs of a stage of a trial, whatever device it runs on."""
    costs = STAGES[stage].costs
    if costs is None:
        return StageNeeds(None, None, "", None, None, None)
    disk = costs.disk(trial)
    return StageNeeds(
        flops=float(costs.flops(trial)),
        # The family and the FLOPs at standard amounts together identify a configuration.
        unit_flops=float(costs.flops(with_amounts(trial, STANDARD))),
        family=" ".join(costs.family(trial)),
        memory_bytes=costs.memory(trial, world),
        output_bytes=disk.outputs,
        working_bytes=disk.working,
    )


@dataclass(frozen=True)
class Amounts:
    """Amounts of images and steps: cost grows with them if nothing else changes."""

    steps: int
    train_images: int
    val_images: int
    images: int
    """Images that are reconstructed, drawn and compared."""


# Any fixed numbers do: they only make the FLOPs of two trials comparable.
STANDARD = Amounts(steps=100, train_images=1000, val_images=100, images=100)


def with_amounts(trial: TrialConfig, amounts: Amounts) -> TrialConfig:
    """Change the amounts of a trial; what begins or ends in training keeps its share.

    The result is not validated: a valid trial stays valid with fewer images and steps.
    """
    tokenizer = trial.tokenizer
    share = amounts.steps / tokenizer.steps
    update = {
        "data": {"train_images": amounts.train_images, "val_images": amounts.val_images},
        "tokenizer": {
            "steps": amounts.steps,
            # Steps count from 1, and a start of 1 means from the beginning, whatever the length.
            "discriminator_start": 1 + round(share * (tokenizer.discriminator_start - 1)),
            "shortcut_end": round(share * tokenizer.shortcut_end),
        },
        "generator": {"steps": amounts.steps},
        "sampling": {"num_images": amounts.images},
        "evaluation": {"num_images": amounts.images},
    }
    sections = {
        name: getattr(trial, name).model_copy(update=changes) for name, changes in update.items()
    }
    return trial.model_copy(update=sections)
