"""Does one replica answer? A request to it, up to the first bytes of its answer; the flight relays the rest.

Until then nothing has been sent to the client, so an attempt may fail, be left or be cancelled, and another
replica be asked.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from adapters import protocol
from routing import wire
from routing.errors import EngineFailed, InvalidRequest, Unavailable
from routing.replicas import ReplicaClient
from routing.stream import EventStream
from routing.types import Target

TRACEPARENT = "traceparent"
UPSTREAM_ERRORS = (aiohttp.ClientError, ConnectionError, TimeoutError)


class ReplicaBroken(Exception):
    """The replica failed before it answered; another one may be asked."""

    def __init__(self, reason: str, *, is_down: bool) -> None:
        """`is_down` says that it takes no request at all, until a probe says otherwise."""
        super().__init__(reason)
        self.is_down = is_down


@dataclass(frozen=True, slots=True)
class Question:
    """What an engine is asked."""

    call: wire.Call
    target: Target
    body: bytes  # as the engine gets it
    prompt_tokens: int  # estimated
    traceparent: str | None = None  # for the engine's own spans; None: nothing is traced


class Attempt:
    """Asks one replica. Close it when done; what the engine has not sent by then is not generated."""

    def __init__(self, question: Question, client: ReplicaClient) -> None:
        self.client = client
        self.opening = b""  # of the answer: all of it, or the first events of a stream
        self.stream: EventStream | None = None  # once the answer is known to be one
        self.chunks: AsyncIterator[bytes] | None = None  # of a stream, after its opening
        self._question = question
        self._response: aiohttp.ClientResponse | None = None
        self._patience: asyncio.Timeout | None = None  # runs out when the replica is left
        self._at_work = False  # it was asked and has said nothing yet, not even that it cannot

    async def open(self) -> None:
        """Ask, and return once the answer has begun. What ends otherwise is closed.

        Raises `ReplicaBroken`, or the `RequestError` that the client is to get.
        """
        try:
            async with asyncio.timeout(None) as self._patience:
                await self._ask()
        except UPSTREAM_ERRORS as error:
            self._at_work = False
            self.close()
            is_down = isinstance(error, aiohttp.ClientConnectorError)
            raise ReplicaBroken(repr(error), is_down=is_down) from error
        except BaseException:
            self.close()
            raise
        finally:
            self._patience = None

    def leave(self) -> None:
        """Have `open` raise `ReplicaBroken`; nothing happens where the answer has begun."""
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Be done with the answer; closes the connection where it has not ended. Idempotent."""
        response, self._response = self._response, None
        if response is not None:
            self.client.end(response)

    def usage(self) -> wire.TokenUsage:
        """Tokens so far, as the engine counted them; estimated where it worked and has not said.

        What it refused, or broke on before it answered, is none.
        """
        if self.stream is not None:
            return self.stream.tokens()
        if self._at_work:
            return wire.TokenUsage(self._question.prompt_tokens, estimated=True)
        return wire.usage_in(self.opening) or wire.TokenUsage()

    async def _ask(self) -> None:
        call, target = self._question.call, self._question.target
        # Never the client's: two tenants may send the same one, and vLLM makes its own ids from it.
        headers = {"x-request-id": uuid.uuid4().hex}
        if target.adapter_id is not None:
            headers[protocol.ADAPTER_HEADER] = target.adapter_id
        if self._question.traceparent is not None:
            headers[TRACEPARENT] = self._question.traceparent
        self._at_work = True
        response = self._response = await self.client.post(call.kind, self._question.body, headers)
        if response.status != 200:
            self._at_work = False
            await self._refuse(response)
        if call.stream and response.content_type == "text/event-stream":
            await self._first_events(response)
        else:
            self.opening = await response.read()
            self._at_work = False

    async def _first_events(self, response: aiohttp.ClientResponse) -> None:
        stream = self.stream = EventStream(
            self._question.call, self._question.target, self._question.prompt_tokens
        )
        chunks = self.chunks = response.content.iter_any()
        async for chunk in chunks:
            self.opening = stream.feed(chunk)
            if self.opening:
                return
            if stream.failed:
                break
        raise ReplicaBroken("the stream ended before its first event", is_down=False)

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        """Raise what an answer other than 200 means."""
        target, kind = self._question.target, self._question.call.kind
        fault = response.headers.get(protocol.FAULT_HEADER)
        body = await response.read()
        if fault == protocol.FAULT_ENGINE:
            raise ReplicaBroken("its engine does not run", is_down=True)
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
            raise wire.engine_refusal(response.status, body, target)
        raise EngineFailed("The engine failed on this request.", retry_after_s=1.0)
