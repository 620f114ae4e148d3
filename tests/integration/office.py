"""A gateway that keeps its state on disk, on a port, with fake engines: for a day's work in the console."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from fleet.types import Budget
from routing.catalog.entries import KeyRole
from tests.fakes import FakeEngine
from tests.integration.conftest import Bench
from tests.integration.test_console import Site, site_over
from tests.integration.test_lifecycle import House, adapter_folder, fleet_in, house_of


@dataclass
class Office:
    """A gateway with state."""

    site: Site
    house: House
    folder: Path

    @property
    def engines(self) -> dict[str, FakeEngine]:
        return self.site.bench.engines

    def key(self, role: KeyRole, tenant: str | None) -> str:
        """Make a key."""
        work = self.house.manager.create_key(role, tenant, note="of a test", expires_s=None)
        return self.site.call(work)[0]

    def archive(self, seed: int = 0, **config: Any) -> Path:
        """An adapter as a tar."""
        source = adapter_folder(self.folder / f"to-send-{seed}", seed, **config)
        path = self.folder / f"adapter-{seed}.tar"
        with tarfile.open(path, "w") as tar:
            for file in source.iterdir():
                tar.add(file, file.name)
        return path

    def get(self, path: str, key: str) -> httpx.Response:
        return httpx.get(f"{self.site.url}{path}", headers={"authorization": f"Bearer {key}"})


@contextlib.contextmanager
def office_in(folder: Path) -> Iterator[Office]:
    """Run one over the small fleet, in which tenant a has a budget, until the block ends."""
    found: list[House] = []
    fleet = fleet_in(folder)
    tenants = {**fleet.tenants, "a": replace(fleet.tenants["a"], budget=Budget(100_000))}

    @contextlib.asynccontextmanager
    async def bench() -> AsyncIterator[Bench]:
        async with house_of(replace(fleet, tenants=tenants), folder) as house:
            found.append(house)
            yield house.bench

    with site_over(bench()) as site:
        yield Office(site, found[0], folder)
