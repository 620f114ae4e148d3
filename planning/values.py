"""What a plan is made of, as plain values: demand, models, machines, costs, and the fleet of today. Pure.

Times are seconds, sizes bytes, rates per second, unless a name says otherwise. A demand's time 0 is its
begin: hours and traces count from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from engines.devices.layout import Profile
from fleet.types import Isolation, Strategy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HOUR_S = 3600.0
DAY_S = 86_400.0
USABLE_OF_SLICE = 0.9  # of its part of the GPU's memory, at least; see `Device.slice_of`


# -- demand --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """How a number of tokens is distributed over requests."""

    mean: float
    p50: float
    p90: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class ModelDemand:
    """Who asks how much of one model."""

    model: str  # its name in the fleet: of an adapter or a base model
    tenants: tuple[str, ...]  # who ask for it; empty: not known
    requests: float  # in the whole of the demand's time
    hourly: tuple[float, ...]  # requests in each hour; the last one may be shorter
    prompt: Spread  # tokens, the cached ones included
    completion: Spread  # tokens
    cached: float = 0.0  # part of the prompt tokens that the engine found in its prefix cache, 0..1
    burstiness: float = 1.0  # coefficient of variation of the times between arrivals; 1: as by chance
    concurrency: float | None = None  # most requests in flight, 99 % of the time; None: not known
    ttft_s: float | None = None  # objective: arrival to first token; None: none
    isolation: Isolation = (
        Isolation.SHARED
    )  # dedicated: it shares an engine and a device with its tenant only
    group: str = ""  # models of different groups share no device; "": of no group

    def rate(self, duration_s: float) -> float:
        """Requests a second on average."""
        return self.requests / duration_s if duration_s > 0 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests in the order of their arrival, as columns of equal length."""

    models: tuple[str, ...]
    time_s: NDArray[np.float64]  # of arrival, from the demand's begin; never falls
    model: NDArray[np.int32]  # index in `models`
    prompt: NDArray[np.int32]  # tokens, the cached ones included
    cached: NDArray[np.int32]  # prompt tokens found in the prefix cache
    completion: NDArray[np.int32]  # tokens, at least 1

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a fleet."""

    source: str  # where it is from, in words for people
    begins_s: float | None  # Unix time of its begin; None: not known
    duration_s: float
    models: tuple[ModelDemand, ...]  # by name
    trace: Trace | None = None  # the requests themselves; None: `planning.traces.synthetic` makes such
    notes: tuple[str, ...] = ()  # what is weak about it, each one sentence

    @property
    def hours(self) -> int:
        """How many hours `hourly` of its models has."""
        return len(self.models[0].hourly) if self.models else 0

    def of(self, model: str) -> ModelDemand | None:
        """Return the demand for a model; None where there is none."""
        return next((one for one in self.models if one.model == model), None)


# -- models --------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """What a fine-tune is."""

    ADAPTER = "adapter"  # LoRA weights beside a base model
    WHOLE = "whole"  # weights of its own; base models too


@dataclass(frozen=True, slots=True)
class Model:
    """A model that could be served."""

    name: str  # as in Demand
    kind: Kind
    base: str  # of an adapter: the name of the whole model that it changes; "" of a whole one
    source: str  # folder or hub id; "" where it is not known
    shape: str  # models of one shape can exchange weights in an engine; an adapter's: its base's
    weight_bytes: int  # as an engine holds them; of an adapter: of its file
    kv_bytes_per_token: int = 0  # of the whole model, in the type of its KV cache; 0 of an adapter
    parameters: int = 0  # numbers that each token is multiplied with; 0 of an adapter
    rank: int = 0  # of an adapter
    slot_bytes_per_rank: int = (
        0  # of a whole model: what one slot takes for each of its ranks; 0: no adapters
    )
    max_model_len: int | None = None  # tokens; None: not known
    tensor_parallel: int = 1  # devices that an engine of it needs
    could_be: str = ""  # a whole model that could be an adapter of this base; "": not known, or no
    could_be_rank: int = 0  # and of which rank

    def slots_bytes(self, slots: int, rank: int) -> int:
        """Return what adapter slots of a rank take on the device of this whole model."""
        return self.slot_bytes_per_rank * slots * rank


# -- machines ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """One kind of GPU, or of MIG slice, or a CPU that serves as one."""

    kind: str  # such as a100-80gb, or a100-80gb/1g.10gb for a slice
    memory_bytes: int  # that can be used
    bandwidth: float  # bytes a second between its memory and its cores
    flops: float  # dense multiplications and additions a second in 16 bits
    host_link: float = 25e9  # bytes a second from host memory
    profiles: tuple[Profile, ...] = ()  # how it can be divided; empty: it cannot
    price_per_hour: float | None = None  # in the fleet's currency; None: not known
    source: str = ""  # of these figures

    def slice_of(self, profile: Profile) -> Device:
        """Return one of its MIG slices; memory slices have the bandwidth, compute slices the multiplications.

        Nobody sells a slice, so its price is the part that its compute slices are. Its memory is less than
        its name says: of an H200, slices of 18, 35 and 71 GB have 16, 32.5 and 69.5 GiB that can be used.
        """
        whole = max((one.size for one in self.profiles), default=profile.size)
        compute = max((one.compute for one in self.profiles), default=profile.compute)
        part = profile.compute / compute
        return replace(
            self,
            kind=f"{self.kind}/{profile.name}",
            memory_bytes=int(self.memory_bytes * profile.size / whole * USABLE_OF_SLICE),
            bandwidth=self.bandwidth * profile.size / whole,
            flops=self.flops * part,
            profiles=(),
            price_per_hour=None if self.price_per_hour is None else self.price_per_hour * part,
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """Machines alike: what one of them has, and how many there are."""

    name: str
    device: Device
    devices: int  # of one machine
    host_memory_bytes: int
    count: int | None = 1  # of such machines; None: as many as are needed


# -- costs ---------------------------------------------------------------------------------------------------


class Source(StrEnum):
    """Where a figure is from, the best first."""

    MEASURED = "measured"  # by this fleet, or by a calibration of its engine
    ROOFLINE = "roofline"  # bytes and multiplications by what the device does at most
    GIVEN = "given"  # by hand, or a public table


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it is from."""

    value: float
    source: Source
    detail: str = ""  # in words for people: the table, how many requests


class Way(StrEnum):
    """How a model comes awake, the cheapest first as long as nothing was measured; as engines do it."""

    PUT = "put"  # weights from host memory into a running engine of its shape
    RELOAD = "reload"  # weights from disk into a running engine of its shape
    WAKE1 = "wake1"  # its own engine, asleep with its weights in host memory
    FORK = "fork"  # another engine, from a process that has imported vLLM
    WAKE2 = "wake2"  # its own engine, asleep without its weights
    COLD = "cold"  # another engine, from nothing


@dataclass(frozen=True, slots=True)
class ServingCost:
    """What it takes to serve one whole model, and adapters on it, on one device. Each figure is in seconds.

    A step of the engine is linear in what is in it, as in `benchmarks.simulator.costs.StepCosts`.
    """

    model: str  # name of the whole model
    device: str  # kind
    base_s: Figure  # a step with nothing in it: mostly reading the weights
    sequence_s: Figure  # each sequence that decodes, its KV cache at a usual length included
    prefill_token_s: Figure  # each prompt token that is not cached
    adapter_s: Figure  # each adapter that has a sequence in the step
    sequence_adapter_s: Figure  # each sequence times each such adapter
    slot_s: Figure  # each slot that the engine has, used or not
    slot_load_s: Figure  # an adapter from host memory into a slot
    disk_load_s: Figure  # an adapter from disk to host memory
    request_s: Figure  # before the first step and after the last: gateway, tokenizer, transport
    switches: Mapping[Way, Figure] = field(default_factory=dict)  # until the model answers, by way
    # Each prompt token of an adapter's request, on top.
    adapter_token_s: Figure = field(default_factory=lambda: Figure(0.0, Source.GIVEN, "not told"))

    def step_s(
        self,
        sequences: float,
        adapters: float = 0,
        slots: int = 0,
        prefill_tokens: float = 0,
        adapter_tokens: float = 0,
    ) -> float:
        """Return how long one step takes; of the prefilled tokens some are of adapters' requests."""
        return (
            self.base_s.value
            + self.sequence_s.value * sequences
            + self.adapter_s.value * adapters
            + self.sequence_adapter_s.value * sequences * adapters
            + self.slot_s.value * slots
            + self.prefill_token_s.value * prefill_tokens
            + self.adapter_token_s.value * adapter_tokens
        )

    def tokens_per_s(self, sequences: float, adapters: float = 0, slots: int = 0) -> float:
        """Return the tokens a second of all sequences together while nothing is prefilled."""
        return sequences / self.step_s(sequences, adapters, slots)

    def prefill_s(self, tokens: float, adapter_tokens: float = 0) -> float:
        """Return the time from the grant to the first token on an idle engine; `tokens` are not cached."""
        return self.request_s.value + self.step_s(0, 0, 0, tokens, adapter_tokens)

    def switch_s(self, *, same_shape: bool, in_host_memory: bool, sleeps: bool = False) -> Figure | None:
        """Return what a switch to the model takes by the cheapest way that is allowed; None: not known.

        One whose own engine `sleeps` takes over no other. A way whose time is not known is not gone.
        """
        ways = [Way.FORK, Way.COLD]
        if sleeps:
            ways.append(Way.WAKE1 if in_host_memory else Way.WAKE2)
        elif same_shape:
            ways += [Way.PUT, Way.RELOAD] if in_host_memory else [Way.RELOAD]
        known = (self.switches[way] for way in ways if way in self.switches)
        return min(known, key=lambda figure: figure.value, default=None)


# -- today ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Served:
    """How one model is served today."""

    model: str
    pool: str
    strategy: Strategy
    replicas: int  # of its base model, or the hosts that it takes turns on
    devices: tuple[str, ...] = ()  # as the fleet file names them; empty: not said


@dataclass(frozen=True, slots=True)
class Today:
    """The fleet as it is: moves are counted from here."""

    served: Mapping[str, tuple[Served, ...]]  # by model; several where several pools serve it
    devices: int  # in use by all pools together, each slice counted as one
