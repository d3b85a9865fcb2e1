"""How complex a tokenizer's latents are, without training a generator on them.

N, M images, T tokens, K codes, C latent channels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
NGRAM_ORDERS = (2, 3)
"""Tokens that the longest n-gram spans; with more, nearly every context is new."""


def ngram_entropies(
    train_NT: Int64, val_MT: Int64, codebook_size: int, orders: tuple[int, ...] = NGRAM_ORDERS
) -> dict[int, float]:
    """Cross-entropy of n-gram models in nats per token: order to loss on `val_MT`.

    Conditional entropies that are counted and read off the same codes are far too low when there
    are fewer tokens than K^n cells. So the models are counted on one set and scored on another,
    which bounds the entropy rate from above and compares with the AR loss as it is. Smoothing is
    that of Witten and Bell (IEEE Trans. Inf. Theory 37(4), 1991, method C), which has no setting:
    an unseen continuation of a context has the share of its distinct continuations among its
    counts, divided as the next shorter context says. The first tokens have shorter contexts.
    """
    assert codebook_size ** max(orders) < 2**63, "an n-gram must fit into 64 bits"
    probability_MT = np.full(val_MT.shape, 1 / codebook_size)
    found = {}
    for order in range(1, max(orders) + 1):
        _sharpen(probability_MT, train_NT, val_MT, codebook_size, order)
        if order in orders:
            found[order] = float(-np.log(probability_MT).mean())
    return found


def _sharpen(
    lower_MT: Float64, train_NT: Int64, val_MT: Int64, codebook_size: int, order: int
) -> None:
    """Replace, in place, the probabilities of one order less by those of this order."""
    if order > val_MT.shape[1]:
        return
    grams, counts = np.unique(_grams(train_NT, codebook_size, order), return_counts=True)
    contexts, first, distinct = np.unique(
        grams // codebook_size, return_index=True, return_counts=True
    )
    totals = np.add.reduceat(counts, first)
    wanted = _grams(val_MT, codebook_size, order)
    count = _look_up(wanted, grams, counts)
    seen = _look_up(wanted // codebook_size, contexts, totals)
    kinds = _look_up(wanted // codebook_size, contexts, distinct)
    lower = lower_MT[:, order - 1 :]
    known = seen > 0
    lower[known] = ((count + kinds * lower) / np.maximum(seen + kinds, 1))[known]


def _grams(codes_NT: Int64, codebook_size: int, order: int) -> Int64:
    """Every n-gram inside an image as one number in base K, (N, T - order + 1)."""
    width = codes_NT.shape[1] - order + 1
    grams = np.zeros((len(codes_NT), width), np.int64)
    for offset in range(order):
        grams = grams * codebook_size + codes_NT[:, offset : offset + width]
    return grams


def _look_up(wanted: Int64, keys: Int64, values: Int64) -> Int64:
    """Values of sorted keys; 0 for a key that is not there."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: Int64 = np.where(keys[place] == wanted, values[place], 0)
    return found


class LatentSpread:
    """Second moments of latents that come in batches."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Float64 | float = 0.0
        self._outer: Float64 | float = 0.0

    def add(self, latents_MC: Float64) -> None:
        """Take in a batch of latents."""
        self._count += len(latents_MC)
        self._sum = self._sum + latents_MC.sum(0)
        self._outer = self._outer + latents_MC.T @ latents_MC

    def effective_rank(self) -> float:
        """Exp of the entropy of the normalised singular values of the centred latents.

        Between 1 and C (Roy and Vetterli, EUSIPCO 2007); 0 where all latents are equal.
        """
        assert self._count, "add() comes first"
        mean = np.asarray(self._sum) / self._count
        covariance = np.asarray(self._outer) / self._count - np.outer(mean, mean)
        variances = np.linalg.eigvalsh(covariance)
        # What the subtraction leaves of a direction without variance is rounding, not rank.
        kept = variances[variances > 1e-12 * np.trace(np.asarray(self._outer)) / self._count]
        singular = np.sqrt(kept)
        if not len(singular):
            return 0.0
        share = singular / singular.sum()
        return float(np.exp(-(share * np.log(share)).sum()))
