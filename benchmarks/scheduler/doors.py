"""How does a request get to an engine? Through the gateway, or by a router to where a baseline has chosen.

Both open one connection for each request in flight and send the same chats; only the addresses, the names of
adapters and the headers differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """One engine."""

    name: str
    socket_path: str
    token: str

    def session(self) -> aiohttp.ClientSession:
        """Connections to it, any number at a time. Call it in the event loop."""
        connector = aiohttp.UnixConnector(self.socket_path, limit=0, keepalive_timeout=KEEP_ALIVE_S)
        return _session(connector, {TOKEN_HEADER: self.token}, "http://engine")


def gateway_session() -> aiohttp.ClientSession:
    """Connections to the gateway, any number at a time. Call it in the event loop."""
    return _session(_tcp(), {})


def router_session(port: int, token: str) -> aiohttp.ClientSession:
    """Connections to a router, which passes the engine's token on. Call it in the event loop."""
    return _session(_tcp(), {TOKEN_HEADER: token}, f"http://127.0.0.1:{port}")


def _tcp() -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)


def _session(
    connector: aiohttp.BaseConnector, headers: dict[str, str], base_url: str | None = None
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        base_url,
        connector=connector,
        headers={"content-type": "application/json", **headers},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=SILENCE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


class GatewayDoor:
    """Ours: whatever is behind the gateway decides."""

    def __init__(self, name: str, url: str, session: aiohttp.ClientSession) -> None:
        self.name = name
        self._url = url + CHAT_PATH
        self._session = session

    async def ask(self, answer: Answer, prompt: str, tokens: int) -> None:
        """Ask as the tenant, by the tenant's name of the model."""
        arrival = answer.arrival
        body = orjson.dumps(chat(bulk.name(arrival.adapter), prompt, tokens))
        headers = {"authorization": f"Bearer {api_key(tenant_name(arrival.tenant))}"}
        await stream(self._session, self._url, body, headers, answer)


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
