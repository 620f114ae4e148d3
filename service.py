"""Composition root: one Gateway service and one Engine service per host, as fleet.yaml says. Wiring only.

    bentoml serve service:Gateway                          the whole fleet
    bentoml serve service:Gateway --arg pool=shared        one pool of it
    bentoml serve service:Gateway --arg fleet=other.yaml   another fleet
    bentoml serve service:Gateway --arg replica=shared-0   one host alone, for a gateway elsewhere

Environment:
    TENANTRY_FLEET, TENANTRY_POOL, TENANTRY_REPLICA        the same where there are no arguments: in a Bento
    TENANTRY_ROLE          all, gateway (no engine is started) or engine (of one host, TENANTRY_REPLICA)
    TENANTRY_SECRET        the internal token and every tenant's cache salt come from it; random where not
                           set, which is right only where gateway and engines are started together
    TENANTRY_ENGINE_URLS   "host=url host=url": these run elsewhere, none is started for them
    TENANTRY_ENGINE_FILE   a file that says where all of them run, and may change; none is started here
    TENANTRY_ENGINE_SERVICES   Kubernetes' Services, called like the pools, behind which all of them run
    TENANTRY_OWN_DEVICES   1: this container was given its engine's devices, and sees no others
    TENANTRY_GATEWAY_URL   where engines on other machines find the gateway, if not at the address they see
    TENANTRY_WATCH         1: the fleet file is applied whenever it is changed (`tenantry serve --watch`)
    TENANTRY_DEMO          1: the demo's keys, which everybody knows, count from everywhere; else on this
                           machine alone, and a fleet that has them listens on loopback unless told otherwise
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

HERE = Path(__file__).parent
SHIPPED_CONFIG = str(HERE / "configuration.yaml")
os.environ.setdefault("BENTOML_CONFIG", SHIPPED_CONFIG)  # all that BentoML reads it from, at import
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
# What engines declare is for whoever places them; here each has the devices that fleet.yaml gives it, and
# BentoML's allocator, which knows whole GPUs only, would give it others.
os.environ.setdefault("BENTOML_DISABLE_GPU_ALLOCATION", "1")
os.environ.setdefault("TENANTRY_SECRET", secrets.token_hex(32))  # workers of one `bentoml serve` inherit it
# BentoML would merge all workers' metrics in one folder, where engines overwrite each other's gauges; each
# process keeps its own instead. Must happen before prometheus_client is imported.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
# Workers start from where the environment really is: set-up makes it a link where the path has a space, which
# torch's compiler cannot be given.
sys.executable = str(Path(sys.executable).parent.resolve() / Path(sys.executable).name)

from engines import last_resort, logs  # noqa: E402

logs.set_up()

import bentoml  # noqa: E402
from _bentoml_sdk import Service  # noqa: E402
from bentoml._internal.configuration.containers import BentoMLConfiguration, BentoMLContainer  # noqa: E402
from bentoml.exceptions import BentoMLConfigException  # noqa: E402
from bentoml.images import Image  # noqa: E402
from pydantic import BaseModel, ConfigDict  # noqa: E402

from engines.secrets import internal_token  # noqa: E402
from fleet.current import CurrentFleet  # noqa: E402
from fleet.demo_keys import DEMO_KEY_HASHES, demo_keys  # noqa: E402
from fleet.file import FleetFile  # noqa: E402
from fleet.problems import FleetError  # noqa: E402
from fleet.role import Part, Role, RoleError, host_in, on_devices_given, part_of, require_none_here  # noqa: E402
from fleet.types import Fleet, Host, Pool  # noqa: E402
from routing.http import connections  # noqa: E402
from routing.http.announcement import address_of, announce  # noqa: E402
from routing.http.bento_settings import without_effect  # noqa: E402
from routing.http.connections import Bounds  # noqa: E402
from routing.http.cors import options_of, with_cors  # noqa: E402
from routing.replicas.client import Address  # noqa: E402
from routing.replicas.discovery import Elsewhere  # noqa: E402

# Gateway and hosts are imported where they are made: BentoML's parent process imports this file too.
if TYPE_CHECKING:
    from engines.host import EngineHost
    from engines.shared_host import SharedHost
    from routing.assembly import Gateway as WholeGateway

BENTOML_ROUTES = {path + slash: path for path in ("/livez", "/readyz", "/healthz") for slash in ("", "/")}
SECRET = os.environ["TENANTRY_SECRET"].encode()
LOOPBACK = "127.0.0.1"
ENTRY_WATCHER = "service"  # what BentoML calls the process of the entry service (1.4, `serve_http`)
LOCAL_ONLY = (
    "this fleet has the demo's keys, which everybody knows: they work from this machine only, and the "
    "gateway listens on 127.0.0.1 unless --host says otherwise; TENANTRY_DEMO=1 lifts both"
)
FROM_EVERYWHERE = (
    "TENANTRY_DEMO=1: the demo's keys, which everybody knows, work for whoever can reach this machine"
)
log = logging.getLogger("tenantry.gateway")


class Arguments(BaseModel):
    """What `--arg` takes; `platform` is baked into a Bento by `bentoml build`."""

    model_config = ConfigDict(extra="forbid")

    fleet: str | None = None
    pool: str | None = None
    replica: str | None = None
    platform: Literal["gpu", "cpu"] | None = None  # of a Bento's image


class DirectService(Service):  # type: ignore[misc]
    """Sends everything but BentoML's health routes straight to the mounted application.

    BentoML's middleware costs a factor of 5 to 15 in requests per second; what it does otherwise
    (authentication, limits, logs, metrics) the gateway does itself. What is mounted makes the application,
    and is called in the process that serves it: every process declares all services.
    """

    # Whoever reaches an engine's port is a gateway, which shows the internal token with each request.
    bounds = Bounds(strangers=None, strangers_per_address=None, ends_within_s=None)

    def to_asgi(self, is_main: bool = True) -> Any:
        """Build the ASGI application of one worker."""
        inner = super().to_asgi(is_main)
        make_app = self.mount_apps[0][0]
        app = with_cors(make_app(), _settings()[self.name]["http"]["cors"])
        connections.install(self.bounds)

        async def entry(scope: Any, receive: Any, send: Any) -> None:
            path = BENTOML_ROUTES.get(scope["path"]) if scope["type"] == "http" else ""
            if path is None:
                await app(scope, receive, send)
            else:
                await inner({**scope, "path": path} if path else scope, receive, send)

        return entry

    def inject_config(self) -> None:
        """Read BentoML's configuration. Raises `BentoMLConfigException` for what would have no effect."""
        super().inject_config()
        for name, service in self.all_services().items():
            usual = [_settings(file, {name: service.config})[name] for file in (None, SHIPPED_CONFIG)]
            try:
                options_of(_settings()[name]["http"]["cors"])
                wrong = without_effect(_settings()[name], *usual)
            except ValueError as error:
                wrong = [str(error)]
            if wrong:
                raise BentoMLConfigException(f"BentoML's configuration of service {name}: {'; '.join(wrong)}")


class GatewayService(DirectService):
    """The one that strangers reach: its connections have bounds, and BentoML is shown the mounted routes."""

    bounds = Bounds()

    def schema(self) -> dict[str, Any]:
        """Describe the service; in bento.yaml and in the Bento's apis/schema.json."""
        from routing.http.docs import bento_schema, openapi

        schema: dict[str, Any] = super().schema()
        paths = {path: {"mounted": True} for path in openapi.paths()}
        return schema | bento_schema.document() | {"paths": paths}

    @property
    def openapi_spec(self) -> dict[str, Any]:
        """Describe the inference API; in the Bento's apis/openapi.yaml."""
        from routing.http.docs import openapi

        return openapi.document()


def _settings(file: str | None = None, declared: dict[str, Any] | None = None) -> dict[str, Any]:
    """Settings of services: those that count, or what they are by default, in a file, and as declared."""
    if declared is None:
        counting: dict[str, Any] = BentoMLContainer.config.services.get()
        return counting
    usual = BentoMLConfiguration(file, override_defaults={"services": declared}, use_version=2)
    return dict(usual.to_dict()["services"])


@dataclass(frozen=True)
class Served:
    """What is served, on what, and which environment variables are nobody's but the gateway's."""

    fleet: Fleet
    on_gpu: bool
    secret_variables: frozenset[str]
    file: FleetFile

    @classmethod
    def read(cls, part: Part, *, on_gpu: bool) -> Served:
        """Load the fleet, or the part of it that one pool needs. Raises `FleetError`."""
        file = FleetFile(HERE / part.fleet, part.pool)
        # A host of engines looks at no key and at no database, so it need not be given any.
        fleet, loaded = file.load(keys_needed=part.role is not Role.ENGINE)
        return cls(fleet, on_gpu, loaded.secret_variables, file)


def declare_host(served: Served, pool: Pool, place: Host, at_once: int) -> Service[Any]:
    """Declare the service of one host; `at_once` engines are awake on this machine."""
    fleet = served.fleet

    @functools.cache
    def host() -> EngineHost | SharedHost:
        from engines.assembly import host_of
        from engines.cores import share

        share(at_once)
        return host_of(fleet, pool, place, token=internal_token(SECRET), withheld=served.secret_variables)

    class Engine:
        @bentoml.on_startup
        async def start(self) -> None:
            logs.set_up(place.name)
            await host().start()
            last_resort.bound_the_end(fleet.gateway.shutdown_grace_s)

        @bentoml.on_shutdown
        async def stop(self) -> None:
            await host().stop()

        async def __is_ready__(self) -> bool:
            return host().is_ready()

        async def __is_alive__(self) -> bool:
            return host().is_alive()

    # A slice is looked for before each start of an engine, which then sets the variable itself.
    is_set = place.device is not None and place.on_slice is None
    envs = [{"name": "CUDA_VISIBLE_DEVICES", "value": place.device}] if is_set else []
    gpus = max(fleet.base_models[name].tensor_parallel_size for name in place.base_models)
    declare = bentoml.service(
        name=place.name,
        workers=1,
        envs=envs,
        traffic={"timeout": fleet.gateway.request_timeout_s},
        service_class=DirectService,
        **({"resources": {"gpu": gpus}} if served.on_gpu else {}),
    )
    return declare(bentoml.asgi_app(host, path="/")(Engine))


def image_of(*, on_gpu: bool) -> Image:
    """Declare what a Bento's image has besides Python: a compiler for engines, and the state's place."""
    packages = "ca-certificates g++" + ("" if on_gpu else " libnuma1")
    install = f"apt-get update && apt-get install -qy --no-install-recommends {packages}"
    state = "install -d -o 1034 -g 0 -m 2770 /state"  # whoever runs it may be any user of group 0
    state += " && cd /home/bentoml && mkdir -p bentos models envs tmp"  # else BentoML would, at each start
    image = Image(base_image="python:3.11-slim", distro="")  # BentoML would add to one that it knows
    return image.run(f"{install} && rm -rf /var/lib/apt/lists/* && {state}")


def declare_gateway(served: Served, role: Role) -> Service[Any]:
    """Declare the entry service, and through it one engine service for each host that runs here."""
    fleet = served.fleet
    elsewhere = Elsewhere.read(os.environ, Address.parse)
    hosts = [(pool, host) for pool in fleet.pools.values() for host in pool.hosts]
    here = [(pool, host) for pool, host in hosts if not elsewhere.has(host.name)]
    require_none_here(role, [host.name for _, host in here])
    at_once = sum(pool.awake_at_once for pool, _ in here)
    engines = {host.name: declare_host(served, pool, host, at_once) for pool, host in here}
    known_keys = demo_keys(fleet)
    # All of them: one may come with another fleet.
    local_only = frozenset() if os.environ.get("TENANTRY_DEMO") == "1" else DEMO_KEY_HASHES

    @functools.cache
    def gateway() -> WholeGateway:
        from routing.assembly import assemble

        discovery = elsewhere.discovery(
            lambda: {name: engine.url for name, engine in engines.items()}, Address.parse
        )
        made = assemble(CurrentFleet(fleet), discovery, secret=SECRET, local_only=local_only)
        own = address_of(os.environ, "gateway") or ""
        made.known_as(os.environ.get("TENANTRY_GATEWAY_URL", own))
        made.fleets.begin_with(served.file)
        return made

    class Gateway:
        @bentoml.on_startup
        async def start(self) -> None:
            await gateway().start()
            if known_keys:
                log.warning(LOCAL_ONLY if local_only else FROM_EVERYWHERE)
            _drain_on_sigterm(gateway())
            last_resort.bound_the_end(fleet.gateway.shutdown_grace_s)
            _apply_on_sighup(gateway())
            self.watching = asyncio.create_task(_watch(gateway()))
            address = address_of(os.environ, "gateway")
            self.announcing = asyncio.create_task(announce(fleet, address, gateway().is_ready))

        @bentoml.on_shutdown
        async def stop(self) -> None:
            self.announcing.cancel()
            self.watching.cancel()
            await gateway().stop()

        async def __is_ready__(self) -> bool:
            return gateway().is_ready()

    for name, engine in engines.items():
        setattr(Gateway, name.replace("-", "_").replace(".", "_"), bentoml.depends(engine))
    # A default, which BentoML's configuration and `--host` change: the gateway looks at each request itself.
    http = {"http": {"host": LOOPBACK}} if local_only and known_keys else {}
    declare = bentoml.service(
        name="gateway",
        workers=1,
        traffic={"timeout": fleet.longest_request_s},
        service_class=GatewayService,
        image=image_of(on_gpu=served.on_gpu),
        **http,
    )
    return declare(bentoml.asgi_app(lambda: gateway().app, path="/")(Gateway))


def _drain_on_sigterm(gateway: WholeGateway) -> None:
    """Let the gateway drain before the server stops, so that late requests get an answer and not a hang.

    The listening socket belongs to BentoML's parent process and stays open when the server stops accepting.
    """
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    async def drain_and_stop(stop: Callable[[], object]) -> None:
        await gateway.drain()
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)

        def on_signal(signum: int, frame: FrameType | None, previous: Any = previous) -> None:
            def stop() -> object:
                return previous(signum, frame) if callable(previous) else None

            if stopping:  # a second signal: at once
                stop()
            else:
                loop.call_soon_threadsafe(lambda: stopping.append(loop.create_task(drain_and_stop(stop))))

        signal.signal(number, on_signal)


def _apply_on_sighup(gateway: WholeGateway) -> None:
    """Apply what the fleet file holds now when the gateway's process gets SIGHUP."""
    loop = asyncio.get_running_loop()
    applying: set[asyncio.Task[None]] = set()

    def on_signal() -> None:
        task = loop.create_task(gateway.fleets.apply_file())
        applying.add(task)
        task.add_done_callback(applying.discard)

    loop.add_signal_handler(signal.SIGHUP, on_signal)


async def _watch(gateway: WholeGateway) -> None:
    """Apply the fleet file whenever it is changed, where that is wanted."""
    if os.environ.get("TENANTRY_WATCH") == "1":
        await gateway.fleets.watch()


def _is_worker() -> bool:
    """Whether this is one of the processes that BentoML's parent starts."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.startswith("_bentoml_impl.worker")


def _take_sighup(role: Role) -> None:
    """Have BentoML's parent hand SIGHUP on to the gateway; circus would restart all, engines included."""
    if _is_worker():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the gateway takes it; by default it would end
        return
    from circus.client import make_json
    from circus.sighandler import SysHandler

    def hand_on(handler: SysHandler) -> None:
        if role is not Role.ENGINE:
            message = make_json("signal", name=ENTRY_WATCHER, signum=int(signal.SIGHUP))
            handler.controller.loop.add_callback_from_signal(handler.controller.dispatch, (None, message))

    SysHandler.handle_hup = hand_on


def declare(part: Part, *, on_gpu: bool) -> Service[Any]:
    """Declare what is to be served. Raises `FleetError`, `RoleError`."""
    served = Served.read(part, on_gpu=on_gpu)
    if part.replica is not None:
        pool, host = host_in(served.fleet, part.replica)
        return declare_host(served, pool, on_devices_given(host, os.environ), pool.awake_at_once)
    return declare_gateway(served, part.role)


_arguments = bentoml.use_arguments(Arguments)
try:
    _part = part_of(_arguments.model_dump(), os.environ)
    _take_sighup(_part.role)
    Gateway = declare(_part, on_gpu=_arguments.platform == "gpu")
except (FleetError, RoleError) as error:
    sys.exit(f"error: {error}")
