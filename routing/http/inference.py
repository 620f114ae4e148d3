"""One inference request, from its body to its record.

The body is read, checked and written anew for an engine; admission lets the request in; the flight answers
it. The client's body is freed before the request may have to wait: from then on only the engine's body is
needed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from engines import secrets
from engines.protocol import Kind
from fleet.current import CurrentFleet, Derived
from fleet.types import Band, Fleet, RequestLimits, Tenant
from routing.asgi import Exchange
from routing.catalog.declared import Identity
from routing.catalog.directory import Directory
from routing.errors import BreaksEngine, Quarantined, QuotaExceeded, RequestError, Unavailable
from routing.flights import guards
from routing.flights.attempt import Question
from routing.flights.faulty import Faulty
from routing.flights.flight import Flight
from routing.flights.guards import Guards, Watch
from routing.flights.progress import NO_WAITS, Waits
from routing.flights.running import RunningFlights
from routing.http.admission import Admission
from routing.http.callers import Callers
from routing.http.calls import read_call
from routing.http.models import unknown_model
from routing.observing.ended import EndedRequests
from routing.observing.tracing import Trace, Tracer, trace_id_of
from routing.openai import bodies, limits, media, speech
from routing.replicas.client import ReplicaClient
from routing.scheduling import refusals
from routing.scheduling.admission import Cap
from routing.scheduling.decisions import Action
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica, longest_prompt
from routing.scheduling.tickets import Ticket
from routing.types import FallbackReason, Outcome, Record, Request, Target

# What a request keeps beside its body while it waits: its task, headers, ticket and flight, as measured.
HELD_BYTES = 16 * 2**10


_SHOWN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")  # in a header; the rest as in a URL
SPARE_PRIORITY = len(Band)  # vLLM's, of a line of a batch: below all bands
_Entered = tuple[Request, Question, Ticket]
# What admission says of a model for which its fallback may answer.
_FALLS_BACK = {
    "no_replica_ready": FallbackReason.NO_REPLICA,
    Cap.OVERLOADED.value: FallbackReason.OVERLOADED,
}


@dataclass(slots=True)
class Asked:
    """One request as it came, whichever of the tenant's models answers it."""

    exchange: Exchange
    tenant: Tenant
    identity: Identity  # of its key
    call: bodies.Call
    size_bytes: int  # of its body
    request_id: str
    arrived_s: float
    trace: Trace | None
    spare: bool = False  # a line of a batch
    record: Record | None = None  # once it was refused
    watch: Watch | None = None  # looks at its texts; None: nobody does
    refusal: RequestError | None = None  # of its prompt
    own_headers: int = field(init=False)  # of the answer's headers, how many name no model

    def __post_init__(self) -> None:
        self.own_headers = len(self.exchange.answer_headers)

    @property
    def sticky(self) -> str:
        """The text that decides the side of a split."""
        return self.call.sticky or self.request_id


class Tables:
    """What requests look up of one fleet."""

    def __init__(self, fleet: Fleet, salt_of: Callable[[str], str]) -> None:
        """`salt_of` returns an account's salt; it may keep those that it has made."""
        self.salts = {t.name: salt_of(t.account) for t in fleet.tenants.values()}
        self.limits = {  # by tenant and base model
            (tenant.name, name): _limits(model.request_limits, tenant)
            for tenant in fleet.tenants.values()
            for name, model in fleet.base_models.items()
        }
        self.with_slots = {name for name, model in fleet.base_models.items() if model.serves_adapters}
        heartbeat_s = fleet.gateway.heartbeat_s
        self.guards = fleet.gateway.guards
        self.waits = {pool.name: Waits(pool.hedge_after_s, heartbeat_s) for pool in fleet.pools.values()}


@dataclass(slots=True)
class Inference:
    """Answers the routes of `Kind`."""

    fleet: CurrentFleet
    secret: bytes = field(repr=False)
    callers: Callers
    directory: Directory
    dispatcher: Dispatcher
    admission: Admission
    clients: Mapping[Replica, ReplicaClient]
    flights: RunningFlights
    ended: EndedRequests
    tracer: Tracer | None  # None: tracing is off
    clock: Callable[[], float]
    guards: Guards = field(default_factory=Guards, init=False)
    _faulty: Faulty = field(default_factory=Faulty, init=False)
    _tables: Derived[Tables] = field(init=False)

    def __post_init__(self) -> None:
        salt_of = functools.cache(functools.partial(secrets.cache_salt, self.secret))
        self._tables = self.fleet.derive(lambda fleet: Tables(fleet, salt_of))

    async def answer(self, exchange: Exchange, kind: Kind, request_id: str) -> None:
        """Answer one request. Raises the `RequestError` of what is wrong with it, or `ClientGone`."""
        trace = None
        if self.tracer is not None:
            trace = self.tracer.begin(exchange.headers.traceparent, kind.value, self.clock())
        tenant, identity = self.callers.tenant(exchange)
        if trace is not None:
            trace.authenticated_s = self.clock()
        call, size_bytes = await read_call(exchange, kind, self.fleet.now.gateway)
        if self.fleet.now.tenants.get(tenant.name) is not tenant:  # the fleet was changed meanwhile
            tenant, identity = self.callers.tenant(exchange)
        arrived_s = self.clock()  # whole: who sends it slowly has not waited, and gains nothing by it
        asked = Asked(exchange, tenant, identity, call, size_bytes, request_id, arrived_s, trace)
        await self.serve(asked)

    async def serve(self, asked: Asked) -> Record | None:
        """Answer a request that was read; return how it ended.

        Raises the `RequestError` of what is wrong with it. None: nothing is known of how it ended.
        """
        exchange, trace, kind = asked.exchange, asked.trace, asked.call.kind
        if asked.tenant.name in self._tables.now.guards and asked.call.endpoint.runs:
            await self._look_at_prompt(asked)
        entered = await self._enter(asked)
        asked.call.payload.clear()  # it is in the engine's body, and may be many times as large
        asked.call.recording = b""
        if entered is None:
            return asked.record
        request, question, ticket = entered
        if trace is not None:
            trace.submitted_s = self.clock()
        flight = Flight(
            question,
            ticket,
            exchange,
            self.dispatcher,
            self.clients,
            self.clock,
            self._tables.now.waits.get(request.target.pool, NO_WAITS),
        )
        flight.watch = asked.watch
        self.flights.add(flight)
        try:
            await flight.fly()
        finally:
            if flight.record is not None:
                if flight.breaks_engine:
                    self._faulty.remember(asked.tenant.name, kind, question.body, self.clock())
                if asked.watch is not None and asked.watch.failed:
                    flight.record.reason = flight.record.reason or guards.FAILED
                self._end(flight.record, request, exchange, trace)
            self.admission.end(ticket)
            self.flights.remove(flight)
        return flight.record

    async def _look_at_prompt(self, asked: Asked) -> None:
        """Have the tenant's guard look at the prompt; what it refuses is refused in its turn.

        Raises as `Callers.tenant` where the tenant was changed meanwhile.
        """
        tenant = asked.tenant
        asked.watch = self.guards.watch(self._tables.now.guards[tenant.name], tenant.name)
        try:
            await asked.watch.look_at_prompt(asked.call)
        except RequestError as error:
            asked.refusal = error
        if self.fleet.now.tenants.get(tenant.name) is not tenant and asked.spare:
            raise refusals.moved()  # a line has no key to ask for anew; it is asked again
        if self.fleet.now.tenants.get(tenant.name) is not tenant:
            asked.tenant, asked.identity = self.callers.tenant(asked.exchange)

    async def _enter(self, asked: Asked) -> _Entered | None:
        """Let a request in, for the model that was asked for or for its fallback.

        One that admission refuses gets its answer and its record here; returns None. Raises the
        `RequestError` of what is wrong with it.
        """
        try:
            target = self._resolve(asked)
        except (Quarantined, Unavailable) as error:
            quarantined = isinstance(error, Quarantined)
            reason = FallbackReason.QUARANTINED if quarantined else FallbackReason.NOT_READY
            entered = self._fall_back(asked, reason, error)
            if entered is None:
                raise
            return entered
        if target is None:
            raise unknown_model(asked.call.model)
        if target.fallback is not None and not self.dispatcher.takes_work(target):
            entered = self._fall_back(asked, FallbackReason.NO_REPLICA, refusals.no_replica())
            if entered is not None:
                return entered
        return await self._admit(asked, target)

    async def _admit(self, asked: Asked, target: Target) -> _Entered | None:
        """Let a request in for a target. Returns and raises as `_enter`."""
        request, question = self._prepare(asked, target)
        try:
            if asked.refusal is not None:
                self.admission.count_refused(request, asked.exchange.answer_headers)
                raise asked.refusal
            ticket = self.admission.admit(request, asked.exchange.answer_headers)
        except RequestError as error:
            fallback_reason = _FALLS_BACK.get(error.code) if target.fallback is not None else None
            entered = None if fallback_reason is None else self._fall_back(asked, fallback_reason, error)
            if entered is None and asked.spare and may_pass(error):
                raise  # it is asked again, and only its last answer counts
            if entered is None:
                asked.record = _refused(request, error, self.clock())
                self._end(asked.record, request, asked.exchange, asked.trace)
                await asked.exchange.refuse(error)
            return entered
        return request, question, ticket

    def _fall_back(self, asked: Asked, reason: FallbackReason, refusal: RequestError) -> _Entered | None:
        """Let a request in for its model's fallback; None, and all is as before, where that cannot serve it.

        `refusal` is what the client gets where that fails later.
        """
        # A tokenizer is a model's own, and no other model's will do.
        if not asked.call.endpoint.runs or asked.refusal is not None:
            return None
        target = self.directory.fallback(asked.tenant, asked.call.model, asked.sticky, reason)
        if target is None or not self.dispatcher.takes_work(target):
            return None
        headers = asked.exchange.answer_headers
        before = headers.copy()
        del headers[asked.own_headers :]
        try:
            request, question = self._prepare(asked, target, refusal)
            why = f"{reason} of {target.fallback_of}"
            self.dispatcher.decisions.add(self.clock(), request, Action.FALLBACK, why)
            return request, question, self.admission.admit(request, headers)
        except RequestError:
            headers[:] = before
            return None

    def _prepare(
        self, asked: Asked, target: Target, refusal: RequestError | None = None
    ) -> tuple[Request, Question]:
        """Read a call for a target: what the scheduler is to know of it, and what an engine is asked."""
        call, tenant, trace, tables = asked.call, asked.tenant, asked.trace, self._tables.now
        asked.exchange.answer_headers += _target_headers(target)
        limits.check(
            call.payload,
            tables.limits[tenant.name, target.base_model],
            content=call.content,
            prompts=call.size.prompts,
            size_bytes=asked.size_bytes,
        )
        if call.size.has_parts or "previous_input_messages" in call.payload:
            allowed = self.fleet.now.base_models[target.base_model].media
            media.check(call.payload, call.endpoint, allowed, salt=tables.salts[tenant.name])
        elif call.endpoint.form:
            speech.check_size(call.recording, self.fleet.now.base_models[target.base_model].media)
        priority = SPARE_PRIORITY if asked.spare else tenant.band.rank
        # orjson leaves several times a body's size free behind it; a copy has no such room.
        for_engine = b"%b" % bodies.for_engine(
            call,
            target,
            cache_salt=tables.salts[tenant.name],
            priority=priority,
            has_slots=target.base_model in tables.with_slots,
        )
        if self._faulty.knows(tenant.name, call.kind, for_engine, asked.arrived_s):
            raise BreaksEngine("The engine broke on a request like this one; something in it is wrong.")
        request = Request(
            asked.request_id,
            target,
            call.sequences,
            self._prompt_tokens(call, target),
            asked.arrived_s,
            max_completion_tokens=call.max_completion_tokens,
            size_bytes=len(for_engine) + HELD_BYTES,
            user=call.user,
            spare=asked.spare,
            key=asked.identity.key,
            key_limits=asked.identity.limits,
        )
        traceparent = None
        if trace is not None:
            traceparent = trace.for_engine
            trace.submitting_s = self.clock()
        return request, Question(
            call,
            target,
            for_engine,
            request.prompt_tokens,
            traceparent,
            priority,
            refusal,
            tables.salts[tenant.name],
        )

    def _resolve(self, asked: Asked) -> Target | None:
        """Return what the model means for the tenant, or None. Raises `RequestError` if it cannot answer."""
        tenant, model = asked.tenant, asked.call.model
        try:
            target = self.directory.resolve(tenant, model, asked.sticky)
            if target is None or asked.call.endpoint.runs:
                return target
            return replace(target, adapter_id=None, fallback=None)  # the tokenizer is the base model's
        except Unavailable:  # what it waits for may be an engine
            meant = self.directory.describe(tenant, model or tenant.default_model or "")
            if meant is not None:
                refusals.refuse_if_failed(self.dispatcher.groups[meant.pool, meant.base_model].engines)
            raise

    def _prompt_tokens(self, call: bodies.Call, target: Target) -> int:
        """Estimate the prompt's length. Raises `InvalidRequest` where the model surely cannot read it.

        What the model does not read has none.
        """
        if not call.endpoint.runs:
            return 0
        model = self.fleet.now.base_models[target.base_model]
        limit, chars_per_token = longest_prompt(self.dispatcher.group_of(target).engines)
        limit = model.max_model_len or limit
        tokens = call.size.tokens(model.media_tokens)
        if not limit or tokens <= limit:
            return tokens
        bodies.refuse_too_long(call, limit, chars_per_token)
        return min(tokens, call.size.prompts * limit)

    def _end(self, record: Record, request: Request, exchange: Exchange, trace: Trace | None) -> None:
        """Tell everybody who is interested how the request went."""
        record.ended_at_s = time.time()
        record.of_batch = request.spare
        record.set_cost()
        if trace is not None and self.tracer is not None:
            record.trace_id, record.traced = trace.context.trace_id, trace.context.sampled
            self.tracer.end(trace, record, request.arrived_s)
        elif exchange.headers.traceparent:
            record.trace_id = trace_id_of(exchange.headers.traceparent)
        self.ended.add(record)


def may_pass(error: RequestError) -> bool:
    """Whether a line of a batch may succeed after such a refusal, if it waits. A spent budget ends it."""
    return error.retry_after_s is not None and not isinstance(error, QuotaExceeded)


def _limits(limits: RequestLimits, tenant: Tenant) -> RequestLimits:
    return replace(limits, **tenant.request_limits) if tenant.request_limits else limits


def _target_headers(target: Target) -> list[tuple[bytes, bytes]]:
    model = target.model
    if target.fallback_of:
        model = f"{target.fallback_of}; fallback={model}"
    if not model.isascii():
        model = quote(model, safe=_SHOWN)
    headers = [(b"x-tenantry-model", model.encode())]
    if target.adapter is not None:
        headers.append((b"x-tenantry-adapter", target.adapter.encode()))
        headers.append((b"x-tenantry-version", b"%d" % (target.version or 0)))
    return headers


def _refused(request: Request, error: RequestError, now_s: float) -> Record:
    record = Record(request.id, request.target, Outcome.REJECTED, error.status, error.code)
    record.key = request.key
    record.explanation, record.retry_after_s = error.message, error.retry_after_s
    record.total_s = now_s - request.arrived_s
    return record
