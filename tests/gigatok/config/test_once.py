"""Functions of a trial that are computed once for all trials that agree in what they read."""

from __future__ import annotations

from gigatok.config import ProbeConfig, TrialConfig
from gigatok.config.evaluation import GuidanceConfig
from gigatok.config.once import OncePerSections

LOW, HIGH = ProbeConfig(layer=1, lr=0.1), ProbeConfig(layer=1, lr=0.2)
NO_SEARCH, SEARCH = GuidanceConfig(), GuidanceConfig(search="grid")


def trial(probe: ProbeConfig, guidance: GuidanceConfig = NO_SEARCH, seed: int = 0) -> TrialConfig:
    return TrialConfig.model_construct(probe=probe, guidance=guidance, seed=seed)


def test_trials_with_the_same_sections_share_a_value() -> None:
    calls = []

    def rate(one: TrialConfig) -> float:
        calls.append(1)
        return one.probe.lr

    once = OncePerSections(rate)
    assert [once(trial(p, seed=s)) for s in range(3) for p in (LOW, HIGH)] == [0.1, 0.2] * 3
    assert len(calls) == 2
    # An equal section is another object, which costs a call and gives the same.
    assert once(trial(LOW.model_copy())) == 0.1
    assert len(calls) == 3


def test_what_only_some_trials_read_counts_for_all() -> None:
    def rate(one: TrialConfig) -> float:
        return one.probe.lr if one.guidance.search == "none" else -float(one.seed)

    once = OncePerSections(rate)
    assert once(trial(LOW)) == 0.1
    assert once(trial(LOW, SEARCH, seed=1)) == -1.0
    assert once(trial(LOW, SEARCH, seed=2)) == -2.0
    assert once(trial(HIGH)) == 0.2
    assert once(trial(LOW, seed=5)) == 0.1


def test_sections_behind_properties_and_methods_count() -> None:
    once = OncePerSections(lambda one: one.section(ProbeConfig).lr)
    assert (once(trial(LOW)), once(trial(HIGH))) == (0.1, 0.2)
    inner = OncePerSections(lambda one: one.probe.lr)
    outer = OncePerSections(lambda one: inner(one) + 1)
    assert (outer(trial(LOW)), outer(trial(HIGH))) == (1.1, 1.2)


def test_a_function_of_the_whole_trial_is_computed_for_each() -> None:
    seeds = OncePerSections(lambda one: one.model_copy().seed)
    assert [seeds(trial(LOW, seed=seed)) for seed in (1, 2)] == [1, 2]


def test_a_noted_trial_passes_for_a_trial() -> None:
    once = OncePerSections(lambda one: isinstance(one, TrialConfig))
    assert once(trial(LOW))
