"""Field of a config whose value is one of a registry's configs, told apart by `name`.

It does what pydantic's discriminated union does, but for a registry that plug-ins add to after
the class with the field was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gigatok.config.base import Config


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
