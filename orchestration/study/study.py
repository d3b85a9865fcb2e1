"""Study of a sweep: everything that the commands do, as calls that return data.

    from orchestration import Study

    study = Study("decoder_scaling", scale="smoke")
    study.plan()                    # trials, stages, costs; shows itself as the command does
    result = study.run(jobs=2)
    study.status()
    study.table()                   # a row per trial

Wrong requests raise ValueError, which says what was given and what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from rich.console import Console

from gigatok.names import study_name
from gigatok.plugins import load_installed
from orchestration.backends import profile_options
from orchestration.execution.results import merged_scores
from orchestration.forecast.cost_table import cost_json
from orchestration.forecast.devices import machines
from orchestration.launching.history import newest_launch, other_scales
from orchestration.launching.launched import LaunchedPlan, LaunchRequest
from orchestration.launching.readiness import fetch_inputs
from orchestration.launching.report import keep_results
from orchestration.plan.graph import make_plan
from orchestration.policy.profile import load_profile
from orchestration.runs.state import Store
from orchestration.study.launch import LaunchResult, PreparedLaunch, prepare
from orchestration.sweep.candidates import Entry, more_text
from orchestration.sweep.definition import Sweep, expand, load_sweep
from orchestration.terminal import Terminal, quiet_console

# What only one of the calls needs is imported by it: a launch does not wait for the others.
if TYPE_CHECKING:
    from orchestration.forecast.simulator import Cluster
    from orchestration.study.calibrating import CalibrationRun
    from orchestration.study.cancelling import Cancellation
    from orchestration.study.differences import Rows
    from orchestration.study.explaining import Explanation
    from orchestration.study.logs import LogReader
    from orchestration.study.proposing import Proposal
    from orchestration.study.simulating import PaperRun
    from orchestration.study.status import SweepStatus
    from orchestration.study.syncing import Sent


class LaunchOptions(TypedDict, total=False):
    """Options of a launch, as `LaunchRequest` describes them; None: left out."""

    backend: str | None
    jobs: int | None
    profile: str | Path | None
    gpus_per_stage: int | None
    ray_address: str | None
    tracking_uri: str | None
    storage: str | None
    max_gpu_hours: float | None
    max_disk: float | None
    ignore_gates: bool
    send_patch: bool


class Study:
    """Sweep at a scale, with what was launched of it into a runs directory."""

    def __init__(
        self,
        sweep: str | Path,
        scale: str | None = None,
        *,
        runs: str | Path = "runs",
        overrides: Sequence[str] | Mapping[str, Any] = (),
    ) -> None:
        """Name a study; nothing is read yet.

        Args:
            sweep: name of a shipped sweep, or a YAML file.
            scale: `smoke`, `micro`, `mini`, `paper`, …; None: the sweep's own, or that of the
                newest launch.
            runs: the runs directory.
            overrides: `key=value` texts, or key -> value.
        """
        load_installed()
        # Neither file nor runs directory is touched: a study may be named before either exists.
        self.sweep, self.scale = str(sweep), scale
        self.store = Store(Path(runs))
        if isinstance(overrides, Mapping):  # JSON is YAML, which overrides are
            overrides = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        self.overrides = list(overrides)

    def __repr__(self) -> str:
        scale = "" if self.scale is None else f", scale={self.scale!r}"
        return f"Study({self.sweep!r}{scale}, runs={str(self.store.root)!r})"

    # Planning and running

    def plan(self, **options: Unpack[LaunchOptions]) -> PreparedLaunch:
        """Plan what a launch would run and reuse, and what it would cost; starts nothing.

        Raises:
            ValueError: with every problem of the sweep, its scale and the options.
        """
        # Through pydantic, so that a wrong option is refused with its name and not deep inside the
        # launch.
        asked = {"sweep": self.sweep, "scale": self.scale, "overrides": self.overrides}
        return prepare(LaunchRequest.model_validate(asked | _given(options)), self.store)

    def run(
        self, terminal: Terminal | None = None, **options: Unpack[LaunchOptions]
    ) -> LaunchResult:
        """Run every stage that is not complete yet.

        Args:
            terminal: where progress is shown; None: nowhere.
            options: on which backend, and so on.

        Raises:
            Infeasible: more than the machine, the cluster or the budget has.
            ValueError: the request is wrong, or something cannot be fetched.
        """
        return _carry_out(self.plan(**options), terminal)

    def plan_resume(
        self, *, failed: bool = False, preempted: bool = False, **options: Unpack[LaunchOptions]
    ) -> PreparedLaunch:
        """Plan to continue the newest launch as it was launched; see `resume`."""
        from orchestration.study.resuming import prepare_resume

        launched = self.launched()
        # Gates that were ignored at launch count again: the user let models pass that day, not for
        # ever.
        request = _changed(launched, {"ignore_gates": False, **_given(options)})
        return prepare_resume(self.store, launched, request, failed=failed, preempted=preempted)

    def resume(
        self,
        terminal: Terminal | None = None,
        *,
        failed: bool = False,
        preempted: bool = False,
        **options: Unpack[LaunchOptions],
    ) -> LaunchResult:
        """Continue the newest launch: what was stopped, cancelled, lost or never started.

        Args:
            terminal: where progress is shown; None: nowhere.
            failed: also what failed, its attempts counted anew.
            preempted: only what had begun, and what waits for it.
            options: what shall be otherwise than at launch.

        Raises:
            ValueError: nothing was launched, or it cannot be continued by this code.
        """
        plan = self.plan_resume(failed=failed, preempted=preempted, **options)
        return _carry_out(plan, terminal)

    def plan_retry(
        self, trial: str, stage: str | None = None, **options: Unpack[LaunchOptions]
    ) -> PreparedLaunch:
        """Plan to run a trial or stage of the newest launch again; see `retry`."""
        from orchestration.study.resuming import prepare_retry

        launched = self.launched()
        request = _changed(launched, _given(options))
        return prepare_retry(self.store, launched, request, trial, stage)

    def retry(
        self,
        trial: str,
        stage: str | None = None,
        terminal: Terminal | None = None,
        **options: Unpack[LaunchOptions],
    ) -> LaunchResult:
        """Run what failed of a trial again, its attempts counted anew, and what it needs.

        Raises:
            ValueError: no such trial or stage.
        """
        return _carry_out(self.plan_retry(trial, stage, **options), terminal)

    def cancel(self, trial: str | None = None, *, orphaned: bool = False) -> Cancellation:
        """Stop the newest launch or a trial of it; `Cancellation.wait` waits for checkpoints.

        Args:
            trial: None: all of them.
            orphaned: stop what earlier launches named and the newest does not.

        Raises:
            ValueError: no such trial, or nothing was launched.
        """
        from orchestration.study.cancelling import cancel_launch

        return cancel_launch(self.store, self.launched(), trial, orphaned=orphaned)

    def fetch(self) -> dict[str, Path]:
        """Fetch the data and networks that the sweep reads: name -> file or folder; runs nothing.

        Raises:
            ValueError: something cannot be fetched, or is missing and for the user to supply.
        """
        sweep = load_sweep(self.sweep, self.scale, self.overrides)
        return fetch_inputs(make_plan(sweep, expand(sweep)))

    # Looking

    def launched(self) -> LaunchedPlan:
        """Read the record of the newest launch.

        Raises:
            ValueError: nothing of the sweep, or not at this scale, was launched.
        """
        return newest_launch(self.store, self.sweep, self.scale)

    def other_scales(self) -> list[str]:
        """List the scales at which the sweep was launched as well, the newest first."""
        return other_scales(self.store, self.launched())

    def status(self) -> SweepStatus:
        """Look at every stage of the newest launch.

        Raises:
            ValueError: nothing was launched.
        """
        from orchestration.study.status import look

        return look(self.store, self.launched())

    def explain(self, what: str | None = None, stage: str | None = None) -> list[Explanation]:
        """Say of stages why they will run, are reused, blocked, held or failed.

        Args:
            what: a trial, a stage, or the start of a key; None: all stages.
            stage: of the trial; None: all.

        Raises:
            ValueError: nothing is called so.
        """
        from orchestration.study.explaining import explain_stages

        where = (self.store, self.sweep, self.scale, self.overrides)
        return explain_stages(*where, what=what, stage=stage)

    def diff(self, a: str, b: str) -> dict[str, Rows]:
        """Compare two trials, starts of keys, or folders of stages: stage -> what differs.

        Raises:
            ValueError: nothing, or more than one thing, is called so.
        """
        from orchestration.study.differences import compare_runs

        return compare_runs(self.store, a, b, study_name(self.sweep))

    def costs(self, **options: Unpack[LaunchOptions]) -> list[dict[str, Any]]:
        """List what each stage is predicted to need: FLOPs, bytes, seconds with their range.

        A value that is not known is None: `calibrate` measures what this machine takes.
        """
        plan = self.plan(**options)
        return [
            {"key": key, "stage": stage.stage, "readable": stage.readable}
            | {"state": plan.progress.states[key]}
            | cost_json(plan.progress, plan.machine, key)
            for key, stage in plan.plan.stages.items()
        ]

    def table(self) -> list[dict[str, Any]]:
        """List the trials of the newest launch: name, axes, what is derived, and final scores.

        Read from the stages' own records, so that it needs no MLflow; `analysis` has units,
        seeds merged, fits and figures.
        """
        launched = self.launched()
        folders, values = launched.folders(self.store), launched.values()
        rows = []
        for name, stages in launched.trials.items():
            scores = merged_scores(folders[key].done() for key in stages.values())
            mine = values.assignments[name]
            # Scores stand behind the axes, as in the tables that people read.
            rows.append({"trial": name, **mine.axes, **mine.derived, **scores})
        return rows

    def output(self, trial: str, stage: str) -> Path:
        """Find the files that a stage of a trial has made, such as the weights of a tokenizer.

        Raises:
            ValueError: no such trial or stage, or the stage is not complete.
        """
        from orchestration.study.logs import stage_keys

        launched = self.launched()
        folders = launched.folders(self.store)
        (key,) = stage_keys(launched, folders, trial, stage)
        if not folders[key].is_complete():
            raise ValueError(f"{stage} of {trial} is not complete but {folders[key].state()}")
        return folders[key].out

    def log_readers(
        self, trial: str | None = None, stage: str | None = None, *, all_attempts: bool = False
    ) -> dict[str, LogReader]:
        """Open the logs of stages, by key; without a trial, of those that run or have failed.

        Raises:
            ValueError: no such trial or stage.
        """
        from orchestration.study.logs import LogReader, stage_keys

        launched = self.launched()
        folders = launched.folders(self.store)
        return {
            key: LogReader(folders[key], launched.stages[key].stage, all_attempts)
            for key in stage_keys(launched, folders, trial, stage)
        }

    def logs(self, trial: str | None = None, stage: str | None = None) -> dict[str, str]:
        """Read what the newest attempts printed: log file -> text; see `log_readers`."""
        texts: dict[str, str] = {}
        for reader in self.log_readers(trial, stage).values():
            for file, text in reader.new():
                texts[str(file)] = texts.get(str(file), "") + text
        return texts

    # Costs beforehand, and MLflow

    def calibrate(self, jobs: int | None = None, console: Console | None = None) -> CalibrationRun:
        """Run a few steps of every kind of stage here, so that plans know their time.

        Args:
            jobs: stages at a time, as the launch will have.
            console: where progress is shown; None: nowhere.
        """
        from orchestration.study.calibrating import calibrate_sweep

        sweep = load_sweep(self.sweep, self.scale, self.overrides)
        return calibrate_sweep(sweep, self.store, jobs, console or quiet_console())

    def simulate(
        self,
        cluster: Cluster,
        *,
        profile: str | Path | None = None,
        checkpoint_minutes: float | None = None,
        teraflops: float | None = None,
        seed: int = 0,
    ) -> PaperRun:
        """Run the plan on paper: time, idle devices, lost work, the best checkpoint interval.

        Args:
            cluster: devices, their failures, and what saving costs.
            profile: how many devices stages ask for.
            checkpoint_minutes: of work between checkpoints; None: what costs least device time.
            teraflops: of a device, instead of the calibration.
            seed: of the failures.
        """
        from orchestration.study.simulating import simulate_plan

        sweep = load_sweep(self.sweep, self.scale, self.overrides)
        return simulate_plan(
            make_plan(sweep, expand(sweep)),
            self.store,
            cluster,
            load_profile(None if profile is None else Path(profile), profile_options()),
            checkpoint_minutes=checkpoint_minutes,
            teraflops=teraflops,
            seed=seed,
        )

    def next(
        self,
        gpu_hours: float,
        *,
        claims: Sequence[str] = (),
        backend: str = "local",
        jobs: int | None = None,
        profile: str | Path | None = None,
    ) -> Proposal:
        """Propose the runs that tell most about the claims, per GPU hour; runs nothing.

        Args:
            gpu_hours: that they may take; core hours if stages use no GPU.
            claims: asked about beside those of the sweep.
            backend: where they would run.
            jobs: stages at a time there.
            profile: what stages ask for.

        Raises:
            ValueError: nothing is claimed, or nobody knows what runs take.
        """
        from orchestration.study.proposing import propose

        asked = {f"asked{number or ''}": text for number, text in enumerate(claims)}

        def read(entries: Sequence[Entry]) -> Sweep:
            more = more_text(asked, entries)
            return load_sweep(self.sweep, self.scale, self.overrides, more)

        file = None if profile is None else Path(profile)
        machine = machines(backend, jobs, load_profile(file, profile_options()))
        return propose(read([]), read, self.store, machine, gpu_hours)

    def sync(self, tracking_uri: str | None = None) -> list[Sent]:
        """Send to MLflow what it lacks of all launches of the sweep; runs nothing."""
        from orchestration.study.syncing import send_all

        return list(send_all(self.store, [study_name(self.sweep)], tracking_uri))


def _given(options: LaunchOptions) -> dict[str, Any]:
    """Turn options into fields of a request; None is not given."""
    return {name: value for name, value in options.items() if value is not None}


def _changed(launched: LaunchedPlan, changes: Mapping[str, Any]) -> LaunchRequest:
    """Ask for the same as at launch, but for what the user wants otherwise now."""
    # Validated anew: `model_copy` would take any value.
    return LaunchRequest.model_validate(launched.request.model_dump() | dict(changes))


def _carry_out(prepared: PreparedLaunch, terminal: Terminal | None) -> LaunchResult:
    prepared.make_ready()
    result = prepared.run(terminal)
    if result.progress is not None and result.search is None:
        keep_results(result.progress, result.uri, (terminal or Terminal()).console)
    return result
