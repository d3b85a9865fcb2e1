"""Descriptions of saved models."""

from __future__ import annotations

import pytest

from gigatok.training.saved import described_tokenizer


def test_an_architecture_whose_plugin_is_not_loaded_is_named() -> None:
    description = {"architecture": {"architecture": {"name": "conv"}}, "image_size": 16}
    with pytest.raises(ValueError, match="of architecture 'conv', which nothing here registers"):
        described_tokenizer(description)
