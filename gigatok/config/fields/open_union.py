"""Field of a config whose value is one of a registry's configs, told apart by `name`.

It does what pydantic's discriminated union does, but for a registry that plug-ins add to after
the class with the field was made.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gigatok.config.fields.base import Config

K = TypeVar("K")


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


def check_new(what: str, config: type[NamedConfig], known: Container[str]) -> None:
    """Check a config that is to be registered.

    Args:
        what: kind of thing, such as `quantizer`.
        config: settings of the new one.
        known: names that are registered.

    Raises:
        ValueError: another one has the name, or its name has a default.
    """
    name = name_of(config)
    if name in known:
        raise ValueError(f"there is a {what} {name!r} already; choose another name")
    if not config.model_fields["name"].is_required():
        raise ValueError(
            f"{what} {name!r}: its config gives `name` a default, so that keys would "
            f"leave it out; write `name: Literal[{name!r}]` alone"
        )


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
