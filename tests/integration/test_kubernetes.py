"""Replicas found by Kubernetes: before an API server of ours, and a real one where `KUBECONFIG` names it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import aiohttp
import pytest

from routing.replicas.kubernetes import FIRST_WAIT_S, LONGEST_PROBLEM, MAX_WAIT_S, Cluster, SliceDiscovery
from tests.integration.kubernetes_api import (
    GROUP,
    Api,
    FakeApi,
    RealApi,
    certificate,
    endpoint,
    endpoint_slice,
)

A, B, C = "http://10.1.0.1:3410", "http://10.1.0.2:3410", "http://10.1.0.3:3410"
KUBECONFIG = os.environ.get("KUBECONFIG")
WITHIN_S = 20.0  # of a real API server; ours takes milliseconds


def slice_of(service: str, **addresses: str) -> dict[str, object]:
    """Say a Service's only slice; `shared_0` is the host `shared-0`."""
    found = [endpoint(host.replace("_", "-"), address) for host, address in addresses.items()]
    return endpoint_slice(f"{service}-abc", service, *found)


class Pauses:
    """Stands in for sleeping: notes for how long, and lets others go on."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


class Watched:
    """What a discovery says, as it says it."""

    def __init__(self, cluster: Cluster, *services: str, silence_s: float = WITHIN_S) -> None:
        self.pauses = Pauses()
        self.said: list[dict[str, str]] = []
        self.discovery = SliceDiscovery(cluster, services, silence_s=silence_s, sleep=self.pauses)
        self._more = asyncio.Condition()

    async def run(self) -> None:
        async for addresses in self.discovery.watch():
            async with self._more:
                self.said.append(dict(addresses))
                self._more.notify_all()

    async def says(self, addresses: Mapping[str, str]) -> None:
        """Wait until it says so."""
        async with asyncio.timeout(WITHIN_S), self._more:
            await self._more.wait_for(lambda: bool(self.said) and self.said[-1] == addresses)


@contextlib.asynccontextmanager
async def watching(cluster: Cluster, *services: str, silence_s: float = WITHIN_S) -> AsyncIterator[Watched]:
    watched = Watched(cluster, *services, silence_s=silence_s)
    task = asyncio.create_task(watched.run())
    try:
        yield watched
        assert not task.done(), "it never ends, and raises nothing"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 - what the server notes wakes nobody
            await asyncio.sleep(0.001)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeApi]:
    async with FakeApi(tmp_path).serving() as api:
        yield api


@pytest.fixture(params=["fake", "real"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Api]:
    if request.param == "fake":
        async with FakeApi(tmp_path).serving() as fake:
            yield fake
    elif KUBECONFIG is None:
        pytest.skip("KUBECONFIG names no cluster")
    else:
        async with RealApi.serving(Path(KUBECONFIG), tmp_path) as real:
            yield real


# -- what every API server does --------------------------------------------------------------------------


async def test_replicas_come_move_and_go(api: Api) -> None:
    async with watching(api.cluster, "shared") as watched:
        await watched.says({})
        await api.put(slice_of("shared", shared_0="10.1.0.1"))
        await watched.says({"shared-0": A})
        await api.put(slice_of("shared", shared_0="10.1.0.1", shared_1="10.1.0.2"))
        await watched.says({"shared-0": A, "shared-1": B})
        await api.put(slice_of("shared", shared_0="10.1.0.3", shared_1="10.1.0.2"))
        await watched.says({"shared-0": C, "shared-1": B})
        await api.remove("shared-abc")
        await watched.says({})


async def test_what_was_there_before_is_listed(api: Api) -> None:
    await api.put(slice_of("shared", shared_0="10.1.0.1"))
    await api.put(slice_of("large", large_0="10.1.0.2"))
    async with watching(api.cluster, "shared", "large") as watched:
        await watched.says({"shared-0": A, "large-0": B})
    assert len(watched.said) == 1, "at once, not one after the other"


async def test_two_slices_of_one_service_are_one_pool(api: Api) -> None:
    first = endpoint_slice("shared-1st", "shared", endpoint("shared-0", "10.1.0.1"))
    await api.put(first)
    await api.put(endpoint_slice("shared-2nd", "shared", endpoint("shared-1", "10.1.0.2")))
    async with watching(api.cluster, "shared") as watched:
        await watched.says({"shared-0": A, "shared-1": B})
        await api.remove("shared-1st")
        await watched.says({"shared-1": B})


async def test_a_replica_that_is_not_ready_keeps_its_place_and_one_that_terminates_does_not(api: Api) -> None:
    states = [
        endpoint("shared-0", "10.1.0.1", ready=False, serving=False),
        endpoint("shared-1", "10.1.0.2", ready=False, serving=True, terminating=True),
    ]
    await api.put(endpoint_slice("shared-abc", "shared", *states))
    async with watching(api.cluster, "shared") as watched:
        await watched.says({"shared-0": A})


async def test_slices_of_other_services_are_nobodys(api: Api) -> None:
    await api.put(endpoint_slice("other", "other", endpoint("shared-0", "10.1.0.2")))
    await api.put(slice_of("shared", shared_0="10.1.0.1"))
    async with watching(api.cluster, "shared") as watched:
        await watched.says({"shared-0": A})
        moved = endpoint_slice("shared-abc", "other", endpoint("shared-0", "10.1.0.1"))
        await api.put(moved)  # a label was changed: for a watch that chooses by it, this is a deletion
        await watched.says({})


async def test_addresses_of_ipv6_are_written_as_urls_want_them(api: Api) -> None:
    await api.put(endpoint_slice("six", "shared", endpoint("shared-0", "fd00::1"), family="IPv6"))
    async with watching(api.cluster, "shared") as watched:
        await watched.says({"shared-0": "http://[fd00::1]:3410"})


async def test_a_watch_of_long_ago_is_gone_by_status_or_by_event(api: Api) -> None:
    """So that ours is held to what a real one does."""
    await api.put(slice_of("shared", shared_0="10.1.0.1"))
    where = api.cluster
    url = f"{where.url}{GROUP}/namespaces/{where.namespace}/endpointslices"
    query = {"watch": "1", "resourceVersion": "1", "labelSelector": "kubernetes.io/service-name in (shared)"}
    headers = {"authorization": f"Bearer {where.token_file.read_text().strip()}"}
    tls = await SliceDiscovery(where, ())._tls()
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session,
        session.get(url, params=query, headers=headers) as answer,
    ):
        if answer.status != 410:
            assert b'"code":410' in (await answer.content.readline()).replace(b" ", b"")


# -- what goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [410, 500, 503, 429, 403, 302])
async def test_a_refused_watch_is_listed_anew_after_a_pause(fake: FakeApi, status: int) -> None:
    await fake.put(slice_of("shared", shared_0="10.1.0.1"))
    async with watching(fake.cluster, "shared") as watched:
        await watched.says({"shared-0": A})
        fake.statuses.extend([status, status])
        fake.end_watches()
        await fake.put(slice_of("shared", shared_0="10.1.0.2"))
        await watched.says({"shared-0": B})
        assert fake.calls("list") >= 2 and len(watched.pauses.taken) >= 2


async def test_a_watch_that_is_too_old_says_so_in_an_event(fake: FakeApi) -> None:
    await fake.put(slice_of("shared", shared_0="10.1.0.1"))
    async with watching(fake.cluster, "shared") as watched:
        await watched.says({"shared-0": A})
        fake.slices.clear()  # a deletion that nobody is told of
        fake.compact()
        fake.end_watches()
        await watched.says({})


async def test_a_fault_that_goes_on_is_met_less_and_less_often(fake: FakeApi) -> None:
    """Lists succeed and watches do not: the pauses grow all the same, to their bound."""
    fake.compact()
    fake.oldest += 10**6
    async with watching(fake.cluster, "shared") as watched:
        await eventually(lambda: len(watched.pauses.taken) >= 9)
        pauses, wait_s = watched.pauses.taken[:9], FIRST_WAIT_S
        for pause in pauses:
            assert wait_s / 2 <= pause <= wait_s
            wait_s = min(2 * wait_s, MAX_WAIT_S)
        assert wait_s == MAX_WAIT_S
        fake.oldest = 0
        await fake.put(slice_of("shared", shared_0="10.1.0.1"))
        await watched.says({"shared-0": A})
        fake.bookmark()
        await eventually(lambda: watched.discovery._wait_s == FIRST_WAIT_S)


async def test_a_watch_that_went_silent_is_given_up_and_what_it_missed_is_listed(fake: FakeApi) -> None:
    await fake.put(slice_of("shared", shared_0="10.1.0.1"))
    fake.deaf = True
    async with watching(fake.cluster, "shared", silence_s=0.05) as watched:
        await watched.says({"shared-0": A})
        await fake.remove("shared-abc")
        await watched.says({})


async def test_a_deletion_missed_while_the_connection_was_cut_is_found(fake: FakeApi) -> None:
    await fake.put(slice_of("shared", shared_0="10.1.0.1"))
    await fake.put(slice_of("large", large_0="10.1.0.2"))
    async with watching(fake.cluster, "shared", "large") as watched:
        await watched.says({"shared-0": A, "large-0": B})
        await eventually(lambda: bool(fake.watches))
        del fake.slices["large-abc"]  # no event of it is ever sent
        fake.cut_watches()
        await watched.says({"shared-0": A})


async def test_a_watch_whose_time_is_over_goes_on_where_it_ended(fake: FakeApi) -> None:
    await fake.put(slice_of("shared", shared_0="10.1.0.1"))
    async with watching(fake.cluster, "shared") as watched:
        await watched.says({"shared-0": A})
        await eventually(lambda: bool(fake.watches))
        fake.bookmark()
        await eventually(lambda: fake.told == fake.version)
        fake.end_watches()
        await eventually(lambda: fake.calls("watch") == 2)
        assert fake.calls("list") == 1
        assert fake.seen[-1][1]["resourceVersion"] == str(fake.version), "the bookmark's"
        assert (
            fake.seen[-1][1]["allowWatchBookmarks"] == "true" and fake.seen[-1][1]["timeoutSeconds"] == "30"
        )
        await fake.put(slice_of("shared", shared_0="10.1.0.2"))
        await watched.says({"shared-0": B})


async def test_a_token_that_was_rotated_is_read_again(
    fake: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenantry.discovery")
    await fake.put(slice_of("shared", shared_0="10.1.0.1"))
    async with watching(fake.cluster, "shared") as watched:
        await watched.says({"shared-0": A})
        await eventually(lambda: bool(fake.watches))
        fake.rotate()
        fake.end_watches()
        await fake.put(slice_of("shared", shared_0="10.1.0.2"))
        await watched.says({"shared-0": B})
        assert fake.calls("list") == 1 and not caplog.messages
        assert "token" not in caplog.text


async def test_while_the_api_server_lets_nobody_in_the_replicas_stay_and_the_log_says_it_once(
    fake: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenantry.discovery")
    await fake.put(slice_of("shared", shared_0="10.1.0.1"))
    async with watching(fake.cluster, "shared") as watched:
        await watched.says({"shared-0": A})
        fake.token = "another"
        fake.end_watches()
        await eventually(lambda: fake.calls("list") > 5)
        assert watched.said == [{"shared-0": A}]
        assert len(caplog.messages) == 1 and "does not know the service account's token" in caplog.messages[0]
        fake.rotate()
        await fake.put(slice_of("shared", shared_0="10.1.0.2"))
        await watched.says({"shared-0": B})
        fake.bookmark()
        await eventually(lambda: len(caplog.messages) == 2)
        assert caplog.records[1].levelname == "INFO"


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON\n",
        b"[]\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "ADDED", "object": {"metadata": {"name": 5}}}\n',
        b'{"type": "RENAMED", "object": {}}\n',
        b'{"type": "BOOKMARK", "object": {"metadata": {}}}\n',
        b'{"type": "ERROR", "object": {"code": 500, "message": null}}\n',
        b'{"type": "ERROR", "object": {"code": [], "message": {}}}\n',
        b'{"type": "DELETED", "object": {"metadata": {"name": "shared-abc", "resourceVersion": 7}}}\n',
        b'{"type": "ADDED", "object": ' + b"[" * 10_000 + b"\n",
        b'{"type": "ERROR", "object": {}}\n',
        b"\xff\xfe\n",
        b"\n",
        b'{"type": "MODIFIED", "object"',
        b"x" * (9 * 2**20),
    ],
    ids=range(15),
)
async def test_a_line_that_is_no_event_ends_the_watch_and_nothing_else(fake: FakeApi, line: bytes) -> None:
    await fake.put(slice_of("shared", shared_0="10.1.0.1"))
    fake.raw.append(line)
    async with watching(fake.cluster, "shared") as watched:
        await watched.says({"shared-0": A})
        if not line.endswith(b"\n"):
            await eventually(lambda: not fake.raw)
            fake.end_watches()
        await eventually(lambda: fake.calls("list") >= 2)
        await fake.put(slice_of("shared", shared_0="10.1.0.2"))
        await watched.says({"shared-0": B})


@pytest.mark.parametrize(
    "body",
    [b"", b'{"metadata": {}, "items": []}', b'{"metadata": {"resourceVersion": "7"}, "items"', b"[" * 10_000],
    ids=range(4),
)
async def test_what_is_no_list_changes_nothing_and_another_is_asked_for(fake: FakeApi, body: bytes) -> None:
    await fake.put(slice_of("shared", shared_0="10.1.0.1"))
    async with watching(fake.cluster, "shared") as watched:
        await watched.says({"shared-0": A})
        fake.bodies.extend([body, body])
        fake.statuses.append(410)
        fake.end_watches()
        await fake.put(slice_of("shared", shared_0="10.1.0.2"))
        await watched.says({"shared-0": B})
        assert not fake.bodies and len(watched.said) == 2


async def test_however_much_is_said_that_cannot_be_understood_the_log_has_one_short_line(
    fake: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    fake.raw.append(
        b'{"type": "ERROR", "object": {"code": 500, "message": "%b"}}\n' % (b"\\n" + b"x" * 10_000)
    )
    async with watching(fake.cluster, "shared"):
        await eventually(lambda: bool(caplog.messages))
    assert "500" in caplog.messages[0] and "\n" not in caplog.messages[0]
    assert len(caplog.messages[0]) < LONGEST_PROBLEM + 100


async def test_the_api_server_must_show_the_certificate_of_the_service_account(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = certificate(tmp_path)
    async with FakeApi(tmp_path).serving(tls) as api:
        await api.put(slice_of("shared", shared_0="10.1.0.1"))
        async with watching(api.cluster, "shared") as watched:
            await watched.says({"shared-0": A})
        seen = len(api.seen)
        certificate(tmp_path)  # another one than the server's
        async with watching(api.cluster, "shared") as watched:
            await eventually(lambda: len(watched.pauses.taken) >= 2)
            assert not watched.said and len(api.seen) == seen, "no token was shown to it"
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


async def test_an_api_server_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    api = FakeApi(tmp_path)
    await api.put(slice_of("shared", shared_0="10.1.0.1"))
    nowhere = Cluster("http://127.0.0.1:9", "tenantry", tmp_path / "token", None)
    async with watching(nowhere, "shared") as watched:
        await eventually(lambda: len(watched.pauses.taken) >= 3)
        assert not watched.said
        async with api.serving():
            watched.discovery._cluster = api.cluster
            await watched.says({"shared-0": A})


async def test_without_a_token_nothing_is_sent(
    fake: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "token").unlink()
    async with watching(fake.cluster, "shared") as watched:
        await eventually(lambda: len(watched.pauses.taken) >= 2)
        assert not fake.seen
        assert len(caplog.messages) == 1 and "No such file" in caplog.messages[0]
