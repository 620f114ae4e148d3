"""A line of a batch, as a request that came over HTTP: the same body, checks, limits, flight and record.

It has no connection, no key that could be revoked, and no place in the queue: it is asked when there is room
to spare, and comes with the id and the limits of the key that made its batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fleet.types import Tenant, tenant_of_account
from routing.asgi import CONNECTION, Connection, Exchange, Headers, Message
from routing.batches import lines
from routing.batches.values import Batch, Line, LineAnswer, Mistake
from routing.catalog.declared import Identity
from routing.catalog.directory import Directory
from routing.catalog.entries import KeyRole
from routing.errors import AccountSuspended, RequestError, TenantRemoved
from routing.http.inference import Asked, Inference, may_pass
from routing.openai import bodies
from routing.scheduling.dispatcher import Dispatcher
from routing.types import Outcome, Record, Request
from routing.usage import Ledger

UNAVAILABLE = 503  # what a line waits for, however often
RETRY_AFTER_S = 1.0


class BatchLines:
    """Answers lines; implements `routing.batches.runner.LineCaller`."""

    def __init__(
        self,
        inference: Inference,
        directory: Directory,
        dispatcher: Dispatcher,
        ledger: Ledger,
        wake: Callable[[str, str], None],
    ) -> None:
        """`wake` has a model come awake, by its pool and name, where nothing runs there."""
        self._inference = inference
        self._directory = directory
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._wake = wake

    def why_ended(self, account: str) -> Mistake | None:
        """Say why a tenant's batches may run no more; None: they may."""
        tenant = self._tenant(account)
        if tenant is None:
            return Mistake(TenantRemoved.default_code, "The batch's owner was removed from the service.")
        if tenant.suspended:
            return Mistake(AccountSuspended.default_code, AccountSuspended().message)
        return None

    def may_begin(self, batch: Batch, model: str | None) -> bool:
        """Whether a line for a model has room now; also where it would be refused at once."""
        tenant = self._tenant(batch.account)
        if tenant is None:
            return False
        try:
            target = self._directory.resolve(tenant, model, "")
        except RequestError:
            target = None
        if target is None or (target.fallback is not None and not self._dispatcher.takes_work(target)):
            return True
        limits = self._directory.key_limits(batch.key)
        now_s = self._inference.clock()
        line = Request("", target, 1, 0, now_s, key=batch.key, key_limits=limits, spare=True)
        return self._dispatcher.spare.has(line)

    def wake(self, batch: Batch, model: str | None) -> None:
        """Have a model come awake that lines wait for, if it takes turns and nothing else runs there."""
        tenant = self._tenant(batch.account)
        target = (
            None if tenant is None else self._directory.describe(tenant, model or tenant.default_model or "")
        )
        if target is not None:
            self._wake(target.pool, target.base_model)

    async def ask(self, batch: Batch, line: Line) -> LineAnswer:
        """Have a line answered. Never raises, except when cancelled."""
        tenant = self._tenant(batch.account)
        request_id = lines.request_id(batch, line)
        if tenant is None:
            return _refused(TenantRemoved("The batch's owner was removed from the service."))
        limits = self._directory.key_limits(batch.key)
        identity = Identity(KeyRole.INFERENCE, tenant.name, key=batch.key, limits=limits)
        inside = _Inside(batch.endpoint.value)
        exchange = Exchange(inside.scope, inside.receive, inside.send, Headers())
        try:
            call = bodies.parse(batch.endpoint, line.body)
            now_s, size_bytes = self._inference.clock(), len(line.body)
            asked = Asked(exchange, tenant, identity, call, size_bytes, request_id, now_s, None, spare=True)
            record = await self._inference.serve(asked)
        except RequestError as error:
            return _refused(error)
        return self._answer(inside, record)

    def _answer(self, inside: _Inside, record: Record | None) -> LineAnswer:
        status, body = inside.status, inside.body
        if record is None:
            return LineAnswer(status, body)
        row, retry_after_s = self._ledger.row(record), record.retry_after_s
        if record.outcome is Outcome.FAILED and status == UNAVAILABLE:
            return LineAnswer(status, body, row, retry_after_s or RETRY_AFTER_S)
        if record.outcome is Outcome.FAILED:
            return LineAnswer(status, body, row, retry_after_s or RETRY_AFTER_S, is_fault=True)
        return LineAnswer(status, body, row)

    def _tenant(self, account: str) -> Tenant | None:
        tenant = self._directory.tenant(tenant_of_account(account))
        return tenant if tenant is not None and tenant.account == account else None


class _Inside:
    """The other end of an exchange that nobody sees: it never leaves, and takes everything at once."""

    def __init__(self, path: str) -> None:
        self.is_stranger = False
        connection: Connection = self
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [],
            "client": None,
            CONNECTION: connection,
        }
        self.status = 500
        self._parts: list[bytes] = []

    @property
    def body(self) -> bytes:
        """What was sent."""
        return b"".join(self._parts)

    async def receive(self) -> Message:
        """Wait for ever."""
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self._parts.append(message.get("body", b""))

    @property
    def peer(self) -> str | None:
        """It has no address."""
        return None

    @property
    def takes_more(self) -> bool:
        """All that comes."""
        return True

    def send_at_once(self, body: bytes, *, more: bool) -> None:
        """Take a part of the answer."""
        self._parts.append(body)

    def show_key(self) -> None:
        """It needs none."""

    def take_body(self) -> bytes | None:
        """Its body was read."""
        return b""

    def watch(self, tell: Callable[[], object]) -> None:
        """Nobody leaves."""

    def unwatch(self, tell: Callable[[], object]) -> None:
        """Nobody was watched."""


def _refused(error: RequestError) -> LineAnswer:
    """Return what a line gets that was refused before it had a record."""
    return LineAnswer(error.status, error.body(), None, error.retry_after_s if may_pass(error) else None)
