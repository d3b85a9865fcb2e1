"""On what the stages of a plan will run: device, threads, memory, how many at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import psutil

from orchestration.backends.local import make_slots
from orchestration.costs.calibration import Site
from orchestration.policy.profile import Profile, Request
from orchestration.runs.provenance import device_name

GB = 2**30


@dataclass(frozen=True)
class DataSheet:
    """What a GPU's maker says. FLOP/s are dense: of 16-bit tensor cores, and of fp32."""

    half_flops: float
    single_flops: float
    memory_bytes: int


DATA_SHEETS: dict[str, DataSheet] = {
    "H200": DataSheet(989e12, 67e12, 141 * GB),
    "H100": DataSheet(989e12, 67e12, 80 * GB),
    "A100-SXM4-80GB": DataSheet(312e12, 19.5e12, 80 * GB),
    "A100": DataSheet(312e12, 19.5e12, 40 * GB),
    "V100": DataSheet(125e12, 15.7e12, 32 * GB),
}
"""By what a device's name contains; the first that fits."""


@dataclass(frozen=True)
class Machine:
    """What one stage gets.

    Attributes:
        device: model name of its GPU or CPU; "" where nobody said.
        threads: of each of its processes.
        processes: that share the stage.
        gpus: in all, 0 on CPUs.
        memory_bytes: that one process may use; None: not known.
        slots: stages at a time; None: as many as there are.
    """

    device: str
    threads: int
    processes: int
    gpus: float
    memory_bytes: int | None
    slots: int | None

    @property
    def site(self) -> Site:
        """What records are compared by."""
        return Site(self.device, self.threads, self.processes)

    @property
    def units(self) -> float:
        """GPUs that an hour of the stage costs; without GPU, cores."""
        return self.gpus or self.threads * self.processes


Machines = Callable[[str], Machine]
"""Stage name -> on what it will run."""


def data_sheet(device: str) -> DataSheet | None:
    """Of a device by its name; None of CPUs and of what is not in the table."""
    return next((sheet for name, sheet in DATA_SHEETS.items() if name in device), None)


def utilisation(flops_per_second: float, device: str, family: str) -> float | None:
    """Share of the device's peak, of fp32 unless the family names 16 bits; None: not known."""
    sheet = data_sheet(device)
    if sheet is None:
        return None
    half = not {"bf16", "fp16"}.isdisjoint(family.split())
    return flops_per_second / (sheet.half_flops if half else sheet.single_flops)


def machines(backend: str, jobs: int | None, profile: Profile) -> Machines:
    """What each kind of stage gets of a backend.

    Args:
        backend: its name.
        jobs: stages at a time, as the user asked; None: as the profile says.
        profile: what stages ask for, and on which device.
    """
    if backend == "local":
        return _local(jobs, profile)
    here = device_name() if backend == "ray" and profile.ray_address is None else ""

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


def _local(jobs: int | None, profile: Profile) -> Machines:
    slots, device = make_slots(jobs, profile.max_parallel), device_name()
    slot, sheet = slots[0], data_sheet(device)
    gpu = sheet.memory_bytes if sheet is not None else None
    memory = gpu if slot.gpu else int(psutil.virtual_memory().total)

    def machine(stage: str) -> Machine:
        processes = profile.request(stage).processes
        gpus = float(bool(slot.gpu))
        return Machine(device, slot.threads, processes, gpus, memory, len(slots))

    return cache(machine)


def _asked_memory(request: Request) -> int | None:
    """Of the GPU where one is asked for, else what is asked of the node for a process."""
    if request.gpus:
        sheet = data_sheet(request.device or "")
        return None if sheet is None else int(sheet.memory_bytes * min(request.gpus, 1))
    return None if request.memory_gb is None else int(request.memory_gb * GB)
