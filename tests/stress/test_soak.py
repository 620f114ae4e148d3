"""Ten thousand requests while adapters come and go and a client means harm: none wrong or lost, all metered.

TENANTRY_SOAK_REQUESTS sets how many, HOSTILE_SEED what the hostile client sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo.answers import QUESTIONS
from tests.e2e.hostility import MOST_TOKENS, fleet_in, judge_of, world_of
from tests.e2e.operators import Operator
from tests.e2e.serving import DEMO, ONE_THREAD, Service, answers, key_of, serving, wait_until
from tests.e2e.traffic import Ask, Ending, Seen, send, session
from tests.hostile.audit import Counted, by, counted_by_vllm, differences, rows_of, tokens
from tests.hostile.bodies import attack
from tests.hostile.siege import Siege

pytestmark = pytest.mark.engine
log = logging.getLogger("tests.soak")
logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each look at the metrics
logging.getLogger("httpx2").setLevel(logging.WARNING)

REQUESTS = int(os.environ.get("TENANTRY_SOAK_REQUESTS", "10000"))
SEED = int(os.environ.get("HOSTILE_SEED", "1"))
CLIENTS = 12
HOSTILE_PER_S = 10.0
TIMEOUT_S = 60.0
# (tenant, model) of the tenants that behave; none is the hostile client's.
MODELS = (("acme", "support"), ("acme", "sales"), ("globex", "support"))
VERSIONS = ("globex-support", "initech-support")  # demo adapters that acme registers as versions of its own
UNREAD = Counted(MOST_TOKENS, MOST_TOKENS)
TRIAL = Counted(2_000, 2_000)  # more than the trial of one version takes
TRIED = 5  # at start: the base model, and four declared adapters


@dataclass
class Churn:
    """One tenant's adapter is registered, given a new version, rolled back and retired, over and over."""

    service: Service
    rounds: int = 0
    asked: int = 0
    wrong: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Go on until told to stop; leave nothing behind. Raises `AssertionError` where a command fails."""
        operator = Operator(self.service.url)
        first, second = (str(DEMO / "adapters" / name) for name in VERSIONS)
        while not stop.is_set():
            operator.run("adapters", "add", "billing", first, "--tenant", "acme")
            self._ask(VERSIONS[0])
            operator.run("adapters", "add", "billing", second, "--tenant", "acme")
            self._ask(VERSIONS[1])
            operator.run("adapters", "rollback", "billing", "--tenant", "acme")
            self._ask(VERSIONS[0])
            operator.run("adapters", "retire", "billing", "--tenant", "acme")
            self.rounds += 1

    def _ask(self, name: str) -> None:
        question = QUESTIONS[self.asked % len(QUESTIONS)]
        self.asked += 1
        answer = self.service.client("acme").chat.completions.create(
            model="billing",
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=64,
        )
        text = answer.choices[0].message.content
        if text != answers()[name][question]:
            self.wrong.append(f"{name} said {text!r} to {question!r}")


async def _ask_all(url: str) -> list[Seen]:
    chance = random.Random(SEED)
    asks = iter(
        [
            Ask(f"soak-{n}", *chance.choice(MODELS), chance.choice(QUESTIONS), stream=n % 2 == 1)
            for n in range(REQUESTS)
        ]
    )
    seen: list[Seen] = []

    async def client() -> None:
        async with session() as own:
            for ask in asks:
                seen.append(await send(own, url, ask))
                if len(seen) % 1000 == 0:
                    log.info("%d of %d answers", len(seen), REQUESTS)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return seen


@contextlib.contextmanager
def _beside(service: Service, siege: Siege, churn: Churn) -> Iterator[None]:
    """Let the hostile client and the churn go on while the body runs; their errors come out at its end."""
    stop, world = threading.Event(), world_of(service)
    numbers = itertools.takewhile(lambda _: not stop.is_set(), itertools.count())
    hostile = siege.run((attack(SEED, number, world) for number in numbers), per_s=HOSTILE_PER_S)
    with ThreadPoolExecutor(2) as threads:
        running: list[Future[Any]] = [threads.submit(asyncio.run, hostile), threads.submit(churn.run, stop)]
        try:
            yield
        finally:
            stop.set()
        for work in running:
            work.result(4 * TIMEOUT_S)


def test_ten_thousand_requests_are_answered_right_and_metered_beside_churn_and_a_hostile_client(
    tmp_path: Path,
) -> None:
    arguments = ("--arg", f"fleet={fleet_in(tmp_path)}", "--arg", "pool=shared")
    with serving("service:Gateway", tmp_path, *arguments, env=ONE_THREAD) as service:
        cores = service.engine_cores()
        siege = Siege(service.port, judge_of(tmp_path / "state"), (), TIMEOUT_S)
        churn = Churn(service)
        with _beside(service, siege, churn):
            seen = asyncio.run(_ask_all(service.url))
        log.info(
            "%d answers, %d rounds of churn, %d hostile requests: %s",
            len(seen),
            churn.rounds,
            len(siege.seen),
            Counter((one.status, one.code) for one in siege.seen).most_common(12),
        )
        wait_until(service.at_rest, "every counter at zero", within_s=60)
        if report := siege.report():
            pytest.fail(report, pytrace=False)
        assert not churn.wrong
        assert churn.rounds
        lost = [one for one in seen if one.ending is not Ending.ANSWERED]
        assert not lost, lost[:5]
        assert not [one for one in seen if not one.is_of_the_right_adapter()]
        assert service.engine_cores() == cores, "an engine was started again"
        assert service.metric("tenantry_replica_breaker_state", state="open") == 0
        besides = TRIAL * (2 * churn.rounds + 2 + TRIED) + UNREAD * siege.extra_choices
        _assert_the_ledger_is_exact(service, seen, tmp_path / "state" / "state.db", besides)


def _assert_the_ledger_is_exact(service: Service, seen: list[Seen], database: Path, besides: Counted) -> None:
    """Each request stands there once, equal ones cost the same, and the sum is what the engine counted."""
    service.get("/admin/v1/usage", headers={"authorization": f"Bearer {key_of('operator')}"})  # writes it all
    rows = rows_of(database)
    own = by("request_id", rows)
    costs: dict[tuple[str, str, str], set[tuple[int, int]]] = defaultdict(set)
    for one in seen:
        (row,) = own[one.ask.id]
        assert (row["outcome"], row["estimated"]) == ("completed", 0)
        costs[one.ask.tenant, one.ask.model, one.ask.question].add(
            (row["prompt_tokens"], row["completion_tokens"])
        )
    assert not {asked: cost for asked, cost in costs.items() if len(cost) != 1}
    engine = counted_by_vllm(service.get("/metrics/shared-0").text)
    log.info("the engine counted %s, the ledger has %s", engine, tokens(rows))
    assert not differences(rows, engine, unread=UNREAD, besides=besides)
