"""The ASGI application clients talk to: who calls, and what may they see? OpenAI's routes and errors.

A raw application, since a framework's layers would cost more than all of its work. Scheduling is the
dispatcher's, a request's trip is the flight's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import orjson

from engines import secrets
from engines.protocol import Kind
from fleet.types import Fleet, MetricsAccess, RequestLimits, Tenant
from routing import console, gc_tuning
from routing.admin import ADMIN_PREFIX, ADMIN_ROUTES, LiveFeed, admin_app
from routing.asgi import JSON, ClientGone, Connection, Exchange, Headers, Receive, Scope, Send
from routing.catalog.directory import Directory
from routing.catalog.entries import KeyRole
from routing.errors import (
    BreaksEngine,
    CapReached,
    Forbidden,
    InvalidKey,
    InvalidRequest,
    ModelNotFound,
    QuotaExceeded,
    RequestError,
    RouteNotFound,
    Unavailable,
)
from routing.flights.attempt import Question
from routing.flights.faulty import Faulty
from routing.flights.flight import CLIENT_CLOSED_REQUEST, Abort, Flight
from routing.http import docs
from routing.lifecycle import Lifecycle, Manager
from routing.observing.batch import Batch
from routing.observing.live import Figures, LiveView
from routing.observing.live.verdict import usual_limit_s
from routing.observing.metrics import GatewayMetrics, TextFormat
from routing.observing.request_log import write_lines
from routing.observing.tracing import Trace, Tracer, trace_id_of
from routing.openai import answers, bodies, limits
from routing.random_ids import random_id
from routing.record import Record
from routing.replicas.client import ReplicaClient
from routing.replicas.discovery import Discovery
from routing.replicas.http1 import UpstreamError
from routing.replicas.registry import ReplicaRegistry
from routing.scheduling.admission import Cap, Rejection
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import declared_replicas
from routing.scheduling.tickets import Ticket
from routing.site import Site
from routing.types import Outcome, Request, Target
from routing.usage import Ledger
from routing.usage.budget import BudgetStatus, Level
from routing.usage.query import FOR_TENANTS, only_known, read_query
from routing.usage.query import answer as usage_answer
from routing.usage.query_limiter import QueryLimiter

SWEEP_INTERVAL_S = 0.25
OBSERVED_AT_ONCE = 64  # requests; more keep the event loop for longer than a request should wait
STREAM_STALL_S = 5.0  # a reader who sees nothing new for so long believes that it is over
MODELS_PATH = "/v1/models"
BUDGET_HEADER = b"x-tenantry-budget-remaining-tokens"
LONGEST_BUDGET_WAIT_S = 86_400.0  # nobody's client sleeps for weeks
USAGE_PATH = "/v1/usage"
METRICS_PATH = "/metrics"
log = logging.getLogger("tenantry.gateway")


class Gateway:
    """Serves a fleet to its tenants."""

    def __init__(
        self,
        fleet: Fleet,
        discovery: Discovery,
        *,
        secret: bytes,
        directory: Directory,
        lifecycle: Lifecycle,
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`discovery` is watched from the start on."""
        self._settings = fleet.gateway
        self._salts = {tenant: secrets.cache_salt(secret, tenant) for tenant in fleet.tenants}
        self._clock = clock
        self._directory = directory
        self._lifecycle = lifecycle
        self.dispatcher = Dispatcher(fleet, declared_replicas(fleet), clock=clock)
        manager = Manager(fleet, directory, lifecycle)
        self._figures = Figures(clock(), usual_limit_s)
        self.live = LiveFeed(
            LiveView(
                self._figures,
                scheduler=self.dispatcher.report,
                replicas=manager.replicas,
                queue=lambda: ((t.request, t.waits_for) for t in self.dispatcher.waiting()),
                clock=clock,
            ),
            clock=clock,
        )
        self._ledger = ledger
        self._usage_doors = QueryLimiter()
        self._admin = admin_app(
            manager,
            lambda key: directory.identify(key, time.time()),
            max_upload_bytes=fleet.state.max_adapter_bytes,
            upload_folder=lifecycle.uploads,
            live_feed=self.live,
            ledger=ledger,
        )
        self.metrics = GatewayMetrics(
            self.dispatcher,
            clock=clock,
            slos={name: pool.slo for name, pool in fleet.pools.items()},
            serves=directory.serves,
            settings=fleet.gateway.metrics,
            budgets=self._statuses,
            ledger=ledger,
        )
        self.ended: Batch[Record] = Batch(OBSERVED_AT_ONCE, self._observe)
        self._tracer: Tracer | None = None  # from the start on, where tracing is on
        token = secrets.internal_token(secret)
        self._roster = ReplicaRegistry(
            discovery,
            self.dispatcher,
            lifecycle,
            lambda name, url: ReplicaClient(name, url, token),
            hangs=self._leave,
        )
        self._hedge_after_s = {p.name: p.hedge_after_s for p in fleet.pools.values() if p.replicas > 1}
        self._flights: set[Flight] = set()
        self._site = Site({})  # until it starts
        self._landed = asyncio.Event()  # set whenever the last flight ends
        self._sweeping: asyncio.Task[None] | None = None
        self._faulty = Faulty()
        self._base_models = fleet.base_models
        self._with_slots = {name for name, model in fleet.base_models.items() if model.serves_adapters}
        self._created = int(time.time())  # OpenAI wants a model's creation time
        self._draining = False

    # -- lifecycle -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect to the replicas and begin probing them; returns at once.

        Raises `RuntimeError` where one is nowhere and cannot come, `ValueError` where its address is none,
        `OSError` where the files of the console or of the documentation cannot be read.
        """
        self._site = Site(console.pages() | docs.pages())
        self._tracer = Tracer.of(self._settings.tracing)
        self._lifecycle.start(self.dispatcher, self._roster.clients)
        try:
            await self._roster.start()
        except (RuntimeError, ValueError):
            await self._lifecycle.stop()
            await self._roster.close()
            raise
        self._ledger.start()
        self._sweeping = asyncio.create_task(self._sweep())
        gc_tuning.rest()

    async def stop(self) -> None:
        """Stop probing and close the connections; requests have ended by now."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        self.ended.flush()
        await self._roster.stop()
        await self._ledger.stop()
        await self._lifecycle.stop()  # it may be in mid-talk with an engine
        await self._roster.close()
        if self._tracer is not None:
            await self._tracer.close()

    async def drain(self) -> None:
        """Refuse what is queued or new; return once what runs has ended, or the grace period has ended it."""
        self._draining = True
        self.dispatcher.drain()
        if self._flights:
            self._landed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.shutdown_grace_s):
                    await self._landed.wait()
        for flight in list(self._flights):
            flight.abort(Abort.SHUTTING_DOWN)
        self.live.close()  # operators have seen the drain to its end

    def is_ready(self) -> bool:
        """Whether everybody's models can be answered: in every pool each base model. Never raises."""
        if self._draining or not self._ledger.budgets.is_known or not self._lifecycle.is_settled():
            return False
        groups = self.dispatcher.groups.values()
        return all(any(engine.ready for engine in group.engines) for group in groups)

    # -- requests ------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers.of(scope)
        request_id = bodies.sane_request_id(headers.request_id) or random_id()
        exchange = Exchange(scope, receive, send, headers, [(b"x-request-id", request_id.encode())])
        try:
            if self._directory.local_only and not exchange.is_local:
                self._refuse_local_only(exchange.bearer())
            connection = exchange.connection
            if connection is not None and connection.is_stranger:
                self._look_at_key(exchange, connection)
            await self._route(exchange, request_id)
        except RequestError as error:
            if exchange.method != "OPTIONS":  # which is answered, as far as there is the route
                self.metrics.refused(error.status, error.code)
            await exchange.refuse(error)
        except ClientGone:
            self.metrics.refused(CLIENT_CLOSED_REQUEST, Abort.CLIENT_GONE)
        except Exception:  # BentoML would leave the client without an answer until its timeout
            log.exception("request %s met an error in the gateway", request_id)
            with contextlib.suppress(Exception):
                await exchange.refuse(RequestError("The gateway met an error of its own."))

    async def _route(self, exchange: Exchange, request_id: str) -> None:
        path = exchange.path
        if path not in _ENDPOINTS:
            path = path.removesuffix("/")  # some clients add it; it means nothing
        if path in _ENDPOINTS:
            exchange.require_method("POST")
            trace = self._begin_trace(exchange, path)
            await self._infer(exchange, self._authenticate(exchange), _ENDPOINTS[path], request_id, trace)
        elif path in ADMIN_ROUTES or exchange.path.startswith(ADMIN_PREFIX):
            self.ended.flush()  # an operator's figures are of now
            await exchange.hand_over(self._admin)
        elif path == MODELS_PATH or path.startswith(MODELS_PATH + "/"):
            exchange.require_method("GET")
            payload = self._describe_models(self._authenticate(exchange), path[len(MODELS_PATH) + 1 :])
            await exchange.respond(200, [JSON], orjson.dumps(payload))
        elif path == USAGE_PATH:
            exchange.require_method("GET")
            answer = await self._own_usage(exchange)
            await exchange.respond(200, [JSON], orjson.dumps(answer))
        elif path == METRICS_PATH or path.startswith(METRICS_PATH + "/"):
            exchange.require_method("GET")
            self._authorize_metrics(exchange)
            kind, page = await self._metrics_page(exchange, path[len(METRICS_PATH) + 1 :])
            await exchange.respond(200, [(b"content-type", kind)], page)
        else:
            await self._site.respond(exchange)

    async def _infer(
        self, exchange: Exchange, tenant: Tenant, kind: Kind, request_id: str, trace: Trace | None
    ) -> None:
        arrived_s = self._clock()
        body = await exchange.read_json(
            limit_bytes=self._settings.max_body_bytes, timeout_s=self._settings.body_timeout_s
        )
        call = bodies.parse(kind, body)
        target = self._resolve(tenant, call.model, call.user or request_id)
        if target is None:
            raise _unknown_model(call.model)
        exchange.answer_headers += _target_headers(target)
        limits.check(
            call.payload,
            self._limits_of(tenant, target),
            prompts=call.size.prompts,
            size_bytes=len(body),
        )
        for_engine = bodies.for_engine(
            call,
            target,
            cache_salt=self._salts[tenant.name],
            priority=tenant.band.rank,
            has_slots=target.base_model in self._with_slots,
        )
        if self._faulty.knows(tenant.name, call, arrived_s):
            raise BreaksEngine("The engine broke on a request like this one; something in it is wrong.")
        request = Request(
            request_id,
            target,
            call.sequences,
            self._prompt_tokens(call, target),
            arrived_s,
            max_completion_tokens=call.max_completion_tokens,
            size_bytes=len(for_engine),
        )
        if trace is not None:
            trace.authenticated_s, trace.submitting_s = arrived_s, self._clock()
        reserved = 0
        try:
            reserved = self._reserve(request, exchange)
            ticket = self._submit(request)
        except RequestError as error:
            self._ledger.budgets.release(tenant.name, reserved)
            refused = Record(request_id, target, Outcome.REJECTED, error.status, error.code)
            refused.explanation, refused.retry_after_s = error.message, error.retry_after_s
            refused.total_s = self._clock() - arrived_s
            self._settled(refused, request, exchange, trace)
            await exchange.refuse(error)
            return
        if trace is not None:
            trace.submitted_s = self._clock()
        flight = Flight(
            Question(
                call,
                target,
                for_engine,
                request.prompt_tokens,
                trace.for_engine if trace is not None else None,
            ),
            ticket,
            exchange,
            self.dispatcher,
            self._roster.clients,
            self._clock,
            self._hedge_after_s.get(target.pool),
        )
        self._flights.add(flight)
        try:
            await flight.fly()
        finally:
            if flight.record is not None:
                if flight.breaks_engine:
                    self._faulty.remember(tenant.name, call, self._clock())
                self._settled(flight.record, request, exchange, trace)
            self._ledger.budgets.release(tenant.name, reserved)
            self._flights.discard(flight)
            if not self._flights:
                self._landed.set()

    def _limits_of(self, tenant: Tenant, target: Target) -> RequestLimits:
        of_model = self._base_models[target.base_model].request_limits
        return replace(of_model, **tenant.request_limits) if tenant.request_limits else of_model

    def _prompt_tokens(self, call: bodies.Call, target: Target) -> int:
        """Estimate the prompt's length. Raises `InvalidRequest` where the model surely cannot read it."""
        model = self._base_models[target.base_model]
        limit, chars_per_token = self.dispatcher.group_of(target).longest_prompt()
        limit = model.max_model_len or limit
        tokens = call.size.tokens(model.media_tokens)
        if not limit or tokens <= limit:
            return tokens
        bodies.refuse_too_long(call, limit, chars_per_token)
        return min(tokens, call.size.prompts * limit)

    def _resolve(self, tenant: Tenant, model: str | None, sticky: str) -> Target | None:
        """Return what the model means for the tenant, or None. Raises `RequestError` if it cannot answer."""
        try:
            return self._directory.resolve(tenant, model, sticky)
        except Unavailable:  # what it waits for may be an engine
            meant = self._directory.describe(tenant, model or tenant.default_model or "")
            if meant is not None:
                self.dispatcher.refuse_if_failed(meant.pool, meant.base_model)
            raise

    def _reserve(self, request: Request, exchange: Exchange) -> int:
        """Reserve what the request is expected to use of its tenant's budget; returns how much that was.

        Says how much is left, in a header, where the soft limit is reached. Raises `QuotaExceeded`.
        """
        tenant, now_s = request.target.tenant, time.time()
        status = self._ledger.budgets.status(tenant, now_s)
        if status is None:
            return 0
        group = self.dispatcher.group_of(request.target)
        tokens = request.prompt_tokens + math.ceil(group.expected_completion(request))
        granted = self._ledger.budgets.reserve(tenant, tokens, now_s)
        if not granted or status.level is not Level.BELOW:
            exchange.answer_headers.append((BUDGET_HEADER, b"%d" % status.remaining_tokens))
        if not granted:
            raise _over_budget(status, tokens, now_s)
        return tokens

    def _submit(self, request: Request) -> Ticket:
        """Hand the request to the dispatcher. Raises `CapReached` or `Unavailable`."""
        decision = self.dispatcher.submit(request)
        if isinstance(decision, Rejection):
            raise _refusal(decision, request)
        return decision

    def _begin_trace(self, exchange: Exchange, path: str) -> Trace | None:
        if self._tracer is None:
            return None
        return self._tracer.begin(exchange.headers.traceparent, path, self._clock())

    def _settled(self, record: Record, request: Request, exchange: Exchange, trace: Trace | None) -> None:
        record.ended_at_s = time.time()
        if trace is not None and self._tracer is not None:
            record.trace_id, record.traced = trace.context.trace_id, trace.context.sampled
            self._tracer.end(trace, record, request.arrived_s)
        elif exchange.headers.traceparent:
            record.trace_id = trace_id_of(exchange.headers.traceparent)
        self._ledger.count(record)
        self._lifecycle.observe(record)
        self.ended.add(record)

    def _observe(self, records: Sequence[Record]) -> None:
        """Record and count requests that have ended since the last sweep, and log them."""
        for record in records:
            self._ledger.note(record)
        for record in records:
            self.metrics.settled(record)
        now_s = self._clock()
        for record in records:
            self._figures.observe(record, now_s)
        if self._settings.log_requests:
            write_lines(records)

    def _look_at_key(self, exchange: Exchange, connection: Connection) -> None:
        """Tell the server whether a connection's first request comes with a key, of whatever role."""
        key = exchange.bearer()
        if key is not None and self._directory.identify(key, time.time()) is not None:
            connection.show_key()

    def _refuse_local_only(self, key: str | None) -> None:
        """Raise `Forbidden` where a request from elsewhere has a key that everybody knows."""
        if key is not None and self._directory.is_local_only(key):
            raise Forbidden(
                "This is a demo key: it works from this machine only, over localhost. Where TENANTRY_DEMO=1 "
                "is set for the gateway, it works from everywhere.",
                code="demo_key",
            )

    def _authenticate(self, exchange: Exchange) -> Tenant:
        key = exchange.bearer()
        tenant = self._directory.authenticate(key, time.time()) if key else None
        if tenant is None:
            raise _wrong_key(key)
        return tenant

    def _describe_models(self, tenant: Tenant, name: str) -> bodies.Payload:
        """List the caller's models, or describe the one that is named. Raises `ModelNotFound`."""
        if not name:
            cards = [answers.model_card(t, self._created) for t in self._directory.models(tenant)]
            return {"object": "list", "data": cards}
        target = self._directory.find(tenant, name)
        if target is None:
            raise _unknown_model(name)
        return answers.model_card(target, self._created)

    async def _own_usage(self, exchange: Exchange) -> bodies.Payload:
        """Tell a tenant what it used. Raises the `RequestError` of whatever is wrong."""
        key = exchange.bearer()
        identity = self._directory.identify(key, time.time()) if key else None
        if identity is None:
            raise _wrong_key(key)
        if identity.tenant is None:
            raise Forbidden("An operator's key is nobody's here; /admin/v1/usage shows every tenant's usage.")
        fields = only_known(exchange.query(), ("from", "to", "group_by"))
        query = read_query(fields, now_s=time.time(), tenant=identity.tenant, allowed=FOR_TENANTS)
        async with self._usage_doors.running(identity.tenant):
            self.ended.flush()
            answer = usage_answer(query, await self._ledger.sums(query))
        status = self._ledger.budgets.status(identity.tenant, time.time())
        return answer | {"budget": None if status is None else status.answer()}

    # -- metrics -------------------------------------------------------------------------------------------

    def _authorize_metrics(self, exchange: Exchange) -> None:
        """Let the operator in; the pages name every tenant. Raises `InvalidKey`."""
        access = self._settings.metrics_access
        if access is MetricsAccess.OPEN:
            return
        if access is MetricsAccess.LOOPBACK and exchange.is_local:
            return
        key = exchange.bearer()
        identity = self._directory.identify(key, time.time()) if key else None
        if identity is None or identity.role is not KeyRole.OPERATOR:
            raise InvalidKey("Metrics need an operator key (gateway.operator_keys in fleet.yaml).")

    async def _metrics_page(self, exchange: Exchange, replica: str) -> tuple[bytes, bytes]:
        """Content type and text of the gateway's own page, or of vLLM's page of one replica.

        Raises `RouteNotFound`, `Unavailable`.
        """
        if not replica:
            self.ended.flush()
            return await self.metrics.read(exchange.headers.accept)
        if replica not in self.dispatcher.replicas:
            raise RouteNotFound("There is no such replica.")
        client = self._roster.clients.get(replica)
        try:
            if client is not None:
                return TextFormat.PROMETHEUS.value, await client.metrics()
        except (UpstreamError, TimeoutError):
            pass
        raise Unavailable("The replica does not answer.", retry_after_s=5.0)

    def _statuses(self) -> Iterator[BudgetStatus]:
        budgets, now_s = self._ledger.budgets, time.time()
        return filter(None, (budgets.status(tenant, now_s) for tenant in budgets.tenants))

    # -- background ----------------------------------------------------------------------------------------

    def _leave(self, client: ReplicaClient) -> None:
        """Ask others for what a replica that hangs has not begun to answer; one that died says so itself."""
        for flight in list(self._flights):
            flight.move_on(client)

    async def _sweep(self) -> None:
        """Apply every deadline. One timer for all requests costs less than one for each."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.dispatcher.sweep()
            self.ended.flush()
            self._tell_of_budgets()
            now = self._clock()
            for flight in list(self._flights):
                replica = flight.stalls(now, STREAM_STALL_S)
                if replica is not None:
                    self.metrics.stalled(flight.ticket.request.target.pool, replica)
                reason = self._overdue(flight, now)
                if reason is not None:
                    flight.abort(reason)

    def _tell_of_budgets(self) -> None:
        """Warn of budgets that have just reached a limit."""
        for status in self._ledger.budgets.newly_reached(time.time()):
            text = f"{status.used_tokens} of the month's {status.limit_tokens} tokens are used"
            log.warning("tenant %s: %s (%s limit)", status.tenant, text, status.level)
            self._lifecycle.note_event(f"tenant {status.tenant}", f"{text}: {status.level} limit reached")

    def _overdue(self, flight: Flight, now: float) -> Abort | None:
        sending_since_s = flight.progress.sending_since_s
        if sending_since_s is not None and now - sending_since_s > self._settings.stall_timeout_s:
            return Abort.CLIENT_STALLED
        granted_s = flight.ticket.granted_s
        if granted_s is not None and now - granted_s > self._settings.request_timeout_s:
            return Abort.ENGINE_TIMEOUT
        return None


_ENDPOINTS: dict[str, Kind] = {kind.value: kind for kind in Kind}


def _wrong_key(key: str | None) -> InvalidKey:
    return InvalidKey(
        "The API key is not valid." if key else "Send your API key as `Authorization: Bearer <key>`."
    )


def _target_headers(target: Target) -> list[tuple[bytes, bytes]]:
    headers = [(b"x-tenantry-model", target.model.encode())]
    if target.adapter is not None:
        headers.append((b"x-tenantry-adapter", target.adapter.encode()))
        headers.append((b"x-tenantry-version", b"%d" % (target.version or 0)))
    return headers


def _unknown_model(name: str | None) -> RequestError:
    if name is None:
        return InvalidRequest(
            "Name a model: this API key has no default model.",
            param="model",
            code="missing_required_parameter",
        )
    return ModelNotFound(f"The model `{name[:100]}` does not exist.", param="model")


def _refusal(rejection: Rejection, request: Request) -> RequestError:
    """Say which limit a request met: its tenant's own, or the service's."""
    cap, limit = rejection.cap, rejection.limit
    if cap is Cap.OVERLOADED:
        return Unavailable(
            "More requests wait than can be served in time. Try again later.",
            code=cap,
            retry_after_s=rejection.retry_after_s,
        )
    if rejection.retry_after_s is None:
        asked = f"asks for {request.sequences} sequences" if request.sequences > 1 else "is too large"
        return InvalidRequest(
            f"The request {asked} at once; {cap} allows {limit}.",
            param="n" if request.sequences > 1 else None,
            code=cap,
        )
    return CapReached(
        f"The cap {cap} of {limit} is reached for `{request.target.model}`.",
        code=cap,
        retry_after_s=rejection.retry_after_s,
    )


def _over_budget(status: BudgetStatus, tokens: int, now_s: float) -> QuotaExceeded:
    """Say what is left of the month's budget, and when the next begins where that is worth waiting for."""
    wait_s = status.resets_s - now_s
    return QuotaExceeded(
        f"The month's budget of {status.limit_tokens} tokens is used up: {status.remaining_tokens} are "
        f"left, and this request is expected to need {tokens}. The next month begins in "
        f"{wait_s / 86400:.1f} days.",
        retry_after_s=wait_s if wait_s <= LONGEST_BUDGET_WAIT_S else None,
    )
