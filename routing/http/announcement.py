"""Where does the gateway serve, and how is it tried? Said once, when it is ready for the first time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleet.types import Fleet, Tenant

LOOK_INTERVAL_S = 0.25
DEMO_KEY = "{tenant}-demo-key"
log = logging.getLogger("tenantry.gateway")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What to tell whoever has started the gateway."""

    url: str
    console: str
    command: str | None  # asks a tenant's model something; None: no tenant has a model that writes

    @classmethod
    def of(cls, fleet: Fleet, address: str) -> Announcement:
        """Write it for a fleet that is served at an address. With a key only if it is the demo's."""
        return cls(f"{address}/v1", f"{address}/console", _command(fleet, address))

    def __str__(self) -> str:
        """Return one line."""
        tried = f"; try: {self.command}" if self.command else ""
        return f"serving at {self.url}; console at {self.console}{tried}"

    def for_people(self, at: str) -> str:
        """Return a command that can be pasted on a line of its own."""
        told = f"{at}gateway: serving at {self.url}, console at {self.console}"
        return f"{told}; try:\n{self.command}" if self.command else told


def address_of(environment: Mapping[str, str], service: str) -> str | None:
    """Where BentoML says that a service of this deployment listens; None where it says nothing."""
    try:
        address = json.loads(environment["BENTOML_RUNNER_MAP"])[service]
    except (KeyError, TypeError, ValueError):
        return None
    # It says localhost where it listens on every interface, of IPv4 alone.
    return str(address).replace("//localhost:", "//127.0.0.1:", 1)


async def announce(fleet: Fleet, address: str | None, is_ready: Callable[[], bool]) -> None:
    """Wait until the gateway is ready, and say so."""
    if address is None:
        return
    announcement = Announcement.of(fleet, address)
    while not is_ready():  # noqa: ASYNC110 - it depends on clocks and on others
        await asyncio.sleep(LOOK_INTERVAL_S)
    log.info("%s", announcement, extra={"for_people": announcement.for_people})


def _command(fleet: Fleet, address: str) -> str | None:
    for key, tenant in _callers(fleet):
        names = [tenant.default_model] if tenant.default_model else []
        for model in (*names, *tenant.models):
            if _writes_text(fleet, tenant.models[model]):
                body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}
                return (
                    f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' "
                    f'-H "Authorization: Bearer {key}" -d {shlex.quote(json.dumps(body))}'
                )
    return None


def _callers(fleet: Fleet) -> list[tuple[str, Tenant]]:
    """List keys with whose they are: the demo's, which everybody knows, before a variable for one's own."""
    demo_keys = ((DEMO_KEY.format(tenant=tenant.name), tenant) for tenant in fleet.tenants.values())
    known = [(k, t) for k, t in demo_keys if hashlib.sha256(k.encode()).hexdigest() in t.key_hashes]
    return known + [("$API_KEY", tenant) for tenant in fleet.tenants.values()]


def _writes_text(fleet: Fleet, name: str) -> bool:
    """Whether an adapter or a base model is one that generates, and no embedder."""
    adapter = fleet.adapters.get(name)
    base_model = fleet.base_models.get(adapter.base_model if adapter is not None else name)
    return base_model is not None and "pooling" not in base_model.vllm_args
