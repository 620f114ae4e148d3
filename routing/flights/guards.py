"""May this text go on? A tenant's guard looks at prompts before an engine does, at answers before a client.

A guard is an endpoint in the form of OpenAI's moderations, or a plugin: an entry point of the group
`tenantry.guards`, called with the texts. Of a stream, some text is held back until it has been looked at,
together with the end of what went before.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import httpx
import orjson

from fleet.content import Guard, OnFailure
from routing.asgi import Exchange, HeaderList
from routing.errors import ContentFlagged, InvalidRequest, Unavailable
from routing.flights.heartbeat import Heartbeat
from routing.openai import texts
from routing.openai.bodies import Call

GROUP = "tenantry.guards"
FAILED = "guard_failed"  # the reason in the record of a request that went on without a look
MAX_TIMEOUT_S = 60.0  # of a step of a call; `timeout_s` bounds all of it
MAX_VERDICT_BYTES = 2**20
MAX_HELD_BYTES = 2**18  # of events, however little text they have
MAX_CATEGORIES, MAX_CATEGORY_CHARS = 8, 48
log = logging.getLogger("tenantry.gateway")


class Of(StrEnum):
    """Whose text it is."""

    PROMPT = "prompt"
    ANSWER = "answer"


class Plugin(Protocol):
    """What an entry point of the group names: a coroutine function."""

    def __call__(self, found: Sequence[str], *, of: str, tenant: str, model: str) -> Awaitable[Iterable[str]]:
        """Return the categories for which the texts must not go on; none: they may."""


class GuardBroken(Exception):
    """The guard gave no verdict."""


class Guards:
    """Asks guards. Made with the gateway; opens nothing before the first look."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._plugins: dict[str, Plugin] = {}

    def watch(self, guard: Guard, tenant: str) -> Watch:
        """Return what looks at one request."""
        return Watch(self, guard, tenant)

    async def ask(self, guard: Guard, found: Sequence[str], *, of: Of, tenant: str, model: str) -> list[str]:
        """Return the categories for which texts must not go on. Raises whatever went wrong."""
        if guard.url is None:
            plugin = self._plugins.get(guard.plugin or "") or self._load(guard.plugin or "")
            return [str(name) for name in await plugin(found, of=of.value, tenant=tenant, model=model)]
        if self._client is None:
            self._client = httpx.AsyncClient(follow_redirects=False, timeout=MAX_TIMEOUT_S)
        key = os.environ.get(guard.key_variable) if guard.key_variable else None
        headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
        body = orjson.dumps({"input": found, **({"model": guard.model} if guard.model else {})})
        async with self._client.stream("POST", guard.url, content=body, headers=headers) as answer:
            verdict = bytearray()
            async for chunk in answer.aiter_bytes():
                verdict += chunk
                if len(verdict) > MAX_VERDICT_BYTES:
                    raise GuardBroken("its answer is too long")
            if answer.status_code != 200:
                raise GuardBroken(f"it answers with status {answer.status_code}")
        return flagged_in(bytes(verdict))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    def _load(self, name: str) -> Plugin:
        for entry in importlib.metadata.entry_points(group=GROUP, name=name):
            plugin: Plugin = entry.load()
            self._plugins[name] = plugin
            return plugin
        raise GuardBroken(f"no installed package has the entry point `{name}` of {GROUP}")


def flagged_in(verdict: bytes) -> list[str]:
    """Read the categories of a moderation's answer. Raises `GuardBroken` where it is none."""
    try:
        results = orjson.loads(verdict)["results"]
        flagged = [result for result in results if _is_flagged(result)]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise GuardBroken("its answer is not a moderation's") from None
    if not results:
        raise GuardBroken("its answer has no results")
    told = [result.get("categories") for result in flagged]
    names = (name for each in told if isinstance(each, dict) for name, is_so in each.items() if is_so)
    return list(dict.fromkeys(names)) or ["flagged"] * bool(flagged)


def _is_flagged(result: Any) -> bool:
    flagged = result["flagged"]
    if not isinstance(flagged, bool):
        raise TypeError("flagged is no boolean")
    return flagged


@dataclass(slots=True)
class Watch:
    """Looks at the texts of one request."""

    guards: Guards = field(repr=False)
    guard: Guard
    tenant: str
    failed: bool = False  # some of them went on without a look

    async def look_at_prompt(self, call: Call) -> None:
        """Look at what a model would read. Raises as `look`; `InvalidRequest` for what nobody can read."""
        if not self.guard.prompts:
            return
        if call.size.token_ids or call.payload.get("prompt_embeds") is not None:
            raise InvalidRequest(
                "Send the prompt as text: what this service looks at cannot be token ids or tensors.",
                param=call.content,
                code="prompt_not_text",
            )
        await self.look(texts.of_prompt(call.payload, call.endpoint), Of.PROMPT, call.model or "")

    async def look_at_answer(self, call: Call, body: bytes) -> None:
        """Look at a whole answer. Raises as `look`."""
        if self.guard.answers and call.endpoint.writes:
            await self.look(texts.of_answer(body), Of.ANSWER, call.model or "")

    def over(self, out: Exchange | Heartbeat, call: Call) -> HeldBack | None:
        """Return what holds a stream back; None where nobody looks at answers."""
        return HeldBack(out, self, call.model or "") if self.guard.answers else None

    async def look(self, found: list[str], of: Of, model: str) -> None:
        """Return once the texts may go on.

        Raises `ContentFlagged` where they may not, and `Unavailable` where the guard fails and that is to
        refuse.
        """
        if not found:
            return
        try:
            async with asyncio.timeout(self.guard.timeout_s):
                flagged = await self.guards.ask(self.guard, found, of=of, tenant=self.tenant, model=model)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises
            kind = str(error) if isinstance(error, GuardBroken) else type(error).__name__
            log.warning("the guard of tenant %s failed (%s)", self.tenant, kind)
            if self.guard.on_failure is OnFailure.REFUSE:
                raise Unavailable(
                    f"Nobody could look at the {of} in time.", code="guard_unavailable", retry_after_s=1.0
                ) from None
            self.failed = True
            return
        if flagged:
            shown = ", ".join(_shown(name) for name in flagged[:MAX_CATEGORIES])
            raise ContentFlagged(f"The {of} was refused: {shown}.", code=f"{of}_flagged")


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:MAX_CATEGORY_CHARS])


class HeldBack:
    """Sends a stream's events once their text has been looked at."""

    takes_more = False  # nothing goes on in the very step in which it comes

    def __init__(self, out: Exchange | Heartbeat, watch: Watch, model: str) -> None:
        self._out = out
        self._watch = watch
        self._model = model
        self._most_chars = watch.guard.hold_back_chars
        self._held = bytearray()
        self._chars = 0  # of them that nobody has looked at
        self._new: dict[str, str] = {}
        self._seen: dict[
            str, str
        ] = {}  # the end of what has been sent, so that no word hides between two looks

    async def begin(self, status: int, headers: HeaderList) -> None:
        """Send the head of the answer. Raises `OSError`."""
        await self._out.begin(status, headers)

    def send_at_once(self, data: bytes, *, more: bool) -> None:
        """Refuse, as `takes_more` says. Raises `RuntimeError`."""
        raise RuntimeError("events are looked at before they are sent")

    async def send_body(self, data: bytes, *, more: bool) -> None:
        """Take whole events; send what is held where that is enough or the last. Raises as `Watch.look`."""
        self._held += data
        for text_of, text in texts.of_events(data):
            self._new[text_of] = self._new.get(text_of, "") + text
            self._chars += len(text)
        if more and self._chars < self._most_chars and len(self._held) < MAX_HELD_BYTES:
            return
        whole = {text_of: self._seen.get(text_of, "") + new for text_of, new in self._new.items() if new}
        await self._watch.look(list(whole.values()), Of.ANSWER, self._model)
        self._seen |= {text_of: text[-self._most_chars :] for text_of, text in whole.items()}
        held, self._held = bytes(self._held), bytearray()
        self._new, self._chars = {}, 0
        await self._out.send_body(held, more=more)
