"""The fleet is replaced through the admin API: whole, kept on disk, or not at all. The engines are fake."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.current import CurrentFleet
from fleet.file import FleetFile
from fleet.key_hash import FINGERPRINT_CHARS
from fleet.writer import write_fleet
from routing.assembly import assemble
from routing.errors import StateUnavailable
from routing.replicas.discovery import StaticDiscovery
from tests.fakes import SECRET, Client, engines_of, eventually, key_of, serving
from tests.integration.conftest import Bench
from tests.integration.test_lifecycle import fleet_in

FLEET = "/admin/v1/fleet"
Data = dict[str, Any]


@dataclass
class Site:
    """A gateway that serves a fleet file."""

    bench: Bench
    file: Path

    async def apply(self, document: str | bytes, query: str = "", key: str = "operator") -> Client:
        """Send a document to the admin API."""
        body = document if isinstance(document, bytes) else document.encode()
        headers = [
            ("authorization", f"Bearer {key_of(key)}"),
            ("content-type", "application/yaml"),
        ]
        return await Client(self.bench.gateway.app, f"{FLEET}?{query}", body=body, headers=headers)()

    async def shown(self) -> Data:
        """The fleet as the admin API shows it."""
        return dict((await self.bench.get(FLEET, key=key_of("operator"))()).json())

    async def status(self, key: str = "a") -> int:
        """What a chat with a key gets."""
        return (await self.bench.chat(key)()).status

    async def events(self) -> list[str]:
        """What happened to the fleet, the newest first."""
        answer = (await self.bench.get("/admin/v1/events", key=key_of("operator"))()).json()
        return [event["text"] for event in answer["data"] if event["subject"] == "fleet"]


@contextlib.asynccontextmanager
async def site_in(folder: Path) -> AsyncIterator[Site]:
    """Serve the fleet file in a folder, which is made if it is not there; at the end all is at rest."""
    file = folder / "fleet.yaml"
    if not file.exists():
        file.write_text(write_fleet(fleet_in(folder), key_variables={}))
    fleet, _ = FleetFile(file).load()
    engines = engines_of(fleet)
    async with contextlib.AsyncExitStack() as stack:
        addresses = {}
        for name, engine in engines.items():
            socket = folder / f"{name}.sock"
            socket.unlink(missing_ok=True)
            addresses[name] = await stack.enter_async_context(serving(engine, socket))
        gateway = assemble(CurrentFleet(fleet), StaticDiscovery(lambda: addresses), secret=SECRET)
        gateway.fleets.begin_with(FleetFile(file))
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        await eventually(gateway.is_ready, "the gateway's readiness")
        bench = Bench(gateway, engines)
        yield Site(bench, file)
        for engine in engines.values():
            engine.release.set()
        await eventually(lambda: bench.at_rest, f"rest of {gateway.dispatcher!r}")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway that serves a fleet file."""
    async with site_in(tmp_path) as site:
        yield site


async def test_a_restart_is_among_the_events_with_its_actor_and_result(site: Site) -> None:
    headers = [("authorization", f"Bearer {key_of('operator')}")]
    path = "/admin/v1/pools/shared/restart"
    assert (await Client(site.bench.gateway.app, path, headers=headers)()).status == 202
    restarts = site.bench.gateway.restarts
    await eventually(lambda: restarts.of("shared").ended_s is not None, "the end of the restart")

    async def told() -> list[tuple[str, str]]:
        answer = (await site.bench.get("/admin/v1/events", key=key_of("operator"))()).json()
        return [(e["actor"], e["text"]) for e in answer["data"] if e["subject"] == "pool shared"]

    texts: list[tuple[str, str]] = []
    async with asyncio.timeout(5):
        while len(texts) < 2:
            texts = await told()
    assert [text for _, text in texts] == ["restart of shared-0 done", "restart of shared-0 begins"]
    assert all(actor.startswith("key ") for actor, _ in texts)


def changed(site: Site, change: Callable[[Data], object]) -> str:
    """The file's text after a change of its values."""
    data: Data = yaml.safe_load(site.file.read_text())
    change(data)
    return yaml.safe_dump(data, sort_keys=False)


def without_b(data: Data) -> None:
    """Take tenant b out."""
    del data["tenants"]["b"]
    data["pools"]["shared"]["tenants"] = ["a"]


def cap(rate: int) -> Callable[[Data], None]:
    """Give tenant a another rate."""
    return lambda data: data["tenants"]["a"]["caps"].update(requests_per_minute=rate)


# -- applied -----------------------------------------------------------------------------------------------


async def test_a_document_counts_from_the_next_request_on_and_says_what_it_changed(site: Site) -> None:
    assert (await site.shown())["revision"] == 0
    dry = (await site.apply(changed(site, cap(1)), "dry_run=true")).json()
    assert (dry["applied"], dry["revision"]) == (False, 0)
    assert await site.status() == await site.status() == 200
    answer = (await site.apply(changed(site, cap(1)))).json()
    assert (answer["applied"], answer["revision"]) == (True, 1)
    assert (
        answer["changes"]
        == dry["changes"]
        == [{"section": "tenants", "name": "a", "text": "requests_per_minute none -> 1", "needs": "nothing"}]
    )
    assert [await site.status(), await site.status()] == [200, 429]
    shown = await site.shown()
    fingerprint = hashlib.sha256(key_of("operator").encode()).hexdigest()[:FINGERPRINT_CHARS]
    assert (shown["revision"], shown["actor"]) == (1, f"key {fingerprint}")
    assert await site.events() == ["revision 1: tenant a: requests_per_minute none -> 1"]


async def test_a_tenant_whose_entry_a_document_changes_has_an_event_of_its_own(site: Site) -> None:
    def change(data: Data) -> None:
        without_b(data)
        data["tenants"]["a"]["caps"]["max_queued"] = 7
        data["tenants"]["a"]["weight"] = 3

    assert (await site.apply(changed(site, change))).json()["applied"]

    async def told(name: str) -> list[Data]:
        path = f"/admin/v1/events?tenant={name}"
        return list((await site.bench.get(path, key=key_of("operator"))()).json()["data"])

    event = (await told("a"))[0]
    assert event["actor"].startswith("key ") and event["subject"] == "tenant a"
    assert event["text"] == "revision 1: weight 1 -> 3; max_queued 256 -> 7"
    assert event["changes"] == {"weight": [1.0, 3.0], "caps.max_queued": [256, 7]}
    assert (await told("b"))[0]["text"] == "revision 1: removed"
    assert all("revision" not in each["text"] for each in await told("c"))


async def test_a_change_of_very_many_tenants_is_one_event(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routing.lifecycle.fleets._MOST_NOTED", 0)
    assert (await site.apply(changed(site, without_b))).json()["applied"]
    events = (await site.bench.get("/admin/v1/events", key=key_of("operator"))()).json()["data"]
    assert [each["subject"] for each in events if "revision 1" in each["text"]] == ["fleet"]


async def test_a_key_that_is_taken_out_opens_nothing_and_no_answer_shows_its_hash(site: Site) -> None:
    digest = hashlib.sha256(key_of("b").encode()).hexdigest()
    other = hashlib.sha256(b"another-key").hexdigest()
    text = changed(site, lambda data: data["tenants"]["b"].update(api_keys=[{"sha256": other}]))
    client = await site.apply(text)
    assert [change["text"] for change in client.json()["changes"]] == [
        f"key {digest[:FINGERPRINT_CHARS]}... removed",
        f"key {other[:FINGERPRINT_CHARS]}... added",
    ]
    assert digest.encode() not in client.body and other.encode() not in client.body
    assert await site.status("b") == 401


async def test_the_same_document_again_is_no_new_revision(site: Site) -> None:
    text = changed(site, cap(5))
    assert (await site.apply(text)).json()["applied"]
    again = (await site.apply(text)).json()
    assert (again["applied"], again["revision"], again["changes"]) == (False, 1, [])


async def test_an_adapter_that_is_declared_later_is_prepared_and_one_that_is_left_out_is_retired(
    site: Site,
) -> None:
    def swap(data: Data) -> None:
        data["adapters"]["new"] = data["adapters"].pop("a-sales")
        data["tenants"]["a"]["models"] = {"support": "a-support", "fresh": "new"}

    assert (await site.apply(changed(site, swap))).status == 200
    assert site.bench.gateway.is_ready(), "what is prepared later does not make the gateway unready"

    async def answers() -> bool:
        return (await site.bench.chat("a", model="fresh")()).status == 200

    for _ in range(500):
        if await answers():
            break
        await asyncio.sleep(0.01)
    assert await answers()
    assert (await site.bench.chat("a", model="sales")()).status == 404


# -- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("tenants: [", "not YAML"),
        ("", "the file is empty"),
        ("just a text", "must be a mapping"),
        ("[" * 100_000, "too many or too deeply nested"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
async def test_what_is_no_fleet_is_refused_with_its_problem(
    site: Site, document: str | bytes, words: str
) -> None:
    client = await site.apply(document)
    assert (client.status, client.json()["error"]["code"]) == (400, "fleet_invalid")
    assert any(words in problem["message"] for problem in client.json()["problems"])
    assert (await site.shown())["revision"] == 0


async def test_a_valid_file_that_is_wrong_is_refused_with_every_problem_and_its_line(site: Site) -> None:
    def spoil(data: Data) -> None:
        data["tenants"]["a"]["models"]["support"] = "nothing"
        data["tenants"]["b"]["caps"]["max_queued"] = -1
        data["pools"]["shared"]["tenants"] = ["a", "b", "nobody"]

    client = await site.apply(changed(site, spoil))
    problems = client.json()["problems"]
    assert client.status == 400
    assert {problem["path"] for problem in problems} >= {
        "tenants.a.models.support",
        "tenants.b.caps.max_queued",
        "pools.shared.tenants[2]",
    }
    assert all(problem["line"] for problem in problems)
    assert await site.status() == 200


async def test_what_needs_a_restart_is_refused_with_every_reason(site: Site) -> None:
    def restart(data: Data) -> None:
        data["base_models"]["base"]["max_loras"] = 3
        data["pools"]["shared"]["replicas"] = 2
        data["gateway"]["shutdown_grace_s"] = 5
        data["tenants"]["a"]["weight"] = 2.0

    text = changed(site, restart)
    client = await site.apply(text)
    answer = client.json()
    assert (client.status, answer["error"]["code"]) == (409, "fleet_refused")
    assert len(answer["reasons"]) == 3 and len(answer["changes"]) == 4
    dry = await site.apply(text, "dry_run=true")
    assert (dry.status, dry.json()["reasons"]) == (200, answer["reasons"])
    assert site.bench.gateway.fleet.now.tenants["a"].weight == 1.0


async def test_another_currency_is_refused_and_other_prices_are_not(site: Site) -> None:
    def priced(currency: str, price: int) -> str:
        models = {"base": {"input": price, "output": 1}}
        return changed(site, lambda data: data.update(prices={"currency": currency, "models": models}))

    assert (await site.apply(priced("EUR", 1))).status == 200
    refused = await site.apply(priced("USD", 1))
    assert (refused.status, refused.json()["error"]["code"]) == (409, "fleet_refused")
    assert refused.json()["reasons"][0].startswith("prices: currency EUR -> USD: ")
    dry = (await site.apply(priced("USD", 1), "dry_run=true")).json()
    assert dry["reasons"] == refused.json()["reasons"]
    assert (await site.apply(priced("EUR", 2))).status == 200


async def test_of_two_operators_the_second_is_told_who_was_first(site: Site) -> None:
    first, second = await asyncio.gather(
        site.apply(changed(site, cap(5)), "revision=0"), site.apply(changed(site, cap(6)), "revision=0")
    )
    assert sorted((first.status, second.status)) == [200, 409]
    error = max((first, second), key=lambda client: client.status).json()["error"]
    assert error["code"] == "fleet_changed"
    assert "revision 1, by key " in error["message"]


async def test_only_operators_may_look_at_the_fleet_or_change_it(site: Site) -> None:
    assert (await site.apply(changed(site, cap(5)), key="a")).status == 403
    assert (await site.bench.get(FLEET, key=key_of("a"))()).status == 403
    assert (await site.bench.get(FLEET)()).status == 401


async def test_while_the_database_is_away_nothing_changes_and_serving_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StateUnavailable("The state database does not answer.")

    monkeypatch.setattr("routing.state.store.StateStore.add_fleet", away)
    client = await site.apply(changed(site, without_b))
    assert (client.status, client.json()["error"]["code"]) == (503, "state_unavailable")
    assert (await site.shown())["revision"] == 0
    assert await site.status("b") == 200


# -- isolation ---------------------------------------------------------------------------------------------


async def test_a_tenant_becomes_dedicated_only_where_nothing_of_others_runs(site: Site) -> None:
    def dedicate_b(data: Data) -> None:
        data["tenants"]["b"]["isolation"] = "dedicated"
        data["tenants"]["c"]["isolation"] = "shared"
        data["pools"]["shared"]["tenants"] = ["b"]
        data["pools"]["alone"]["tenants"] = ["a", "c"]

    engine = site.bench.engines["shared-0"]
    engine.behave = engine.hold
    running = asyncio.create_task(site.bench.chat("a")())
    await eventually(lambda: engine.running == 1)
    client = await site.apply(changed(site, dedicate_b))
    assert (client.status, client.json()["error"]["code"]) == (409, "fleet_refused")
    assert "tenant b is dedicated, and requests of a" in client.json()["reasons"][0]
    engine.release.set()
    assert (await running).status == 200
    await eventually(lambda: site.bench.at_rest)
    assert (await site.apply(changed(site, dedicate_b))).status == 200
    assert [await site.status(tenant) for tenant in "abc"] == [200, 200, 200]
    assert {body["model"].partition("@")[0] for body in engine.seen[1:]} == {"b-support"}


async def test_a_request_that_comes_between_check_and_change_has_the_revision_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = iter([[], ["pool shared: a met b"]])
    monkeypatch.setattr("routing.lifecycle.fleets.why_shared", lambda *_: next(reasons))
    client = await site.apply(changed(site, cap(5)))
    assert client.status == 409
    assert (await site.shown())["revision"] == 0
    monkeypatch.undo()
    assert (await site.apply(changed(site, cap(5)))).json()["revision"] == 1


# -- after a restart ---------------------------------------------------------------------------------------


async def test_what_was_applied_counts_after_a_restart(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        await site.apply(changed(site, without_b))
    async with site_in(tmp_path) as site:
        assert await site.status("b") == 401
        assert (await site.shown())["revision"] == 1
        assert (await site.apply(changed(site, cap(9)))).json()["revision"] == 2


async def test_a_file_that_was_changed_since_counts_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site_in(tmp_path) as site:
        await site.apply(changed(site, without_b))
        site.file.write_text(changed(site, cap(1)))
    async with site_in(tmp_path) as site:
        assert await site.status("b") == 200
        assert [await site.status(), await site.status()] == [200, 429]
        assert "the file counts" in caplog.text


@pytest.mark.parametrize("kept", [False, True], ids=["before it is kept", "before it counts"])
async def test_a_gateway_that_dies_in_the_middle_has_all_of_a_document_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    class Killed(BaseException):
        """Nothing after this runs."""

    def die(*_: object) -> None:
        raise Killed

    where = "fleet.current.CurrentFleet.replace" if kept else "routing.state.fleet_revisions.add"
    async with site_in(tmp_path) as site:
        with monkeypatch.context() as patched:
            patched.setattr(where, die)
            with contextlib.suppress(Killed):
                await site.bench.gateway.fleets._put(
                    site.bench.gateway.fleet.now, changed(site, without_b), "key x", [], []
                )
    async with site_in(tmp_path) as site:
        assert await site.status("b") == (401 if kept else 200)
        assert (await site.shown())["revision"] == int(kept)


async def test_until_it_is_known_what_was_applied_no_key_opens_anything(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routing.http.app.HELD_AT_START_S", 0.05)
    site.bench.gateway.fleet.is_known = False
    client = await site.bench.chat("a")()
    assert (client.status, client.json()["error"]["code"]) == (503, "starting")
    site.bench.gateway.fleet.is_known = True


async def test_a_request_that_comes_at_the_start_is_held_until_that_is_known(site: Site) -> None:
    site.bench.gateway.fleet.is_known = False
    asked = asyncio.create_task(site.bench.chat("a")())
    await asyncio.sleep(0.1)
    assert not asked.done()
    site.bench.gateway.fleet.is_known = True
    assert (await asked).status == 200


# -- from the file -----------------------------------------------------------------------------------------


async def test_the_file_is_applied_when_it_is_asked_for_and_when_it_is_watched(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.file.write_text(changed(site, cap(7)))
    await site.bench.gateway.fleets.apply_file()
    assert (await site.shown())["actor"] == "fleet file"
    watching = asyncio.create_task(site.bench.gateway.fleets.watch(0.01))
    await asyncio.sleep(0.05)
    site.file.write_text("tenants: [")
    await eventually(lambda: "was not applied" in caplog.text)
    site.file.unlink()
    await asyncio.sleep(0.03)
    site.file.write_text("# a remark\n" + write_fleet(site.bench.gateway.fleet.now, key_variables={}))
    await eventually(lambda: site.bench.gateway.fleets.state.revision == 2)
    watching.cancel()
    assert await site.status("b") == 200


async def test_a_file_that_was_changed_while_the_database_was_away_is_applied_once_it_answers(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StateUnavailable("The state database does not answer.", retry_after_s=5.0)

    monkeypatch.setattr("routing.lifecycle.registry.FIRST_RETRY_S", 0.01)
    watching = asyncio.create_task(site.bench.gateway.fleets.watch(0.01))
    await asyncio.sleep(0.05)
    with monkeypatch.context() as patched:
        patched.setattr("routing.state.fleet_revisions.add", away)
        site.file.write_text(changed(site, cap(7)))
        await eventually(lambda: "does not answer" in caplog.text)
        site.file.write_text(changed(site, without_b))
    await eventually(lambda: "b" not in site.bench.gateway.fleet.now.tenants)
    watching.cancel()
    assert (await site.shown())["actor"] == "fleet file"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: (path.unlink(), path.mkdir())])
async def test_a_file_that_cannot_be_read_is_told_as_that(
    site: Site, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(site.file)
    await site.bench.gateway.fleets.apply_file()
    assert "was not applied. It cannot be read: " in caplog.text
    assert "is empty" not in caplog.text
    assert await site.status() == 200
