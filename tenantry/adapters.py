"""The commands of `tenantry adapters`, with their arguments and options."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tenantry import adding, display, offline
from tenantry.client import Answer, Gateway, in_path
from tenantry.running import URL, AsJson, BaseModel, NoWait, Tenant, Timeout, Url, ask, console

app = typer.Typer(no_args_is_help=True, help="Add, list, roll out and retire adapters.")

Name = Annotated[str, typer.Argument(help="Name of the adapter.", show_default=False)]
Number = Annotated[int, typer.Argument(min=1, help="Number of the version.", show_default=False)]
Sha256 = Annotated[
    str | None,
    typer.Option(
        metavar="HEX",
        help="Expected sha256 of the archive, or of a folder's adapter_model.safetensors.",
    ),
]
PromoteAfter = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Promote it after N requests.", show_default="when told to"),
]


def share(text: str) -> float:
    """Read `10%` or `0.1`. Raises `typer.BadParameter`."""
    number, sign, _ = text.strip().partition("%")
    try:
        weight = float(number) / (100 if sign else 1)
    except ValueError:
        weight = float("nan")
    if not 0 < weight <= 1:
        raise typer.BadParameter(f"{text!r} is no part of the requests; write it like 10% or 0.1")
    return weight


Canary = Annotated[
    float | None,
    typer.Option(
        parser=share, metavar="10%", help="Give it this part of the requests at first.", show_default="all"
    ),
]
Weight = Annotated[
    float, typer.Option(parser=share, metavar="10%", help="Part of the requests it gets.", show_default=False)
]


@app.command()
def add(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    name: Name,
    source: Annotated[
        str, typer.Argument(help="Folder, archive, or URL the gateway fetches.", show_default=False)
    ],
    tenant: Tenant = None,
    base_model: BaseModel = None,
    sha256: Sha256 = None,
    canary: Canary = None,
    promote_after: PromoteAfter = None,
    no_wait: NoWait = False,
    timeout: Timeout = 600.0,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Add an adapter, or a new version of one, and wait until it is ready or refused."""
    wish = adding.Wish(name, source, tenant, base_model, sha256, canary, promote_after)

    async def work(gateway: Gateway) -> Answer:
        with adding.watching(console(stderr=True), silent=as_json) as watcher:
            version = await adding.add(gateway, wish, watcher)
            return version if no_wait else await adding.wait(gateway, version, watcher, timeout_s=timeout)

    ask(ctx, url, as_json, work, display.version)


@app.command("list")
def list_(
    ctx: typer.Context,
    tenant: Tenant = None,
    state: Annotated[str | None, typer.Option(help="Only adapters with a version in this state.")] = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """List adapters."""

    async def work(gateway: Gateway) -> list[Answer]:
        return await gateway.pages("/adapters", {"tenant": tenant, "state": state})

    ask(ctx, url, as_json, work, display.adapter_list)


@app.command()
def show(
    ctx: typer.Context, name: Name, tenant: Tenant = None, url: Url = URL, as_json: AsJson = False
) -> None:
    """Show an adapter: versions, traffic split, residency."""
    _adapter(ctx, "GET", name, "", tenant, url=url, as_json=as_json)


@app.command()
def promote(
    ctx: typer.Context,
    name: Name,
    version: Annotated[
        int | None, typer.Argument(min=1, help="Number of the version.", show_default="the candidate")
    ] = None,
    tenant: Tenant = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Let a version answer everything."""
    _adapter(ctx, "POST", name, "/promote", tenant, url=url, as_json=as_json, body={"version": version})


@app.command()
def rollback(
    ctx: typer.Context, name: Name, tenant: Tenant = None, url: Url = URL, as_json: AsJson = False
) -> None:
    """End a rollout in favour of the live version; without one, go back to the version before it."""
    _adapter(ctx, "POST", name, "/rollback", tenant, url=url, as_json=as_json)


@app.command()
def rollout(  # noqa: PLR0913  # as above
    ctx: typer.Context,
    name: Name,
    version: Number,
    weight: Weight,
    promote_after: PromoteAfter = None,
    tenant: Tenant = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Send a part of the traffic to a ready version, or change that part."""
    body = {"version": version, "weight": weight, "promote_after": promote_after}
    _adapter(ctx, "POST", name, "/rollout", tenant, url=url, as_json=as_json, body=body)


@app.command()
def pin(
    ctx: typer.Context, name: Name, tenant: Tenant = None, url: Url = URL, as_json: AsJson = False
) -> None:
    """Keep the live version in a slot of each of its replicas."""
    _adapter(ctx, "POST", name, "/pin", tenant, url=url, as_json=as_json)


@app.command()
def unpin(
    ctx: typer.Context, name: Name, tenant: Tenant = None, url: Url = URL, as_json: AsJson = False
) -> None:
    """Let other adapters take the live version's slots."""
    _adapter(ctx, "DELETE", name, "/pin", tenant, url=url, as_json=as_json)


@app.command()
def retire(
    ctx: typer.Context,
    name: Name,
    version: Annotated[
        int | None, typer.Option(min=1, help="Retire this version alone.", show_default="all of it")
    ] = None,
    tenant: Tenant = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Take an adapter, or one version, out of traffic; running requests end on it."""
    path = "" if version is None else f"/versions/{version}"
    _adapter(ctx, "DELETE", name, path, tenant, url=url, as_json=as_json)


@app.command()
def retry(  # noqa: PLR0913  # as above
    ctx: typer.Context,
    name: Name,
    version: Number,
    tenant: Tenant = None,
    no_wait: NoWait = False,
    timeout: Timeout = 600.0,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Verify a quarantined version again, from the beginning."""

    async def work(gateway: Gateway) -> Answer:
        path = f"/adapters/{in_path(name)}/versions/{version}/verify"
        answer = await gateway.call("POST", path, params={"tenant": tenant})
        with adding.watching(console(stderr=True), silent=as_json) as watcher:
            return answer if no_wait else await adding.wait(gateway, answer, watcher, timeout_s=timeout)

    ask(ctx, url, as_json, work, display.version)


def _adapter(
    ctx: typer.Context, method: str, name: str, path: str, tenant: str | None, **options: Any
) -> None:
    """Call one action of an adapter and show the result."""
    given = {field: value for field, value in (options.get("body") or {}).items() if value is not None}

    async def work(gateway: Gateway) -> Answer:
        where = f"/adapters/{in_path(name)}{path}"
        return await gateway.call(method, where, params={"tenant": tenant}, body=given or None)

    ask(ctx, options["url"], options["as_json"], work, display.adapter)


app.add_typer(offline.app)
