"""A real Ray cluster on this machine: a head and a second node, each with a raylet of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

OBJECT_STORE_BYTES = 80 * 2**20


@contextmanager
def ray_cluster(*nodes: dict[str, Any]) -> Iterator[Cluster]:
    """Nodes by their resources, the head's first; all are gone afterwards."""
    small = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    head, *others = nodes
    with (
        tempfile.TemporaryDirectory(
            prefix="ray-test-", dir="/tmp", ignore_cleanup_errors=True
        ) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_worker_niceness", "0")
        cluster = Cluster(initialize_head=True, head_node_args={**small, **head})
        try:
            for node in others:
                cluster.add_node(object_store_memory=OBJECT_STORE_BYTES, **node)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
