"""Launches: a request is planned and priced first, shown, and only then carried out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from gigatok import names
from gigatok.stages import STAGES
from orchestration.backends import connect, find_backend, profile_options
from orchestration.backends.base import Infeasible, is_detached
from orchestration.execution.inputs import find_inputs
from orchestration.execution.progress import Progress, refuse_other_versions, survey
from orchestration.execution.results import trial_metrics
from orchestration.exits import EXIT_CODES, Outcome
from orchestration.forecast.budget import Budget, record_refusal
from orchestration.forecast.budget import reasons as budget_reasons
from orchestration.forecast.devices import Machines, machines
from orchestration.launching.claimed import launch_findings
from orchestration.launching.history import all_launches
from orchestration.launching.launch import Launch
from orchestration.launching.launched import LaunchedPlan, LaunchRequest, record_launch, restored
from orchestration.launching.preview import plan_json, print_plan
from orchestration.launching.readiness import check_writable, make_ready
from orchestration.launching.report import outcome, print_counts, print_results
from orchestration.launching.rounds import added_line, due_seeds, hours_limit, record_refused
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile, load_profile
from orchestration.runs.holder import tidy
from orchestration.runs.provenance import imported_state
from orchestration.runs.state import Store
from orchestration.runs.studies import origin_of, refuse_namesake
from orchestration.sweep.definition import Sweep, expand, load_sweep
from orchestration.terminal import Terminal, printed, quiet_console, say_event
from orchestration.tracking.shipping import Tracking, uri_to_record

# Optuna takes half a second to import, and most launches are no searches.
if TYPE_CHECKING:
    from orchestration.search.launch import SearchRun

Leave = Callable[[Progress], None]
"""Gives up stages that shall not be run now."""


@dataclass(frozen=True, repr=False)
class LaunchResult:
    """End of a launch.

    Attributes:
        outcome: how it ended here.
        uri: where MLflow keeps the runs.
        progress: states of all stages; None where jobs go on without the launcher.
        search: what a search has found; None: it is none, or goes on without the launcher.
    """

    outcome: Outcome
    uri: str
    progress: Progress | None = None
    search: SearchRun | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 0 done or queued, 1 failed, 3 held, 130 interrupted."""
        return EXIT_CODES[self.outcome]

    @property
    def results(self) -> dict[str, dict[str, float]]:
        """Collect final scores, trial -> name -> value; what does not exist is absent."""
        return {} if self.progress is None else trial_metrics(self.progress)

    def __repr__(self) -> str:
        console = quiet_console()
        if self.progress is not None:
            print_counts(self.progress, console)
            print_results(self.progress, console)
        return f"exit code {self.exit_code}\n{printed(console)}"


@dataclass(frozen=True, repr=False)
class PreparedLaunch(Launch):
    """Request that was understood, and what it comes to; nothing of it has begun.

    Attributes:
        progress: which stages are complete, and what the others are predicted to need.
        tracking: of the plan.
        machine: on what each kind of stage will run.
        refused: why it would not start.
    """

    progress: Progress
    tracking: Tracking
    machine: Machines
    refused: list[str]

    def data(self) -> dict[str, Any]:
        """Describe the plan as plain data: trials, stages with their costs, totals."""
        return plan_json(self.progress, self.machine)

    def print(self, console: Console, *, stages: bool = False) -> None:
        """Print question, trials, costs and what is reused; with a row per stage on request."""
        print_plan(console, self.progress, self.machine, stages=stages)

    def notice(self) -> str | None:
        """Say that uncommitted changes of the code will leave this machine; None: none will."""
        patch = imported_state()["git_patch"]
        if patch is None or self.progress.finished or not self.request.send_patch:
            return None
        return (
            f"uncommitted changes: a patch of {len(patch.splitlines())} lines goes to MLflow with "
            "the stages, masked where it looks like a secret; --no-patch sends none"
        )

    def make_ready(self) -> None:
        """Refuse what cannot fit; otherwise fetch what the stages need.

        Raises:
            Infeasible: more than the machine, the cluster or the budget has.
            ValueError: something is missing or cannot be fetched.
        """
        # The cheapest checks first, and nothing is fetched for what is refused anyway.
        check_writable(self.store.root)
        # A worker that was killed right behind DONE could not remove its attempt's folder.
        for key in self.progress.reused:
            tidy(self.progress.folders[key])
        if self.refused:
            self._refuse()
        absent = find_inputs(self.progress).absent
        # Nodes of a cluster may have more.
        if absent and find_backend(self.request.backend).runs_here(self.profile):
            raise ValueError(f"not on this machine: {'; '.join(absent)}")
        search = self.plan.sweep.search
        if search is not None or not self.progress.finished:
            # The examples of a search reach every choice, so that whatever any of its trials may
            # read is fetched.
            plan = make_plan(self.plan.sweep, search.examples()) if search else self.plan
            make_ready(plan, self.progress, self.backend, self.profile)

    def _refuse(self) -> None:
        """Say why nothing starts, and remember it for `status` and MLflow."""
        # On disk first: MLflow may not answer, and `status` reads the record.
        plan = self.plan
        record_refusal(self.store, plan.sweep.name, plan.key, plan.sweep.scale, self.refused)
        lines = [f"refused: {reason}" for reason in self.refused]
        problem = self.tracking.tag_sweep({names.TAG_REFUSED: " | ".join(self.refused)})
        if problem is not None:
            lines.append(f"MLflow does not know of it: {problem}")
        raise Infeasible("\n".join(lines))

    def run(self, terminal: Terminal | None = None) -> LaunchResult:
        """Run what is not complete, after `make_ready`.

        Raises:
            ValueError: the backend refuses, or the study of a search cannot be opened.
        """
        terminal = terminal or Terminal()
        return self._search(terminal) if self.plan.sweep.search else self._run(terminal)

    def _run(self, terminal: Terminal) -> LaunchResult:
        progress, tracking = self.progress, self.tracking
        # Recorded before anything runs: `status`, `cancel` and a controller know it from here on.
        record_launch(self.plan, self.store, self.request)
        tracking.tell(launch_findings(progress))
        if is_detached(self.backend):
            from orchestration.backends.detached import launching  # nobody else needs it

            left = launching.queue(self, progress, tracking, terminal)
            if left is not None:
                return LaunchResult(left, self.uri)
        # A plan that is complete and already in MLflow needs no run at all: a relaunch answers at
        # once.
        if not progress.finished or not tracking.is_current():
            self._bring_forward(terminal)
        ended = LaunchResult(outcome(progress), self.uri, progress)
        return self._next_round(ended, terminal) if ended.outcome == "done" else ended

    def _bring_forward(self, terminal: Terminal) -> None:
        """Run or follow the stages until nothing is left to do, or it is interrupted."""
        # Imported here: a plan, and a launch that has nothing to do, need neither.
        from orchestration.launching.foreground import Driver, run
        from orchestration.launching.runner import Runner

        driver: Driver
        if is_detached(self.backend):
            from orchestration.backends.detached.launching import watcher

            driver = watcher(self, self.progress)
        else:
            driver = Runner(self.progress, self.store, self.backend, self.profile)
        run(driver, self.tracking, terminal.console)

    def _next_round(self, ended: LaunchResult, terminal: Terminal) -> LaunchResult:
        """Add the seeds that undecided claims call for, and run them; nothing of other sweeps."""
        due = due_seeds(self.plan, self.store, hours_limit(self.request, self.profile))
        if due.refused is not None:
            # Said with the verdicts, here, by `status` and in MLflow.
            record_refused(due, self.store)
            self.tracking.tag_sweep({names.TAG_REFUSED: due.refused})
        if due.plan.key == self.plan.key:
            return ended
        say_event(terminal.console, added_line(self.plan, due.plan))
        following = _priced(self.request, self.store, due.plan, lambda progress: None)
        following.make_ready()
        # Whoever wanted the sweep wanted its rounds; on a cluster they go on without asking.
        return following.run(replace(terminal, ask=False))

    def _search(self, terminal: Terminal) -> LaunchResult:
        from orchestration.search import launch  # Optuna takes half a second to import

        if not is_detached(self.backend):
            found = launch.run_search(self, terminal.console)
            return LaunchResult(found.outcome, self.uri, found.progress, found)
        from orchestration.search import controller

        searcher = controller.queue(self, terminal)
        if searcher is None:
            return LaunchResult("queued", self.uri)
        over = launch.SearchRun(searcher, launch.outcome(searcher))
        return LaunchResult(over.outcome, self.uri, search=over)

    def __repr__(self) -> str:
        console = quiet_console()
        self.print(console)
        for reason in self.refused:
            console.print(f"would be refused: {reason}")
        return printed(console)


# From a request to what it comes to


def prepare(
    request: LaunchRequest,
    store: Store,
    launched: LaunchedPlan | None = None,
    leave: Leave = lambda progress: None,
) -> PreparedLaunch:
    """Plan a request: the graph, what is complete of it, where the rest would run, what it costs.

    Args:
        request: what to run, where.
        store: the runs directory.
        launched: the plan to go on with; None: that of the sweep as its file is now.
        leave: gives up stages that shall not be run now.

    Raises:
        ValueError: the request is wrong.
    """
    with _no_collector():
        # None where it names the runs directory's own database, which moves along with the folder.
        own = {"tracking_uri": uri_to_record(store, request.tracking_uri)}
        request = request.model_copy(update=own)
        if launched is None:
            loaded = load_sweep(request.sweep, request.scale, request.overrides)
            request = _from_one_file(request, store, loaded)
            plan = make_plan(loaded, expand(loaded))
        else:
            # The record and not the YAML, which may have been edited since.
            plan = _as_launched(launched, store)
        due = due_seeds(plan, store, hours_limit(request, _profile(request)))
        return _priced(request, store, due.plan, leave)


def _priced(request: LaunchRequest, store: Store, plan: Plan, leave: Leave) -> PreparedLaunch:
    tracking = Tracking(request.store_uri(store), store, plan, send_patch=request.send_patch)
    profile = _profile(request)
    # Connecting is cheap, nothing is started or asked: `plan` does it as well, to check `--jobs`.
    backend = connect(request.backend, request.jobs, profile, store)
    machine = machines(request.backend, request.jobs, profile)
    progress = survey(plan, store, lambda stage: machine(stage).site)
    progress.widths = {stage: machine(stage).width for stage in STAGES}
    # Before the budget is checked: what is left alone costs nothing.
    leave(progress)
    # Behind `leave`: a stage of an older version that is left alone does no harm.
    refuse_other_versions(progress)
    budget = Budget(max_gpu_hours=request.max_gpu_hours, max_disk=request.max_disk)
    refused = budget_reasons(progress, machine, budget, store.root)
    return PreparedLaunch(
        plan, request, store, backend, profile, progress, tracking, machine, refused
    )


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep the garbage collector from a fifth of the time: all that planning makes lives on."""
    # Planning makes many objects and no garbage: each pass of the collector would look at all of
    # them for nothing.
    gc.disable()
    try:
        yield
    finally:
        # Frozen objects are left out of later passes, too.
        gc.freeze()
        gc.enable()


def _as_launched(launched: LaunchedPlan, store: Store) -> Plan:
    """Restore a plan; of a search, with the one trial that stands for all."""
    plan = restored(launched, store)
    if plan.sweep.search is None:
        return plan
    return replace(make_plan(plan.sweep, expand(plan.sweep)), key=plan.key)


def _from_one_file(request: LaunchRequest, store: Store, sweep: Sweep) -> LaunchRequest:
    """Note the sweep's file, unless another file of that name was launched here."""
    newest = next(all_launches(store, sweep.name), None)
    refuse_namesake(store, sweep.path, None if newest is None else newest.request.origin)
    return request.model_copy(update={"origin": origin_of(store, sweep.path)})


def _profile(request: LaunchRequest) -> Profile:
    profile = load_profile(request.profile, profile_options())
    # The command line wins over the profile.
    if request.gpus_per_stage is not None:
        profile = profile.with_gpus(request.gpus_per_stage)
    if request.ray_address is not None:
        # Both over RAY_ADDRESS.
        profile = profile.model_copy(update={"ray_address": request.ray_address})
    ungated = {"gates": None, "predict_first": False}
    return profile.model_copy(update=ungated) if request.ignore_gates else profile
