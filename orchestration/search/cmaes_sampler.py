"""CMA-ES that keeps no state: told the complete trials again before each draw.

Optuna's own sampler pickles its state into the storage, which may be anybody's database, and reads
it back; here nothing is written, and nothing but numbers is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from cmaes import CMA
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

WIDTH = 1 / 6
"""Standard deviation at first, of a space scaled to the unit cube; its middle is the mean."""


class CmaesSampler(BaseSampler):
    """Sampler by CMA-ES (Hansen, arXiv 1604.00772): a pure function of the study and the seed.

    Complete trials make generations in the order of their numbers, so a trial that was drawn while
    others ran belongs to the generation its number puts it in. Failed and pruned ones say nothing.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int) -> None:
        """Search a space of two ranges or more."""
        self._space = dict(space)
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space: all keys are drawn together."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw from the distribution after the last whole generation."""
        # Scaled to the unit cube, logarithms included, so that one step size fits all keys.
        cube = _SearchSpaceTransform(search_space, transform_0_1=True)
        middle = np.full(len(cube.bounds), 0.5)
        strategy = CMA(mean=middle, sigma=WIDTH, bounds=cube.bounds, seed=self._seed)
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        told = [(cube.transform(t.params), sign * float(t.values[0])) for t in done]
        size = strategy.population_size
        # Only whole generations: CMA-ES cannot be told a part of one.
        for start in range(0, len(told) - size + 1, size):
            strategy.tell(told[start : start + size])
        return dict(cube.untransform(strategy.ask()))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Fail: `infer_relative_search_space` leaves no key over."""
        raise AssertionError(f"{param_name} is not in the space of the search")
