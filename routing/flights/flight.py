"""One request's trip: granted a replica, sent, relayed, settled. Whatever ends it, it is settled here, once.

Another replica is asked, instead or as well, only while nothing has been sent to the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from functools import partial

from routing.asgi import JSON, ClientGone, Exchange, HeaderList
from routing.errors import (
    BreaksEngine,
    EngineFailed,
    EngineTimeout,
    InvalidRequest,
    RequestError,
)
from routing.flights.attempt import Attempt, Question, ReplicaBroken, answers_others
from routing.flights.endings import ABORTED, CLIENT_CLOSED_REQUEST, OWN_FAULT, Abort, outcome_of
from routing.flights.guards import HeldBack, Watch
from routing.flights.heartbeat import Heartbeat, comment_of
from routing.flights.hedging import HedgedRequest
from routing.flights.progress import Pace, Progress, Waits
from routing.openai.answers import TokenUsage
from routing.openai.events import EventStream
from routing.replicas.client import ReplicaClient
from routing.replicas.http1 import UpstreamError
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import Replica
from routing.scheduling.tickets import Ticket
from routing.types import Outcome, Record

TELL_TIMEOUT_S = 5.0  # for a client that does not even take its error
EVENT_STREAM: HeaderList = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class Flight:
    """Carries one admitted request from its ticket to its settlement."""

    def __init__(
        self,
        question: Question,
        ticket: Ticket,
        exchange: Exchange,
        dispatcher: Dispatcher,
        clients: Mapping[Replica, ReplicaClient],
        clock: Callable[[], float],
        waits: Waits,
    ) -> None:
        """`clients` has every replica that may be granted."""
        self.ticket = ticket
        self.progress = Progress()
        self.record: Record | None = None  # once it has ended, however it did
        self.watch: Watch | None = None  # looks at the answer; to be set before it flies
        self.breaks_engine = False  # engines broke on it that answer others
        self._question = question
        self._exchange = exchange
        self._dispatcher = dispatcher
        self._clients = clients
        self._clock = clock
        self._waits = waits
        self._out: Exchange | Heartbeat | HeldBack = exchange
        self._heartbeat: Heartbeat | None = None
        self._abort: Abort | None = None
        self._task: asyncio.Task[None] | None = None
        self._asking: HedgedRequest | None = None  # the last one
        self._attempts = 0
        self._crashes = 0  # replicas that broke on it without being ill for all that is known
        self._hedged = False
        self._queued_s: float | None = None

    def stalls(self, now_s: float, after_s: float) -> str | None:
        """Name the replica whose stream has brought nothing for so long; once for each such pause."""
        progress = self.progress
        moved_s = progress.moved_s
        if moved_s is None or moved_s == progress.stalled_s or now_s - moved_s < after_s:
            return None
        if progress.finished or progress.sending_since_s is not None:
            return None
        progress.stalled_s = moved_s
        return self._replica()

    def abort(self, reason: Abort) -> None:
        """End the flight; the first reason counts."""
        if self._abort is None and self._task is not None:
            self._abort = reason
            self._task.cancel()

    def move_on(self, client: ReplicaClient) -> None:
        """Leave a replica that hangs for another one, if there is one and nothing was sent to the client."""
        if self._asking is not None and self.progress.status is None:
            self._asking.leave(client)

    async def fly(self) -> None:
        """Answer the client and settle the ticket. Never raises, except when cancelled by a stranger."""
        self._task = asyncio.current_task()
        unwatch = self._exchange.watch(self._client_left)
        if self._waits.heartbeat_s is not None and self._question.call.stream:
            every_s = self._waits.heartbeat_s
            self._heartbeat = self._out = Heartbeat(
                self._exchange, every_s, EVENT_STREAM, self._clock, self._comment
            )
        if self.watch is not None and self._question.call.stream:
            self._out = self.watch.over(self._heartbeat or self._exchange, self._question.call) or self._out
        outcome: Outcome = Outcome.FAILED
        error: RequestError | None = OWN_FAULT
        fault = False
        try:
            outcome, error = await self._outcome()
            fault = self._is_fault(error)
            if error is not None:
                await self._tell(error)
        except asyncio.CancelledError:
            outcome, error = ABORTED[Abort.SHUTTING_DOWN]  # servers cancel nobody before
            raise
        finally:
            unwatch()
            if self._heartbeat is not None:
                self._heartbeat.stop()
            usage = self._asking.attempt.usage() if self._asking is not None else TokenUsage()
            prompt, completion = usage.prompt_tokens, usage.completion_tokens
            self._dispatcher.settle(
                self.ticket, outcome, prompt_tokens=prompt, completion_tokens=completion, fault=fault
            )
            self.record = self._record(outcome, error, usage)
            self._asking = None  # it knows this flight: a cycle, for the collector to find with all they hold

    async def _outcome(self) -> tuple[Outcome, RequestError | None]:
        """Answer the client; return how that ended, and what the client must still be told."""
        try:
            await self._run()
        except asyncio.CancelledError:
            aborted = self._aborted()
            if self.progress.finished and self.progress.sending_since_s is None:
                return Outcome.COMPLETED, None
            return ABORTED[aborted]
        except ClientGone:
            self._abort = self._abort or Abort.CLIENT_GONE
            return ABORTED[self._abort]
        except RequestError as error:
            return outcome_of(error), error
        return Outcome.COMPLETED, None

    def _is_fault(self, error: RequestError | None) -> bool:
        """Whether the replica is to blame: it broke off an answer, or took too long.

        One tenant's word is not enough, or its requests could shut all out; see `Health.failed`.
        """
        if isinstance(error, EngineFailed):
            return self.progress.status is not None or self._crashes > 0
        return isinstance(error, EngineTimeout)

    def _aborted(self) -> Abort:
        """Take back the cancellation that `abort` asked for. Re-raises one that comes from elsewhere."""
        if self._abort is None or self._task is None:
            raise
        self._task.uncancel()
        return self._abort

    # -- to the engine -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Ask replicas until one answers, and relay that. Raises `RequestError`."""
        answer = await self._answer()
        try:
            if answer.stream is not None and answer.chunks is not None:
                await self._relay_stream(answer, answer.stream, answer.chunks)
            else:
                await self._relay_whole(answer)
        finally:
            answer.close()

    async def _answer(self) -> Attempt:
        while True:
            await self.ticket.granted()
            self._queued_s = self.ticket.queued_s
            asking = self._asking = HedgedRequest(
                self.ticket, self._dispatcher, self._ask, hedge_after_s=self._waits.hedge_after_s
            )
            try:
                return await asking.first_answer()
            except ReplicaBroken as error:
                broken = error
            finally:
                self._attempts += asking.asked
                self._hedged = self._hedged or asking.hedged
            await self._leave(broken, asking.attempt.client)

    async def _leave(self, broken: ReplicaBroken, client: ReplicaClient) -> None:
        """Have another replica asked, or the same one once more. Raises `RequestError` where neither helps.

        What breaks two replicas, or one twice, that answer others meanwhile, is the request's fault.
        """
        self._crashes += broken.crashed
        has_alternative = self._dispatcher.has_alternative(self.ticket)
        if broken.crashed and (self._crashes > 1 or not has_alternative):
            is_well = await answers_others(self._question, client)
            if is_well and self._crashes > 1:
                self.breaks_engine = True
                raise BreaksEngine(
                    "The engine breaks on this request, and on no other; something in it is wrong."
                )
            if is_well:
                return
            if not has_alternative and broken.failure is not None:
                raise broken.failure
        self._dispatcher.requeue(self.ticket, certain=not broken.crashed, begun=broken.begun)

    def _ask(self, replica: Replica) -> Attempt:
        return Attempt(self._question, self._clients[replica])

    # -- to the client -------------------------------------------------------------------------------------

    async def _relay_whole(self, answer: Attempt) -> None:
        body = answer.opening
        if self.watch is not None:
            await self.watch.look_at_answer(self._question.call, body)
        await self._begin(200, [*answer.headers, (b"content-length", b"%d" % len(body))])
        await self._send_body(body, more=False)

    async def _relay_stream(self, answer: Attempt, stream: EventStream, chunks: AsyncIterator[bytes]) -> None:
        pace = Pace(self.ticket, self._dispatcher, self._clock)
        pace.came(stream.events)
        await self._begin(200, EVENT_STREAM)
        await self._send_body(answer.opening, more=not stream.complete)
        answer.pass_on(partial(self._passes, stream, pace))
        with suppress(UpstreamError):
            async for chunk in chunks:
                if stream.failed:
                    break
                if events := self._events_in(stream, pace, chunk):
                    await self._send_body(events, more=not stream.complete)
        if not self.progress.finished:
            raise EngineFailed("The engine failed while it was answering.")

    def _events_in(self, stream: EventStream, pace: Pace, chunk: bytes) -> bytes:
        """Return what of a piece of the engine's stream goes to the client."""
        events = stream.feed(chunk)
        if not events or self.progress.finished:  # nothing comes but the end, which frees the connection
            return b""
        pace.came(stream.events)
        return events

    def _passes(self, stream: EventStream, pace: Pace, chunk: bytes) -> bool:
        """Pass a piece straight from one connection to the other, where the client keeps up."""
        if stream.failed or not self._out.takes_more:
            return False
        if events := self._events_in(stream, pace, chunk):
            self.progress.moved_s, self.progress.finished = self._clock(), stream.complete
            self._out.send_at_once(events, more=not stream.complete)
        return True

    async def _begin(self, status: int, headers: HeaderList) -> None:
        self.progress.status = status
        self.progress.first_byte_s = self._clock() - self.ticket.request.arrived_s
        if self._question.call.endpoint.runs:
            self._dispatcher.first_token(self.ticket)
        own = [
            (b"x-tenantry-replica", (self._replica() or "").encode()),
            (b"x-tenantry-queue-ms", b"%d" % round(1000 * (self._queued_s or 0.0))),
            processing_ms(self.progress.first_byte_s),
        ]
        if (woke_s := self.ticket.woke_s) is not None:
            own.append((b"x-tenantry-wake-ms", b"%d" % round(1000 * woke_s)))
        try:
            await self._out.begin(status, [*headers, *own])
        except OSError as error:
            raise ClientGone from error

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        """Send; meanwhile the sweep can see how long the client has not been taking anything.

        A client may leave as soon as it has the last part, which is before this returns.
        """
        self.progress.moved_s, self.progress.finished = self._clock(), not more
        if self._out.takes_more:
            return self._out.send_at_once(data, more=more)
        self.progress.sending_since_s = self.progress.moved_s
        try:
            await self._out.send_body(data, more=more)
        except OSError as error:
            self.progress.finished = False
            raise ClientGone from error
        except RequestError:  # what is held back may not go on
            self.progress.finished = False
            raise
        self.progress.sending_since_s = None

    async def _tell(self, error: RequestError) -> None:
        """Give the client the error, as the answer or as the last event of a stream; it may not take it."""
        self._out = self._heartbeat or self._exchange  # what is held back stays unsent
        if self.progress.status is None:
            error = self._question.told(error)
        body = self._exchange.error_body(error)
        event = (b"event: error\n" if self._exchange.as_anthropic else b"") + b"data: " + body + b"\n\n"
        try:
            async with asyncio.timeout(TELL_TIMEOUT_S):
                if self._heartbeat is not None:
                    await self._heartbeat.fall_silent()
                    self.progress.status = 200 if self._heartbeat.has_begun else None
                if self.progress.status is None:
                    self.progress.status = error.status
                    took = processing_ms(self._clock() - self.ticket.request.arrived_s)
                    headers = [JSON, took, *error.headers_for(self._exchange.seed)]
                    await self._exchange.respond(error.status, headers, body)
                elif not self.progress.finished:
                    await self._send_body(event, more=False)
        except (ClientGone, OSError, TimeoutError):
            pass
        except asyncio.CancelledError:
            self._aborted()

    def _comment(self) -> bytes:
        return comment_of(self.ticket, self._dispatcher.group_of(self.ticket.request.target).turns)

    def _client_left(self) -> None:
        if not self.progress.finished:
            self.abort(Abort.CLIENT_GONE)

    # -- the end -------------------------------------------------------------------------------------------

    def _replica(self) -> str | None:
        """Name of the replica that was asked last, or has answered."""
        return self._asking.attempt.client.name if self._asking is not None else None

    def _record(self, outcome: Outcome, error: RequestError | None, usage: TokenUsage) -> Record:
        if outcome is Outcome.CANCELLED:
            status, reason = CLIENT_CLOSED_REQUEST, str(self._abort)
        else:
            error = error or (self._asking.attempt.refusal if self._asking is not None else None)
            status, reason = self.progress.status or 500, error.code if error else ""
        runs = self._question.call.endpoint.runs  # else no token of it ever comes, nor a share of the engine
        return Record(
            request_id=self.ticket.request.id,
            key=self.ticket.request.key,
            target=self.ticket.request.target,
            outcome=outcome,
            status=status,
            reason=reason,
            replica=self._replica(),
            stream=self._question.call.stream,
            queue_s=self._queued_s,
            first_byte_s=self.progress.first_byte_s if runs else None,
            total_s=self._clock() - self.ticket.request.arrived_s,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            estimated=usage.estimated,
            engine_s=self.ticket.engine_s if runs else 0.0,
            slot_s=self.ticket.slot_s if runs else 0.0,
            switch_s=self.ticket.switch_s,
            attempts=self._attempts,
            hedged=self._hedged,
            waits_for=self.ticket.waits_for,
            picked=self.ticket.picked,
            failed_on=self.ticket.failed_on,
            # A refusal by the engine may quote the request.
            explanation="" if error is None or isinstance(error, InvalidRequest) else error.message,
            retry_after_s=error.retry_after_s if error is not None else None,
        )


def processing_ms(taken_s: float) -> tuple[bytes, bytes]:
    """Return OpenAI's header for the time from a request's arrival to the head of its answer."""
    return b"openai-processing-ms", b"%d" % round(1000 * taken_s)
