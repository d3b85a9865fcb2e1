from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import ValidationError

from gigatok.config.fields.base import Config
from gigatok.config.fields.open_name import NameOf
from gigatok.plugins import registry


class Fruit(Config):
    name: Annotated[str, NameOf("fruit")] = "apple"


@pytest.fixture
def fruits(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr("gigatok.plugins._REGISTRIES", {})
    fruits = registry("fruit")
    fruits["apple"] = fruits["pear"] = object()
    return fruits


def test_the_registry_decides_when_a_value_is_read(fruits: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="no fruit 'plum'; there are apple, pear"):
        Fruit(name="plum")
    fruits["plum"] = object()
    assert Fruit(name="plum").identity == '{"name":"plum"}'
    assert Fruit.model_json_schema()["properties"]["name"]["enum"] == ["apple", "pear", "plum"]


def test_a_name_is_text(fruits: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="valid string"):
        Fruit.model_validate({"name": 3})
