"""Resources that the stages of a sweep ask for: a YAML file given as `--profile FILE`.

    default: {cpus: 4, memory_gb: 16, time_minutes: 120, slurm: {partition: main}}
    stages:
      train_tokenizer: {processes: 8, nodes: 1, gpus: 1, time_minutes: 1440}
    max_parallel: 200
    policies: {preempted: 50}

A profile is never part of a stage's identity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from gigatok.stages import STAGES
from orchestration.execution.gates import Gates
from orchestration.runs.files import write_atomic
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
)

# An error of the code only repeats, but a NaN may come from kernels that are not deterministic.
# Halving ends at one sample by itself, and preemption is usual on shared partitions.
ATTEMPTS_WITHOUT_PROGRESS: dict[Kind, int] = {
    "exception": 1,
    "non_finite": 2,
    "out_of_memory": 8,
    "preempted": 20,
    "node_lost": 5,
    "timed_out": 3,
    "killed": 3,
    "cancelled": 1,
}
"""Kind -> attempts without progress after which a stage has failed."""
# By then the code is wrong, and stages that still wait would only repeat it.
IDENTICAL_EXCEPTIONS = 3
"""Number of stages with the same exception that holds the sweep."""
CheckOptions = Callable[[Mapping[str, Any]], None]
"""Check of what stands below a backend's key in a profile; raises ValueError."""
OptionChecks = Mapping[str, CheckOptions]
"""Backend whose name is a key in profiles -> the check of what stands below it."""


class Request(BaseModel):
    """Resources of one stage. Amounts are per process, time and nodes for the whole stage.

    A backend may have options of its own, below a key of its name; see `options`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]]

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

    def options(self, backend: str) -> Mapping[str, Any]:
        """Return what the profile says below the key of a backend."""
        assert self.__pydantic_extra__ is not None  # extra keys are allowed
        return self.__pydantic_extra__.get(backend, {})

    @model_validator(mode="wrap")
    @classmethod
    def _check_options(
        cls, given: Any, handler: ModelWrapValidatorHandler[Request], info: ValidationInfo
    ) -> Request:
        """Refuse keys of no backend and wrong options, together with whatever else is wrong."""
        checks: OptionChecks | None = info.context
        if checks is None or not isinstance(given, dict):
            return handler(given)  # made by a program, or no mapping at all
        # A key that is no field may be the name of a backend, with options of its own.
        extra = given.keys() - cls.model_fields.keys()
        problems = [
            InitErrorDetails(type="extra_forbidden", loc=(key,), input=given[key])
            for key in given
            if key in extra - checks.keys()
        ]
        for key in extra & checks.keys():
            problems += _wrong_options(key, given[key], checks[key])
        # Without the wrong keys, so that the values of the others are checked in the same run.
        known = {key: value for key, value in given.items() if key in checks or key not in extra}
        try:
            request = handler(known)
        except ValidationError as error:
            problems += _details((), error)
        if problems:
            raise ValidationError.from_exception_data("Request", problems)
        return request

    @model_validator(mode="after")
    def _check(self) -> Request:
        if self.processes % self.nodes:
            raise ValueError(f"processes {self.processes} do not spread over {self.nodes} nodes")
        if self.gpus % 1 and (self.gpus > 1 or self.processes > 1):
            raise ValueError(f"gpus {self.gpus:g}: a fraction must be below 1, with one process")
        return self


class Profile(BaseModel):
    """Cluster, as a sweep uses it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: Request = Request()
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Stage name -> what differs from `default`; options of a backend are merged key by key."""
    ray_address: str | None = None
    """Address of a running Ray cluster, such as `auto` or `host:6379`; None: that of RAY_ADDRESS;
    without it, Ray starts on this machine."""
    max_parallel: PositiveInt | None = None
    """Stages that run at the same time at most."""
    signal_delay_seconds: PositiveInt = 90
    """How long before its time limit a job is told to save a checkpoint."""
    setup: tuple[str, ...] = ()
    """Shell lines before the worker, such as `module load cuda`."""
    policies: dict[Kind, PositiveInt] = Field(default_factory=dict)
    """Kind of failure -> attempts without progress before a stage fails; see `faults`."""
    hold_after: PositiveInt = IDENTICAL_EXCEPTIONS
    """So many stages that fail with the same exception hold the sweep."""
    gates: Gates | None = None
    """Conditions on a model before its larger sibling starts; None: all start when they can."""
    predict_first: bool = True
    """The largest setting of a claim that predicts it starts when the prediction is recorded."""
    order: Literal["cheapest", "longest"] | None = None
    """Among stages that are ready: the cheapest trial first, so that small models answer before
    large ones are paid for; or the longest chain first, so that all is over soonest. None: the
    cheapest where gates wait for the answers of small models, else the longest."""

    @property
    def ready_order(self) -> Literal["cheapest", "longest"]:
        """Return the order, whether the profile names it or leaves it open."""
        return self.order or ("cheapest" if self.gates else "longest")

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: dict[str, Any]) -> dict[str, Any]:
        for name in stages:
            if name not in STAGES:
                raise ValueError(f"no stage {name!r}; stages: {', '.join(STAGES)}")
        return stages

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Profile:
        for stage, changes in self.stages.items():
            self._merge(stage, changes, info.context)
        return self

    def with_gpus(self, count: int) -> Profile:
        """Give the stages that can share their work so many GPUs, and each GPU a process.

        Raises:
            ValueError: so many do not spread over the nodes of a stage.
        """
        share = {"processes": count, "gpus": 1}
        parallel = (name for name, stage in STAGES.items() if stage.parallel)
        stages = {name: {**self.stages.get(name, {}), **share} for name in parallel}
        try:
            return Profile.model_validate({**dict(self), "stages": {**self.stages, **stages}})
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"--gpus-per-stage {count}: {why}") from error

    def request(self, stage: str) -> Request:
        """Return what a stage asks for."""
        return self._requests[stage]

    def attempts(self, kind: Kind) -> int:
        """Limit the attempts without progress of stages that end like this."""
        return self.policies.get(kind, ATTEMPTS_WITHOUT_PROGRESS[kind])

    @cached_property
    def _requests(self) -> Mapping[str, Request]:
        return {stage: self._merge(stage, self.stages.get(stage, {})) for stage in STAGES}

    def _merge(
        self, stage: str, changes: dict[str, Any], checks: OptionChecks | None = None
    ) -> Request:
        merged = {**self.default.model_dump(), **changes}
        for backend in merged.keys() - Request.model_fields.keys():
            changed = changes.get(backend)
            # What is neither a mapping nor absent is left for the validation to refuse.
            if changed is None or isinstance(changed, dict):
                merged[backend] = {**self.default.options(backend), **(changed or {})}
        try:
            return Request.model_validate(merged, context=checks)
        except ValidationError as error:
            problems = _details(("stages", stage), error)
            raise ValidationError.from_exception_data(error.title, problems) from None


def _wrong_options(backend: str, given: Any, check: CheckOptions) -> list[InitErrorDetails]:
    """List what a backend says against its options; that they are no mapping, pydantic says."""
    try:
        if isinstance(given, dict):
            check(given)
    except ValueError as error:
        problem = PydanticCustomError("value_error", "{said}", {"said": str(error)})
        return [InitErrorDetails(type=problem, loc=(backend,), input=given)]
    return []


def _details(where: tuple[str, ...], error: ValidationError) -> list[InitErrorDetails]:
    """Restate the errors of a part of the profile as errors of the whole."""
    return [
        InitErrorDetails(
            # A type of pydantic's own would want the context from which it makes its message.
            type="extra_forbidden"
            if e["type"] == "extra_forbidden"
            else PydanticCustomError(e["type"], "{said}", {"said": e["msg"]}),
            loc=(*where, *e["loc"]),
            input=e["input"],
        )
        for e in error.errors()
    ]


def load_profile(file: Path | None, checks: OptionChecks) -> Profile:
    """Read the profile of a file; without a file, one process and one core per stage.

    Args:
        file: YAML, or the JSON that `keep_profile` writes.
        checks: of the backends that have a key of their own; see `backends.profile_options`.

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
        return Profile.model_validate(_values(root, checks), context=checks)
    except ValidationError as error:
        lines = (f"  {_place(root, e['loc'])}: {_described(e, checks)}" for e in error.errors())
        raise ValueError("\n".join([f"--profile {file}:", *lines])) from error


def keep_profile(profile: Profile, folder: Path) -> Path:
    """Write a copy for jobs, because the user may change the original meanwhile."""
    text = profile.model_dump_json()
    file = folder / f"profile-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        write_atomic(file, text)
    return file


def _values(node: Node, backends: Container[str]) -> Any:
    """Convert a profile into data; options of backends stay text."""
    if not isinstance(node.value, dict):
        return node.plain()
    return {
        key: _options(item) if key in backends else _values(item, backends)
        for key, item in node.value.items()
    }


def _options(node: Node) -> Any:
    """Convert options as they were written: `010` and `1:30:00` are no numbers to a scheduler."""
    if not isinstance(node.value, dict):
        return node.plain()
    return {name: _option(item) for name, item in node.value.items()}


def _option(node: Node) -> Any:
    is_flag = node.value is None or isinstance(node.value, bool)
    return node.plain() if is_flag or node.text is None else node.text


def _place(node: Node, path: Sequence[int | str]) -> Place:
    """Find the innermost part of a path that is written in a profile."""
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


def _described(problem: ErrorDetails, checks: OptionChecks) -> str:
    """Say what is wrong in a profile: the key, what was given, what is allowed."""
    *parents, key = map(str, problem["loc"] or ("profile",))
    where = ".".join([*parents, key])
    if problem["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {
            "default": Request,
            "stages": Request,
            "gates": Gates,
        }
        section = sections.get(parents[0] if parents else "", Profile)
        known = [*section.model_fields, *(checks if section is Request else ())]
        return f"{where}: no such key; keys: {listed(known)}{did_you_mean(key, known)}"
    given = "" if isinstance(problem["input"], dict | BaseModel) else f" {problem['input']!r}"
    return f"{where}{given}: {problem['msg'].removeprefix('Value error, ')}"
