"""The GPUs of a machine and their MIG slices as values; finds the slice that is meant. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.mig import SliceName

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"  # names the devices that a process may use
_SHOWN = 8  # slices listed in a message


class SliceError(Exception):
    """No engine can run on the slice that is meant; says why in one sentence, for operators."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to cut a slice from a GPU. Memory slices are eighths of a GPU (quarters of a small one)."""

    name: str  # such as 1g.20gb
    compute: int  # compute slices
    size: int  # memory slices
    starts: tuple[int, ...]  # memory slices at which one may begin
    memory_bytes: int
    most: int  # of them on one GPU


@dataclass(frozen=True, slots=True)
class Slice:
    """One MIG device."""

    uuid: str
    profile: str
    instance: int  # id of its GPU instance
    compute: int  # compute slices
    memory_bytes: int  # that can be used; less than the profile's name says


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    index: int  # as nvidia-smi counts
    uuid: str
    name: str
    memory_bytes: int = 0  # that can be used
    mig: bool | None = None  # whether it is divided; None: it cannot be
    slices: tuple[Slice, ...] = ()  # in the order of the driver
    profiles: tuple[Profile, ...] = ()  # as the driver tells them; empty where it does not
    fault: str = ""  # why the driver tells nothing of it

    def is_called(self, name: str) -> bool:
        """Whether this is its index or its UUID."""
        return name in (str(self.index), self.uuid)

    def of_profile(self, profile: str) -> list[Slice]:
        """Its slices of a profile, always in the same order."""
        return sorted((s for s in self.slices if s.profile == profile), key=lambda s: (s.instance, s.uuid))


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPUs of this machine."""

    gpus: tuple[Gpu, ...]
    driver: str = ""  # version

    def find(self, wanted: SliceName) -> tuple[Gpu, Slice]:
        """Return the slice that is meant, and its GPU. Raises `SliceError`."""
        if not self.gpus:
            raise SliceError(f"slice {wanted} is not there: the driver finds no GPU on this machine")
        return self._by_uuid(wanted.uuid) if wanted.uuid else self._by_profile(wanted)

    def _by_uuid(self, uuid: str) -> tuple[Gpu, Slice]:
        for gpu in self.gpus:
            for one in gpu.slices:
                if one.uuid == uuid:
                    return gpu, _alone(gpu, one)
        raise SliceError(f"slice {uuid} is not there: {self._what_there_is()}")

    def _by_profile(self, wanted: SliceName) -> tuple[Gpu, Slice]:
        gpu = next((gpu for gpu in self.gpus if gpu.is_called(wanted.gpu)), None)
        if gpu is None:
            known = ", ".join(str(gpu.index) for gpu in self.gpus)
            raise SliceError(f"slice {wanted} is not there: this machine has no such GPU; it has {known}")
        found = gpu.of_profile(wanted.profile)
        if wanted.number >= len(found):
            raise SliceError(
                f"slice {wanted} is not there: {_state(gpu)}"
                + (f", {len(found)} of profile {wanted.profile}" if found else "")
            )
        return gpu, _alone(gpu, found[wanted.number])

    def _what_there_is(self) -> str:
        return "; ".join(map(_state, self.gpus))


def _state(gpu: Gpu) -> str:
    """Say in a clause which slices a GPU has, or why none."""
    if gpu.fault:
        return f"GPU {gpu.index} does not answer ({gpu.fault})"
    if gpu.mig is None:
        return f"GPU {gpu.index} ({gpu.name}) cannot be divided"
    if not gpu.mig:
        return f"MIG is off on GPU {gpu.index} ({gpu.name})"
    shown = ", ".join(f"{one.uuid} ({one.profile})" for one in gpu.slices[:_SHOWN])
    more = f" and {len(gpu.slices) - _SHOWN} more" if len(gpu.slices) > _SHOWN else ""
    return f"GPU {gpu.index} ({gpu.name}) has {shown + more or 'no slice'}"


def _alone(gpu: Gpu, one: Slice) -> Slice:
    """Return the slice. Raises `SliceError` where others share its memory: compute instances of one."""
    others = [s.uuid for s in gpu.slices if s.instance == one.instance and s.uuid != one.uuid]
    if others:
        raise SliceError(
            f"slice {one.uuid} ({one.profile}) shares its memory with {', '.join(others)}: they are compute "
            "instances of one GPU instance; make a GPU instance for each engine (`tenantry mig plan`)"
        )
    return one
