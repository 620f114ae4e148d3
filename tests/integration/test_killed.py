"""A gateway is killed with SIGKILL while it applies fleets and changes tenants: all of a change, or nothing.

The gateway is a process of its own; the engines are fake.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from fleet.writer import write_fleet
from tests.fakes import FakeEngine, key_of, serving
from tests.integration.test_lifecycle import fleet_in

FLEET = "/admin/v1/fleet"
TENANTS = "/admin/v1/tenants"
OTHER_KEY = hashlib.sha256(b"another-key").hexdigest()
STARTS_WITHIN_S = 60.0  # some 3 s on an idle machine


def document(folder: Path, number: int) -> str:
    """The fleet's document of this number; in odd ones tenant b has another key."""
    data = yaml.safe_load((folder / "fleet.yaml").read_text())
    for tenant in data["tenants"].values():
        tenant["weight"] = 1.0 + number
        tenant["caps"]["requests_per_minute"] = 10_000 + number
    if number % 2:
        data["tenants"]["b"]["api_keys"] = [{"sha256": OTHER_KEY}]
    return f"# number {number}\n{yaml.safe_dump(data, sort_keys=False)}"


@dataclass
class Asked:
    """The numbers of changes that were asked for, and confirmed."""

    begun: int = 0
    confirmed: int = 0

    def is_possible(self, number: int) -> bool:
        """Whether a gateway may have this one."""
        return self.confirmed <= number <= self.begun


@dataclass
class Life:
    """A gateway's process, and what it was asked since the first one."""

    folder: Path
    fleets: Asked = field(default_factory=Asked)
    tenants: Asked = field(default_factory=Asked)
    process: asyncio.subprocess.Process | None = None

    @contextlib.asynccontextmanager
    async def client(self, key: str = "operator") -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.AsyncHTTPTransport(uds=str(self.folder / "gateway.sock"))
        headers = {"authorization": f"Bearer {key_of(key)}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers=headers, timeout=20
        ) as client:
            yield client

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        (self.folder / "gateway.sock").unlink(missing_ok=True)
        command = (sys.executable, "-m", "tests.integration.gateway_process", str(self.folder))
        self.process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        async with asyncio.timeout(STARTS_WITHIN_S), self.client() as client:
            while not await self._answers(client):
                assert self.process.returncode is None, "the gateway ended by itself"
                await asyncio.sleep(0.05)

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return (
                await client.get("/v1/models", headers={"authorization": f"Bearer {key_of('a')}"})
            ).status_code == 200
        return False

    async def kill(self) -> None:
        """Have it end with no time for anything."""
        assert self.process is not None and self.process.returncode is None
        self.process.kill()
        await self.process.wait()

    async def apply(self) -> None:
        """Apply one document after the other, until the gateway is gone."""
        async with self.client() as client:
            with contextlib.suppress(httpx.TransportError):
                while True:
                    self.fleets.begun += 1
                    body = document(self.folder, self.fleets.begun).encode()
                    answer = await client.post(
                        FLEET, content=body, headers={"content-type": "application/yaml"}
                    )
                    assert answer.status_code == 200, answer.text
                    self.fleets.confirmed = self.fleets.begun

    async def change(self) -> None:
        """Change a tenant at run time again and again, until the gateway is gone."""
        async with self.client() as client:
            with contextlib.suppress(httpx.TransportError):
                while True:
                    self.tenants.begun += 1
                    body = {"caps": {"max_queued": self.tenants.begun}}
                    answer = await client.patch(f"{TENANTS}/a", json=body)
                    assert answer.status_code == 200, answer.text
                    self.tenants.confirmed = self.tenants.begun

    async def check(self) -> None:
        """All of each change counts, or nothing; and events, revisions and keys say the same."""
        async with self.client() as client:
            shown = (await client.get(FLEET)).json()
            number = (
                int(shown["document"].splitlines()[0].removeprefix("# number ")) if shown["revision"] else 0
            )
            assert self.fleets.is_possible(number)
            assert number == 0 or shown["document"] == document(self.folder, number)
            self.fleets = Asked(number, number)
            for name in "abc":
                values = await self._values(client, name)
                expected = (1.0 + number, 10_000 + number) if number else (1.0, None)
                assert (values["weight"], values.get("caps.requests_per_minute")) == expected, name
            opens = (
                await client.get("/v1/models", headers={"authorization": f"Bearer {key_of('b')}"})
            ).status_code
            assert opens == (401 if number % 2 else 200)
            changed = (await client.get(f"{TENANTS}/a")).json()
            assert self.tenants.is_possible(changed["revision"])
            self.tenants = Asked(changed["revision"], changed["revision"])
            if changed["revision"]:
                assert (await self._values(client, "a"))["caps.max_queued"] == changed["revision"]
            events = (await client.get("/admin/v1/events?limit=200")).json()["data"]
            newest = {
                event["subject"]: event["text"]
                for event in reversed(events)
                if event["subject"] == "fleet"
                or not event["text"].startswith("revision")  # of an applied file
            }
            assert newest.get("fleet", "revision 0:").startswith(f"revision {shown['revision']}:")
            if changed["revision"]:
                assert newest["tenant a"].endswith(f"-> {changed['revision']}")

    async def _values(self, client: httpx.AsyncClient, name: str) -> dict[str, Any]:
        answer = (await client.get(f"{TENANTS}/{name}")).json()
        return {value["path"]: value["value"] for value in answer["values"]}


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    """A gateway that runs, and its engines."""
    fleet = fleet_in(tmp_path)
    (tmp_path / "fleet.yaml").write_text(write_fleet(fleet, key_variables={}))
    names = [name for pool in fleet.pools.values() for name, _ in pool.replica_models]
    life = Life(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            await stack.enter_async_context(serving(FakeEngine(name), tmp_path / f"{name}.sock"))
        try:
            await life.start()
            yield life
        finally:
            if life.process is not None and life.process.returncode is None:
                await life.kill()


async def test_killed_at_any_moment_it_has_all_of_each_change_or_nothing(life: Life) -> None:
    moments = random.Random(26)
    for _ in range(4):
        changing = [asyncio.create_task(life.apply()), asyncio.create_task(life.change())]
        await asyncio.sleep(moments.uniform(0.1, 0.8))
        await life.kill()
        await asyncio.gather(*changing)
        await life.start()
        await life.check()
    assert life.fleets.confirmed and life.tenants.confirmed, "something was changed"


@pytest.mark.parametrize("what", ["apply", "change"])
async def test_killed_while_it_writes_it_has_nothing_of_the_change(life: Life, what: str) -> None:
    await life.check()
    (database,) = (life.folder / "state").glob("*.db")
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    changing = asyncio.create_task(getattr(life, what)())
    await asyncio.sleep(0.5)
    assert not changing.done() and life.fleets.confirmed == life.tenants.confirmed == 0, (
        "it waits for the lock"
    )
    await life.kill()
    await changing
    writer.execute("ROLLBACK")
    writer.close()
    await life.start()
    await life.check()
    assert life.fleets.confirmed == life.tenants.confirmed == 0
