"""Checks of `doctor`: SLURM's commands, its configuration, and one of its nodes."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from gigatok.startup import for_children
from orchestration.backends.base import Checkup, Finding
from orchestration.backends.slurm.commands import lines_of, run
from orchestration.backends.slurm.options import sbatch_options, words

ANSWER_SECONDS = 10.0
NODE_SECONDS = 60
"""How long a node is waited for."""
ON_NODE = 'echo "$SLURMD_NODENAME $(command -v scontrol)"; exec "$@"'
"""Shell line of the job on a node: its first line of output is the node's own."""


def examine(checkup: Checkup) -> Iterator[Finding]:
    """Look at SLURM's commands and at what its configuration means for a sweep."""
    missing = [name for name in ("sbatch", "srun", "scontrol", "squeue") if not shutil.which(name)]
    if missing:
        text = f"no {', '.join(missing)} on this host; log in where jobs are submitted"
        yield Finding("SLURM", "missing", text, "slurm")
    elif (shown := lines_of(["scontrol", "show", "config"], ANSWER_SECONDS)) is None:
        yield Finding("SLURM", "missing", "scontrol gets no answer from slurmctld", "slurm")
    else:
        yield from _configuration("\n".join(shown))
    if checkup.look is not None and "srun" not in missing:
        yield from _node(checkup, checkup.look)


def _configuration(shown: str) -> Iterator[Finding]:
    config = dict(re.findall(r"^(\S+)\s*=\s*(.*?)\s*$", shown, re.M))
    yield Finding("SLURM", "ok", f"{config.get('SLURM_VERSION')}, {config.get('ClusterName')}")
    size = int(config.get("MaxArraySize", "0"))
    text = f"{size}: arrays have at most so many stages, larger sweeps are split"
    yield Finding("MaxArraySize", "ok" if size > 1 else "warning", text)
    yield _preemption(config)
    if lines_of(["sacct", "-n", "-X", "-S", "now-1minutes"], ANSWER_SECONDS) is None:
        text = "does not answer; ends of old jobs are read from stage folders and squeue only"
        yield Finding("sacct", "warning", text)
    else:
        yield Finding("sacct", "ok", "answers")


def _preemption(config: dict[str, str]) -> Finding:
    if config.get("PreemptType", "preempt/none") in ("preempt/none", "(null)"):
        return Finding("preemption", "ok", "off")
    mode = config.get("PreemptMode") or "on"
    if "preempt_send_user_signal" in config.get("SlurmctldParameters", ""):
        return Finding("preemption", "ok", f"{mode}; jobs are told in time to save a checkpoint")
    wait = re.search(r"\d+", config.get("KillWait", "30"))
    seconds = wait.group() if wait else "30"
    text = f"{mode}; SIGTERM only, KillWait {seconds} s: checkpoints must be quicker than that"
    return Finding("preemption", "warning", text)


def _node(checkup: Checkup, look: Sequence[str]) -> Iterator[Finding]:
    """Have a short job look at the runs directory, MLflow and GPUs from a node."""
    alone = {"processes": 1, "nodes": 1, "time_minutes": 2}
    request = checkup.profile.default.model_copy(update=alone)
    options = sbatch_options(request, checkup.store) | {"immediate": NODE_SECONDS}
    # It waits for a node that is free now: an examination that queues would seem to hang.
    del options["requeue"]  # srun has no such option
    command = ["srun", *words(options), "sh", "-c", ON_NODE, "sh", *look]
    code = for_children(str(Path(__file__).resolve().parents[3]))
    said = run(command, environment={**os.environ, **code})
    if said.returncode:
        text = " ".join(said.stderr.split()[-40:]) or f"exit code {said.returncode}"
        yield Finding("a node", "missing", f"srun {' '.join(words(options))}: {text}", "slurm")
        return
    # Between them stands whatever modules and libraries print.
    first, *_, last = said.stdout.splitlines()
    node, _, scontrol = first.partition(" ")
    found = [Finding(**finding) for finding in json.loads(last)]
    if not scontrol:
        text = "not there: a stage that is preempted cannot queue itself again, `resume` does it"
        found.append(Finding("scontrol", "warning", text))
    for finding in found:
        yield replace(finding, name=f"node {node}: {finding.name}", needed_by="slurm")
