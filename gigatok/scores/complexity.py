"""Complexity of a tokenizer's latents, without training a generator on them.

N, M images, T tokens, K codes, C latent channels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
NGRAM_ORDERS = (2, 3)
"""Tokens that n-grams span; with more than the last, nearly every context is new."""


def ngram_entropies(
    train_NT: Int64, val_MT: Int64, codebook_size: int, orders: tuple[int, ...] = NGRAM_ORDERS
) -> dict[int, float]:
    """Compute cross-entropies of n-gram models in nats per token: order -> loss on `val_MT`.

    Conditional entropies that are counted and evaluated on the same codes are far too low if there
    are fewer tokens than K^n cells. So the models are counted on one set and scored on another.
    That bounds the entropy rate from above and can be compared with the AR loss. Smoothing is that
    of Witten and Bell (IEEE Trans. Inf. Theory 37(4), 1991, method C), which has no setting: the
    continuations that a context never had share the weight of the number of its distinct ones, in
    the proportions of the next shorter context. The first tokens have shorter contexts.

    Args:
        train_NT: codes to count, (N, T).
        val_MT: codes to score, (M, T).
        codebook_size: K.
        orders: lengths of the n-grams.
    """
    assert codebook_size ** max(orders) < 2**63, "an n-gram must fit into 64 bits"
    # Order 0: every code is equally likely.
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
    """Replace in place the probabilities of the next lower order by those of this order."""
    if order > val_MT.shape[1]:
        return
    # Sorted by `unique`, so n-grams of one context lie together, and can be added up at once.
    grams, counts = np.unique(_grams(train_NT, codebook_size, order), return_counts=True)
    contexts, first, distinct = np.unique(
        grams // codebook_size, return_index=True, return_counts=True
    )
    totals = np.add.reduceat(counts, first)
    wanted = _grams(val_MT, codebook_size, order)
    count = _look_up(wanted, grams, counts)
    seen = _look_up(wanted // codebook_size, contexts, totals)
    kinds = _look_up(wanted // codebook_size, contexts, distinct)
    # A token with too few predecessors keeps the probability of the lower order.
    lower = lower_MT[:, order - 1 :]
    known = seen > 0
    # Witten-Bell: (c(context, code) + kinds p_lower) / (c(context) + kinds), where kinds is the
    # number of distinct continuations of the context.
    lower[known] = ((count + kinds * lower) / np.maximum(seen + kinds, 1))[known]


def _grams(codes_NT: Int64, codebook_size: int, order: int) -> Int64:
    """Encode every n-gram inside an image as one number in base K, (N, T - order + 1)."""
    width = codes_NT.shape[1] - order + 1
    grams = np.zeros((len(codes_NT), width), np.int64)
    for offset in range(order):
        # Digits of a number in base K, the first code the most significant.
        grams = grams * codebook_size + codes_NT[:, offset : offset + width]
    return grams


def _look_up(wanted: Int64, keys: Int64, values: Int64) -> Int64:
    """Look up the values of sorted keys; 0 for a missing key."""
    # Clipped: a key beyond the last one is compared with the last, and found unequal.
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
        """Take in a batch of latents, (M, C)."""
        self._count += len(latents_MC)
        self._sum = self._sum + latents_MC.sum(0)
        # (C, C), so memory does not grow with the images.
        self._outer = self._outer + latents_MC.T @ latents_MC

    def effective_rank(self) -> float:
        """Compute the exponential of the entropy of the centred latents' singular values.

        The singular values are normalised to sum 1. The result is between 1 and C (Roy and
        Vetterli, "The effective rank", EUSIPCO 2007), or 0 if all latents are equal.
        """
        assert self._count, "add() comes first"
        mean = np.asarray(self._sum) / self._count
        covariance = np.asarray(self._outer) / self._count - np.outer(mean, mean)
        variances = np.linalg.eigvalsh(covariance)
        # In a direction without variance the subtraction leaves rounding, which is no rank.
        kept = variances[variances > 1e-12 * np.trace(np.asarray(self._outer)) / self._count]
        # The latents' singular values up to a common factor, which the sum divides out.
        singular = np.sqrt(kept)
        if not len(singular):
            return 0.0
        share = singular / singular.sum()
        return float(np.exp(-(share * np.log(share)).sum()))
