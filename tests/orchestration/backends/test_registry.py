"""Registry of backends: what a name on the command line leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.backends import (
    BACKENDS,
    connect,
    connect_detached,
    contract,
    find_backend,
    profile_options,
    register,
)
from orchestration.backends.base import BackendSpec, Capabilities, is_detached
from orchestration.policy.profile import Profile, Request
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


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="there is a backend 'ray' already"):
        register("ray", "my_lab.ray")


@pytest.mark.parametrize("name", ["local", "slurm"])
def test_the_built_in_backends_keep_the_contract(name: str) -> None:
    checks = contract.CHECKS if name == "local" else contract.CHECKS[:2]  # SLURM is not here
    assert [text for check in checks for text in check(BACKENDS[name])] == []


class Lacking:
    """A backend of which most is missing."""

    capabilities = Capabilities(detached=True, time_limits=False)
    name = "other"

    def free_slots(self) -> int:
        return 0

    def check(self, request: Request) -> None:
        pass

    def close(self) -> None:
        pass


BACKEND = BackendSpec(lambda jobs, profile, store: Lacking())  # type: ignore[return-value]


def test_what_a_broken_backend_does_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "lacking", __name__)
    found = "\n".join(contract.broken_promises(__name__))
    assert "it lacks cancel, cancel_jobs, discard" in found
    assert "it says detached True, and its spec False" in found
    assert "its name is other, and it is registered as lacking" in found
    assert "a new connection with one place has none that is free" in found
    assert "raise Infeasible" in found
