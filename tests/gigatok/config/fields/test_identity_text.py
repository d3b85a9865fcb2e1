"""The canonical text of a config: what it leaves out, and which changes of code it survives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model

from gigatok.config import RUNTIME, Config


class Inner(Config):
    width: int
    depth: int = 2
    name: Annotated[str, RUNTIME] = ""


class Outer(Config):
    inner: Inner = Inner(width=1)
    rate: float = 1.0
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None


class Vector(Config):
    kind: Literal["vector"] = "vector"
    size: int = 4


class Scalar(Config):
    kind: Literal["scalar"] = "scalar"
    size: int = 4


Quantizer = Annotated[Vector | Scalar, Field(discriminator="kind")]


def with_field(kind: type[Config], name: str, annotation: Any, default: Any) -> type[Config]:
    """The same config as a later version has it, with one field more, or another."""
    fields: Any = {name: (annotation, default)}
    return create_model(kind.__name__, __base__=kind, **fields)


def test_defaults_are_left_out() -> None:
    assert Outer().identity == "{}"
    assert Outer(rate=2.5, limit=3).identity == '{"limit":3,"rate":2.5}'
    assert Inner(width=1).identity == '{"width":1}'


def test_a_new_option_that_is_off_changes_nothing() -> None:
    later: Any = with_field(Outer, "quirk", bool, False)
    assert later(rate=2.5).identity == Outer(rate=2.5).identity
    assert later(rate=2.5, quirk=True).identity != Outer(rate=2.5).identity


def test_a_new_option_of_a_nested_config_that_is_off_changes_nothing() -> None:
    inner: Any = with_field(Inner, "quirk", bool, False)
    later: Any = with_field(Outer, "inner", inner, inner(width=1))
    assert later().identity == "{}"
    assert later(inner=inner(width=7)).identity == Outer(inner=Inner(width=7)).identity
    assert later(inner=inner(width=1, quirk=True)).identity == '{"inner":{"quirk":true,"width":1}}'


def test_a_nested_config_differs_from_the_default_of_its_field() -> None:
    given: Any = with_field(Outer, "inner", Inner, Inner(width=1, depth=9))
    assert given().identity == "{}"
    assert given(inner=Inner(width=1)).identity == '{"inner":{"width":1}}'


def test_runtime_fields_are_left_out_at_any_depth() -> None:
    assert Outer(inner=Inner(width=1, name="one")).identity == "{}"
    assert Inner(width=2, name="two").identity == Inner(width=2).identity


def test_none_is_a_value_like_any_other() -> None:
    limited: Any = with_field(Outer, "limit", int | None, 3)
    assert limited(limit=None).identity == '{"limit":null}'
    assert limited(limit=3).identity == "{}"


@pytest.mark.parametrize("rate", [2, 2.0])
def test_numbers_that_are_equal_are_written_alike(rate: float) -> None:
    as_int: Any = with_field(Outer, "rate", int, 1)
    assert Outer(rate=rate).identity == as_int(rate=2).identity == '{"rate":2}'
    # Not validated, as when costs of other amounts are computed.
    assert Outer().model_copy(update={"rate": rate}).identity == '{"rate":2}'


def test_true_is_no_number() -> None:
    flag: Any = with_field(Outer, "rate", bool | int, 1)
    assert flag(rate=True).identity == '{"rate":true}'


def test_lists_are_compared_as_a_whole() -> None:
    assert Outer(sizes=(1, 2)).identity == "{}"
    assert Outer(sizes=(2, 1)).identity == '{"sizes":[2,1]}'
    several: Any = with_field(Outer, "inners", tuple[Inner, ...], ())
    found = several(inners=(Inner(width=1), Inner(width=2, depth=3)))
    assert found.identity == '{"inners":[{"width":1},{"depth":3,"width":2}]}'


def test_constant_factories_are_defaults() -> None:
    made: Any = with_field(Outer, "made", list[int], Field(default_factory=lambda: [1]))
    assert made().identity == "{}"
    assert made(made=[2]).identity == '{"made":[2]}'


def test_what_a_factory_computes_of_other_fields_is_always_written() -> None:
    factory = Field(default_factory=lambda data: data["width"] * 2)
    made: Any = with_field(Inner, "heads", int, factory)
    assert made(width=3).identity == '{"heads":6,"width":3}'


def test_a_field_of_one_class_can_become_a_union() -> None:
    one: Any = with_field(Outer, "quantizer", Vector, Vector())
    union: Any = with_field(Outer, "quantizer", Quantizer, Vector())
    for vector in (Vector(), Vector(size=8)):
        assert union(quantizer=vector).identity == one(quantizer=vector).identity
    assert union(quantizer=Scalar()).identity == '{"quantizer":["scalar",{}]}'
    assert union(quantizer=Scalar(size=8)).identity == '{"quantizer":["scalar",{"size":8}]}'


def test_of_a_required_union_the_class_is_always_written() -> None:
    union: Any = with_field(Outer, "quantizer", Quantizer, ...)
    texts = {union(quantizer=kind()).identity for kind in (Vector, Scalar)}
    assert texts == {'{"quantizer":["vector",{}]}', '{"quantizer":["scalar",{}]}'}


def test_a_union_without_a_discriminator_is_refused() -> None:
    union: Any = with_field(Outer, "quantizer", Vector | Scalar, Vector())
    with pytest.raises(AssertionError, match=r"Outer\.quantizer: a union needs a discriminator"):
        union().identity  # noqa: B018


def test_a_copy_has_a_text_of_its_own() -> None:
    outer = Outer(rate=2.5)
    assert outer.identity == '{"rate":2.5}'
    assert outer.model_copy(update={"rate": 3.5}).identity == '{"rate":3.5}'
    assert outer == Outer(rate=2.5)
    assert outer.model_dump() == Outer(rate=2.5).model_dump()
