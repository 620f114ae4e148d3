"""Which replicas have series, and until when?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.types import Slo
from routing.observing.metrics import GatewayMetrics
from routing.observing.metrics.models import LINGER_S
from routing.scheduling.state import Engine, Replica
from tests.unit.routing.observing.metrics.scrapes import ended, series_of
from tests.unit.routing.scheduling.busy import Busy, busy

REQUESTS = "tenantry_replica_requests_total"


class Page:
    """A metrics page over replicas that come and go."""

    def __init__(self) -> None:
        self.house: Busy = busy()
        self.clock = self.house.clock
        self.metrics = GatewayMetrics(self.house.dispatcher, clock=self.clock, slos={"shared": Slo()})

    def join(self, name: str) -> None:
        self.house.dispatcher.join(Replica(name, "shared", Engine(name, "base", 2, 4)))

    def count(self, replica: str) -> None:
        self.metrics.settled([replace(ended(1), replica=replica)])

    async def replicas(self) -> dict[str, float]:
        """Requests by replica, as the page says now."""
        found = series_of((await self.metrics.read(None))[1], REQUESTS)
        counts: dict[str, float] = {}
        for labels, value in found.items():
            counts[dict(labels)["replica"]] = counts.get(dict(labels)["replica"], 0) + value
        return counts


async def test_the_series_of_a_replica_that_left_stay_until_every_scraper_has_seen_them() -> None:
    page = Page()
    page.join("shared-9")
    page.count("shared-9")
    page.house.dispatcher.leave("shared-9")
    assert await page.replicas() == {"shared-9": 1}
    page.clock.now += LINGER_S - 1
    page.count("shared-9")  # one that it ran to its end
    assert await page.replicas() == {"shared-9": 2}
    page.clock.now += 1
    assert await page.replicas() == {}


async def test_a_replica_that_comes_back_goes_on_counting() -> None:
    page = Page()
    page.join("shared-9")
    page.count("shared-9")
    page.house.dispatcher.leave("shared-9")
    await page.replicas()
    page.join("shared-9")
    page.clock.now += 2 * LINGER_S
    assert await page.replicas() == {"shared-9": 1}
    page.house.dispatcher.leave("shared-9")
    assert await page.replicas() == {"shared-9": 1}, "it lingers anew"


@pytest.mark.parametrize("named", [False, True], ids=["names of their own", "one name"])
def test_a_page_that_nobody_reads_keeps_few_series_of_those_that_left(named: bool) -> None:
    page = Page()
    for number in range(200):
        name = "shared-9" if named else f"new-{number}"
        page.join(name)
        page.count(name)
        page.house.dispatcher.leave(name)
        page.clock.now += LINGER_S / 4
    assert len(page.metrics._replicas.series()) < 10
