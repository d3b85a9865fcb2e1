"""What the stages of a sweep ask of a machine or cluster: a YAML file given as `--profile FILE`.

    default: {cpus: 4, memory_gb: 16, time_minutes: 120, slurm: {partition: main}}
    stages:
      train_tokenizer: {processes: 8, nodes: 1, gpus: 1, time_minutes: 1440}
    max_parallel: 200
    policies: {preempted: 50}

A profile is never part of a stage's identity.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
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
from pydantic_core import ErrorDetails

from gigatok.stages import STAGES
from orchestration.faults import ATTEMPTS_WITHOUT_PROGRESS, IDENTICAL_EXCEPTIONS
from orchestration.gates import Gates
from orchestration.grammar.yaml_source import did_you_mean, listed
from orchestration.state import Kind


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
    """Passed on to sbatch: partition, qos, account, constraint, gres, exclude, …."""

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
        return {stage: self._merge(self.stages.get(stage, {})) for stage in STAGES}

    def _merge(self, changes: dict[str, Any]) -> Request:
        default = self.default.model_dump()
        slurm = {**default["slurm"], **changes.get("slurm", {})}
        return Request.model_validate({**default, **changes, "slurm": slurm})


def load_profile(file: Path | None) -> Profile:
    """The profile of a file; without a file, one process and one core per stage.

    Raises:
        ValueError: cannot be read, or says something that is not allowed.
    """
    if file is None:
        return Profile()
    try:
        return Profile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise ValueError(f"--profile {file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"--profile {file}: {re.sub(chr(10) + ' *', ' ', str(error))}") from error
    except ValidationError as error:
        lines = "\n".join(f"  {_described(problem)}" for problem in error.errors())
        raise ValueError(f"--profile {file}:\n{lines}") from error


def _described(problem: ErrorDetails) -> str:
    """What is wrong in a profile: the key, what was given, what is allowed."""
    *parents, key = map(str, problem["loc"] or ("profile",))
    where = ".".join([*parents, key])
    if problem["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"default": Request, "gates": Gates}
        known = sections.get(parents[0] if parents else "", Profile).model_fields
        return f"{where}: no such key; keys: {listed(known)}{did_you_mean(key, known)}"
    given = "" if isinstance(problem["input"], dict | BaseModel) else f" {problem['input']!r}"
    return f"{where}{given}: {problem['msg']}"
