"""Types of single values: what each allows in plain words, and its strict check by pydantic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from orchestration.yaml.source import did_you_mean, listed, show

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
MAX_WHOLE = 2**63 - 1
"""Largest whole number that tables, databases and Parquet hold; larger ones became null."""
HIGHEST = 2**32 - 1
"""Largest seed of NumPy's `RandomState`, which Optuna's samplers use."""


@dataclass(frozen=True)
class ValueType:
    """Type of a value in a file, as an annotation."""

    annotation: Any

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Strict check of one value: no text for numbers, no booleans for numbers, no NaN."""
        return TypeAdapter(self.annotation, config=_STRICT)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of one value."""
        return self.adapter.json_schema()

    @property
    def allowed(self) -> str:
        """Description of the allowed values in words."""
        return words(self.schema)

    def check(self, value: Any) -> Any:
        """Return a plain value as its type takes it.

        Raises:
            ValueError: what was given and what is allowed.
        """
        try:
            checked = self.adapter.validate_python(_integral(value))
        except ValidationError as error:
            near = did_you_mean(value, map(str, self.schema.get("enum", ())))
            cure = _notes(error) or near
            raise ValueError(f"got {show(value)}; must be {self.allowed}{cure}") from None
        # A list is checked item by item.
        parts = checked if isinstance(checked, tuple) else (checked,)
        if any(isinstance(part, int) and abs(part) > MAX_WHOLE for part in parts):
            raise ValueError(f"got {show(value)}; must be {self.allowed} and at most {MAX_WHOLE}")
        return checked


def _notes(error: ValidationError) -> str:
    """Collect what validators have added to their errors: what to write instead."""
    causes = (one.get("ctx", {}).get("error") for one in error.errors())
    return "".join(f"; {note}" for cause in causes for note in getattr(cause, "__notes__", ()))


COUNT = ValueType(PositiveInt)
ABOVE_ZERO = ValueType(PositiveFloat)
FLAG = ValueType(bool)
RANDOM_SEED = ValueType(Annotated[int, Field(ge=0, le=HIGHEST)])


def one_of(options: Iterable[str]) -> ValueType:
    """Return the type of a value that is one of a few words."""
    literal: Any = Literal
    return ValueType(literal[tuple(options)])


def words(schema: Mapping[str, Any]) -> str:
    """Describe what the JSON schema of one value allows: `a whole number of at least 1`."""
    if "anyOf" in schema:
        return " or ".join(words(option) for option in schema["anyOf"])
    if "properties" in schema:
        return f"{{{', '.join(map(_part, schema['properties'].items()))}}}"
    if "const" in schema:
        return show(schema["const"])
    if "enum" in schema:
        return f"one of {listed(map(show, schema['enum']))}"
    kind = schema["type"]
    if kind == "array":
        return f"a list, each item {words(schema['items'])}"
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    return {"boolean": "true or false", "string": "text", "null": "null"}[str(kind)]


def _part(item: tuple[str, Mapping[str, Any]]) -> str:
    """Write the part of a mapping: with its value, where only one is allowed."""
    name, schema = item
    return f"{name}: {schema['const']}" if "const" in schema else name


def _bounds(schema: Mapping[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    # For whole numbers "above 0" reads better as "of at least 1".
    if schema["type"] == "integer" and above is not None:
        low, above = above + 1, None
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    end = high if below is None else f"below {below}"
    if low is not None and end is not None:
        return f" from {low} to {end}"
    parts = (("above", above), ("of at least", low), ("at most", high))
    return " and".join(f" {word} {bound}" for word, bound in parts if bound is not None)


def _integral(value: Any) -> Any:
    """Convert lists to tuples, and floats without a fraction to integers, such as `1e6`."""
    if isinstance(value, list):
        return tuple(map(_integral, value))
    # Only finite numbers: `is_integer` is no question to ask of NaN.
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value
