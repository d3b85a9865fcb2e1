import math

import pytest
import torch
from transformers import MinPLogitsWarper

from gigatok.config import SamplingConfig
from gigatok.scores.samplers import (
    draw,
    filter_min_p,
    filter_top_k,
    filter_top_p,
    find_sampler,
)

INF = math.inf


def shares(probabilities: list[float], **changes: object) -> list[float]:
    """Draw often, and count how often each code came."""
    config = SamplingConfig.model_validate({"num_images": 4, **changes})
    logits = torch.tensor(probabilities).log().expand(20_000, -1)
    codes = find_sampler(config)(logits, config, torch.Generator().manual_seed(0))
    return (codes.bincount(minlength=len(probabilities)) / len(codes)).tolist()


def test_top_k() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 5.0]])
    assert filter_top_k(logits, 2).tolist() == [[-INF, 3.0, 2.0], [5.0, -INF, 5.0]]
    assert filter_top_k(logits, 0) is logits
    assert filter_top_k(logits, 7) is logits


def test_top_p_keeps_the_code_that_crosses_the_threshold() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    kept = filter_top_p(logits, 0.6).isfinite()
    assert kept.tolist() == [[False, True, False, True]]
    assert filter_top_p(logits, 0.01).isfinite().sum() == 1
    assert filter_top_p(logits, 1.0) is logits


def test_draws_follow_the_tempered_distribution() -> None:
    assert shares([0.2, 0.8]) == pytest.approx([0.2, 0.8], abs=0.02)
    sharp = [0.04 / 0.68, 0.64 / 0.68]
    assert shares([0.2, 0.8], temperature=0.5) == pytest.approx(sharp, abs=0.02)


def test_min_p_is_relative_to_the_likeliest_code() -> None:
    """The threshold is 0.2 x 0.5 after the likeliest, so a confident model is cut harder."""
    logits = torch.tensor([[0.5, 0.3, 0.11, 0.09], [0.97, 0.01, 0.01, 0.01]]).log()
    kept = filter_min_p(logits, 0.2).isfinite()
    assert kept.tolist() == [[True, True, True, False], [True, False, False, False]]
    assert filter_min_p(logits, 1.0).isfinite().sum() == 2


def test_min_p_is_that_of_its_authors() -> None:
    logits = 3 * torch.randn(64, 500, generator=torch.Generator().manual_seed(0))
    theirs = MinPLogitsWarper(0.07)(torch.zeros(64, 1, dtype=torch.long), logits)
    assert torch.equal(filter_min_p(logits, 0.07), theirs)


def test_min_p_draws_what_is_left_in_proportion() -> None:
    sampler = {"name": "min_p", "min_p": 0.2}
    drawn = shares([0.5, 0.3, 0.11, 0.09], sampler=sampler)
    assert drawn == pytest.approx([0.5 / 0.91, 0.3 / 0.91, 0.11 / 0.91, 0], abs=0.02)
    # A temperature comes first: the square root of 0.09 / 0.5 is above 0.2.
    hot = shares([0.5, 0.3, 0.11, 0.09], sampler=sampler, temperature=2.0)
    roots = [math.sqrt(p) for p in (0.5, 0.3, 0.11, 0.09)]
    assert hot == pytest.approx([root / sum(roots) for root in roots], abs=0.02)


def test_drawn_codes_are_those_of_multinomial() -> None:
    logits_BV = torch.randn(50, 300, generator=torch.Generator().manual_seed(1)) * 3
    logits_BV[:, ::7] = -INF
    first, second = (torch.Generator().manual_seed(2) for _ in range(2))
    expected_B1 = torch.multinomial(logits_BV.softmax(-1), 1, generator=first)
    assert torch.equal(draw(logits_BV, second), expected_B1.squeeze(1))
