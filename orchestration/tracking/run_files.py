"""Files of MLflow runs, written to where the server keeps them."""

from __future__ import annotations

import posixpath
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class RunFiles:
    """Writer of runs' files: what `MlflowClient.log_stream` does, at a third of its cost.

    To find the place of a run's files MLflow reads all that the run has, and for each file it
    makes and removes a folder.
    """

    def __init__(self, client: MlflowClient, uri: str) -> None:
        """Keep a connection.

        Args:
            client: asked for the places of runs that nobody noted.
            uri: of the tracking server, through which files may have to go.
        """
        self._client, self._uri = client, uri
        self._places: dict[str, str] = {}
        # The name of a file on disk becomes its name in the store.
        self._outbox = Path(tempfile.mkdtemp(prefix="gigatok-"))
        # When the connection goes, or the process ends. `TemporaryDirectory` would warn of it.
        weakref.finalize(self, shutil.rmtree, self._outbox, ignore_errors=True)

    def note(self, run_id: str, uri: str) -> None:
        """Note where the files of a run are kept."""
        self._places[run_id] = uri

    def write(self, run_id: str, path: str, content: bytes) -> None:
        """Create or replace a file of a run.

        Raises:
            MlflowException: MLflow does not allow the path, or does not answer.
        """
        folder, name = posixpath.split(posixpath.normpath(path))
        file = self._outbox / name
        file.write_bytes(content)
        try:
            self._open(run_id).log_artifact(str(file), folder or None)
        finally:
            file.unlink()

    def _open(self, run_id: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if run_id not in self._places:
            self.note(run_id, str(self._client.get_run(run_id).info.artifact_uri))
        return get_artifact_repository(self._places[run_id], tracking_uri=self._uri)
