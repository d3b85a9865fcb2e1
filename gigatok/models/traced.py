"""Costs of a network without a layout: it is built, run and counted in a process of its own.

    from gigatok.models.traced import Input, Subject, traced

    subject = Subject(
        "my_lab.networks:Encoder",              # a class, or a function that returns a callable
        (Input((3, 256, 256)),),                # of one image; `gradient=True` inside a network
        args=(config, 256),                     # configs, numbers, texts, lists of them
        training=True,                          # with its backward pass
    )
    found = traced(subject)                     # parameters, FLOPs, kept values of one image
    layers = (found.layer(),)                   # to be added to a layout

`call` names a method other than the module's own call, such as `encode`. What is built must draw
or load no weights that its shape depends on. Its arguments should say no more than it is made of:
each setting is traced once, whatever else differs between trials.

The process imports torch and the plug-ins, builds the subject on torch's meta device, where
nothing is allocated, and counts with torch's FLOP counter and saved-tensor hooks
(`gigatok.models.tracer`). Results are kept in the cache folder under a hash of what they depend
on, the code of plug-ins included, so planning pays once. This module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from gigatok import plugins
from gigatok.config import Config
from gigatok.data.assets import cache_dir, cache_to_write
from gigatok.files.durable import Damaged, read_checked, write_checked
from gigatok.files.mirrors import AssetError
from gigatok.models.layers import Layer
from gigatok.plugins import code_hash, owner
from gigatok.startup import FOR_CHILDREN

VERSION = 1
"""Raised when the tracer counts something else: results of older ones are not read."""
SECONDS = 180.0
"""Most that one trace may take. On the meta device it is milliseconds, after torch's import."""
_log = logging.getLogger(__name__)


class TraceError(ValueError):
    """Network that could not be traced, and why."""


@dataclass(frozen=True)
class Input:
    """Tensor that a call takes, without its first axis, the batch.

    Attributes:
        shape: of one image, such as (3, 256, 256).
        dtype: as torch names it; integers are all 0.
        gradient: it comes from other layers, which gradients have to reach in training.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    gradient: bool = False


@dataclass(frozen=True)
class Subject:
    """Network to be traced.

    Attributes:
        build: `package.module:Name` of a class or function, called with `args` and `kwargs`.
        inputs: of the call.
        args: configs and JSON values.
        kwargs: by name, likewise.
        call: method to run.
        training: run it in training mode, with gradients and a backward pass.
    """

    build: str
    inputs: tuple[Input, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    call: str = "__call__"
    training: bool = False

    @property
    def title(self) -> str:
        """Name it in messages: a module of a file has a made-up name."""
        module, _, name = self.build.partition(":")
        plugin = owner(module)
        return self.build if plugin is None else f"{name} of plug-in {plugin.name}"


@dataclass(frozen=True)
class Traced:
    """Counts of one image; what does not grow with the batch is left out of all but parameters.

    Attributes:
        parameters: in all, frozen ones included.
        flops: of the forward pass.
        backward: of the backward pass; 0 outside training.
        kept: float32 values held for the backward pass. As in layouts, outputs count and inputs
            do not: they are outputs of others.
        largest: values of the largest tensor that either pass makes.
        outputs: shape of each tensor that it returns, without the batch.
        note: why it had to run on the CPU; None: it did not.
    """

    parameters: int
    flops: int
    backward: int
    kept: int
    largest: int
    outputs: tuple[tuple[int, ...], ...]
    note: str | None = None

    def layer(self) -> Layer:
        """Convert to a layer of a layout: all of the network takes its turn at once."""
        # Gradients on both sides of its largest operation.
        return Layer(self.parameters, self.flops, self.kept, scratch=2 * self.largest)


_known: dict[str, Traced] = {}
"""Results of this process, by key: costs of one trial ask for the same ones many times."""


def traced(subject: Subject) -> Traced:
    """Count what a network costs per image, once for each setting and code.

    Raises:
        TraceError: it cannot be built or run, or takes too long.
    """
    key = _key(subject)
    if key not in _known:
        _known[key] = _stored(key) or _measure(subject, key)
    return _known[key]


# Kept results


def _key(subject: Subject) -> str:
    """Hash all that a result depends on."""
    module = subject.build.partition(":")[0]
    text = json.dumps(
        [
            *(VERSION, version("torch"), subject.build, _identity(module)),
            *(_written(subject.args), _written(subject.kwargs)),
            *([asdict(one) for one in subject.inputs], subject.call, subject.training),
        ],
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _identity(module: str) -> str:
    """Identify the code of a module: its plug-in's, or its own file's."""
    plugin = owner(module)
    return _file_hash(module) if plugin is None else plugin.identity


@cache
def _file_hash(module: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise TraceError(f"there is no module {module!r} to build a network from")
    return code_hash(Path(spec.origin))


def _written(value: Any) -> Any:
    """Write arguments as JSON; configs by what costs, with the code of all their classes."""
    if isinstance(value, Config):
        return [value.cost_identity, sorted(set(_identities(value)))]
    if isinstance(value, Mapping):
        return {name: _written(item) for name, item in value.items()}
    return [_written(item) for item in value] if isinstance(value, tuple | list) else value


def _identities(config: Config) -> Iterator[str]:
    if plugin := owner(type(config).__module__):
        yield plugin.identity
    for name in type(config).model_fields:
        for section in _configs(getattr(config, name)):
            yield from _identities(section)


def _configs(value: Any) -> Iterator[Config]:
    if isinstance(value, Config):
        yield value
    elif isinstance(value, tuple):
        yield from (item for item in value if isinstance(item, Config))


def _stored(key: str) -> Traced | None:
    try:
        found = read_checked(cache_dir() / "traced" / f"{key}.json")
    except (Damaged, OSError):  # also: not there
        return None
    outputs = tuple(tuple(shape) for shape in found.pop("outputs"))
    return Traced(outputs=outputs, **found)


def _measure(subject: Subject, key: str) -> Traced:
    found = _ask(subject)
    if found.note is not None:
        _log.warning("%s", found.note)
    try:
        # Complete or not there, whoever else writes it at the same time.
        write_checked(cache_to_write("traced") / f"{key}.json", asdict(found))
    except (AssetError, OSError) as error:
        _log.warning("costs of %s will be traced again: %s", subject.title, error)
    return found


# The process


@dataclass(frozen=True)
class _Process:
    """Tracer that waits for requests.

    Attributes:
        popen: the process.
        messages: file that its messages go to.
        packages: of the plug-ins that it has loaded.
    """

    popen: subprocess.Popen[bytes]
    messages: IO[bytes]
    packages: set[str] = field(default_factory=set)


_lock = threading.Lock()
# By our own process: after a fork the parent's pipes must not be used by both.
_processes: dict[int, _Process] = {}


def _ask(subject: Subject) -> Traced:
    with _lock:
        answer = _exchange(_running(), subject)
        # It ends after a minute without work: perhaps just before it had this.
        if answer is None:
            answer = _exchange(_running(), subject)
    if answer is None:
        raise TraceError(f"{subject.title}: the process that traces it ends at once")
    if "error" in answer:
        raise TraceError(answer["error"])
    outputs = tuple(tuple(shape) for shape in answer.pop("outputs"))
    return Traced(outputs=outputs, **answer)


def _running() -> _Process:
    """Return the process that traces for this one; start it where there is none."""
    known = _processes.get(os.getpid())
    if known is not None:
        # A plug-in that is gone here, as one that was edited, cannot be unloaded there.
        if known.popen.poll() is None and known.packages <= plugins.LOADED.keys():
            return known
        known.popen.kill()
        known.popen.wait()
    messages = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process)
    # Modules that can be imported here can be imported there. A GPU is of no use to it.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    popen = subprocess.Popen(
        [sys.executable, "-m", "gigatok.models.tracer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=messages,
        bufsize=0,
        env={**os.environ, **FOR_CHILDREN, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
    )
    _processes[os.getpid()] = _Process(popen, messages)
    return _processes[os.getpid()]


def _exchange(process: _Process, subject: Subject) -> dict[str, Any] | None:
    """Send a subject and wait for its counts; None: the process had ended in peace."""
    try:
        return _answer(process, subject)
    except BaseException:
        # Also where a user interrupts it: the next subject must not get this one's counts.
        process.popen.kill()
        raise


def _answer(process: _Process, subject: Subject) -> dict[str, Any] | None:
    popen, until = process.popen, time.monotonic() + SECONDS
    assert popen.stdin is not None
    assert popen.stdout is not None
    doing = f"{subject.title} could not be traced"
    process.packages.update(plugins.LOADED)
    try:
        popen.stdin.write(_request(subject).encode() + b"\n")
    except BrokenPipeError:
        _check_end(process, doing)
        return None
    while True:
        left = max(until - time.monotonic(), 0.0)
        if not select.select([popen.stdout], [], [], left)[0]:
            raise TraceError(f"{doing} in {SECONDS:.0f} s; give it a layout")
        line = popen.stdout.readline()
        if not line:
            _check_end(process, doing)
            return None
        answer: dict[str, Any] = json.loads(line)
        if "slow" not in answer:
            return answer
        doing = answer["slow"]  # it goes on, on the CPU


def _request(subject: Subject) -> str:
    """Write a subject with the plug-ins that this process has loaded."""
    loaded = [
        {"name": p.name, "file": None if p.file is None else str(p.file), "identity": p.identity}
        for p in plugins.LOADED.values()
    ]
    values = {name: getattr(subject, name) for name in ("build", "call", "training")}
    return json.dumps(
        {
            **values,
            "plugins": loaded,
            "inputs": [asdict(one) for one in subject.inputs],
            "args": [_sent(value) for value in subject.args],
            "kwargs": {name: _sent(value) for name, value in subject.kwargs.items()},
        }
    )


def _sent(value: Any) -> Any:
    """Write an argument so that the tracer can make it again."""
    if isinstance(value, Config):
        kind = type(value)
        name = f"{kind.__module__}:{kind.__qualname__}"
        return {"config": name, "values": value.model_dump(mode="json")}
    return [_sent(item) for item in value] if isinstance(value, tuple | list) else value


def _check_end(process: _Process, doing: str) -> None:
    """Raise unless the process ended because it had nothing to do."""
    code = process.popen.wait()
    if code == 0:
        return
    process.messages.seek(0)
    lines = process.messages.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    raise TraceError(f"{doing}: the process ended with code {code}: {last}")
