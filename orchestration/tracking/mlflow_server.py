"""Connection to MLflow, which only it and `run_files.py` import. Used by one thread.

It uses only the plain client API: no active run, no autologging. Every call may be repeated. The
server ignores a point that it has (same run, name, value, time and step), tags and files replace
themselves, params are logged if they are missing, and a run is found again by its token. MLflow
stores an infinite value as the largest finite float of its sign.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gigatok.names import TAG_RETIRED, TAG_TOKEN
from orchestration.runs.provenance import user_name
from orchestration.tracking import sqlite_file
from orchestration.tracking.ledger import OPEN_STATUSES, Destination, Entry
from orchestration.tracking.lineage import DatasetInput, TrainedModel
from orchestration.tracking.run_files import RunFiles
from orchestration.tracking.spool import LoggedPicture, MetricPoint

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric, Param, Run, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

BATCH_POINTS, BATCH_TAGS, BATCH_PARAMS = 800, 100, 100
"""Sizes of one request; MLflow takes at most 1000 items, and 100 tags or params."""
VALUE_LENGTH = 5000
"""Characters of a tag; MLflow refuses tags beyond 8000 bytes, and a character may take several."""
THUMBNAIL_PIXELS = 256
"""Longer side of the pictures that MLflow's UI shows first, as in `MlflowClient.log_image`."""
PARENT_TAG, NOTE_TAG, USER_TAG = "mlflow.parentRunId", "mlflow.note.content", "mlflow.user"
COMMIT_TAG, SOURCE_TAG = "mlflow.source.git.commit", "mlflow.source.name"
CONTEXT_TAG, IMAGES_TAG, TABLES_TAG = (
    "mlflow.data.context",
    "mlflow.loggedImages",
    "mlflow.loggedArtifacts",
)

_SETTINGS = {
    # MLflow would retry a server that does not answer for four minutes, inside one call.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass
class _Sent:
    """Contents of a run that were sent: the newest point and tag of each name."""

    points: dict[str, MetricPoint] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Server:
    """Tracking server or sqlite file, and one of its experiments."""

    def __init__(self, destination: Destination, experiment: str) -> None:
        """Import MLflow and connect.

        Args:
            destination: the server or file; a new sqlite file gets its schema.
            experiment: name of the experiment for new runs; created if it is missing.
        """
        self._database = destination.database
        self._client = _connect(destination)
        self._files = RunFiles(self._client, destination.uri)
        self._file = sqlite_file.identity(self._database)
        self._found: set[str] = set()
        self._unused: set[str] = set()
        # Runs that this process created. Asking what they have is a tenth of their cost.
        self._without_params: set[str] = set()
        self._without_model: set[str] = set()
        self._sent: dict[str, _Sent] = {}
        """Run -> what `tell` has sent of it."""
        self._others: bool | None = None
        self.experiment = self._find_experiment(destination, experiment)

    def is_reachable(self) -> bool:
        """Tell whether the server answers; the reason for a failure comes up in later calls."""
        try:
            self._client.get_experiment(self.experiment)
        except Exception:
            return False
        return True

    def was_replaced(self) -> bool:
        """Tell whether the sqlite file was replaced or removed since the start."""
        return sqlite_file.identity(self._database) != self._file

    def _find_experiment(self, destination: Destination, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            database = destination.database
            place = None if database is None else sqlite_file.artifact_place(database, name)
            try:
                return str(self._client.create_experiment(name, artifact_location=place))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:  # So it failed for another reason than a faster launcher.
                    raise
        if found.lifecycle_stage != "active":
            # Deleted in the UI. Its name stays taken, and launching it again wants it back.
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def tag_experiment(self, tags: Mapping[str, str]) -> None:
        """Set the tags of the experiment that are missing or have another value."""
        have = self._client.get_experiment(self.experiment).tags
        for key, value in tags.items():
            if have.get(key) != value:
                self._client.set_experiment_tag(self.experiment, key, value)

    # Runs

    def current(self, entry: Entry) -> Entry:
        """Return the entry if its run may exist; else a new one, to be saved before `create`."""
        if entry.run_id is not None and self._exists(entry.run_id):
            return entry
        if entry.run_id is None and entry.experiment is not None:
            return entry
        # The new token is not searched for: this process has just drawn it.
        fresh = Entry(stage=entry.stage, born=entry.born, experiment=self.experiment)
        self._unused.add(fresh.token)
        return fresh

    def create(self, entry: Entry, name: str, tags: Mapping[str, str], started: float) -> Entry:
        """Create the run of an entry that has none, unless its token finds one."""
        if entry.run_id is not None:
            return entry
        run_id = None if entry.token in self._unused else self._find_by_token(entry)
        self._unused.discard(entry.token)
        if run_id is None:
            run = self._client.create_run(
                str(entry.experiment),
                start_time=milliseconds(started),
                tags={**tags, TAG_TOKEN: entry.token, USER_TAG: user_name()},
                run_name=name,
            )
            run_id = str(run.info.run_id)
            self._without_params.add(run_id)
            self._without_model.add(run_id)
            self._files.note(run_id, str(run.info.artifact_uri))
        self._found.add(run_id)
        return entry.model_copy(update={"run_id": run_id, "status": "RUNNING"})

    def find(self, entry: Entry, tags: Mapping[str, str], started: float | None = None) -> Entry:
        """Fill an entry without a run with the run that has these tags, if there is one.

        It serves ledgers that were lost. Nothing counts as sent: MLflow ignores what the run has.

        Args:
            entry: entry of the run.
            tags: tags that identify the run.
            started: UNIX seconds at which the run began; None: at any time.
        """
        if entry.run_id is not None or not self._has_others():
            return entry
        # MLflow's query language cannot quote a quote; such a tag is only compared below.
        asked = {key: value for key, value in tags.items() if "'" not in value}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in asked.items())
        if started is not None:
            query += f" and attributes.start_time = {milliseconds(started)}"
        for run in self._client.search_runs(self._experiments(), query):
            if tags.items() <= run.data.tags.items():
                self._found.add(run.info.run_id)
                return _entry_of(run, entry)
        return entry

    def _has_others(self) -> bool:
        """Tell whether the store had runs at first; spares a fresh store the search."""
        if self._others is None:
            self._others = bool(self._client.search_runs(self._experiments(), max_results=1))
        return self._others

    def _experiments(self) -> list[str]:
        return [found.experiment_id for found in self._client.search_experiments()]

    def retire(self, entry: Entry) -> None:
        """Move a run to MLflow's deleted runs, whose stage was deleted and made again.

        Otherwise every point of the stage would be there twice. MLflow can restore the run.
        """
        if entry.run_id is not None and self._exists(entry.run_id):
            self._client.set_tag(entry.run_id, TAG_RETIRED, "its stage was deleted and ran again")
            for model in self._models(entry):
                self._client.delete_logged_model(model.model_id)
            self._client.delete_run(entry.run_id)
            self._found.discard(entry.run_id)

    def end(self, entry: Entry, status: str, ended: float) -> None:
        """Set a run's status; `ended` (UNIX seconds) counts for a final one."""
        run_id = str(entry.run_id)
        if status not in OPEN_STATUSES:
            self._client.set_terminated(run_id, status, milliseconds(ended))
        elif entry.status != status:
            self._client.update_run(run_id, status=status)

    def close(self, entry: Entry, status: str, ended: float) -> None:
        """End a run if the server still has it."""
        if entry.run_id is not None and self._exists(entry.run_id):
            self.end(entry, status, ended)

    def _exists(self, run_id: str) -> bool:
        """Tell whether the server still has a run; asked once."""
        from mlflow.exceptions import MlflowException

        if run_id in self._found:
            return True
        try:
            active = self._client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if active:
            self._found.add(run_id)
        return active

    def _find_by_token(self, entry: Entry) -> str | None:
        query = f"tags.`{TAG_TOKEN}` = '{entry.token}'"
        found = self._client.search_runs([str(entry.experiment)], query, max_results=1)
        return str(found[0].info.run_id) if found else None

    # Contents of runs

    def log(
        self,
        run_id: str,
        points: Iterable[MetricPoint] = (),
        tags: Mapping[str, str] | None = None,
        model: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Send points, set or replace tags, and add params, in as few requests as MLflow allows.

        Args:
            run_id: the run.
            points: they are ignored where the run has them.
            tags: they replace those of the same name.
            model: id of the logged model that the points are scores of; None: of none.
            params: the run gets those that it lacks.

        Returns:
            Descriptions of what MLflow refuses, such as a name that it does not allow; the rest is
            sent. Params are never refused: they are the platform's own.
        """
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(p.name, p.value, p.time, p.step, model) for p in points]
        # Longer values would be refused.
        labels = [RunTag(key, value[:VALUE_LENGTH]) for key, value in (tags or {}).items()]
        missing = self._missing(run_id, params or {})
        settings = [Param(key, value) for key, value in missing.items()]
        refused = []
        while metrics or labels or settings:
            batch = (metrics[:BATCH_POINTS], labels[:BATCH_TAGS], settings[:BATCH_PARAMS])
            refused += self._log_batch(run_id, *batch)
            metrics, labels = metrics[BATCH_POINTS:], labels[BATCH_TAGS:]
            settings = settings[BATCH_PARAMS:]
        return refused

    def tell(
        self, run_id: str, points: Iterable[MetricPoint], tags: Mapping[str, str], *, last: bool
    ) -> None:
        """Log what this connection has not sent of a run yet, which is told again and again.

        MLflow ignores what a run has, but only after it has looked for each point by itself.

        Args:
            run_id: the run.
            points: of each name one.
            tags: they replace those of the same name.
            last: nothing more is to come: what was sent need not be kept in mind.
        """
        sent = self._sent.setdefault(run_id, _Sent())
        new_points = [point for point in points if sent.points.get(point.name) != point]
        new_tags = {key: value for key, value in tags.items() if sent.tags.get(key) != value}
        self.log(run_id, new_points, new_tags)
        sent.points |= {point.name: point for point in new_points}
        sent.tags |= new_tags
        if last:
            del self._sent[run_id]

    def _log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        tags: Sequence[RunTag],
        params: Sequence[Param] = (),
    ) -> list[str]:
        """Send one batch; if MLflow refuses it, send its halves, down to the refused items."""
        from mlflow.exceptions import MlflowException

        try:
            if len(tags) == 1 and not metrics and not params:
                # One transaction; a batch is one for each kind of content and two more.
                self._client.set_tag(run_id, tags[0].key, tags[0].value)
            else:
                self._client.log_batch(run_id, metrics, params, tags)
        except MlflowException as error:
            if not self._is_refusal(error, run_id):
                raise
            if params:
                # By themselves: the refusal is of a point or a tag, or comes again and is raised.
                self._client.log_batch(run_id, params=params)
            if len(metrics) + len(tags) == 1:
                name = metrics[0].key if metrics else tags[0].key
                return [f"{name!r} is refused: {_first_line(error)}"]
            # Rounded in opposite ways: one metric and one tag would else stay together for ever.
            cut, tag_cut = (len(metrics) + 1) // 2, len(tags) // 2
            return [
                *self._log_batch(run_id, metrics[:cut], tags[:tag_cut]),
                *self._log_batch(run_id, metrics[cut:], tags[tag_cut:]),
            ]
        return []

    def _is_refusal(self, error: MlflowException, run_id: str) -> bool:
        """Tell whether the contents are refused for good; a deleted run gives the same error."""
        if error.error_code != "INVALID_PARAMETER_VALUE":
            return False
        return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")

    def log_params(self, run_id: str, params: Mapping[str, str]) -> dict[str, str]:
        """Send the params that a run lacks; returns all it has."""
        self.log(run_id, params=params)
        return {**params, **self._client.get_run(run_id).data.params}

    def tags(self, run_id: str, prefix: str) -> dict[str, str]:
        """Read the tags of a run whose names begin so."""
        tags = self._client.get_run(run_id).data.tags
        return {key: value for key, value in tags.items() if key.startswith(prefix)}

    def _missing(self, run_id: str, params: Mapping[str, str]) -> dict[str, str]:
        """Select the params that a run lacks, as MLflow never changes one."""
        if not params:
            return {}
        if run_id in self._without_params:
            self._without_params.discard(run_id)
            return dict(params)
        have = self._client.get_run(run_id).data.params
        return {key: value for key, value in params.items() if key not in have}

    def log_datasets(self, run_id: str, datasets: Iterable[DatasetInput]) -> None:
        """Note what a run reads; MLflow ignores what it has by name and digest."""
        from mlflow import entities

        inputs = [
            entities.DatasetInput(
                entities.Dataset(
                    name=one.name,
                    digest=one.digest,
                    source_type="gigatok",
                    source=one.source,
                    profile=json.dumps({"num_rows": one.images}),
                ),
                [entities.InputTag(CONTEXT_TAG, one.context)],
            )
            for one in datasets
        ]
        if inputs:
            self._client.log_inputs(run_id, inputs)

    def log_model(self, entry: Entry, model: TrainedModel, params: Mapping[str, str]) -> str:
        """Register the model of a run unless the server has it; returns its id."""
        from mlflow.entities import LoggedModelOutput

        run_id = str(entry.run_id)
        is_first = run_id in self._without_model
        self._without_model.discard(run_id)
        known = [] if is_first else self._models(entry)
        found = next(iter(known), None) or self._client.create_logged_model(
            str(entry.experiment), model.name, run_id, model.tags, dict(params), model.kind
        )
        # Asked first: MLflow would note an output a second time.
        if is_first or found.model_id not in self._outputs(run_id):
            self._client.log_outputs(run_id, [LoggedModelOutput(found.model_id, 0)])
        self._client.finalize_logged_model(found.model_id, "READY")
        return str(found.model_id)

    def _outputs(self, run_id: str) -> set[str]:
        """Collect the ids of the models that a run notes as its outputs."""
        outputs = self._client.get_run(run_id).outputs
        return set() if outputs is None else {one.model_id for one in outputs.model_outputs}

    def _models(self, entry: Entry) -> Sequence[LoggedModel]:
        query = f"source_run_id = '{entry.run_id}'"
        found: Sequence[LoggedModel] = self._client.search_logged_models(
            [str(entry.experiment)], query
        )
        return found

    def upload(self, run_id: str, path: str, content: bytes) -> list[str]:
        """Create or replace an artifact; returns a message if its name is refused."""
        from mlflow.exceptions import MlflowException

        try:
            self._files.write(run_id, path, content)
        except MlflowException as error:
            if not self._is_refusal(error, run_id):
                raise
            return [f"{path!r} is refused: {_first_line(error)}"]
        return []

    def upload_image(self, run_id: str, picture: LoggedPicture, content: bytes) -> list[str]:
        """Send a picture under the names by which MLflow's UI shows it over steps."""
        # As `MlflowClient.log_image` names them, but the same each time: it would add a random id.
        key = picture.name.replace("/", "~")
        stem = f"images/{key}+step+{picture.step}+timestamp+{picture.time}+{run_id[:8]}"
        # The UI shows the small one, and the whole one on a click.
        small = _thumbnail(content)
        refused = self.upload(run_id, f"{stem}.png", content)
        return refused or self.upload(run_id, f"{stem}+compressed.webp", small)


def _thumbnail(png: bytes) -> bytes:
    """Make the small WebP picture that MLflow's UI shows first."""
    from PIL import Image

    picture, small = Image.open(io.BytesIO(png)), io.BytesIO()
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    # Method 0: the same pixels in 2 % more bytes, a tenth of the time of the default.
    picture.save(small, format="webp", lossless=True, method=0)
    return small.getvalue()


def milliseconds(seconds: float) -> int:
    """Convert UNIX seconds to MLflow's milliseconds."""
    return int(seconds * 1000)


def _entry_of(run: Run, entry: Entry) -> Entry:
    found = {
        "run_id": run.info.run_id,
        "experiment": run.info.experiment_id,
        "token": run.data.tags.get(TAG_TOKEN, entry.token),
        "status": run.info.status,
    }
    return entry.model_copy(update=found)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _connect(destination: Destination) -> MlflowClient:
    for name, value in _SETTINGS.items():
        # `setdefault`: the user's own environment wins.
        os.environ.setdefault(name, value)
    os.environ.update(destination.login)
    from mlflow.tracking import MlflowClient
    from mlflow.version import VERSION

    # MLflow prints every database error with its traceback, over the display, and raises it too.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri, database = destination.uri, destination.database
    if database is None:
        return MlflowClient(uri, registry_uri=uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    # Processes that open a fresh sqlite file at the same time crash each other in its migrations.
    with sqlite_file.alone(database):
        if sqlite_file.is_missing(database):
            sqlite_file.create(
                database, VERSION, lambda fresh: MlflowClient(fresh, registry_uri=fresh)
            )
        else:
            sqlite_file.check(database)
            sqlite_file.take_artifacts_along(database)
        client = MlflowClient(uri, registry_uri=uri)
    # MLflow keeps connections for the life of the process. Those that it has may be to a file that
    # was deleted or replaced since, and would go on writing into it.
    client._tracking_client.store.engine.dispose()
    return client
