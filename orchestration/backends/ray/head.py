"""Head of a Ray cluster as the launch sees it: without it, nothing starts and nothing is told.

Ray would ask a head that is gone for a minute and then end this process, without a word for the
user and without cleaning up. So the launch asks first, and has Ray wait longer than that.
"""

from __future__ import annotations

import os
import socket
import time

import ray

LOOK_SECONDS = 5.0
"""How often the head is asked whether it is there."""
KNOCK_SECONDS = 20.0
PATIENCE_SECONDS = {True: 5.0, False: 60.0}
"""How long a head may be silent: our own does not come back; a cluster's may be started again."""
RAY_PATIENCE = ("RAY_gcs_rpc_server_reconnect_timeout_s", "300")
"""Setting of Ray: seconds after which it ends a process whose head does not answer."""


class ClusterGone(OSError):
    """Loss of the cluster: its head does not answer any more."""


class Head:
    """Asks now and then whether the cluster is there.

    Attributes:
        told: whether somebody was told that it is gone.
    """

    def __init__(self, *, own: bool) -> None:
        """Remember the head of the cluster that this process is connected to.

        Args:
            own: Ray on this machine, started for this launch.
        """
        self._address = ray.get_runtime_context().gcs_address
        self._own = own
        self.told = False
        # A monotonic clock: a clock that is set must not look like a silent head.
        self._heard = time.monotonic()
        self._asked = self._heard

    def answers(self, *, at_once: bool = False) -> bool:
        """Tell whether the cluster was there when it was last asked.

        Args:
            at_once: ask again now; else after a while.

        Raises:
            ClusterGone: it has been silent for too long; said once, so that stages can be stopped.
        """
        now = time.monotonic()
        if at_once or now - self._asked >= LOOK_SECONDS:
            self._asked = now
            if self._is_there():
                self._heard = now
        silent = self._asked - self._heard
        # Silence counts up to the last question, not up to now: a launch that was stopped for a
        # while has asked nobody.
        if silent >= PATIENCE_SECONDS[self._own] and not self.told:
            self.told = True
            raise ClusterGone(self._farewell(silent))
        return self._asked == self._heard

    def _is_there(self) -> bool:
        try:
            knock(self._address)
        except OSError:
            return False
        return True  # no question to Ray itself: it would wait for a head that just went away

    def _farewell(self, silent: float) -> str:
        kept = "Stages that ran save a checkpoint where they still can."
        if self._own:
            return f"Ray, which this launch had started here, has ended. {kept}"
        return (
            f"the Ray cluster at {self._address} went away: no answer for {silent:.0f} s. {kept} "
            "Start the cluster again, or name another one with --ray-address"
        )


def wait_longer() -> None:
    """Have Ray leave it to `Head` to end a launch whose cluster is gone; before it connects."""
    os.environ.setdefault(*RAY_PATIENCE)


def knock(address: str) -> None:
    """See whether somebody listens there: Ray itself would try for minutes.

    Raises:
        OSError: nobody does. Addresses without a port, such as `auto`, are left to Ray.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
