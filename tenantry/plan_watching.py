"""`plan --publish` and `plan --watch`: hands plans to the gateway, and looks whether they are still right.

The watch reads the ledger, makes a plan, tells the gateway what it saw, and rests. It changes nothing; what a
look needs of the one before it is at the gateway, so that it can be started anew at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn

import httpx
import typer

from adapters.errors import AdapterError
from fleet import FleetError
from fleet.types import Fleet
from planning.fleets import model_name
from planning.reading.ledger import naming_of, read_observed
from planning.requests import DemandError
from planning.watching import look, rest_s
from planning.words import listed
from tenantry.client import (
    Answer,
    Gateway,
    GatewayRefused,
    GatewayUnreachable,
    WrongUse,
    key_from_environment,
    understood,
)
from tenantry.columns import print_prose
from tenantry.plan_making import Wish, make
from tenantry.running import console, printable

MOST_MODELS, MOST_POOLS, MOST_HOURS = 1000, 500, 24 * 31  # that the gateway takes
RETRY_S = 600.0  # until the next attempt, where a look was not possible
NICENESS = 10  # a plan of many models takes minutes of one core: the gateway's work goes first
PATH, LOOK_PATH = "/plan", "/plan/look"


@dataclass(frozen=True, slots=True)
class Link:
    """The way to the gateway."""

    url: str
    transport: httpx.AsyncBaseTransport | None = None  # for tests

    def call(self, method: str, path: str, body: Answer | None = None) -> Answer:
        """Send one request. Raises `GatewayError`."""

        async def work() -> Answer:
            async with Gateway(self.url, key_from_environment(), transport=self.transport) as gateway:
                if body is None:
                    return await gateway.call(method, path)
                await gateway.put(path, body)
                return {}

        return asyncio.run(work())


def require_gateway(link: Link) -> None:
    """Ask for the plan that is kept, before minutes go into another one. Raises `GatewayError`."""
    link.call("GET", PATH)


def publish(answer: Answer, link: Link) -> None:
    """Have the gateway keep a plan. Raises `GatewayError`."""
    shown = _shown(answer, lambda one: (not one["missed"], -one["requests_per_day"]))
    pools = [pool | {"hours": pool["hours"][-MOST_HOURS:]} for pool in shown["pools"][:MOST_POOLS]]
    link.call("PUT", PATH, shown | {"pools": pools})


def _shown(answer: Answer, order: Callable[[Answer], Any]) -> Answer:
    """Return an answer with as many models as the gateway takes."""
    models = sorted(answer["models"], key=order)
    return answer | {"models": models[:MOST_MODELS], "models_left_out": max(0, len(models) - MOST_MODELS)}


class Watch:
    """Looks at the plan from time to time."""

    def __init__(self, wish_now: Callable[[], Wish], every_s: float, link: Link, *, as_json: bool) -> None:
        """`wish_now` reads the fleet file anew, since that may change meanwhile; it raises `FleetError`."""
        self._wish_now, self._every_s, self._link, self._as_json = wish_now, every_s, link, as_json
        self._said = ""  # why there was no look at the last step

    def run(self, sleep: Callable[[float], None] = time.sleep) -> NoReturn:
        """Look for ever, until SIGTERM. Raises `GatewayError` where the gateway will not have it."""
        with _until_terminated():
            os.nice(NICENESS)
            while True:
                sleep(self.step(time.time()))

    def step(self, now_s: float) -> float:
        """Look, where that is due. Returns the seconds until the next step."""
        try:
            with understood(self._link.url):
                kept = self._link.call("GET", PATH)
                planned = kept["plan"] and kept["plan"]["answer"]
                before = kept["look"] and kept["look"]["answer"]
                wait_s = rest_s(before, self._every_s, now_s)
            if wait_s > 0:
                return wait_s
            self._look(planned, before, now_s)
            self._said = ""
        except GatewayRefused as error:
            if error.status < httpx.codes.INTERNAL_SERVER_ERROR:
                raise
            return self._failed(error)
        except FleetError as error:  # it may be in the middle of a change
            return self._failed(AdapterError(listed([str(problem) for problem in error.problems], 2)))
        except (GatewayUnreachable, AdapterError, OSError) as error:
            return self._failed(error)
        return self._every_s

    def _look(self, planned: Answer | None, before: Answer | None, now_s: float) -> None:
        wish = self._wish_now()
        fleet = _watched(wish)
        over_s = wish.over_s or self._every_s
        anew = make(replace(wish, over_s=over_s))
        if planned is None:
            publish(anew, self._link)
        try:
            url = fleet.state.database_url
            observed = read_observed(
                url,
                naming_of(url, partial(model_name, fleet)),
                {pool.name: len(pool.hosts) for pool in fleet.pools.values()},
                since_s=now_s - over_s,
                now_s=now_s,
            )
        except DemandError as error:
            raise AdapterError(f"the ledger: {error}") from None
        seen = look(planned or anew, anew, observed, switching=wish.rules.switching, before=before)
        self._link.call("PUT", LOOK_PATH, _shown(seen, lambda one: (not one["is_late"], -one["requests"])))
        self._tell(seen)

    def _tell(self, seen: Answer) -> None:
        if self._as_json:
            typer.echo(json.dumps(seen))
            return
        shown = console()
        when = datetime.fromtimestamp(seen["to_s"], UTC).strftime("%Y-%m-%d %H:%M")
        print_prose(shown, f"{when}  {seen['advice']}: {seen['said']}")
        if seen["wish"] != seen["advice"]:
            print_prose(shown, f"  {seen['wish']}, if the next look finds the same", "dim")
        for text in seen["differs"]:
            print_prose(shown, f"  {text}")

    def _failed(self, error: Exception) -> float:
        """Say why there is no look now, each reason once. Returns the seconds until it is tried again."""
        wait_s = min(RETRY_S, self._every_s)
        said = f"no look was possible; again every {wait_s:.0f} s: {error}"
        if said != self._said:
            console(stderr=True).print(printable(said), style="yellow")
        self._said = said
        return wait_s


def _watched(wish: Wish) -> Fleet:
    """Return the fleet whose ledger is watched. Raises `WrongUse`."""
    if wish.fleet is None or wish.source is not None:
        raise WrongUse("--watch compares with a fleet's ledger: name its file with --fleet, and no --from")
    return wish.fleet


@contextlib.contextmanager
def _until_terminated() -> Iterator[None]:
    """End with exit code 0 at SIGTERM, also in the middle of a plan."""

    def ended(*_: object) -> NoReturn:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
