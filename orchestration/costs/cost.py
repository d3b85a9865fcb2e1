"""What every stage of a plan will need: FLOPs, memory, disk, and time where it was measured.

FLOPs, memory of tensors and disk are closed forms of the trial's own config; seconds rest on
records (`orchestration.costs.calibration`) of the same device and threads. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from gigatok.config import SAME_COST, Config, TrialConfig, marked
from gigatok.stages import STAGES
from orchestration.costs.calibration import Calibration, Need, Site
from orchestration.plan.graph import Plan, PlannedStage
from orchestration.runs.records import Prediction

NOMINAL_FLOPS_PER_SECOND = 4e10
"""Of one core, as measured at scale micro; where nothing is calibrated only the order counts."""
NOMINAL_FIXED_SECONDS = 3.0

Sites = Callable[[str], Site]
"""Stage name -> on what it will run."""


@dataclass(frozen=True)
class Work:
    """What a stage needs whatever it runs on.

    Attributes:
        flops: in all.
        unit_flops: at standard amounts of images and steps: tells sizes apart.
        family: what must agree for times to be comparable.
        memory_bytes: of tensors at their peak, per device; None: no closed form.
        output_bytes: what stays on disk.
        working_bytes: what goes when it is done.
    """

    flops: float
    unit_flops: float
    family: str
    memory_bytes: int | None
    output_bytes: int
    working_bytes: int


@dataclass(frozen=True)
class Cost:
    """What a stage is predicted to need.

    Attributes:
        flops: in all.
        memory_bytes: peak per device: tensors in closed form, and what a process takes beside
            them where that was measured; None: not known.
        disk_bytes: most at once, checkpoints included.
        seconds: from the worker's start to its end; None: uncalibrated.
        low: of about 95 % of such predictions.
        high: the same.
        record: what the time rests on; None: uncalibrated.
        work: what this was computed from.
    """

    flops: float
    memory_bytes: int | None
    disk_bytes: int
    seconds: float | None
    low: float | None
    high: float | None
    record: str | None
    work: Work

    def prediction(self) -> Prediction:
        """Convert to what a stage's spec records."""
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
        """Predicted time, or one of nominal rates: good for ordering only."""
        if self.seconds is not None:
            return self.seconds
        return NOMINAL_FIXED_SECONDS + self.flops / NOMINAL_FLOPS_PER_SECOND


def nominal_sites(stage: str) -> Site:
    """No device in particular: everything is uncalibrated."""
    return Site("", 1)


def predict(
    plan: Plan, calibration: Calibration | None = None, sites: Sites = nominal_sites
) -> dict[str, Cost]:
    """Predict the cost of every stage by key, in the plan's order.

    Args:
        plan: the graph; equal configs are computed once.
        calibration: the records of the runs directory.
        sites: on what each kind of stage will run.
    """
    predictor = Predictor(calibration or Calibration(), sites)
    return {key: predictor.cost(stage) for key, stage in plan.stages.items()}


def seconds_for_order(costs: Mapping[str, Cost]) -> dict[str, float]:
    """Seconds of every stage by which `orchestration.execution.scheduler` puts them in order."""
    return {key: cost.ordering_seconds for key, cost in costs.items()}


class Predictor:
    """Costs of stages; remembers those that differ in nothing that costs."""

    def __init__(self, calibration: Calibration, sites: Sites) -> None:
        self._calibration = calibration
        self._sites = cache(sites)
        self._shapes = _Shapes()
        self._costs: dict[tuple[str, tuple[int, ...]], Cost] = {}

    def cost(self, planned: PlannedStage) -> Cost:
        """Predict the cost of one stage of a plan."""
        at = (planned.stage, self._shapes.of(planned.trial))
        if at not in self._costs:
            self._costs[at] = self._cost(planned.stage, planned.trial)
        return self._costs[at]

    def _cost(self, stage: str, trial: TrialConfig) -> Cost:
        site = self._sites(stage)
        work = stage_work(stage, trial, site.processes)
        need = Need(stage, work.family, work.unit_flops, work.flops)
        found = self._calibration.estimate(need, site)
        beyond = None if found is None else found.peak_memory
        memory = work.memory_bytes
        if beyond is not None:
            memory = (memory or 0) + beyond
        return Cost(
            flops=work.flops,
            memory_bytes=memory,
            disk_bytes=work.output_bytes + work.working_bytes,
            seconds=None if found is None else found.seconds,
            low=None if found is None else found.low,
            high=None if found is None else found.high,
            record=None if found is None else found.record,
            work=work,
        )


def stage_work(stage: str, trial: TrialConfig, world: int = 1) -> Work:
    """Add up what a stage of a trial needs, whatever it runs on."""
    costs = STAGES[stage].costs
    disk = costs.disk(trial)
    return Work(
        flops=float(costs.flops(trial)),
        unit_flops=float(costs.flops(with_amounts(trial, STANDARD))),
        family=" ".join(costs.family(trial)),
        memory_bytes=costs.memory(trial, world),
        output_bytes=disk.outputs,
        working_bytes=disk.working,
    )


@dataclass(frozen=True)
class Amounts:
    """How much of everything a trial does: what cost grows with when nothing else changes."""

    steps: int
    train_images: int
    val_images: int
    images: int
    """That are reconstructed, drawn and compared."""


STANDARD = Amounts(steps=100, train_images=1000, val_images=100, images=100)


def with_amounts(trial: TrialConfig, amounts: Amounts) -> TrialConfig:
    """Give a trial other amounts; what begins or ends in training keeps its share.

    Not validated: a trial that is valid is so with fewer images and steps.
    """
    tokenizer = trial.tokenizer
    share = amounts.steps / tokenizer.steps
    update = {
        "data": {"train_images": amounts.train_images, "val_images": amounts.val_images},
        "tokenizer": {
            "steps": amounts.steps,
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


class _Shapes:
    """Numbers for configs that cost the same; ten thousand trials share a few sections."""

    def __init__(self) -> None:
        self._sections: dict[int, tuple[Config, int]] = {}
        self._numbers: dict[tuple[object, ...], int] = {}
        self._trials: dict[int, tuple[TrialConfig, tuple[int, ...]]] = {}

    def of(self, trial: TrialConfig) -> tuple[int, ...]:
        known = self._trials.get(id(trial))
        if known is None:
            shape = tuple(self._section(getattr(trial, name)) for name in _SECTIONS)
            known = self._trials[id(trial)] = (trial, shape)
        return known[1]

    def _section(self, config: Config) -> int:
        known = self._sections.get(id(config))
        if known is None:
            # The config is kept, so that its id is never used twice.
            facts = (type(config), *_facts(config))
            number = self._numbers.setdefault(facts, len(self._numbers))
            known = self._sections[id(config)] = (config, number)
        return known[1]


_SECTIONS = tuple(name for name in TrialConfig.model_fields if name != "seed")


def _facts(config: Config) -> list[object]:
    """List the values that matter; of a weight, whether there is one."""
    free = marked(type(config), SAME_COST)
    values = {n: getattr(config, n) for n in type(config).model_fields if n not in free}
    return [value > 0 if name.endswith("_weight") else value for name, value in values.items()]
