"""Pictures that trials logged, from MLflow's artifacts."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


def logged_picture(uri: str, run_id: str, stage: str, name: str) -> bytes | None:
    """The PNG of a trial's stage; None where it logged none."""
    client = _client(uri)
    path = f"pictures/{stage}/{name}.png"
    if path not in {item.path for item in client.list_artifacts(run_id, f"pictures/{stage}")}:
        return None
    with TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, path, folder)).read_bytes()


@cache
def _client(uri: str) -> MlflowClient:
    # MLflow draws a progress bar for every file otherwise.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)
