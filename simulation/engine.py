"""What does one vLLM engine do with what it is sent? A discrete-event model of its scheduler; no clock.

Modelled on vllm/v1/core/sched/scheduler.py: continuous batching with chunked prefill under a token budget,
first come first served, and its rule for adapters: while `max_loras` distinct ones run, requests of others
are skipped and the scan goes on, without aging. A sequence that finds the KV cache full is preempted and
computed again. Adapters live in two LRUs (lora/worker_manager.py): slots on the GPU, places in host memory.

Steps between two events are alike, so they are taken together: a span of `count` steps of equal length.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Protocol

from simulation.costs import EngineSettings, StepCosts

IDLE = math.inf


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside an engine, and when things happened to it."""

    key: int
    adapter: str | None
    prompt_tokens: int
    completion_tokens: int
    first_token_s: float | None = None
    finished_s: float | None = None
    order: int = 0  # in the waiting queue
    waiting: bool = False
    to_compute: int = 0  # prompt tokens still to be prefilled
    held_tokens: int = 0  # KV tokens at the end of its prefill
    done_at: int = -1  # step after which its last token is out; -1: it does not decode
    left_tokens: int = 0  # completion tokens still to come when its prefill is done
    last_token_s: float | None = None  # set while it is preempted


class Listener(Protocol):
    """Who hears what an engine puts out."""

    def first_token(self, sequence: Sequence, now: float) -> None:
        """The first token of a sequence is out."""

    def finished(self, sequence: Sequence, now: float) -> None:
        """The last token of a sequence is out."""

    def tokens(self, engine: Engine, gap_s: float, tokens: int) -> None:
        """`tokens` tokens went out, each `gap_s` after the one before it in its stream."""


@dataclass(slots=True)
class Totals:
    """What an engine has done so far."""

    gpu_loads: int = 0
    disk_loads: int = 0
    preemptions: int = 0
    gaps: int = 0  # between two tokens of a stream
    gaps_s: float = 0.0
    busy_s: float = 0.0  # of its device's time


@dataclass(slots=True)
class _Span:
    """Steps under way: `count` of `step_s` each, begun at `start_s`."""

    start_s: float
    step_s: float
    count: int
    prefills: list[tuple[Sequence, int]] = field(default_factory=list)
    sharers: float = 1.0  # engines that step on the device at once


class Engine:
    """One replica. The driver calls `submit` and, at `due_s`, `advance`."""

    def __init__(self, settings: EngineSettings, costs: StepCosts, listener: Listener) -> None:
        self.settings, self.costs, self.listener = settings, costs, listener
        self.beside: list[Engine] = []  # others on its device: those that step at once share its time
        self.totals = Totals()
        self.lanes = 1  # of its device: so many step at once without sharing
        self.due_s = IDLE
        self.running: dict[Sequence, None] = {}  # in the order of admission
        self.active: dict[str, int] = {}  # adapter -> its running sequences
        self.waiting = 0
        self.kv_used = 0
        self._kv_capacity = settings.kv_capacity
        self._step = 0
        self._decoding = 0
        self._ends: list[tuple[int, int, Sequence]] = []  # heap of (done_at, key, sequence)
        self._prefilling: list[Sequence] = []
        self._queue: deque[Sequence] = deque()  # all that wait, with some that no longer do
        self._queues: dict[str | None, deque[Sequence]] = {}
        self._last_order = self._first_order = 0
        self._idle_slots: OrderedDict[str, None] = OrderedDict()  # resident, not running; oldest first
        self._idle_places: OrderedDict[str, None] = OrderedDict()
        self._places: set[str] = set()
        self._span: _Span | None = None
        self._blocked = False  # the last scan of the queue ended for want of room, not of slots

    @property
    def is_stepping(self) -> bool:
        """Whether it keeps its device busy now."""
        return self._span is not None

    @property
    def in_flight(self) -> int:
        """Sequences that run or wait."""
        return len(self.running) + self.waiting

    @property
    def kv_usage(self) -> float:
        """Part of the KV cache in use, 0..1."""
        return self.kv_used / self._kv_capacity

    def forget_adapters(self) -> None:
        """Have none in memory, as another process in its place; for one that runs nothing."""
        self._idle_slots.clear()
        self._idle_places.clear()
        self._places.clear()

    def submit(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence; what is under way stops after the current step if it can run then."""
        self._last_order += 1
        sequence.order = self._last_order
        sequence.to_compute = sequence.held_tokens = sequence.prompt_tokens
        sequence.left_tokens = sequence.completion_tokens
        self._queue.append(sequence)
        self._queues.setdefault(sequence.adapter, deque()).append(sequence)
        sequence.waiting = True
        self.waiting += 1
        if self._span is None:
            self.due_s = min(self.due_s, now)
        elif not self._blocked and self._may_run(sequence.adapter):
            self.cut_short(now)

    def cut_short(self, now: float) -> None:
        """Let what is under way stop after the current step: what it depends on has changed."""
        span = self._span
        if span is None or span.count <= 1:
            return
        begun = max(1, math.floor((now - span.start_s) / span.step_s) + 1)
        if begun < span.count:
            span.count = begun
            self.due_s = span.start_s + begun * span.step_s

    def advance(self, now: float) -> None:
        """End what is under way, tell the listener, and start what comes next."""
        span, self._span = self._span, None
        if span is not None:
            self._end(span, now)
        self._start(now)

    # -- the end of a span ----------------------------------------------------------------------------------

    def _end(self, span: _Span, now: float) -> None:
        tokens = self._decoding * span.count
        self._step += span.count
        self.kv_used += tokens
        totals = self.totals
        totals.gaps += tokens
        totals.gaps_s += tokens * span.step_s
        totals.busy_s += span.count * span.step_s / span.sharers
        finished = self._pop_finished()
        begun = [sequence for sequence, chunk in span.prefills if self._prefilled(sequence, chunk)]
        if tokens:
            self.listener.tokens(self, span.step_s, tokens)
        for sequence in begun:
            self._emit_first(sequence, now, finished)
        for sequence in finished:
            self._leave(sequence)
            sequence.finished_s = now
        for sequence in finished:
            self.listener.finished(sequence, now)

    def _pop_finished(self) -> list[Sequence]:
        finished = []
        while self._ends and self._ends[0][0] <= self._step:
            done_at, _, sequence = heapq.heappop(self._ends)
            if sequence.done_at == done_at:  # else preempted meanwhile
                finished.append(sequence)
                self._decoding -= 1
        return finished

    def _prefilled(self, sequence: Sequence, chunk: int) -> bool:
        sequence.to_compute -= chunk
        if sequence.to_compute:
            return False
        self._prefilling.remove(sequence)
        return True

    def _emit_first(self, sequence: Sequence, now: float, finished: list[Sequence]) -> None:
        """The step that ends a prefill puts out one token."""
        sequence.left_tokens -= 1
        if sequence.last_token_s is not None:
            gap_s = now - sequence.last_token_s
            self.totals.gaps += 1
            self.totals.gaps_s += gap_s
            self.listener.tokens(self, gap_s, 1)
            sequence.last_token_s = None
        if sequence.first_token_s is None:
            sequence.first_token_s = now
            self.listener.first_token(sequence, now)
        if sequence.left_tokens <= 0:
            sequence.done_at = self._step
            finished.append(sequence)
            return
        sequence.done_at = self._step + sequence.left_tokens
        self._decoding += 1
        heapq.heappush(self._ends, (sequence.done_at, sequence.key, sequence))

    def _held(self, sequence: Sequence) -> int:
        """KV tokens of a running sequence."""
        if sequence.done_at < 0:
            return sequence.held_tokens - sequence.to_compute
        return sequence.held_tokens + sequence.left_tokens - (sequence.done_at - self._step)

    def _leave(self, sequence: Sequence) -> None:
        """Take a sequence out of the batch; the last one of an adapter leaves it resident and idle."""
        self.kv_used -= self._held(sequence)
        del self.running[sequence]
        adapter = sequence.adapter
        if adapter is None:
            return
        self.active[adapter] -= 1
        if not self.active[adapter]:
            del self.active[adapter]
            self._idle_slots[adapter] = None
            self._idle_places[adapter] = None

    # -- the start of the next one --------------------------------------------------------------------------

    def _start(self, now: float) -> None:
        preempted = self._make_room(now)
        budget = self.settings.step_tokens - self._decoding
        prefills: list[tuple[Sequence, int]] = []
        for sequence in self._prefilling:
            budget = self._prefill(sequence, budget, prefills)
        loads_ms = 0.0
        self._blocked = preempted
        while not preempted and budget > 0 and (found := self._next()) is not None:
            if not self._has_room(found, budget):
                self._blocked = True
                break
            loads_ms += self._admit(found)
            budget = self._prefill(found, budget, prefills)
        self._blocked = self._blocked or budget <= 0
        if not self.running:
            self.due_s = IDLE
            return
        costs = self.costs
        step_ms = costs.decode_ms(self._decoding, len(self.active), self.settings.slots) + loads_ms
        step_ms += sum(chunk * self._token_ms(one) for one, chunk in prefills)
        sharers = max(1.0, (1 + sum(other.is_stepping for other in self.beside)) / self.lanes)
        step_ms *= sharers
        count = 1 if prefills or preempted else self._alike()
        self._span = _Span(now, step_ms / 1000, count, prefills, sharers)
        self.due_s = now + count * step_ms / 1000

    def _token_ms(self, sequence: Sequence) -> float:
        """Milliseconds of a prompt token."""
        return self.costs.prefill_token_ms + (self.costs.adapter_token_ms if sequence.adapter else 0.0)

    def _alike(self) -> int:
        """Steps until the next sequence ends or the KV cache is full."""
        while self._ends[0][2].done_at != self._ends[0][0]:
            heapq.heappop(self._ends)
        until_end = self._ends[0][0] - self._step
        return max(1, min(until_end, (self._kv_capacity - self.kv_used) // self._decoding))

    def _make_room(self, now: float) -> bool:
        """Preempt the sequences admitted last until every other one can decode a token."""
        preempted = False
        while len(self.running) > 1 and self.kv_used + self._decoding > self._kv_capacity:
            self._preempt(next(reversed(self.running)), now)
            preempted = True
        return preempted

    def _preempt(self, sequence: Sequence, now: float) -> None:
        """Free its KV tokens and put it at the head of the queue, to compute again what it had."""
        held = self._held(sequence)
        self._leave(sequence)
        if sequence.done_at < 0:
            self._prefilling.remove(sequence)
        else:
            sequence.left_tokens = sequence.done_at - self._step
            sequence.held_tokens = held
            sequence.done_at = -1
            sequence.last_token_s = now
            self._decoding -= 1
        sequence.to_compute = sequence.held_tokens
        self._first_order -= 1
        sequence.order = self._first_order
        sequence.waiting = True
        self.waiting += 1
        self._queue.appendleft(sequence)
        self._queues.setdefault(sequence.adapter, deque()).appendleft(sequence)
        self.totals.preemptions += 1

    def _may_run(self, adapter: str | None) -> bool:
        """vLLM's rule: an adapter that runs, or one more while fewer than `max_loras` do."""
        return adapter is None or adapter in self.active or len(self.active) < self.settings.slots

    def _next(self) -> Sequence | None:
        """The oldest waiting sequence that the rule for adapters lets run."""
        if not self.waiting:
            return None
        if len(self.active) < self.settings.slots:
            while not self._queue[0].waiting:
                self._queue.popleft()
            return self._queue[0]
        heads = [queue[0] for adapter in self.active if (queue := self._queues.get(adapter))]
        if base := self._queues.get(None):
            heads.append(base[0])
        return min(heads, key=lambda sequence: sequence.order, default=None)

    def _has_room(self, sequence: Sequence, budget: int) -> bool:
        if len(self.running) >= self.settings.max_sequences:
            return False
        chunk = min(sequence.to_compute, budget)
        return not self.running or self.kv_used + self._decoding + chunk <= self._kv_capacity

    def _prefill(self, sequence: Sequence, budget: int, prefills: list[tuple[Sequence, int]]) -> int:
        """Schedule as much of a prompt as the budget allows; the budget that is left."""
        chunk = min(sequence.to_compute, budget)
        if chunk > 0:
            prefills.append((sequence, chunk))
            self.kv_used += chunk
        return budget - chunk

    def _admit(self, sequence: Sequence) -> float:
        """Move a sequence from the queue into the batch; milliseconds for loading its adapter."""
        sequence.waiting = False
        self.waiting -= 1
        self._queues[sequence.adapter].popleft()
        if self._queue[0] is sequence:
            self._queue.popleft()
        self.running[sequence] = None
        self._prefilling.append(sequence)
        sequence.done_at = -1
        adapter = sequence.adapter
        if adapter is None:
            return 0.0
        running = self.active.get(adapter, 0)
        self.active[adapter] = running + 1
        return 0.0 if running else self._load(adapter)

    def _load(self, adapter: str) -> float:
        """Give an adapter a slot and a place in host memory; milliseconds it takes."""
        taken_ms = 0.0
        if adapter in self._places:
            self._idle_places.pop(adapter, None)
        else:
            taken_ms += self.costs.disk_load_ms
            self.totals.disk_loads += 1
            if len(self._places) >= self.settings.host_places:
                oldest, _ = self._idle_places.popitem(last=False)
                self._places.discard(oldest)
                self._idle_slots.pop(oldest, None)
            self._places.add(adapter)
        if adapter in self._idle_slots:
            del self._idle_slots[adapter]
            return taken_ms
        if len(self.active) + len(self._idle_slots) > self.settings.slots:
            self._idle_slots.popitem(last=False)
        self.totals.gpu_loads += 1
        return taken_ms + self.costs.gpu_load_ms
