"""Repeated looks at growing numbers of seeds, at an error rate that holds over all of them.

Whoever tests after three seeds, then after four, and stops when it is significant, finds
significance more often than the level says. Here the p of one look is replaced by the probability
that chance gives as small a p at any look there can be. Student's t of normal differences does
not depend on their scale, so that this distribution is known once the looks are: it is simulated.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from gigatok.claims.claim import Looks

Floats = npt.NDArray[np.float64]
PATHS = 400_000
"""Simulated studies. A p of .05 / 30, the first of Holm's steps for 30 claims, has 667 of them
below it, which gives it a standard error of 4 %."""
_PART = 50_000


def adjusted(p: float, looks: Looks) -> float:
    """Return how often chance gives as small a two-sided p at any of the looks."""
    if looks.start == looks.at_most:
        return p
    smallest = _smallest_p(looks)
    # One more of each: the study itself is one of the paths, and p is never 0.
    below = int(np.searchsorted(smallest, p, side="right"))
    return min(1.0, (1 + below) / (1 + len(smallest)))


def threshold(level: float, looks: Looks) -> float:
    """Return the largest p of one look that `adjusted` turns into no more than a level."""
    if looks.start == looks.at_most:
        return level
    smallest = _smallest_p(looks)
    return float(smallest[max(0, int(level * (1 + len(smallest))) - 2)])


@lru_cache
def _smallest_p(looks: Looks) -> Floats:
    """Simulate the smallest p over the looks without any effect, ascending."""
    # A fixed generator: equal results have equal verdicts, whoever computes them.
    rng = np.random.default_rng(20250411)
    parts = [
        p_at_looks(rng.standard_normal((_PART, looks.at_most)), looks).min(1)
        for _ in range(PATHS // _PART)
    ]
    found: Floats = np.sort(np.concatenate(parts))
    return found


def p_at_looks(differences: Floats, looks: Looks) -> Floats:
    """Compute the two-sided p at every look: (studies, seeds) to (studies, looks)."""
    means, errors, freedom = means_at_looks(differences, looks)
    found: Floats = 2 * stdtr(freedom, -np.abs(means / errors))
    return found


def means_at_looks(differences: Floats, looks: Looks) -> tuple[Floats, Floats, Floats]:
    """Average the seeds up to each look: (studies, seeds) to two of (studies, looks).

    Returns:
        Means, their standard errors, and the degrees of freedom at each look.
    """
    counts = np.arange(looks.start, looks.at_most + 1, dtype=np.float64)
    means = differences.cumsum(1)[:, looks.start - 1 :] / counts
    squares = (differences**2).cumsum(1)[:, looks.start - 1 :] / counts
    errors: Floats = np.sqrt((squares - means**2) / (counts - 1))
    return means, errors, counts - 1
