"""Field of a config whose value is one of a registry's configs, told apart by `name`.

It does what pydantic's discriminated union does, but for a registry that plug-ins add to after
the class with the field was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gigatok.config.fields.base import Config
from gigatok.plugins import Registry

K = TypeVar("K", bound="NamedKind[Any]")


class NamedConfig(Config):
    """Settings of one of several kinds of a thing.

    A subclass narrows `name` to its own and gives it no default: a required field is in every
    key, which is what tells two kinds with equal settings apart.
    """

    name: str
    """Name of the kind."""

    @property
    def label(self) -> str:
        """Name it in names of trials: the kind, then the settings, such as `fsq-8x8x5`."""
        words = [self.name]
        for name, known in type(self).model_fields.items():
            value = getattr(self, name)
            text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            if known.is_required():
                words += [text] if name != "name" else []
            elif value != known.default:
                words.append(f"{name}={text.removesuffix('.0')}")
        return "-".join(words)


def name_of(config: type[NamedConfig]) -> str:
    """Return the one name that a config allows."""
    (name,) = config.model_fields["name"].annotation.__args__  # type: ignore[union-attr]
    return str(name)


C = TypeVar("C", bound=NamedConfig)


@dataclass(frozen=True)
class NamedKind(Generic[C]):
    """Kind of thing that a trial can name, with its settings.

    Attributes:
        config: its settings, whose `name` is the value by which trials choose it.
        module: `package.module:Name` of its code, imported when a stage needs it.
        example: settings beside `name` with which its contract is checked.
    """

    config: type[C]
    module: str
    example: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @property
    def name(self) -> str:
        """Value by which trials choose it."""
        return name_of(self.config)


@dataclass(frozen=True)
class NetworkKind(NamedKind[C]):
    """Kind of network that a trial can name.

    Attributes:
        layout: `package.module:function` without torch, which describes its layers; None: its
            costs are measured.
    """

    layout: str | None = None


def kind_named(value: Any, kinds: Mapping[str, K]) -> K | None:
    """Find the kind that a config, or a mapping that is to become one, names; None: there is none.

    Args:
        value: as a user gives it, which may be anything.
        kinds: kinds by name.
    """
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    return kinds.get(name) if isinstance(name, str) else None


def add_kind(kinds: Registry[K], kind: K) -> K:
    """Add a kind to its registry, and return it.

    Raises:
        ValueError: another one has the name, or its name has a default.
    """
    if not kind.config.model_fields["name"].is_required():
        raise ValueError(
            f"{kinds.kind} {kind.name!r}: its config gives `name` a default, so that keys would "
            f"leave it out; write `name: Literal[{kind.name!r}]` alone"
        )
    return kinds.add(kind.name, kind)


@dataclass(frozen=True)
class OneOf:
    """Mark of such a field: `quantizer: Annotated[QuantizerConfig, OneOf(QUANTIZERS)]`.

    Attributes:
        kinds: the registry, in which plug-ins may be added later.
    """

    kinds: Mapping[str, NamedKind[Any]]

    @property
    def configs(self) -> dict[str, type[Config]]:
        """Configs by name, as the registry is now."""
        return {name: kind.config for name, kind in self.kinds.items()}

    def read(self, value: Any) -> Config:
        """Build the config that `name` asks for; one that is built already is taken as it is.

        Raises:
            ValueError: it is no mapping with the name of a registered config, or its other parts
                do not fit.
        """
        configs = self.configs
        if isinstance(value, Config) and type(value) in configs.values():
            return value
        name = value.get("name") if isinstance(value, Mapping) else None
        if not isinstance(name, str) or name not in configs:
            raise ValueError(f"name must be one of {', '.join(configs)}; got {name!r}")
        return configs[name].model_validate(value)

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
        return {"anyOf": [config.model_json_schema() for config in self.configs.values()]}
