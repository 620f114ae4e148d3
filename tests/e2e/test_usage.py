"""The ledger on real vLLM: it has every request as its client counted it, also after a kill in mid-load."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.answers import QUESTIONS
from tests.e2e.conftest import two_slots
from tests.e2e.metering import KINDS, Clients, Ledger, compare, run_with_a_kill
from tests.e2e.serving import NOWHERE, Service, key_of, serving, wait_until

pytestmark = pytest.mark.engine

REQUESTS = int(os.environ.get("TENANTRY_USAGE_REQUESTS", "300"))
log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("usage")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """The demo's shared pool, whose tenants the clients are."""
    arguments = ("--arg", f"fleet={two_slots(folder)}", "--arg", "pool=shared")
    with serving("service:Gateway", folder, *arguments) as service:
        yield service


def test_the_ledger_has_what_clients_used_but_for_the_last_moment_before_a_kill(
    service: Service, folder: Path
) -> None:
    run_with_a_kill(service, folder, REQUESTS)


def test_a_tenant_sees_the_same_of_itself_and_nothing_of_others(service: Service, folder: Path) -> None:
    ledger = Ledger.of(service, folder)
    for tenant in ("acme", "globex"):
        answer = service.get("/v1/usage", headers={"authorization": f"Bearer {key_of(tenant)}"}).json()
        own = [record for record in ledger.records.values() if record["tenant"] == tenant]
        assert answer["total"]["requests"] == len(own)
        assert answer["total"]["prompt_tokens"] == sum(record["prompt_tokens"] for record in own)


def test_what_was_found_in_the_prefix_cache_is_told_and_kept(service: Service, folder: Path) -> None:
    """A block of vLLM's on a CPU has 128 tokens; only whole ones are found again."""
    before = Ledger.of(service, folder).total["total"]["cached_tokens"]
    client = service.client("acme")
    told = []
    for _ in range(2):
        answer = client.completions.create(model="support", prompt=" ".join(QUESTIONS * 6), max_tokens=1)
        assert answer.usage is not None and answer.usage.prompt_tokens > 256
        details = answer.usage.prompt_tokens_details
        told.append((details.cached_tokens or 0) if details is not None else 0)
    assert told[0] == 0 < told[1]
    assert Ledger.of(service, folder).total["total"]["cached_tokens"] == before + told[1]


def test_a_clean_stop_in_mid_load_loses_nothing(service: Service, folder: Path) -> None:
    """Last: it ends the service, and starts another gateway over the same state to ask it.

    Engines that are stopped end answers early, some before the first token: tokens are compared where the
    answer says what it used, and every other request must have a record.
    """
    clients = Clients(service, "late", kinds=[kind for kind in KINDS if kind.says_usage and not kind.leaves])
    clients.run(80, at_half=lambda: log.info("stopped with %d", service.stop()))
    arguments = ("--arg", f"fleet={folder / 'fleet.yaml'}")
    with serving("service:Gateway", folder, *arguments, env=NOWHERE, ready=False) as again:
        wait_until(again.is_alive, "life", within_s=120)
        ledger = Ledger.of(again, folder)
        own = {name: record for name, record in ledger.records.items() if name.startswith("late-")}
    assert compare(clients.told, Ledger(own, ledger.total)).missing == []
    told = [one for one in clients.told if one.whole and one.usage not in (None, (0, 0))]
    used = {one.id: own[one.id] for one in told}
    found = compare(told, Ledger(used, ledger.total))
    assert found.wrong == []
    assert 0 < found.tokens_kept == found.tokens_seen
