"""Protocols of a trial's scores, as tags: on the sweep's run, and on trials that differ from it.

A trial has some 36, and most trials of a sweep the same. The run of the sweep has those of the
first trial that has the score, and never changes one; a trial without a tag of its own was
measured like that. What a stage's run says is complete.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from gigatok.names import PREFIX_PROTOCOL
from orchestration.tracking.ledger import PlanEntry
from orchestration.tracking.mlflow_server import Server


class TrialProtocols:
    """Sender of the protocols of a sweep's trials."""

    def __init__(self) -> None:
        self._carried: dict[str, set[str]] = {}
        """Trial run -> protocol tags that it has of its own."""

    def note_new(self, run_id: str) -> None:
        """Note that a trial's run was just made, so that nobody asks what it has."""
        self._carried[run_id] = set()

    def send(
        self,
        server: Server,
        ledger: PlanEntry,
        run_id: str,
        tags: Mapping[str, str],
        scores: Iterable[str],
    ) -> dict[str, str]:
        """Send what the sweep's run lacks; returns the protocols that a trial carries itself.

        Args:
            server: the destination.
            ledger: of the sweep, held by this process: another launcher may add protocols too.
            run_id: the trial's run.
            tags: all protocols of the trial.
            scores: names of the scores that the trial has.
        """
        measured = set(scores)
        if new := new_protocols(tags, measured, ledger.protocols):
            # Before the trial: it never shows a score of which the store has no protocol.
            server.log(str(ledger.sweep.run_id), tags=new)
            ledger.protocols |= new
        if run_id not in self._carried:
            # A run of an earlier launch may have got what differed then.
            self._carried[run_id] = set(server.tags(run_id, PREFIX_PROTOCOL))
        own = own_protocols(tags, measured, ledger.protocols, self._carried[run_id])
        self._carried[run_id] |= own.keys()
        return own


def new_protocols(
    tags: Mapping[str, str], scores: Iterable[str], shared: Container[str]
) -> dict[str, str]:
    """Select the protocols of a trial's scores that the sweep's run lacks.

    Args:
        tags: all protocols of the trial. Those without a score say why there is none.
        scores: names of the scores that the trial has.
        shared: tags of the sweep's run.
    """
    keys = (PREFIX_PROTOCOL + name for name in scores)
    return {key: tags[key] for key in keys if key in tags and key not in shared}


def own_protocols(
    tags: Mapping[str, str],
    scores: Iterable[str],
    shared: Mapping[str, str],
    carried: Container[str],
) -> dict[str, str]:
    """Select the protocols that a trial carries itself; "" where a score of it has none.

    Args:
        tags: all protocols of the trial.
        scores: names of the scores that the trial has.
        shared: tags of the sweep's run.
        carried: tags that the trial's run has; they are renewed, as its own win.
    """
    keys = {PREFIX_PROTOCOL + name for name in scores}
    own = {
        key: text
        for key, text in tags.items()
        if key not in keys or shared.get(key) != text or key in carried
    }
    return own | {key: "" for key in sorted(keys & shared.keys() - tags.keys())}
