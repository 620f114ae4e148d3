"""Does one replica answer? A request to it, up to the first bytes of its answer; the flight relays the rest.

Until then nothing has been sent to the client, so an attempt may fail, be left or be cancelled, and another
replica be asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from engines import protocol
from fleet.money import written
from routing.asgi import HeaderList, random_id
from routing.errors import EngineFailed, InvalidRequest, RequestError, Unavailable
from routing.openai import answers, bodies
from routing.openai.events import EventStream
from routing.replicas.client import ReplicaClient
from routing.replicas.http1 import Answer, Unreachable, UpstreamError
from routing.types import Target

TRACEPARENT = "traceparent"
METADATA = "metadata"  # of embeddings as bytes: what else stands in a JSON answer, usage too
CONTROL_TIMEOUT_S = 10.0


class ReplicaBroken(Exception):
    """The replica failed before it answered; another one may be asked."""

    def __init__(
        self,
        reason: str,
        *,
        is_down: bool,
        begun: bool = True,
        crashed: bool = False,
        failure: RequestError | None = None,
    ) -> None:
        """`is_down` says that it takes no request at all, until a probe says otherwise.

        Where it has not `begun` with the request, that cannot be what broke it.

        `crashed` says that it broke on this request and gave no sign of being ill itself: the fault may as
        well be the request's. `failure` is what the client gets where nobody else can be asked.
        """
        super().__init__(reason)
        self.is_down = is_down
        self.begun = begun
        self.crashed = crashed
        self.failure = failure


@dataclass(slots=True)  # not frozen, as `Request`
class Question:
    """What an engine is asked."""

    call: bodies.Call  # without its payload, of which `body` is what engines get
    target: Target
    body: bytes  # as the engine gets it
    prompt_tokens: int  # estimated
    traceparent: str | None = None  # for the engine's own spans; None: nothing is traced
    priority: int = 0  # of the tenant's band
    refusal: RequestError | None = None  # of a fallback: why the model that was asked for does not answer
    cache_salt: str = field(default="", repr=False)  # of the tenant

    def told(self, error: RequestError) -> RequestError:
        """Return what the client is told of an error: where a fallback fails, why it was needed."""
        return error if self.refusal is None or isinstance(error, InvalidRequest) else self.refusal


async def answers_others(question: Question, client: ReplicaClient) -> bool:
    """Whether a replica answers the smallest request of the same kind for the same model."""
    call, target = question.call, question.target
    try:
        async with asyncio.timeout(CONTROL_TIMEOUT_S):
            body = bodies.control(call.kind, target)
            response = await client.post(call.kind, body, _headers(question, None))
            try:
                await response.read()
                return response.status == 200
            finally:
                client.end(response)
    except (UpstreamError, TimeoutError):
        return False


def _headers(question: Question, traceparent: str | None) -> dict[str, str]:
    # Never the client's id: two tenants may send the same one, and vLLM makes its own ids from it.
    headers = {"x-request-id": random_id()}
    if question.target.adapter_id is not None:
        headers[protocol.ADAPTER_HEADER] = question.target.adapter_id
    if question.call.endpoint.form:
        headers[protocol.SALT_HEADER] = question.cache_salt
    if traceparent is not None:
        headers[TRACEPARENT] = traceparent
    return headers


class Attempt:
    """Asks one replica. Close it when done; what the engine has not sent by then is not generated."""

    def __init__(self, question: Question, client: ReplicaClient) -> None:
        self.client = client
        self.opening = b""  # of the answer: all of it, or the first events of a stream
        self.headers: HeaderList = []  # of a whole answer
        self.stream: EventStream | None = None  # once the answer is known to be one
        self.chunks: AsyncIterator[bytes] | None = None  # of a stream, after its opening
        self._question = question
        self._response: Answer | None = None
        self._asking: asyncio.Task[Any] | None = None  # until the answer has begun
        self._is_left = False
        self._usage: answers.TokenUsage | None = None  # of a whole answer
        self._at_work = False  # it was asked and has said nothing yet, not even that it cannot

    @property
    def refusal(self) -> RequestError | None:
        """What the engine found wrong with the request, where it said so in the middle of a stream."""
        return self.stream.refusal if self.stream is not None else None

    async def open(self) -> None:
        """Ask, and return once the answer has begun. What ends otherwise is closed.

        Raises `ReplicaBroken`, or the `RequestError` that the client is to get.
        """
        task = self._asking = asyncio.current_task()
        try:
            await self._ask()
        except BaseException as error:
            self.close()
            if self._is_left and isinstance(error, asyncio.CancelledError) and task and not task.uncancel():
                error = TimeoutError()
            if not isinstance(error, (UpstreamError, TimeoutError)):
                raise
            self._at_work = False
            is_down = isinstance(error, Unreachable)
            crashed = not is_down and not isinstance(error, TimeoutError)
            raise ReplicaBroken(repr(error), is_down=is_down, begun=not is_down, crashed=crashed) from error
        finally:
            self._asking = None

    def leave(self) -> None:
        """Have `open` raise `ReplicaBroken`; nothing happens where the answer has begun."""
        if self._asking is not None and not self._is_left:
            self._is_left = True
            self._asking.cancel()

    def close(self) -> None:
        """Be done with the answer; closes the connection where it has not ended. Idempotent."""
        response, self._response = self._response, None
        if response is not None:
            self.client.end(response)

    def pass_on(self, passes: Callable[[bytes], bool]) -> None:
        """Let `passes` have the pieces of a stream before `chunks`, as they come; see `Answer.passes`."""
        if self._response is not None:
            self._response.passes = passes

    def usage(self) -> answers.TokenUsage:
        """Tokens so far, as the engine counted them; estimated where it worked and has not said.

        What it refused, or broke on before it answered, is none.
        """
        if self.stream is not None:
            return self.stream.tokens()
        if self._at_work and self._question.call.endpoint.runs:
            return answers.TokenUsage(self._question.prompt_tokens, estimated=True)
        return self._usage or answers.TokenUsage()

    async def _ask(self) -> None:
        call = self._question.call
        headers = _headers(self._question, self._question.traceparent)
        if call.kind is protocol.Kind.MESSAGES or call.endpoint.form:
            headers[protocol.PRIORITY_HEADER] = str(self._question.priority)
        self._at_work = True
        response = self._response = await self.client.post(call.kind, self._question.body, headers)
        if response.status != 200:
            self._at_work = False
            await self._refuse(response)
        if call.stream and response.media_type == "text/event-stream":
            await self._first_events(response)
        else:
            self.opening = await response.read()
            self._at_work = False
            self._take_whole(response)

    def _take_whole(self, response: Answer) -> None:
        """Meter a whole answer, and give it the client's name for the model."""
        question, metadata = self._question, response.headers.get(METADATA)
        used = response.headers.get(protocol.USAGE_HEADER)
        if used is not None:
            self._usage = answers.usage_in(used.encode())
        elif response.media_type == "application/json":
            self._usage = answers.usage_in(self.opening)
            self.opening = answers.renamed(self.opening, question.target)
        elif metadata is not None:
            told, self._usage = answers.metadata_of(metadata, question.target)
            self.headers.append((METADATA.encode(), told))
        kind = response.headers.get("content-type", "application/json")
        self.headers.append((b"content-type", kind.encode()))
        if not question.call.endpoint.runs:
            self._usage = answers.TokenUsage()
            return
        if self._usage is None:
            self._usage = answers.estimate_of(question.call, question.prompt_tokens, self.opening)
        price, usage = question.target.price, self._usage
        if price is not None and not price.counts_time:
            cost = price.cost(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
            self.headers.append((b"x-tenantry-cost", written(cost).encode()))

    async def _first_events(self, response: Answer) -> None:
        stream = self.stream = EventStream(
            self._question.call, self._question.target, self._question.prompt_tokens
        )
        chunks = self.chunks = response.chunks()
        async for chunk in chunks:
            self.opening += stream.feed(chunk)
            if stream.begun or stream.complete or stream.failed:
                break
        if stream.begun:
            return
        self.stream = None  # what has not begun is not metered
        self._at_work = False
        if stream.refusal is not None:
            raise stream.refusal
        if stream.complete and not stream.failed:
            self.stream = stream
            return
        failure = _failed() if stream.failed else None
        raise ReplicaBroken(
            "the stream ended before its first token", is_down=False, crashed=True, failure=failure
        )

    async def _refuse(self, response: Answer) -> None:
        """Raise what an answer other than 200 means."""
        target, kind = self._question.target, self._question.call.kind
        fault = response.headers.get(protocol.FAULT_HEADER)
        body = await response.read()
        if fault == protocol.FAULT_ENGINE:
            raise ReplicaBroken("its engine does not run", is_down=True, begun=False)
        if fault == protocol.FAULT_DEATH:
            raise ReplicaBroken("its engine died", is_down=True)
        if fault == protocol.FAULT_ADAPTER:
            raise Unavailable(
                f"The model `{target.model}` cannot be loaded at the moment.",
                code="adapter_unavailable",
                retry_after_s=30.0,
            )
        if response.status == 404:
            raise InvalidRequest(
                f"The model `{target.model}` does not serve {kind}.", code="unsupported_endpoint"
            )
        if 400 <= response.status < 500:
            raise answers.engine_refusal(response.status, body, target)
        if response.status == 501:
            raise InvalidRequest(f"The model `{target.model}` does not do this.", code="unsupported_endpoint")
        if response.status == 500:
            raise ReplicaBroken("it failed on this request", is_down=False, crashed=True, failure=_failed())
        raise _failed()


def _failed() -> EngineFailed:
    return EngineFailed("The engine failed on this request.", retry_after_s=1.0)
