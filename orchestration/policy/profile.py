"""What the stages of a sweep ask of a machine or cluster: a YAML file given as `--profile FILE`.

    default: {cpus: 4, memory_gb: 16, time_minutes: 120, slurm: {partition: main}}
    stages:
      train_tokenizer: {processes: 8, nodes: 1, gpus: 1, time_minutes: 1440}
    max_parallel: 200
    policies: {preempted: 50}

A profile is never part of a stage's identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from gigatok.stages import STAGES
from orchestration.execution.gates import Gates
from orchestration.policy.faults import ATTEMPTS_WITHOUT_PROGRESS, IDENTICAL_EXCEPTIONS
from orchestration.runs.stage_records import Kind
from orchestration.yaml.source import (
    Node,
    Place,
    Problem,
    SweepError,
    did_you_mean,
    display,
    listed,
    read_file,
    show,
)


class Request(BaseModel):
    """What one stage asks for. Amounts are per process, time and nodes for the whole stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processes: PositiveInt = 1
    """Over all nodes; each gets torchrun's environment (RANK, WORLD_SIZE, MASTER_ADDR, …)."""
    nodes: PositiveInt = 1
    cpus: PositiveInt = 1
    gpus: float = Field(0.0, ge=0)
    """Whole devices, or a fraction of one for a stage of one process (on Ray)."""
    memory_gb: PositiveFloat | None = None
    """GiB; None: the cluster's default."""
    time_minutes: PositiveInt = 60
    device: str | None = None
    """Model name of the GPU or CPU that it gets, as `calibrate` says it; for predictions only."""
    slurm: dict[str, Any] = Field(default_factory=dict)
    """Passed on to sbatch as text: partition, qos, account, constraint, gres, exclude, …. True: an
    option without a value; False and None: not given."""

    @field_validator("slurm")
    @classmethod
    def _text(cls, slurm: dict[str, Any]) -> dict[str, Any]:
        for name, value in slurm.items():
            if not (value is None or isinstance(value, str | bool)):
                raise ValueError(f"{name} {show(value)}: must be text, or true for a bare option")
        return slurm

    @model_validator(mode="after")
    def _check(self) -> Request:
        if self.processes % self.nodes:
            raise ValueError(f"processes {self.processes} do not spread over {self.nodes} nodes")
        if self.gpus % 1 and (self.gpus > 1 or self.processes > 1):
            raise ValueError(f"gpus {self.gpus:g}: a fraction must be below 1, with one process")
        return self


class Profile(BaseModel):
    """A cluster, as a sweep uses it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: Request = Request()
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Stage name -> what differs from `default`; `slurm` is merged key by key."""
    ray_address: str | None = None
    """Of a running Ray cluster, such as `auto` or `host:6379`; None: that of RAY_ADDRESS; without
    it, Ray starts on this machine."""
    max_parallel: PositiveInt | None = None
    """Stages that run at the same time at most."""
    signal_delay_seconds: PositiveInt = 90
    """How long before its time limit a job is told to save a checkpoint."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines before the worker, such as `module load cuda`."""
    policies: dict[Kind, PositiveInt] = Field(default_factory=dict)
    """Kind of failure -> attempts without progress before a stage fails; see `faults`."""
    hold_after: PositiveInt = IDENTICAL_EXCEPTIONS
    """So many stages that fail with the same exception hold the sweep."""
    gates: Gates | None = None
    """What a model must do before its larger sibling starts; None: all start when they can."""
    order: Literal["cheapest", "longest"] | None = None
    """Among stages that are ready: the cheapest trial first, so that small models answer before
    large ones are paid for; or the longest chain first, so that all is over soonest. None: the
    cheapest where gates wait for the answers of small models, else the longest."""

    @property
    def ready_order(self) -> Literal["cheapest", "longest"]:
        """The order, whether the profile names it or leaves it open."""
        return self.order or ("cheapest" if self.gates else "longest")

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: dict[str, Any]) -> dict[str, Any]:
        for name in stages:
            if name not in STAGES:
                raise ValueError(f"no stage {name!r}; stages: {', '.join(STAGES)}")
        return stages

    @model_validator(mode="after")
    def _check(self) -> Profile:
        assert self._requests  # every stage's request is valid
        return self

    def request(self, stage: str) -> Request:
        """What a stage asks for."""
        return self._requests[stage]

    def attempts(self, kind: Kind) -> int:
        """Attempts without progress after which a stage that ends like this has failed."""
        return self.policies.get(kind, ATTEMPTS_WITHOUT_PROGRESS[kind])

    @cached_property
    def _requests(self) -> Mapping[str, Request]:
        return {stage: self._merge(stage, self.stages.get(stage, {})) for stage in STAGES}

    def _merge(self, stage: str, changes: dict[str, Any]) -> Request:
        default, slurm = self.default.model_dump(), changes.get("slurm")
        if slurm is None or isinstance(slurm, dict):
            slurm = {**default["slurm"], **(slurm or {})}
        try:
            return Request.model_validate({**default, **changes, "slurm": slurm})
        except ValidationError as error:
            raise _below(("stages", stage), error) from None


def _below(where: tuple[str, ...], error: ValidationError) -> ValidationError:
    """The same errors, of a part of the profile."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(e["type"], "{said}", {"said": e["msg"]}),
            loc=(*where, *e["loc"]),
            input=e["input"],
        )
        for e in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, details)


def load_profile(file: Path | None) -> Profile:
    """The profile of a file; without a file, one process and one core per stage.

    Raises:
        ValueError: cannot be read, or says something that is not allowed.
    """
    if file is None:
        return Profile()
    problems: list[Problem] = []
    try:
        root = read_file(file, "profile", tuple(Profile.model_fields), problems)
        if problems:
            raise SweepError(display(file), problems)
    except SweepError as error:
        raise ValueError(f"--profile {error}") from None
    try:
        return Profile.model_validate(_values(root))
    except ValidationError as error:
        lines = (f"  {_place(root, e['loc'])}: {_described(e)}" for e in error.errors())
        raise ValueError("\n".join([f"--profile {file}:", *lines])) from error


def _values(node: Node) -> Any:
    """Values of a profile as data; those below `slurm` as text."""
    if not isinstance(node.value, dict):
        return node.plain()
    items = node.value.items()
    return {key: _options(item) if key == "slurm" else _values(item) for key, item in items}


def _options(node: Node) -> Any:
    """Options of sbatch as they were written: `010` and `1:30:00` are no numbers to it."""
    if not isinstance(node.value, dict):
        return node.plain()
    return {name: _option(item) for name, item in node.value.items()}


def _option(node: Node) -> Any:
    is_flag = node.value is None or isinstance(node.value, bool)
    return node.plain() if is_flag or node.text is None else node.text


def _place(node: Node, path: Sequence[int | str]) -> Place:
    """Where the innermost part of a path that is written in a profile is."""
    place = node.place
    for key in path:
        value = node.value
        if isinstance(value, dict) and key in value:
            node = value[str(key)]
        elif isinstance(value, tuple) and isinstance(key, int):
            node = value[key]
        else:
            break
        place = node.key_place
    return place


def _described(problem: ErrorDetails) -> str:
    """What is wrong in a profile: the key, what was given, what is allowed."""
    *parents, key = map(str, problem["loc"] or ("profile",))
    where = ".".join([*parents, key])
    if problem["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {
            "default": Request,
            "stages": Request,
            "gates": Gates,
        }
        known = sections.get(parents[0] if parents else "", Profile).model_fields
        return f"{where}: no such key; keys: {listed(known)}{did_you_mean(key, known)}"
    given = "" if isinstance(problem["input"], dict | BaseModel) else f" {problem['input']!r}"
    return f"{where}{given}: {problem['msg'].removeprefix('Value error, ')}"
