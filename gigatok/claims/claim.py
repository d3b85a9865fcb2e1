"""Claims of a sweep after planning: statements about results of named settings.

A setting is a trial without its seed. A sweep's file says a claim in words; planning finds the
settings that it is about, and this is what it records, before any of them has run.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from gigatok.config import Config
from gigatok.config.fields.base import UnixTime

Kind = Literal["trend", "order", "difference", "equivalence", "prediction"]
FEWEST_ARMS: dict[Kind, int] = {
    # A line through two sizes leaves nothing that would show chance.
    "trend": 3,
    "order": 2,
    "difference": 2,
    "equivalence": 2,
    # As a power law needs three sizes, and one more is predicted.
    "prediction": 4,
}


class Looks(Config):
    """Numbers of seeds at which claims are looked at: `start`, then each one up to `at_most`."""

    start: Annotated[int, Field(ge=2)]
    """Seeds of every setting before the first look; one seed decides nothing."""
    at_most: Annotated[int, Field(ge=2)]
    """Seeds of a setting after which its claims stay as they are."""

    @model_validator(mode="after")
    def _ordered(self) -> Looks:
        if self.at_most < self.start:
            raise ValueError(f"at_most {self.at_most} is below start {self.start}")
        return self


class Arm(Config):
    """Setting that a claim is about.

    Attributes are those of the plan: a result is found by the setting's name.
    """

    setting: str
    """Name of the setting: its trials' name without the seed."""
    x: float | None = None
    """Value of the quantity that a trend or a prediction is over."""


class Claim(Config):
    """A statement, the settings that it is about, and the margin by which it is judged."""

    name: str
    """Key of the claim in the sweep's file."""
    text: str
    """The claim in the file's words."""
    kind: Kind
    """`trend`: over a quantity, beyond these sizes; `order`: step by step among these settings;
    `difference`, `equivalence`: of two settings; `prediction`: of the largest by the others."""
    metric: str
    """Result that it is about."""
    rises: bool = True
    """Direction of a trend, an order or a difference: the second arm is higher."""
    margin: NonNegativeFloat = 0.0
    """Least difference of interest; of an equivalence the largest that is none; of a prediction
    the largest relative error."""
    families: Annotated[tuple[tuple[Arm, ...], ...], Field(min_length=1)]
    """Series of settings that differ in nothing but what the claim compares; it is about all."""

    @model_validator(mode="after")
    def _enough_arms(self) -> Claim:
        fewest = FEWEST_ARMS[self.kind]
        for family in self.families:
            if len(family) < fewest:
                names = ", ".join(arm.setting for arm in family)
                raise ValueError(
                    f"a {self.kind} needs {fewest} settings that differ in "
                    f"nothing else; there are {len(family)}: {names}"
                )
        return self

    @property
    def decided_by_seeds(self) -> bool:
        """Tell whether more seeds of its settings help; else it takes more sizes."""
        return self.kind in ("difference", "equivalence", "order")

    @property
    def settings(self) -> tuple[str, ...]:
        """List every setting that it is about, once."""
        return tuple(dict.fromkeys(arm.setting for family in self.families for arm in family))


class Extrapolation(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Value of a claim's largest setting by the law through the smaller ones, once they had run.

    Attributes:
        value: of the claim's metric, by the power law through the smaller settings.
        low: lower end of the 95 % interval of one further setting.
        high: its upper end; both are `value` where the smaller settings lie on the law exactly.
        at: UNIX seconds.
        begun: whether the largest setting had begun by then.
    """

    value: float
    low: float
    high: float
    at: UnixTime
    begun: bool


class Claimed(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Claim, and when it was made.

    Attributes:
        looks: how often results were to be looked at; None: once.
        identity: hash of what it says of which settings at which scale, and of the looks; its name
            is not in it.
        at: UNIX seconds of the first launch with it.
        results: results of its metric and settings that were there by then.
        prediction: of a claim of that kind, once its smaller settings have run.
    """

    claim: Claim
    looks: Looks | None
    identity: str
    at: UnixTime
    results: NonNegativeInt
    prediction: Extrapolation | None = None


CLAIMED = TypeAdapter(tuple[Claimed, ...])


def parse_claimed(content: bytes, file: str) -> tuple[Claimed, ...]:
    """Read the claims of a study from a JSON list.

    Args:
        content: the list.
        file: where it is from, for the error.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    try:
        return CLAIMED.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{file} cannot be read: {place or 'text'}: {first['msg']}") from error
