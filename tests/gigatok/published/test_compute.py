import pytest

from gigatok.config import GeneratorArchitecture
from gigatok.costs.training import generator_training_flops
from gigatok.published.compute import published_utilisation
from gigatok.published.sizes import GENERATOR_SIZES


def test_the_published_cost_of_the_generator_implies_a_low_utilisation() -> None:
    """170 h on 64 V100s are 25 times what GPT-L's training needs at the V100s' peak."""
    assert 0.03 < published_utilisation() < 0.05
    size = GENERATOR_SIZES["L"]
    per_image = generator_training_flops(GeneratorArchitecture(size=size), 16384, 256)
    assert per_image == pytest.approx(6 * 343e6 * 256, rel=0.05)
