"""Registry of backends: what a name on the command line leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.backends import (
    BACKENDS,
    connect,
    connect_detached,
    find_backend,
    profile_options,
)
from orchestration.backends.base import is_detached
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store


def test_a_spec_says_what_its_backend_is(tmp_path: Path) -> None:
    for name in BACKENDS:
        backend = connect(name, 1, Profile(), Store(tmp_path))
        assert is_detached(backend) == find_backend(name).detached
        if is_detached(backend):
            assert backend.name == name
    assert list(tmp_path.iterdir()) == []


def test_a_spec_says_where_stages_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def here(profile: Profile) -> set[str]:
        return {name for name in BACKENDS if find_backend(name).runs_here(profile)}

    assert here(Profile()) == {"local", "ray"}
    assert here(Profile(ray_address="host:6379")) == {"local"}
    monkeypatch.setenv("RAY_ADDRESS", "host:6379")
    assert here(Profile()) == {"local"}


def test_only_backends_with_options_have_a_key_in_profiles() -> None:
    assert profile_options().keys() == {"slurm"}


def test_what_is_no_backend_or_not_detached_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--backend lsf: not one of local, ray, slurm"):
        connect("lsf", None, Profile(), Store(tmp_path))
    with pytest.raises(ValueError, match="--backend local: its jobs end with their launcher"):
        connect_detached("local", Store(tmp_path))
