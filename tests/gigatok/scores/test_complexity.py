"""Measures of complexity on codes and latents whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gigatok.scores.complexity import LatentSpread, ngram_entropies


def test_uniform_independent_codes_cost_log_of_the_codebook() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (3000, 32))
    found = ngram_entropies(codes[:2500], codes[2500:], 16)
    assert found[2] / math.log(2) == pytest.approx(4, abs=0.01)
    assert 4 < found[3] / math.log(2) < 4.2, "4096 contexts from 75000 tokens cost a little"


@pytest.mark.parametrize("stay", [0.5, 0.9])
def test_markov_chain_costs_its_entropy_rate(stay: float) -> None:
    """From each of K states: to itself with probability `stay`, else to any other alike."""
    states, tokens = 8, 64
    rng = np.random.default_rng(1)
    moves = rng.random((4000, tokens)) >= stay
    steps = np.where(moves, rng.integers(1, states, moves.shape), 0)
    steps[:, 0] = rng.integers(0, states, len(steps))
    codes = steps.cumsum(1) % states
    leave = 1 - stay
    rate = -stay * math.log(stay) - leave * math.log(leave / (states - 1))
    expected = (math.log(states) + (tokens - 1) * rate) / tokens
    found = ngram_entropies(codes[:3000], codes[3000:], states, (1, 2, 3))
    assert found[1] == pytest.approx(math.log(states), rel=1e-3)
    assert found[2] == pytest.approx(expected, rel=0.01)
    assert found[3] == pytest.approx(expected, rel=0.02)


def test_second_order_structure_shows_in_trigrams_only() -> None:
    """Each token is the sum of the two before it: bigrams see nothing, trigrams all."""
    codes = np.random.default_rng(2).integers(0, 7, (4000, 20))
    for t in range(2, 20):
        codes[:, t] = (codes[:, t - 1] + codes[:, t - 2]) % 7
    found = ngram_entropies(codes[:3000], codes[3000:], 7)
    assert found[2] == pytest.approx(math.log(7), rel=0.01)
    assert found[3] == pytest.approx(2 / 20 * math.log(7), rel=0.05)


def test_few_codes_never_look_predictable() -> None:
    """Codes are random and far fewer than the cells; counting and reading the same would say 0."""
    codes = np.random.default_rng(3).integers(0, 512, (200, 16))
    found = ngram_entropies(codes[:100], codes[100:], 512)
    assert found[2] > math.log(512)
    assert found[3] > math.log(512)


def test_probabilities_sum_to_one() -> None:
    rng = np.random.default_rng(4)
    train = rng.integers(0, 5, (6, 4))
    context = train[0, :2]
    all_next = np.array([[*context, code] for code in range(5)])
    short = np.array([[*context]])
    bits = [ngram_entropies(train, row[None], 5, (3,))[3] * 3 for row in all_next]
    prefix = ngram_entropies(train, short, 5, (3,))[3] * 2
    assert sum(math.exp(prefix - total) for total in bits) == pytest.approx(1)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_latents_of_known_rank(rank: int) -> None:
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.normal(size=(8, 8)))[0][:rank]
    spread = LatentSpread()
    for _ in range(20):
        spread.add(rng.normal(size=(1000, rank)) @ basis + 3.0)
    assert spread.effective_rank() == pytest.approx(rank, rel=1e-3)


def test_unequal_directions_count_by_their_standard_deviation() -> None:
    rng = np.random.default_rng(6)
    spread = LatentSpread()
    spread.add(rng.normal(size=(200_000, 2)) * [3.0, 1.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert spread.effective_rank() == pytest.approx(math.exp(entropy), rel=0.01)


def test_equal_latents_have_no_rank() -> None:
    spread = LatentSpread()
    spread.add(np.full((10, 3), 0.1))
    assert spread.effective_rank() == 0
