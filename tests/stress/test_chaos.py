"""Engines and their workers are killed and stopped under load: what becomes of the requests?

Two replicas behind one `bentoml serve`; a seeded schedule hits one of them at a time and lets it come back
before it chooses the next. TENANTRY_CHAOS_S sets for how long, TENANTRY_CHAOS_SEED what happens when.
A killed worker is started again by BentoML's parent process because this is no container.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import ClientSession

from demo.answers import QUESTIONS
from tests.e2e.serving import ONE_THREAD, ROOT, Service, key_of, serving, wait_until
from tests.e2e.traffic import MODELS, Ask, Ending, Seen, send, session
from tests.hostile.audit import by, rows_of, tokens
from tests.processes import runs

pytestmark = pytest.mark.engine
log = logging.getLogger("tests.chaos")

CHAOS_S = float(os.environ.get("TENANTRY_CHAOS_S", "60"))
SEED = int(os.environ.get("TENANTRY_CHAOS_SEED", "1"))
REPLICAS = ("shared-0", "shared-1")
CLIENTS = 10  # each sends its next request when the last has ended, so that a slow machine gets fewer
THINK_S = (0.2, 1.2)
LOADED_IN_FLIGHT = 3  # a replica is hit when it works on so many requests, or after a while anyway
BACK_WITHIN_S = 240.0  # an engine loads in 20 to 40 s on a quiet machine
SETTLED_WITHIN_S = 60.0
# Of requests for an answer in one piece. Until it is whole nothing of it has been sent, so the other replica
# takes it over; it is lost only where that one fails too, or is just then thought not to be ready.
MAX_WHOLE_FAILURES = 0.01
# Of all requests. To the gateway a machine that stands still for seconds looks like a replica that does.
MAX_UNEXPLAINED = 0.001
ALLOWED_STATUS = {429, 502, 503, 504}


# -- what happens ------------------------------------------------------------------------------------------


@dataclass
class Fault:
    """What was done to a replica, and until when it did not serve for that reason."""

    kind: str
    replica: str
    at_s: float
    back_s: float | None = None  # when a request sent after it had been answered there

    def explains(self, seen: Seen, replica: str | None) -> bool:
        """Whether a request failed because of it, on that replica or before it got to one."""
        until_s = self.back_s if self.back_s is not None else float("inf")
        overlaps = seen.sent_s < until_s and seen.ended_s > self.at_s
        return overlaps and replica in (None, self.replica)


class Traffic:
    """Requests at a steady rate in a thread of their own, and what came of each."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._chance = random.Random(SEED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.seen: list[Seen] = []

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(150)
        assert not self._thread.is_alive(), "a request has no end"

    def answered(self, replica: str, since_s: float) -> bool:
        """Whether the replica has answered a request that was sent after a moment."""
        return any(
            seen.ending is Ending.ANSWERED and seen.replica == replica and seen.sent_s > since_s
            for seen in reversed(self.seen[-200:])
        )

    async def _run(self) -> None:
        async with session() as client:
            await asyncio.gather(*(self._client(client, number) for number in range(CLIENTS)))

    async def _client(self, client: ClientSession, number: int) -> None:
        """Send one request after the other, with a pause between."""
        for count in itertools.count():
            await asyncio.sleep(self._chance.uniform(*THINK_S))
            if self._stop.is_set():
                return
            ask = self._next(f"chaos-{number}-{count}")
            self.seen.append(await send(client, self._service.url, ask))

    def _next(self, name: str) -> Ask:
        chance = self._chance
        (tenant, model), question = chance.choice(list(MODELS)), chance.choice(QUESTIONS)
        kind = chance.random()
        if kind < 0.40:
            return Ask(name, tenant, model, question)
        if kind < 0.65:
            return Ask(name, tenant, model, question, stream=True)
        if kind < 0.80:
            return Ask(name, tenant, model, question, stream=True, past_the_end=True, tokens=120)
        # These would last for a second and more, so that they leave before the end.
        endless = Ask(name, tenant, model, question, past_the_end=True, tokens=400)
        if kind < 0.92:
            return replace(endless, stream=True, leave_after=chance.randint(1, 6))
        return replace(endless, leave_after=chance.uniform(0.05, 0.2))


@dataclass
class Mischief:
    """Does something to one replica at a time."""

    service: Service
    traffic: Traffic
    faults: list[Fault] = field(default_factory=list)
    orphans: list[psutil.Process] = field(default_factory=list)  # engines whose worker was killed
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))

    def go_on_until(self, end_s: float) -> None:
        """Hit replicas in turn, each kind of fault once before any comes twice."""
        every: list[Callable[[str], None]]
        every = [self.stop_engine, self.kill_engine, self.stop_worker, self.kill_worker, self.end_worker]
        acts = list(every)  # the first time in this order, for a short run
        while time.monotonic() < end_s:
            if not acts:
                acts = self.chance.sample(every, len(every))
            act, replica = acts.pop(0), self.chance.choice(REPLICAS)
            self._wait_for_work(replica)
            fault = Fault(act.__name__, replica, time.monotonic())
            self.faults.append(fault)
            act(replica)
            fault.back_s = self._wait_until_back(replica, f"an answer of {replica} after {fault.kind}")
            log.info("%s of %s, back after %.1f s", fault.kind, replica, fault.back_s - fault.at_s)
            time.sleep(self.chance.uniform(1, 4))

    def _wait_until_back(self, replica: str, what: str) -> float:
        """Wait until the replica has answered a request that is sent from now on; return when."""
        done_s = time.monotonic()

        def is_back() -> bool:
            self.service.give_cores(REPLICAS)  # a new worker has none
            return self.traffic.answered(replica, done_s)

        wait_until(is_back, what, within_s=BACK_WITHIN_S)
        return time.monotonic()

    def _wait_for_work(self, replica: str) -> None:
        """Wait a little until the replica has something to lose."""
        end_s = time.monotonic() + 10
        while time.monotonic() < end_s:
            if self.service.metric("tenantry_replica_in_flight", replica=replica) >= LOADED_IN_FLIGHT:
                return
            time.sleep(0.05)

    def kill_engine(self, replica: str) -> None:
        """SIGKILL of vLLM's process, as the kernel does when memory is short."""
        _found(self.service.engine_core(replica)).kill()

    def kill_worker(self, replica: str) -> None:
        """SIGKILL of BentoML's worker, which leaves vLLM's process behind without a parent."""
        self.orphans.append(_found(self.service.engine_core(replica)))
        _found(self.service.worker(replica)).kill()

    def end_worker(self, replica: str) -> None:
        """SIGTERM of BentoML's worker: it finishes what runs, ends its engine, and is started again."""
        _found(self.service.worker(replica)).terminate()

    def stop_engine(self, replica: str) -> None:
        """vLLM's process stands still for a while, as under a debugger or on an exhausted machine."""
        self._stand_still(_found(self.service.engine_core(replica)))

    def stop_worker(self, replica: str) -> None:
        """The same for BentoML's worker: nothing answers there, not even readiness."""
        self._stand_still(_found(self.service.worker(replica)))

    def _stand_still(self, process: psutil.Process) -> None:
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(self.chance.uniform(1, 8))
        finally:
            process.send_signal(signal.SIGCONT)


def _found(process: psutil.Process | None) -> psutil.Process:
    assert process is not None, "a replica that serves has its processes"
    return process


@dataclass
class Ordeal:
    """All that was seen, from outside and in the gateway's own log."""

    service: Service
    seen: list[Seen] = field(repr=False)
    faults: list[Fault]
    orphans: list[psutil.Process]
    ledger: list[dict[str, Any]] = field(repr=False)  # its rows
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False)  # by request id

    def of(self, *endings: Ending) -> list[Seen]:
        """Requests that ended so for the client."""
        return [seen for seen in self.seen if seen.ending in endings]

    def record(self, seen: Seen) -> dict[str, Any] | None:
        """The gateway's record of a request, its only one."""
        return next(iter(self.records.get(seen.ask.id, ())), None)


def two_replicas(folder: Path) -> Path:
    """The demo's shared pool with two replicas of two slots, its tenants alike and patient."""
    text = (ROOT / "fleet.yaml").read_text()
    for old, new in (
        ("max_loras: 4", "max_loras: 2"),
        ("replicas: 1", "replicas: 2"),
        ("    priority: low\n", ""),
        ("max_concurrency: 256", "max_concurrency: 256, queue_timeout_s: 90"),
        (".cache/", f"{ROOT}/.cache/"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = folder / "fleet.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def ordeal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordeal]:
    """The load and the faults; everything below looks at what came of them. In this order."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each look at the metrics
    folder = tmp_path_factory.mktemp("chaos")
    arguments = ("--arg", f"fleet={two_replicas(folder)}", "--arg", "pool=shared")
    orphans: list[psutil.Process] = []
    try:
        with serving("service:Gateway", folder, *arguments, env=ONE_THREAD) as service:
            ready = lambda: service.metric("tenantry_replica_ready") == len(REPLICAS)  # noqa: E731
            wait_until(ready, "both replicas", within_s=BACK_WITHIN_S)
            service.give_cores(REPLICAS)
            with Traffic(service) as traffic:
                mischief = Mischief(service, traffic, orphans=orphans)
                time.sleep(3)
                mischief.go_on_until(time.monotonic() + CHAOS_S)
                time.sleep(3)
            wait_until(service.at_rest, "every counter at zero", within_s=SETTLED_WITHIN_S)
            headers = {"authorization": f"Bearer {key_of('operator')}"}
            assert service.get("/admin/v1/usage", headers=headers).status_code == 200, "it writes all first"
            ledger = rows_of(folder / "state" / "state.db")
            result = Ordeal(service, traffic.seen, mischief.faults, orphans, ledger)
            for record in service.records():
                result.records.setdefault(record["request_id"], []).append(record)
            _report(result)
            yield result
    finally:
        for process in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _report(ordeal: Ordeal) -> None:
    records = [record for found in ordeal.records.values() for record in found]
    moved = [record for record in records if record["attempts"] > 1]
    longest_s = max(seen.ended_s - seen.sent_s for seen in ordeal.seen)
    log.info("faults: %s", dict(Counter(fault.kind for fault in ordeal.faults)))
    log.info("for clients: %s", dict(Counter(str(seen.ending) for seen in ordeal.seen)))
    log.info("in the log: %s", dict(Counter(record["outcome"] for record in records)))
    failed = ordeal.of(Ending.REFUSED, Ending.BROKEN)
    log.info("errors: %s", dict(Counter((seen.status, seen.code) for seen in failed)))
    log.info("moved to the other replica: %s", dict(Counter(record["outcome"] for record in moved)))
    log.info("longest: %.1f s", longest_s)


# -- what came of it ---------------------------------------------------------------------------------------


def test_every_request_has_one_record_that_agrees_with_what_its_client_saw(ordeal: Ordeal) -> None:
    assert len(ordeal.seen) > CHAOS_S
    assert not ordeal.of(Ending.LOST), [(s.ask, s.status, s.error) for s in ordeal.of(Ending.LOST)][:5]
    assert not [found for found in ordeal.records.values() if len(found) > 1], "settled twice"
    unknown = [seen for seen in ordeal.seen if seen.ask.id not in ordeal.records]
    # One that leaves before its body is read is known as a refusal only.
    assert {seen.ending for seen in unknown} <= {Ending.LEFT}
    assert len(unknown) == ordeal.service.metric("tenantry_refusals_total")
    disagreeing = [(s, ordeal.record(s)) for s in ordeal.seen if not _agrees(s, ordeal.record(s))]
    assert not disagreeing, disagreeing[:5]


def _agrees(seen: Seen, record: dict[str, Any] | None) -> bool:
    """Whether the record says what the client saw; one that left cannot know how it would have ended."""
    if record is None:
        return True
    outcome, status, reason = record["outcome"], record["status"], record["reason"]
    if seen.ending is Ending.ANSWERED:
        return (outcome, status, reason) == ("completed", 200, None) and record["replica"] == seen.replica
    if seen.ending is Ending.BROKEN:
        return (outcome, status, reason) == ("failed", 200, seen.code)
    if seen.ending is Ending.REFUSED:
        known = outcome in ("rejected", "expired", "failed")
        return known and (status, reason) == (seen.status, seen.code)
    return outcome in ("cancelled", "completed", "failed")


def test_nearly_all_clients_that_left_are_known_to_have_left(ordeal: Ordeal) -> None:
    left = [record for seen in ordeal.of(Ending.LEFT) if (record := ordeal.record(seen))]
    cancelled = [record for record in left if record["outcome"] == "cancelled"]
    assert len(left) > 5
    assert len(cancelled) > 0.8 * len(left), "the rest had been answered by the time they left"


def test_the_counters_add_up_to_the_records(ordeal: Ordeal) -> None:
    records = [record for found in ordeal.records.values() for record in found]
    by_outcome = Counter(record["outcome"] for record in records)
    counted = {
        outcome: ordeal.service.metric("tenantry_requests_total", outcome=outcome) for outcome in by_outcome
    }
    assert counted == by_outcome
    total = ordeal.service.metric("tenantry_requests_total")
    assert total == len(records)
    assert total + ordeal.service.metric("tenantry_refusals_total") == len(ordeal.seen)


def test_the_ledger_has_every_record_once_with_its_tokens(ordeal: Ordeal) -> None:
    """The engines' own counters do not outlive them; those of the log do."""
    records = [record for found in ordeal.records.values() for record in found]
    assert Counter(row["request_id"] for row in ordeal.ledger) == Counter(r["request_id"] for r in records)
    logged, kept = by("tenant", records), by("tenant", ordeal.ledger)
    assert {tenant: tokens(rows) for tenant, rows in kept.items()} == {
        tenant: tokens(rows) for tenant, rows in logged.items()
    }


def test_nobody_gets_an_answer_of_another_adapter(ordeal: Ordeal) -> None:
    wrong = [(seen.ask, seen.text) for seen in ordeal.seen if not seen.is_of_the_right_adapter()]
    assert not wrong, wrong[:5]
    assert {(s.ask.tenant, s.ask.model) for s in ordeal.of(Ending.ANSWERED)} == set(MODELS)


def test_whoever_gets_no_answer_gets_an_openai_error_that_says_so(ordeal: Ordeal) -> None:
    refused = ordeal.of(Ending.REFUSED)
    assert {seen.status for seen in refused} <= ALLOWED_STATUS
    shapeless = [s.error for s in (*refused, *ordeal.of(Ending.BROKEN)) if not s.has_error_of_openais_shape()]
    assert not shapeless, shapeless[:5]
    silent = [s for s in refused if s.status in (429, 503) and "retry-after" not in s.headers]
    assert not silent, silent[:5]


def test_requests_fail_only_where_and_while_a_replica_was_hit(ordeal: Ordeal) -> None:
    failed = ordeal.of(Ending.REFUSED, Ending.BROKEN)
    unexplained = [
        (seen, record)
        for seen in failed
        if (record := ordeal.record(seen))
        and not any(fault.explains(seen, record["replica"]) for fault in ordeal.faults)
    ]
    few = max(1, round(MAX_UNEXPLAINED * len(ordeal.seen)))
    assert not unexplained[few:], unexplained[:5]


def test_answers_in_one_piece_hardly_ever_fail(ordeal: Ordeal) -> None:
    whole = [seen for seen in ordeal.seen if not seen.ask.stream and seen.ending is not Ending.LEFT]
    failed = [seen for seen in whole if seen.ending is not Ending.ANSWERED]
    few = max(1, round(MAX_WHOLE_FAILURES * len(whole)))
    assert not failed[few:], [(s.status, s.code) for s in failed]


def test_killed_engines_had_work_and_it_moved_or_ended_in_an_error(ordeal: Ordeal) -> None:
    assert any("kill" in fault.kind for fault in ordeal.faults)
    records = [record for found in ordeal.records.values() for record in found]
    assert ordeal.of(Ending.BROKEN) or any(record["attempts"] > 1 for record in records)


def test_both_replicas_serve_again_and_nothing_is_left_behind(ordeal: Ordeal) -> None:
    service = ordeal.service
    wait_until(
        lambda: service.metric("tenantry_replica_ready") == len(REPLICAS), "both", within_s=BACK_WITHIN_S
    )
    # More adapters at once than one replica has slots: neither can serve them alone.
    asks = [
        Ask(f"after-{i}", tenant, model, QUESTIONS[i % len(QUESTIONS)])
        for i, (tenant, model) in enumerate(2 * list(MODELS))
    ]
    seen = asyncio.run(_all_at_once(service.url, asks))
    assert all(s.ending is Ending.ANSWERED and s.is_of_the_right_adapter() for s in seen), seen
    assert {s.replica for s in seen} == set(REPLICAS)
    wait_until(service.at_rest, "every counter at zero", within_s=10)
    assert len(service.engine_cores()) == len(REPLICAS)
    assert not [process for process in ordeal.orphans if runs(process)], "ended by the next worker"


async def _all_at_once(url: str, asks: list[Ask]) -> list[Seen]:
    async with session() as client:
        return list(await asyncio.gather(*(send(client, url, ask) for ask in asks)))
