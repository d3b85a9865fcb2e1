"""Field of a config whose value is a name in a registry, such as `data.name`.

It does what a `Literal` of the names does, but for a registry that plug-ins add to after the
class with the field was made. Imports no config, since all configs may use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gigatok.plugins import registry


@dataclass(frozen=True)
class NameOf:
    """Mark of such a field: `name: Annotated[str, NameOf("data set")]`.

    Keys of stages hold the identity of the plug-in that the name belongs to.

    Attributes:
        kind: the registry, by the name that `gigatok.plugins.registry` knows it by.
    """

    kind: str

    def check(self, name: str) -> str:
        """Return the name if the registry has it.

        Raises:
            ValueError: it has not.
        """
        known = registry(self.kind)
        if name not in known:
            raise ValueError(f"no {self.kind} {name!r}; there are {', '.join(sorted(known))}")
        return name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate by the registry as it is at that time."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """List the names, which messages and editors read."""
        return {**handler(schema), "enum": list(registry(self.kind))}
