"""Field of a config whose value is one of a registry's configs, told apart by `name`.

It does what pydantic's discriminated union does, but for a registry that plug-ins add to after
the class with the field was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gigatok.config.base import Config


class NamedConfig(Config):
    """Settings of one kind of thing in a registry.

    A subclass narrows `name` to its own and gives it no default: a required field is in every
    key, which is what tells two kinds with equal settings apart.
    """

    name: str
    """Kind of thing."""

    @property
    def label(self) -> str:
        """Name it in names of trials: the kind, then the settings, such as `fsq-8x5x5x5`."""
        words = [self.name]
        for name, known in type(self).model_fields.items():
            value = getattr(self, name)
            text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            if known.is_required():
                words += [text] if name != "name" else []
            elif value != known.default:
                words.append(f"{name}={text.removesuffix('.0')}")
        return "-".join(words)


def name_of(kind: type[NamedConfig]) -> str:
    """Read the name of a kind from the class of its settings.

    Raises:
        ValueError: it gives the name a default.
    """
    field = kind.model_fields["name"]
    (name,) = get_args(field.annotation)
    if not field.is_required():
        raise ValueError(
            f"{name!r}: its config gives `name` a default, so that keys would leave it out; "
            f"write `name: Literal[{name!r}]` alone"
        )
    return str(name)


@dataclass(frozen=True)
class OneOf:
    """Mark of such a field: `quantizer: Annotated[QuantizerConfig, OneOf(configs)]`.

    Attributes:
        kinds: returns the registered configs by name.
    """

    kinds: Callable[[], Mapping[str, type[Config]]]

    def read(self, value: Any) -> Config:
        """Build the config that `name` asks for; one that is built already is taken as it is.

        Raises:
            ValueError: it is no mapping with the name of a registered config, or its other parts
                do not fit.
        """
        kinds = self.kinds()
        if isinstance(value, Config) and type(value) in kinds.values():
            return value
        name = value.get("name") if isinstance(value, Mapping) else None
        if not isinstance(name, str) or name not in kinds:
            raise ValueError(f"name must be one of {', '.join(kinds)}; got {name!r}")
        return kinds[name].model_validate(value)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate by the registry, and write the fields of the value's own class."""
        written = core_schema.plain_serializer_function_ser_schema(
            lambda config, info: config.model_dump(mode=info.mode), info_arg=True
        )
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """List the schemas of all registered configs."""
        return {"anyOf": [kind.model_json_schema() for kind in self.kinds().values()]}
