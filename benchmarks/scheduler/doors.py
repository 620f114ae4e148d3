"""How does a request get to an engine? Through the gateway, or by a router to where a baseline has chosen.

Both open one connection for each request in flight and send the same chats; only the addresses, the names of
adapters and the headers differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import aiohttp
import orjson

from benchmarks.baselines import EngineLedger, Policy
from benchmarks.fleet import api_key
from benchmarks.scheduler.answers import Answer, chat, stream
from benchmarks.scheduler.fleet import tenant_name
from demo import bulk
from engines.protocol import ADAPTER_HEADER, TOKEN_HEADER

CHAT_PATH = "/v1/chat/completions"
PRIORITY = 1  # what the gateway writes for the standard band
KEEP_ALIVE_S = 3.0  # below the server's own, so that no connection is used again as it closes
SILENCE_S = 300.0  # a request that hears nothing for so long has failed


class Door(Protocol):
    """A way in."""

    name: str

    async def ask(self, answer: Answer, prompt: str, tokens: int) -> None:
        """Send the answer's request and note what comes of it. Never raises, except when cancelled."""


def session_to(address: str, token: str | None = None) -> aiohttp.ClientSession:
    """Connections to `http://host:port` or `unix:/path`, any number at a time; engines want their token.

    Call it in the event loop.
    """
    connector: aiohttp.BaseConnector
    if address.startswith("unix:"):
        path = "/" + address.removeprefix("unix:").lstrip("/")
        connector = aiohttp.UnixConnector(path, limit=0, keepalive_timeout=KEEP_ALIVE_S)
        address = "http://engine"
    else:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
    return aiohttp.ClientSession(
        address,
        connector=connector,
        headers={"content-type": "application/json", **({TOKEN_HEADER: token} if token else {})},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=SILENCE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


class GatewayDoor:
    """Ours: whatever is behind the gateway decides."""

    def __init__(self, name: str, session: aiohttp.ClientSession) -> None:
        self.name = name
        self._session = session

    async def ask(self, answer: Answer, prompt: str, tokens: int) -> None:
        """Ask as the tenant, by the tenant's name of the model."""
        arrival = answer.arrival
        body = orjson.dumps(chat(bulk.name(arrival.adapter), prompt, tokens))
        headers = {"authorization": f"Bearer {api_key(tenant_name(arrival.tenant))}"}
        await stream(self._session, CHAT_PATH, body, headers, answer)


class DirectDoor:
    """A baseline: this process chooses, a bare proxy passes on, and an engine gets every request at once."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        sessions: Mapping[str, aiohttp.ClientSession],
        engine_names: Sequence[str],
        slots: int,
    ) -> None:
        """`sessions` reach the engines by name, `engine_names` what engines call the adapters."""
        self.name = name
        self._policy = policy
        self._sessions = sessions
        self._engine_names = engine_names
        self.ledgers = [EngineLedger(name, slots) for name in sessions]

    async def ask(self, answer: Answer, prompt: str, tokens: int) -> None:
        """Choose an engine and ask it, as the gateway would."""
        adapter = self._engine_names[answer.arrival.adapter]
        ledger = self._policy.choose(adapter, self.ledgers)
        answer.replica = ledger.name
        salt = f"{answer.arrival.tenant:064x}"
        body = orjson.dumps(chat(adapter, prompt, tokens, cache_salt=salt, priority=PRIORITY))
        ledger.begin(adapter)
        try:
            session = self._sessions[ledger.name]
            await stream(session, CHAT_PATH, body, {ADAPTER_HEADER: adapter}, answer)
        finally:
            ledger.end(adapter)
