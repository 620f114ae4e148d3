"""A hostile client at work, and neighbours who live on beside it: what each of them got."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.hostile.bodies import CHAT
from tests.hostile.client import Answer, send
from tests.hostile.judge import Judge
from tests.hostile.request import Attack

CLIENTS = 8  # of the hostile one, at once
MOST_CHOICES = 256  # more are refused at the gateway
SHOWN = 10


@dataclass(frozen=True)
class Neighbour:
    """A tenant that behaves, one of its models, and what that answers."""

    tenant: str
    key: str
    model: str
    answers: Mapping[str, str]  # by question

    @property
    def name(self) -> str:
        """Its requests' ids begin so."""
        return f"{self.tenant}-{self.model}"


@dataclass(frozen=True)
class Seen:
    """What came of one hostile request."""

    attack: Attack
    status: int
    code: str | None
    model: str | None  # that the answer names

    @property
    def has_id(self) -> bool:
        """Whether its id is the one it was made with."""
        return [v for n, v in self.attack.headers if n == "x-request-id"] == [self.attack.id]


@dataclass
class Siege:
    """Sends what it is given, while the neighbours ask for theirs one after the other."""

    port: int
    judge: Judge
    neighbours: Sequence[Neighbour]
    timeout_s: float
    look: Callable[[], Iterable[str]] = tuple  # after each answer of a neighbour: what is wrong
    seen: list[Seen] = field(default_factory=list, repr=False)
    served: Counter[str] = field(default_factory=Counter)  # neighbours' answers, by tenant
    faults: list[str] = field(default_factory=list, repr=False)
    _asked: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self, attacks: Iterable[Attack], *, per_s: float = float("inf")) -> float:
        """Send them all, at most so many in a second; returns how many answers neighbours got in one."""
        waiting, clock = iter(attacks), asyncio.get_running_loop().time
        over, began_s, served = asyncio.Event(), clock(), self.served.total()
        sent = itertools.count()

        async def besiege() -> None:
            for one in waiting:
                await asyncio.sleep(began_s + next(sent) / per_s - clock())
                await self._attack(one)

        living = [asyncio.create_task(self._live(neighbour, over)) for neighbour in self.neighbours]
        await asyncio.gather(*(besiege() for _ in range(CLIENTS)))
        rate = (self.served.total() - served) / (clock() - began_s)
        over.set()
        await asyncio.gather(*living)
        return rate

    def report(self) -> str:
        """What went wrong, if anything did; each with what is needed to see it again."""
        return "\n\n".join([f"{len(self.faults)} faults", *self.faults[:SHOWN]]) if self.faults else ""

    @property
    def extra_choices(self) -> int:
        """Choices after the first that were asked for: for each an engine may count the prompt again."""
        extra = 0
        for seen in self.seen:
            try:
                asked = json.loads(seen.attack.body)
            except (ValueError, RecursionError):
                continue
            n = asked.get("n") if isinstance(asked, dict) else None
            extra += n - 1 if type(n) is int and 1 < n <= MOST_CHOICES else 0
        return extra

    async def _attack(self, one: Attack) -> None:
        answer = await send(self.port, one, timeout_s=self.timeout_s)
        self.seen.append(Seen(one, answer.status, answer.code, answer.headers.get("x-tenantry-model")))
        found = self.judge.faults(one, answer)
        if found:
            self.faults.append(f"{one}: {'; '.join(found)}: {answer.raw[:600]!r}")

    async def _live(self, neighbour: Neighbour, over: asyncio.Event) -> None:
        for question, expected in itertools.cycle(neighbour.answers.items()):
            if over.is_set():
                return
            number = next(self._asked)
            asked = request_of(neighbour, number, question)
            answer = await send(self.port, asked, timeout_s=self.timeout_s)
            self.served[neighbour.tenant] += 1
            if answer.status != 200 or text_of(answer) != expected:
                self.faults.append(f"{neighbour.name}-{number} got {answer.raw!r}")
            self.faults += self.look()


def request_of(neighbour: Neighbour, number: int, question: str) -> Attack:
    """A neighbour's request, every other one streamed."""
    body = {
        "model": neighbour.model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 64,
        "stream": number % 2 == 1,
    }
    headers = [
        ("host", "localhost"),
        ("authorization", f"Bearer {neighbour.key}"),
        ("x-request-id", f"{neighbour.name}-{number}"),
    ]
    return Attack(number, "POST", CHAT, headers, json.dumps(body).encode())


def text_of(answer: Answer) -> str | None:
    """The text of a chat's answer, streamed or not; None where there is none."""
    try:
        if answer.media_type == "application/json":
            return str(json.loads(answer.body)["choices"][0]["message"]["content"])
        *events, done = (part.removeprefix(b"data: ") for part in answer.body.split(b"\n\n")[:-1])
        deltas = (json.loads(event)["choices"][0]["delta"] for event in events)
        return "".join(delta.get("content") or "" for delta in deltas) if done == b"[DONE]" else None
    except (ValueError, LookupError, TypeError):
        return None
