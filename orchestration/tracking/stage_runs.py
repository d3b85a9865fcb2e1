"""Stages as MLflow runs: curves, pictures, scores and attempts, sent from the stage folder."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gigatok import names
from gigatok.config import Config
from gigatok.stages import STAGES
from gigatok.text.credentials import hide_passwords
from gigatok.text.masking import mask_secrets
from orchestration.costs.accuracy import compare
from orchestration.runs.records import to_json
from orchestration.runs.stage_records import Attempt, Spec
from orchestration.runs.state import StageFolder, State, Store
from orchestration.tracking.ledger import OPEN_STATUSES, Entry, Ledgers
from orchestration.tracking.lineage import datasets, trained_model
from orchestration.tracking.mlflow_server import (
    BATCH_POINTS,
    COMMIT_TAG,
    IMAGES_TAG,
    SOURCE_TAG,
    Server,
    milliseconds,
)
from orchestration.tracking.params import stage_params
from orchestration.tracking.spool import LoggedPicture, MetricPoint, SpoolReader, make_durable

LOG_TAIL = 64 * 1024
"""Bytes that are sent of the log of an attempt that did not complete."""

PROGRESS_SECONDS = 5.0
"""Least seconds between two reports of a running stage's progress."""

UNCALIBRATED = "uncalibrated"
"""Record that a predicted time rests on if there is none."""

_log = logging.getLogger(__name__)

_STATUSES: Mapping[State, str] = {
    "COMPLETE": "FINISHED",
    "RUNNING": "RUNNING",
    "FAILED": "FAILED",
    "WAITING": "KILLED",
}
"""State of a started stage -> MLflow status; one that waits again was stopped or killed."""


@dataclass(frozen=True)
class StageView:
    """View of a stage's folder; the state is read first, so the rest is never older."""

    folder: StageFolder
    state: State
    attempts: tuple[Attempt, ...]
    signature: str
    """Text that changes with state, attempts and scores, but not while curves grow."""
    mark: str | None
    """`complete_mark` of its folder; the rest is never older."""

    @property
    def started(self) -> float:
        """UNIX seconds at which the first attempt began."""
        return self.attempts[0].started

    @property
    def status(self) -> str:
        """MLflow status of the stage."""
        return _STATUSES[self.state]

    def ended(self) -> float:
        """Return the UNIX seconds of the end; for a killed stage, the last sign of life."""
        folder, last = self.folder, self.attempts[-1]
        # From the surest to the weakest sign of an end.
        done, failure, lease = folder.done(), folder.failure(), folder.lease()
        if done is not None:
            return done.finished
        if last.ended is not None:
            return last.ended
        if lease is not None:
            return lease.heartbeat
        return last.started if failure is None else failure.time

    def scores(self) -> list[MetricPoint]:
        """Return the final scores, the same at each call; none before the stage is complete."""
        done = self.folder.done()
        if done is None:
            return []
        # The time of DONE and not of sending: an equal point is ignored by the server.
        at = milliseconds(done.finished)
        scores = names.with_computed(done.metrics)
        return [MetricPoint(name, 0, value, at) for name, value in scores.items()]

    def protocol_tags(self) -> dict[str, str]:
        """Make the tags that say how the scores were measured."""
        done = self.folder.done()
        protocol = {} if done is None else done.protocol
        return {names.PREFIX_PROTOCOL + metric: text for metric, text in protocol.items()}

    def origin_tags(self, stage: str = "") -> dict[str, str]:
        """Make the tags with the source of adopted weights; none if the stage trained its own."""
        done = self.folder.done()
        prefix = names.PREFIX_ORIGIN + (f"{stage}." if stage else "")
        return {} if done is None else {prefix + name: t for name, t in done.origin.items()}


def cost_tags(folder: StageFolder) -> dict[str, str]:
    """Make the tags of predicted and measured cost; an unknown value has no tag."""
    spec, found = folder.known_spec(), compare(folder)
    expected = None if spec is None else spec.prediction
    facts: dict[str, object] = {}
    if expected is not None:
        facts = {
            names.TAG_PREDICTED_SECONDS: expected.seconds,
            names.TAG_PREDICTED_LOW: expected.low,
            names.TAG_PREDICTED_HIGH: expected.high,
            names.TAG_PREDICTED_MEMORY: expected.memory_bytes,
            names.TAG_PREDICTED_FLOPS: expected.flops,
            names.TAG_PREDICTED_FROM: expected.record or UNCALIBRATED,
        }
    if found is not None:
        facts[names.TAG_ACTUAL_SECONDS] = found.actual
        facts[names.TAG_ACTUAL_MEMORY] = found.actual_memory
    return {tag: str(value) for tag, value in facts.items() if value is not None}


def view_stage(folder: StageFolder) -> StageView | None:
    """Read the view of a stage; None if it was never started."""
    mark = complete_mark(folder)
    state = folder.state()
    attempts = tuple(folder.attempts())
    if not attempts:
        return None
    # Sizes tell apart two results of a stage that was damaged and run again.
    marks = (file for file in (folder.done_file, folder.path / "FAILED.json") if file.exists())
    sizes = [file.stat().st_size for file in marks]
    last = f"{len(attempts)}:{attempts[-1].outcome}"
    signature = f"{state} {last} {sizes} {attempts[0].started}"
    return StageView(folder, state, attempts, signature, mark)


def complete_mark(folder: StageFolder) -> str | None:
    """Return a text that changes whenever a complete stage has anything new to send; else None.

    It costs two system calls, where a view reads half a dozen records.
    """
    done = folder.mark()
    if done is None:
        return None
    try:
        with os.scandir(folder.spool) as found:
            sizes = sorted((e.name, e.stat().st_size) for e in found if e.name.endswith(".jsonl"))
    except (FileNotFoundError, NotADirectoryError):
        sizes = []
    return f"{done} {sizes}"


@dataclass
class _SpoolBatch:
    """Part of a spool that was read but not sent yet, with its end."""

    items: list[MetricPoint | LoggedPicture] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SentStage:
    """Stage that the server knows: its run, and the view that was sent."""

    run_id: str
    view: StageView


class StageRuns:
    """Sender of stages; each stage key has one run, made when it is first seen started."""

    def __init__(self, store: Store, ledgers: Ledgers, *, send_patch: bool = True) -> None:
        self._send_patch = send_patch
        self._store = store
        self._ledgers = ledgers
        self._folders: dict[str, StageFolder] = {}
        self._listed: set[str] = set()
        self._readers: dict[str, SpoolReader] = {}
        self._progressed: dict[str, tuple[float, str]] = {}
        """Key -> time and text of its last progress report."""
        self.sent: dict[str, SentStage] = {}

    def folder(self, key: str, stage: str) -> StageFolder | None:
        """Find a stage's folder; None if no folder was made yet."""
        # One listing per kind of stage and round, not one per missing folder.
        if key not in self._folders and stage not in self._listed:
            self._folders |= self._store.index(stage)
            self._listed.add(stage)
        return self._folders.get(key)

    def look_again(self) -> None:
        """Forget the listing of stage folders, so that new ones are found."""
        self._listed.clear()

    def unsent(self, key: str, stage: str) -> list[MetricPoint | LoggedPicture]:
        """Return the points and pictures that wait in a stage's spool."""
        folder, entry = self.folder(key, stage), self._ledgers.stage(key)
        if folder is None:
            return []
        reader = self._reader(key, folder, entry or Entry())
        return [item for line in reader.lines() for item in line.items]

    def ship(self, server: Server, key: str, stage: str, tags: Mapping[str, str]) -> None:
        """Send everything new of a stage.

        Args:
            server: the destination.
            key: key of the stage.
            stage: name of the stage.
            tags: tags for a run that this call creates: the sweep that first built the stage.

        Raises:
            Busy: another launcher is sending this stage.
        """
        folder = self.folder(key, stage)
        view = None if folder is None else view_stage(folder)
        if view is None:
            self.close(server, key)
            return
        with self._ledgers.hold(key):
            entry = self._open(server, key, stage, view, tags)
            # Curves before facts: a stage is never shown as finished before its last point.
            entry = self._ship_spool(server, key, view, entry)
            if entry.sent != view.signature:
                refused = self._ship_facts(server, view, entry)
                entry = self._skip(key, entry, [f"{view.folder.path}: {one}" for one in refused])
                update = {"sent": view.signature, "status": view.status}
                entry = entry.model_copy(update=update)
                self._ledgers.save_stage(key, entry)
        if view.state == "RUNNING":
            self._ship_progress(server, key, view, str(entry.run_id))
        # Trials copy their scores from here, so only what the server has may be noted.
        self.sent[key] = SentStage(str(entry.run_id), view)

    def close(self, server: Server, key: str) -> None:
        """End the open run of a stage whose folder is gone or cannot be read."""
        entry = self._ledgers.stage(key)
        if entry is None or entry.status not in OPEN_STATUSES:
            return
        with self._ledgers.hold(key):
            server.close(entry, "KILLED", time.time())
            self._ledgers.save_stage(key, entry.model_copy(update={"status": "KILLED"}))

    def _ship_progress(self, server: Server, key: str, view: StageView, run_id: str) -> None:
        lease, now = view.folder.lease(), time.monotonic()
        if lease is None or not lease.progress:
            return
        text = json.dumps({**lease.progress, "time": lease.heartbeat})
        at, known = self._progressed.get(key, (float("-inf"), ""))
        # A tag is replaced on every change; MLflow's database would grow with each heartbeat.
        if text != known and now - at >= PROGRESS_SECONDS:
            server.log(run_id, tags={names.TAG_PROGRESS: text})
            self._progressed[key] = (now, text)

    def newest_pictures(self, key: str) -> list[LoggedPicture]:
        """Return the last picture of each name that was sent of a stage."""
        entry = self._ledgers.stage(key)
        assert entry is not None, f"stage {key} was not sent"
        reader = self._reader(key, self.sent[key].view.folder, entry)
        return list(reader.newest.values())

    def _reader(self, key: str, folder: StageFolder, entry: Entry) -> SpoolReader:
        """Return a reader that has read exactly what was sent, by this launcher or another."""
        reader = self._readers.get(key)
        sent = entry.positions
        # Read further than was sent: sending failed, so the spool is read again from the start.
        if reader is None or any(at > sent.get(f, 0) for f, at in reader.positions.items()):
            reader = self._readers[key] = SpoolReader(folder)
        reader.skip_to(sent)
        return reader

    def _open(
        self, server: Server, key: str, stage: str, view: StageView, tags: Mapping[str, str]
    ) -> Entry:
        """Return the stage's entry with an existing run; a new run gets all from the start."""
        known = self._ledgers.stage(key) or Entry(stage=stage, born=view.started)
        # The folder was removed and made again, so its curves are other curves.
        if known.born != view.started:
            server.retire(known)
            known = Entry(stage=stage, born=view.started)
        entry = server.current(known)
        if self._ledgers.incomplete:
            of_stage = {names.TAG_KIND: names.KIND_STAGE, names.TAG_STAGE_KEY: key}
            entry = server.find(entry, of_stage, view.started)
        if entry.run_id is None:
            # Saved before the run is created: its token finds the run again after a kill.
            self._ledgers.save_stage(key, entry)
            entry = self._create(server, entry, view, tags)
        if entry != known:
            self._ledgers.save_stage(key, entry)
            self._ledgers.save_skipped(key, entry.skipped)
        return entry

    def _create(
        self, server: Server, entry: Entry, view: StageView, tags: Mapping[str, str]
    ) -> Entry:
        # The folder's name says what its spec does, and is there when the spec is not.
        key = view.folder.name.rpartition("-")[2]
        own = {
            names.TAG_KIND: names.KIND_STAGE,
            names.TAG_STAGE: str(entry.stage),
            names.TAG_STAGE_KEY: key,
            SOURCE_TAG: STAGES[str(entry.stage)].module,
        }
        # As the terminal prints it; with the key, as stages of other settings may read the same.
        name = f"{entry.stage} {view.folder.name}"
        return server.create(entry, name, {**tags, **own}, view.started)

    def _ship_spool(self, server: Server, key: str, view: StageView, entry: Entry) -> Entry:
        if not SpoolReader(view.folder).has_more(entry.positions):
            return entry
        # Only durable lines: a step that is run again after a power cut gets another time, so its
        # points would be sent a second time.
        durable = make_durable(view.folder, entry.positions)
        reader = self._reader(key, view.folder, entry)
        batch = _SpoolBatch()
        for line in reader.lines(stop=durable):
            if batch.items and len(batch.items) + len(line.items) > BATCH_POINTS:
                entry = self._send(server, key, view, entry, batch)
                batch = _SpoolBatch()
            batch.items += line.items
            batch.problems += [line.problem] if line.problem else []
            batch.positions = dict(reader.positions)
        return self._send(server, key, view, entry, batch) if batch.positions else entry

    def _send(
        self, server: Server, key: str, view: StageView, entry: Entry, batch: _SpoolBatch
    ) -> Entry:
        """Send one batch, then record that it was sent."""
        run_id = str(entry.run_id)
        points = [item for item in batch.items if isinstance(item, MetricPoint)]
        pictures = [item for item in batch.items if isinstance(item, LoggedPicture)]
        refused = server.log(run_id, points, {IMAGES_TAG: "true"} if pictures else None)
        for picture in pictures:
            refused += _upload_picture(server, run_id, picture)
        said = [f"{view.folder.spool}: {one}" for one in refused]
        entry = self._skip(key, entry, [*batch.problems, *said])
        entry = entry.model_copy(update={"positions": batch.positions})
        self._ledgers.save_stage(key, entry)
        return entry

    def _skip(self, key: str, entry: Entry, problems: Sequence[str]) -> Entry:
        """Report and count what cannot be sent.

        The count is recorded before the ledger. A launcher that is killed in between leaves the
        ledger as it was, so the next one counts from there and gets the same number.
        """
        if not problems:
            return entry
        skipped = entry.skipped.and_more(problems)
        for problem in skipped.first[len(entry.skipped.first) :]:
            _log.warning("%s; it is skipped, the rest is sent", problem)
        self._ledgers.save_skipped(key, skipped)
        return entry.model_copy(update={"skipped": skipped})

    def _ship_facts(self, server: Server, view: StageView, entry: Entry) -> list[str]:
        """Send everything outside the spool; returns what MLflow refuses."""
        run_id, failure = str(entry.run_id), view.folder.failure()
        tags = {names.TAG_STATE: view.state, **_attempt_tags(view.attempts)}
        if failure is not None:
            tags[names.TAG_ERROR] = f"{failure.kind}: {hide_passwords(failure.message)}"
        tags |= view.protocol_tags() | view.origin_tags() | cost_tags(view.folder)
        spec = view.folder.known_spec()
        config = None if spec is None else known_config(spec)
        if entry.sent is None and spec is not None:
            server.upload(run_id, "spec.json", to_json(spec).encode())
        params: dict[str, str] = {}
        if entry.sent is None and config is not None:
            params = stage_params(config)
            server.log_datasets(run_id, datasets(config))
        model = _ship_model(server, view, entry, config)
        refused = server.log(run_id, view.scores(), tags, model, params)
        # While it runs, its log and the end of its attempts are still to come.
        if view.state != "RUNNING":
            _upload_attempts(server, run_id, view, send_patch=self._send_patch)
        server.end(entry, view.status, view.ended())
        return refused


def known_config(spec: Spec) -> Config | None:
    """Read the config of a stage; None: this code does not take it, or its plug-in is missing."""
    try:
        return STAGES[spec.stage].config.model_validate(spec.config)
    except ValidationError:
        return None


def _ship_model(
    server: Server, view: StageView, entry: Entry, config: Config | None
) -> str | None:
    """Register the model that a complete stage left; returns its id, None if it left none."""
    model = trained_model(view.folder, str(entry.stage))
    if model is None or view.state != "COMPLETE":
        return None
    return server.log_model(entry, model, {} if config is None else stage_params(config))


def _upload_picture(server: Server, run_id: str, picture: LoggedPicture) -> list[str]:
    """Send a picture; returns why it cannot be sent, if so."""
    content = picture.content()
    if content is None:
        return [f"picture {picture.file} is gone"]
    refused = server.upload(run_id, f"pictures/{picture.name}/{picture.step:08d}.png", content)
    return refused or server.upload_image(run_id, picture, content)


def _upload_attempts(server: Server, run_id: str, view: StageView, *, send_patch: bool) -> None:
    for attempt in view.attempts:
        record = attempt.model_dump(mode="json")
        facts = record["provenance"]
        patch = facts.pop("git_patch", None)
        # Masked here as well: an attempt may have been recorded before its command was.
        facts |= {"command": hide_passwords(facts["command"])} if "command" in facts else {}
        stem = f"attempts/{attempt.number:03d}"
        server.upload(run_id, f"{stem}.json", json.dumps(record, indent=1).encode())
        if patch is not None and send_patch:
            server.upload(run_id, f"{stem}.patch", mask_secrets(patch).encode())
    logs = view.folder.logs()
    if view.state != "COMPLETE" and logs:
        log = _tail(logs[-1]).decode(errors="replace")
        server.upload(run_id, f"logs/{logs[-1].name}", hide_passwords(log).encode())


def _attempt_tags(attempts: tuple[Attempt, ...]) -> dict[str, str]:
    last = attempts[-1]
    tags = {names.TAG_ATTEMPTS: str(len(attempts)), names.TAG_HOST: last.host}
    if last.micro_batch is not None:
        tags[names.TAG_MICRO_BATCH] = str(last.micro_batch)
    return {**tags, **git_tags(last.provenance)}


def git_tags(facts: Mapping[str, Any]) -> dict[str, str]:
    """Make the tags of a git state (`provenance.git_state`); none without a repository."""
    sha, dirty = facts.get("git_sha"), facts.get("git_dirty")
    tags = {} if sha is None else {names.TAG_GIT_SHA: str(sha), COMMIT_TAG: str(sha)}
    return tags if dirty is None else {**tags, names.TAG_GIT_DIRTY: str(bool(dirty)).lower()}


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_TAIL))
        return file.read()
