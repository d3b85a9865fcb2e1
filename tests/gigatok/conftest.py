from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gigatok.process_pair import ProcessPair


@pytest.fixture(scope="session")
def pair() -> Iterator[ProcessPair]:
    """Start one pair for all tests: importing torch in both takes about 10 s of CPU."""
    processes = ProcessPair()
    yield processes
    processes.close()
