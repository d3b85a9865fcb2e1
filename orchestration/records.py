"""The base of the JSON records in a runs directory, and the prediction that goes with a stage."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of the JSON files of a runs directory: immutable, refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Prediction(Record):
    """What a stage was predicted to need when it was launched; see `costs.cost.Cost`."""

    family: str
    unit_flops: float
    flops: float
    tensor_bytes: int | None
    memory_bytes: int | None
    disk_bytes: int
    seconds: float | None
    low: float | None
    high: float | None
    record: str | None
