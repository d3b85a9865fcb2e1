"""Sweep and trials as MLflow runs: one row per trial, linked to its stages by tags."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from gigatok import names
from gigatok.names import FigureChoice
from orchestration.costs.cost import Cost
from orchestration.plan.graph import Plan, PlannedTrial
from orchestration.runs import provenance
from orchestration.runs.state import State
from orchestration.tracking.ledger import OPEN_STATUSES, Entry, Ledgers, Owner, PlanEntry
from orchestration.tracking.lineage import datasets
from orchestration.tracking.mlflow_server import PARENT_TAG, Server
from orchestration.tracking.params import own_params, shared_params, trial_params
from orchestration.tracking.protocols import TrialProtocols
from orchestration.tracking.stage_runs import SentStage, StageRuns, git_tags
from orchestration.tracking.summary import note_tags, table_files
from orchestration.tracking.trial_facts import fact_params
from orchestration.tracking.views import ORDER_TAG, experiment_tags


def joint_state(states: list[State]) -> State:
    """Derive the state of a trial from the states of its stages."""
    if all(state == "COMPLETE" for state in states):
        return "COMPLETE"
    joint: State
    # Running before failed: the other stages of the trial still go on.
    for joint in ("RUNNING", "FAILED"):
        if joint in states:
            return joint
    return "WAITING"


def stage_graph(plan: Plan) -> dict[str, list[str]]:
    """Map stage names to the stages that they read in any trial, in the order they run."""
    graph: dict[str, list[str]] = {}
    for stage in plan.stages.values():
        known = graph.setdefault(stage.stage, [])
        known += [name for name in stage.inputs if name not in known]
    return graph


def held_tags(held: str, before: str | None) -> dict[str, str]:
    """Make the tag that says why a gate holds a run; empty it when no gate does any more."""
    return {names.TAG_HELD: held} if held or "held: " in (before or "") else {}


@dataclass(frozen=True)
class Findings:
    """Findings of a search so far.

    Attributes:
        tags: tags of the sweep's run.
        files: path -> content, for the sweep's run.
        trials: trial key -> tags of the trial's run.
        ended: keys of trials that are over although not all of their stages are complete.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    trials: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()

    def sent_in(self, ledger: PlanEntry) -> bool:
        """Tell whether all files were sent as they are now."""
        hashes = {
            path: hashlib.sha256(content).hexdigest() for path, content in self.files.items()
        }
        return hashes.items() <= ledger.files.items()


def expectation(costs: Mapping[str, Cost]) -> Findings:
    """Make the tag with the predicted time of all stages; none if one is uncalibrated.

    Args:
        costs: stage key -> cost, for all stages, complete ones included.
    """
    known = [cost.seconds for cost in costs.values() if cost.seconds is not None]
    if len(known) < len(costs):
        return Findings()
    return Findings({names.TAG_PREDICTED_SECONDS: str(sum(known))})


class SweepRuns:
    """Sender of one plan's runs: keeps sweep and trials up to date with their stages."""

    def __init__(
        self,
        plan: Plan,
        ledgers: Ledgers,
        stages: StageRuns,
        command: str | None,
        launched: float | None = None,
    ) -> None:
        self._plan = plan
        self._ledgers = ledgers
        self._stages = stages
        self._command = command
        self._launched = launched or time.time()
        self._is_launch = launched is None
        self._sweep_run = ""
        self._params: dict[str, dict[str, str]] = {}
        """Trial -> all of its params; those of a trial never change."""
        self._copied: set[tuple[str, str, str]] = set()
        """Trial run, stage run and stage state whose pictures were copied."""
        self._protocols = TrialProtocols()
        self.findings = Findings()
        self.forecast = ""
        """Time left of the plan, as `forecast.forecast_tag` writes it."""
        self._sent_forecast = ""
        self._sent_findings = Findings()
        self._sent_results: dict[str, bytes] = {}
        self._sent_trial_tags: dict[str, Mapping[str, str]] = {}

    def birth_tags(self) -> dict[str, str]:
        """Make the tags that trials and stages get when their run is created."""
        return {PARENT_TAG: self._sweep_run, **self._sweep_tags()}

    def open(self, server: Server) -> None:
        """Find or create the runs of the sweep and its trials.

        Raises:
            Busy: another launcher of the same plan is doing this.
        """
        with self._held(self._plan.key) as ledger:
            ledger.owner = Owner.me()
            # First: a plan that grows again is not complete, even if the launcher is killed here.
            ledger.complete = False
            ledger.sweep = self._find(server, ledger.sweep, self._of_sweep())
            for ident, trial in self._trials():
                known = ledger.trials.get(ident, Entry())
                ledger.trials[ident] = self._find(server, known, self._of_trial(trial))
            # On disk before the first run is made: a run is found again by its entry's token.
            self._ledgers.save_plan(self._plan.key, ledger)
            is_new = ledger.sweep.run_id is None
            if is_new:
                # A run that was deleted in the UI, or with its database, is made without files.
                ledger.files = {}
            self._open_sweep(server, ledger)
            # The server is asked: a launcher may have been killed before it saved its ledger.
            ledger.protocols = server.tags(self._sweep_run, names.PREFIX_PROTOCOL)
            shared = self._share_params(server)
            for number, (ident, trial) in enumerate(self._trials()):
                entry = ledger.trials[ident]
                if is_new and entry.run_id is not None:
                    # The sweep's run was deleted in the UI; its trials hang below the new one,
                    # which may share other params.
                    server.log(entry.run_id, tags=self.birth_tags())
                    entry = entry.model_copy(update={"sent": None})
                own = own_params(self._params[ident], shared)
                ledger.trials[ident] = self._open_trial(server, entry, trial, number, own)

    def _share_params(self, server: Server) -> dict[str, str]:
        """Send the params that all trials share to the sweep's run; returns those it has."""
        for ident, trial in self._trials():
            if ident not in self._params:
                self._params[ident] = trial_params(trial.trial.config) | fact_params(trial)
        every = [self._params[ident] for ident, _ in self._trials()]
        return server.log_params(self._sweep_run, shared_params(every, self._plan.sweep.varied))

    def _find(self, server: Server, known: Entry, tags: Mapping[str, str]) -> Entry:
        """Return an entry whose run exists or is still to be created."""
        entry = server.current(known)
        return server.find(entry, tags) if self._ledgers.incomplete else entry

    def _of_sweep(self) -> dict[str, str]:
        """Make the tags that identify the run of the plan."""
        return {names.TAG_KIND: names.KIND_SWEEP, names.TAG_PLAN: self._plan.key}

    def _of_trial(self, trial: PlannedTrial) -> dict[str, str]:
        """Make the tags that identify the run of a trial of the plan."""
        kind = {names.TAG_KIND: names.KIND_TRIAL, names.TAG_TRIAL: trial.trial.name}
        return {**kind, names.TAG_PLAN: self._plan.key}

    def grow(self, server: Server, plan: Plan) -> None:
        """Create the runs of trials that were added to the plan.

        Raises:
            Busy: another launcher of the same plan is sending.
        """
        if len(plan.trials) > len(self._plan.trials):
            self._plan = plan
            self.open(server)

    def _open_sweep(self, server: Server, ledger: PlanEntry) -> None:
        sweep = self._plan.sweep
        tags = {
            names.TAG_KIND: names.KIND_SWEEP,
            names.TAG_QUESTION: sweep.question,
            names.TAG_AXES: json.dumps(list(sweep.varied)),
            **note_tags(sweep, {}),
            **self._sweep_tags(),
        }
        name = f"{sweep.name} {sweep.scale}"
        ledger.sweep = server.create(ledger.sweep, name, tags, self._launched)
        self._sweep_run = str(ledger.sweep.run_id)
        server.log(self._sweep_run, tags=self._launch_tags())
        server.upload(self._sweep_run, "sweep.yaml", sweep.source.encode())
        server.tag_experiment(experiment_tags(self._plan, self._launched))
        # The description was just written without them.
        self._sent_results = {}

    def _open_trial(
        self,
        server: Server,
        entry: Entry,
        planned: PlannedTrial,
        number: int,
        params: Mapping[str, str],
    ) -> Entry:
        tags = {
            names.TAG_KIND: names.KIND_TRIAL,
            names.TAG_TRIAL: planned.trial.name,
            names.TAG_TRIAL_KEY: planned.key,
            **{names.PREFIX_STAGE_KEY + stage: key for stage, key in planned.stages.items()},
            # Padded, as MLflow sorts tags as text.
            ORDER_TAG: f"{number:06d}",
            **self.birth_tags(),
        }
        is_new = entry.run_id is None
        entry = server.create(entry, planned.trial.name, tags, self._launched)
        if is_new:
            self._protocols.note_new(str(entry.run_id))
        # MLflow never changes a param, so they are sent once.
        if entry.sent is not None:
            return entry
        server.log(str(entry.run_id), params=params)
        configs = (self._plan.stages[key].config for key in planned.stages.values())
        read = {one.name: one for config in configs for one in datasets(config)}
        server.log_datasets(str(entry.run_id), read.values())
        return entry.model_copy(update={"sent": "params"})

    def _launch_tags(self) -> dict[str, str]:
        chosen = self._plan.sweep.figure
        tags = {
            names.TAG_LAUNCHED: repr(self._launched),
            names.TAG_GRAPH: json.dumps(stage_graph(self._plan)),
            names.TAG_METRICS: json.dumps(names.own_metrics()),
            # At every launch: another choice is the same plan.
            names.TAG_FIGURE: json.dumps(asdict(chosen)) if chosen != FigureChoice() else "",
            # Empties the tag of an earlier launch that was refused.
            names.TAG_REFUSED: "",
        }
        if not self._is_launch:  # Code and host of an earlier launch are unknown here.
            return tags
        command = {} if self._command is None else {names.TAG_LAUNCH_COMMAND: self._command}
        code = git_tags(provenance.imported_state())
        return {**tags, names.TAG_HOST: Owner.me().host, **code, **command}

    def _sweep_tags(self) -> dict[str, str]:
        sweep = self._plan.sweep
        tags = {names.TAG_SWEEP: sweep.name, names.TAG_SCALE: sweep.scale}
        return {**tags, names.TAG_PLAN: self._plan.key}

    def _trials(self) -> Iterator[tuple[str, PlannedTrial]]:
        """Yield each trial with a name that is stable between launches and unique.

        Two trials may have equal keys; then the later ones get a number.
        """
        count: dict[str, int] = {}
        for trial in self._plan.trials:
            number = count[trial.key] = count.get(trial.key, 0) + 1
            yield trial.key if number == 1 else f"{trial.key}-{number}", trial

    def update(self, server: Server, *, leaving: bool, queued: bool = False) -> None:
        """Bring the runs up to date with what was sent of their stages.

        Args:
            server: the destination.
            leaving: the launcher ends; runs that no process continues are not left open.
            queued: jobs wait in a cluster's queue: their runs are scheduled, not killed.

        Raises:
            Busy: another launcher of the same plan is doing this.
        """
        # MLflow has no state for "interrupted"; a run that may go on later is killed for now.
        idle = ("SCHEDULED" if queued else "KILLED") if leaving else None
        with self._held(self._plan.key) as ledger:
            trials = [(ledger.trials[ident], trial) for ident, trial in self._trials()]
            why_held = [self._why_held(trial) for _, trial in trials]
            states = [
                self._update_trial(server, ledger, *one, idle, why)
                for one, why in zip(trials, why_held, strict=True)
            ]
            state = joint_state(states)
            self._send_findings(server, ledger)
            self._send_forecast(server, str(ledger.sweep.run_id))
            # A failed trial does not end the sweep while others wait.
            if state == "FAILED" and "WAITING" in states:
                state = "WAITING"
            if state != "COMPLETE" and not leaving:
                state = "RUNNING"
            held = next(filter(None, why_held), "")
            status = _status(state, idle or "RUNNING")
            if leaving or state == "COMPLETE":
                self._send_results(server, str(ledger.sweep.run_id))
            self._update_sweep(server, ledger.sweep, state, status, held)
            ledger.complete = state == "COMPLETE"
            ledger.stages = self._complete_stages() if ledger.complete else {}
            if leaving and ledger.owner == Owner.me():
                ledger.owner = None

    def _complete_stages(self) -> dict[str, tuple[str, str]]:
        """Map the complete stages that the server knows to their runs and marks."""
        sent = {
            key: self._stages.sent[key] for key in self._plan.stages if key in self._stages.sent
        }
        return {key: (one.run_id, one.view.mark) for key, one in sent.items() if one.view.mark}

    def _send_findings(self, server: Server, ledger: PlanEntry) -> None:
        """Send the findings that have changed since they were last sent."""
        now, before = self.findings, self._sent_findings
        run_id = str(ledger.sweep.run_id)
        if now.tags != before.tags:
            server.log(run_id, tags=now.tags)
        for path, content in now.files.items():
            if before.files.get(path) != content:
                server.upload(run_id, path, content)
                ledger.files[path] = hashlib.sha256(content).hexdigest()
        for ident, trial in self._trials():
            tags = now.trials.get(trial.key, {})
            # Findings may know trials that the plan does not have yet; these are sent when it has.
            if tags != self._sent_trial_tags.get(ident, {}):
                server.log(str(ledger.trials[ident].run_id), tags=tags)
                self._sent_trial_tags[ident] = tags
        self._sent_findings = now

    def _send_results(self, server: Server, run_id: str) -> None:
        """Send the scores of all trials as a table, where they have changed."""
        known = self._stages.sent
        scores: dict[str, dict[str, float]] = {}
        for _, planned in self._trials():
            parts = [known[key].view for key in planned.stages.values() if key in known]
            points = (point for view in parts for point in view.scores())
            scores[planned.trial.name] = {point.name: point.value for point in points}
        files = table_files(self._plan, scores)
        if files == self._sent_results:
            return
        for path, content in files.items():
            server.upload(run_id, path, content)
        server.log(run_id, tags=note_tags(self._plan.sweep, scores))
        self._sent_results = files

    def _send_forecast(self, server: Server, run_id: str) -> None:
        # Read once: the launcher's thread may replace it meanwhile.
        if (now := self.forecast) != self._sent_forecast:
            server.log(run_id, tags={names.TAG_FORECAST: now})
            self._sent_forecast = now

    def _update_sweep(
        self, server: Server, entry: Entry, state: State, status: str, held: str
    ) -> None:
        signature = f"{state} {held}".rstrip()
        if entry.sent != signature or entry.status != status:
            tags = held_tags(held, entry.sent)
            server.log(str(entry.run_id), tags={names.TAG_STATE: state, **tags})
            server.end(entry, status, time.time())
            entry.sent, entry.status = signature, status

    def _why_held(self, trial: PlannedTrial) -> str:
        """Say why a gate holds a trial; empty if none does."""
        for stage, key in trial.stages.items():
            folder = None if key in self._stages.sent else self._stages.folder(key, stage)
            if folder is not None and (why := folder.held()) is not None:
                return why
        return ""

    def _update_trial(
        self,
        server: Server,
        ledger: PlanEntry,
        entry: Entry,
        trial: PlannedTrial,
        idle: str | None,
        why_held: str,
    ) -> State:
        known = self._stages.sent
        # Only what the server has of the stages may be shown on the trial.
        sent = {stage: known[key] for stage, key in trial.stages.items() if key in known}
        waiting: list[State] = ["WAITING"] * (len(trial.stages) - len(sent))
        state = joint_state([part.view.state for part in sent.values()] + waiting)
        if trial.key in self.findings.ended and state == "WAITING":
            idle = "KILLED"
            told = self.findings.trials.get(trial.key, {})
            state = "PRUNED" if told.get(names.PREFIX_SEARCH + "state") == "PRUNED" else state
        status = _status(state, idle or ("RUNNING" if sent else "SCHEDULED"))
        # The run's id as well: a stage whose folder was made again has another run.
        parts = {stage: (part.run_id, part.view.signature) for stage, part in sent.items()}
        held = why_held if state != "COMPLETE" else ""
        signature = f"{state} {parts} {held}".rstrip()
        if entry.sent != signature:
            self._send_trial(server, ledger, str(entry.run_id), trial, sent, state)
            if tags := held_tags(held, entry.sent):
                server.log(str(entry.run_id), tags=tags)
        if entry.sent != signature or entry.status != status:
            ended = max((part.view.ended() for part in sent.values()), default=0.0)
            server.end(entry, status, max(ended, self._launched))
        entry.sent, entry.status = signature, status
        return "COMPLETE" if trial.key in self.findings.ended else state

    def _send_trial(
        self,
        server: Server,
        ledger: PlanEntry,
        run_id: str,
        trial: PlannedTrial,
        sent: Mapping[str, SentStage],
        state: State,
    ) -> None:
        views = [part.view for part in sent.values()]
        scores = [point for view in views for point in view.scores()]
        tags = {names.PREFIX_STAGE_RUN + stage: part.run_id for stage, part in sent.items()}
        protocols: dict[str, str] = {}
        for stage, part in sent.items():
            tags |= part.view.origin_tags(stage)
            protocols |= part.view.protocol_tags()
        measured = (point.name for point in scores)
        tags |= self._protocols.send(server, ledger, run_id, protocols, measured)
        # Stages of one trial may come from launches of different commits.
        shas = {view.attempts[-1].provenance.get("git_sha") for view in views}
        known = sorted(str(sha) for sha in shas if sha is not None)
        if known:
            tags[names.TAG_GIT_SHA] = ",".join(known)
        tags[names.TAG_STATE] = state
        server.tell(run_id, scores, tags, last=state == "COMPLETE")
        for stage, part in sent.items():
            if part.view.state == "COMPLETE":
                self._copy_pictures(server, run_id, stage, trial.stages[stage], part)

    def _copy_pictures(
        self, server: Server, run_id: str, stage: str, key: str, part: SentStage
    ) -> None:
        """Copy the newest pictures of a complete stage to its trial.

        They are uploaded again, because the MLflow UI shows only a run's own pictures. Only the
        last of each name is copied, so that a trial costs few files.
        """
        copy = (run_id, part.run_id, part.view.signature)
        if copy in self._copied:
            return
        for picture in self._stages.newest_pictures(key):
            path = f"pictures/{stage}/{picture.name}.png"
            if (content := picture.content()) is not None:
                server.upload(run_id, path, content)
        self._copied.add(copy)

    def close_abandoned(self, server: Server) -> None:
        """End the runs of other plans whose launcher was killed on this host."""
        for key in self._ledgers.plan_keys():
            plan = self._ledgers.plan(key)
            if key == self._plan.key or not (plan and plan.owner and plan.owner.is_dead()):
                continue
            with self._held(key) as ledger:
                for entry in ledger.entries():
                    if entry.status in OPEN_STATUSES:
                        server.close(entry, "KILLED", time.time())
                        entry.status = "KILLED"
                ledger.owner = None

    @contextmanager
    def _held(self, key: str) -> Iterator[PlanEntry]:
        """Hold the ledger of a plan; it is saved if it has changed, also after an error."""
        with self._ledgers.hold(key):
            ledger = self._ledgers.plan(key) or PlanEntry()
            before = ledger.model_dump_json()
            try:
                yield ledger
            finally:
                if ledger.model_dump_json() != before:
                    self._ledgers.save_plan(key, ledger)


def _status(state: State, idle: str) -> str:
    """Return the MLflow status of a trial or sweep; `idle` is for one of which nothing runs."""
    statuses = {"COMPLETE": "FINISHED", "RUNNING": "RUNNING", "FAILED": "FAILED"}
    return statuses.get(state, idle)
