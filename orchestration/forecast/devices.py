"""Devices that the stages of a plan will run on: model, threads, memory, and number at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import psutil

from orchestration.backends import find_backend
from orchestration.backends.places import Places
from orchestration.costs.calibration import Site
from orchestration.policy.profile import Profile, Request
from orchestration.runs.provenance import device_name

GB = 2**30  # bytes; a profile's `memory_gb` has this unit


@dataclass(frozen=True)
class DataSheet:
    """Data sheet of a GPU; FLOP/s are dense: of 16-bit tensor cores, and of fp32."""

    half_flops: float
    single_flops: float
    memory_bytes: int


# From NVIDIA's data sheets of the SXM models. A longer name stands before its beginning.
DATA_SHEETS: dict[str, DataSheet] = {
    "H200": DataSheet(989e12, 67e12, 141 * GB),
    "H100": DataSheet(989e12, 67e12, 80 * GB),
    "A100-SXM4-80GB": DataSheet(312e12, 19.5e12, 80 * GB),
    "A100": DataSheet(312e12, 19.5e12, 40 * GB),
    "V100": DataSheet(125e12, 15.7e12, 32 * GB),
}
"""Part of a device's name -> its data sheet; the first that fits counts."""


@dataclass(frozen=True)
class Machine:
    """Resources that one stage gets.

    Attributes:
        device: model name of its GPU or CPU; "" if unknown.
        threads: threads of each of its processes.
        processes: processes that share the stage.
        gpus: GPUs of all processes; 0 on CPUs.
        memory_bytes: bytes that one process may use; None: not known.
        slots: stages like this that run at a time; None: any number.
        width: of a local backend's places, those that such a stage takes; elsewhere 1.
    """

    device: str
    threads: int
    processes: int
    gpus: float
    memory_bytes: int | None
    slots: int | None
    width: int = 1

    @property
    def site(self) -> Site:
        """Site by which records are compared."""
        return Site(self.device, self.threads, self.processes)

    @property
    def units(self) -> float:
        """GPUs that an hour of the stage costs; without GPU, cores."""
        return self.gpus or self.threads * self.processes


Machines = Callable[[str], Machine]
"""Function from a stage's name to the resources that it gets."""


def data_sheet(device: str) -> DataSheet | None:
    """Find the data sheet of a device by its name; None for CPUs and unknown GPUs."""
    return next((sheet for name, sheet in DATA_SHEETS.items() if name in device), None)


def utilisation(flops_per_second: float, device: str, family: str) -> float | None:
    """Compute the share of the device's peak; None: not known.

    The peak is that of fp32, unless the family names a 16-bit precision.
    """
    sheet = data_sheet(device)
    if sheet is None:
        return None
    # A family's words include the precision of training.
    half = not {"bf16", "fp16"}.isdisjoint(family.split())
    return flops_per_second / (sheet.half_flops if half else sheet.single_flops)


def machines(backend: str, jobs: int | None, profile: Profile) -> Machines:
    """Return the resources that each kind of stage gets from a backend.

    Args:
        backend: name of the backend.
        jobs: stages at a time, as the user asked; None: as the profile says.
        profile: what stages ask for, and on which device.
    """
    spec = find_backend(backend)
    if spec.places is not None:
        return _shared(spec.places(jobs, profile), profile)
    # The devices of a cluster are unknown here.
    here = device_name() if spec.runs_here(profile) else ""

    def machine(stage: str) -> Machine:
        request = profile.request(stage)
        return Machine(
            device=request.device or here,
            threads=request.cpus,
            processes=request.processes,
            gpus=request.gpus * request.processes,
            memory_bytes=_asked_memory(request),
            slots=jobs or profile.max_parallel,
        )

    return cache(machine)


def _shared(places: Places, profile: Profile) -> Machines:
    """Return the shares of this machine that stages get."""
    device = device_name()
    sheet, on_gpus = data_sheet(device), bool(places.gpus[0])
    gpu = sheet.memory_bytes if sheet is not None else None

    def machine(stage: str) -> Machine:
        processes = profile.request(stage).processes
        # Without GPU, stages share the machine's memory; the limit is what one alone could use.
        memory = gpu if on_gpus else int(psutil.virtual_memory().total) // processes
        return Machine(
            device=device,
            threads=places.threads(processes),
            processes=processes,
            gpus=float(processes) if on_gpus else 0.0,
            memory_bytes=memory,
            slots=places.at_once(processes),
            width=places.width(processes),
        )

    return cache(machine)


def _asked_memory(request: Request) -> int | None:
    """Return the memory of the GPU, if one is asked for, else what is asked of the node."""
    if request.gpus:
        sheet = data_sheet(request.device or "")
        # A fraction of a GPU gets that fraction of its memory.
        return None if sheet is None else int(sheet.memory_bytes * min(request.gpus, 1))
    return None if request.memory_gb is None else int(request.memory_gb * GB)
