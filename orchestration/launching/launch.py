"""Launch of a plan: what is run, where, and as whom; passed whole to whatever runs it."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.backends.base import Backend, DetachedBackend, is_detached
from orchestration.launching.launched import LaunchRequest
from orchestration.plan.graph import Plan
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store


@dataclass(frozen=True, repr=False)
class Launch:
    """Attempt to run a plan.

    Attributes:
        plan: what to run; of a search, with the example of its trials.
        request: what the user asked for.
        store: the runs directory.
        backend: where stages run.
        profile: what stages ask for, and how often what is tried again.
    """

    plan: Plan
    request: LaunchRequest
    store: Store
    backend: Backend
    profile: Profile

    @property
    def uri(self) -> str:
        """Address at which MLflow keeps the runs, with its login."""
        return self.request.store_uri(self.store)

    @property
    def scheduler(self) -> DetachedBackend:
        """Backend whose jobs go on without the launcher; only of launches on such a one."""
        assert is_detached(self.backend)
        return self.backend
