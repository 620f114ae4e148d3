"""The commands `models add`, `show`, `promote`, `rollback`, `retry` and `retire`: models at run time."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml
from rich.console import Console

from adapters.whole_model import WHOLE_MODEL
from tenantry import adding
from tenantry.client import Answer, Gateway, GatewayRefused, Params, WrongUse, in_path
from tenantry.columns import Columns
from tenantry.display import IN_JSON
from tenantry.running import URL, AsJson, NoWait, Timeout, Url, ask, console, print_whole, printable

app = typer.Typer()
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the base model.", show_default=False)]
Number = Annotated[int, typer.Argument(min=1, help="Number of the version.", show_default=False)]


@app.command()
def add(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    name: ModelName,
    source: Annotated[
        str, typer.Argument(help="Folder, archive, or URL the gateway fetches.", show_default=False)
    ],
    pool: Annotated[
        str | None, typer.Option(help="Pool that it joins; of a new model.", show_default="the only one")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Base model whose settings it gets; of a new model.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting, as a base model's in a fleet file; of a new model."
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="Expected sha256 of the archive, or of model.safetensors."),
    ] = None,
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            "--for", metavar="TENANT", help="Let this tenant call it by its name; once it is ready."
        ),
    ] = None,
    no_wait: NoWait = False,
    timeout: Timeout = 3600.0,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Add a whole model, or a new version of one, and wait until its files are ready or refused.

    A folder or an archive is uploaded; a URL is fetched by the gateway (`file:///...` is its own machine's).
    """
    wish: Params = {"pool": pool, "like": like, "settings": _settings(setting or [])}
    if tenant and no_wait:
        raise typer.BadParameter("--for needs a model that is ready; leave --no-wait out")

    async def work(gateway: Gateway) -> Answer:
        with adding.watching(console(stderr=True), silent=as_json) as watcher:
            detail = await _add(gateway, name, source, sha256, wish, watcher)
            number = max(version["number"] for version in detail["versions"])
            if not no_wait:

                async def look() -> Answer:
                    return _version(await _show_model(gateway, name), number)

                await adding.until_ready(_version(detail, number), look, watcher, timeout_s=timeout)
        for each in tenant or ():
            await gateway.call("PATCH", f"/tenants/{in_path(each)}", body={"models": {name: name}})
        return await _show_model(gateway, name)

    ask(ctx, url, as_json, work, _show)


@app.command()
def show(ctx: typer.Context, name: ModelName, url: Url = URL, as_json: AsJson = False) -> None:
    """Show a model that the gateway fetches: its versions, and how it is at each host."""
    _call(ctx, "GET", name, "", url=url, as_json=as_json)


@app.command()
def promote(
    ctx: typer.Context, name: ModelName, version: Number, url: Url = URL, as_json: AsJson = False
) -> None:
    """Have engines start with a version from now on."""
    _call(ctx, "POST", name, "/promote", {"version": version}, url=url, as_json=as_json)


@app.command()
def rollback(ctx: typer.Context, name: ModelName, url: Url = URL, as_json: AsJson = False) -> None:
    """Go back to the version before the live one."""
    _call(ctx, "POST", name, "/rollback", url=url, as_json=as_json)


@app.command()
def retry(
    ctx: typer.Context, name: ModelName, version: Number, url: Url = URL, as_json: AsJson = False
) -> None:
    """Fetch, check and try a quarantined version again."""
    _call(ctx, "POST", name, f"/versions/{version}/verify", url=url, as_json=as_json)


@app.command()
def retire(
    ctx: typer.Context,
    name: ModelName,
    version: Annotated[
        int | None, typer.Option(min=1, help="Only this version.", show_default="the whole model")
    ] = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Retire a model that was added at run time, or one of its versions; what runs on it ends first."""
    _call(ctx, "DELETE", name, "" if version is None else f"/versions/{version}", url=url, as_json=as_json)


def _settings(given: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE, the value as YAML. Raises `typer.BadParameter`."""
    settings = {}
    for text in given:
        key, sign, value = text.partition("=")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            sign = ""
        if not sign or not key:
            raise typer.BadParameter(f"{text!r} is no setting; write it like max_model_len=8192")
    return settings


async def _add(
    gateway: Gateway, name: str, source: str, sha256: str | None, wish: Params, watcher: adding.Watcher
) -> Answer:
    given = {key: value for key, value in wish.items() if value}
    versions = f"/models/{in_path(name)}/versions"
    if "://" in source:
        body = {"source": source, **({} if sha256 is None else {"sha256": sha256})}
        if await _is_known(gateway, name) and not given:
            return await gateway.call("POST", versions, body=body)
        return await gateway.call("POST", "/models", body={"name": name, **body, **given})
    with tempfile.TemporaryDirectory(prefix="tenantry-add-") as folder:
        archive = await asyncio.to_thread(adding.archive_of, source, sha256, Path(folder), WHOLE_MODEL)
        if "settings" in given:
            given["settings"] = json.dumps(given["settings"])
        return await gateway.upload(
            versions,
            archive.path,
            archive.media_type,
            size_bytes=archive.size_bytes,
            params={"sha256": archive.sha256, **given},
            sent=watcher.sending(archive.size_bytes),
        )


async def _is_known(gateway: Gateway, name: str) -> bool:
    try:
        await _show_model(gateway, name)
    except GatewayRefused as error:
        if error.status == httpx.codes.NOT_FOUND:
            return False
        raise
    return True


async def _show_model(gateway: Gateway, name: str) -> Answer:
    return await gateway.call("GET", f"/models/{in_path(name)}")


def _version(detail: Answer, number: int) -> Answer:
    found: Answer | None = next((each for each in detail["versions"] if each["number"] == number), None)
    if found is None:
        raise WrongUse(f"version {number} of {detail['name']} is gone")
    return found


def _call(
    ctx: typer.Context,
    method: str,
    name: str,
    path: str,
    body: Answer | None = None,
    *,
    url: str,
    as_json: bool,
) -> None:
    async def work(gateway: Gateway) -> Answer:
        return await gateway.call(method, f"/models/{in_path(name)}{path}", body=body)

    ask(ctx, url, as_json, work, _show)


def _show(shown: Console, detail: Answer) -> None:
    where = "declared" if detail["pool"] is None else f"in pool {detail['pool']}"
    shown.print(printable(f"{detail['name']}, {where}"))
    table = Columns(
        *("version", "state", "", "size", "source", "why"),
        spare=("size", "source"),
        prose=("why",),
        right=("version", "size"),
        note=IN_JSON,
    )
    for version in detail["versions"]:
        role = "live" if version["live"] else "before" if version["number"] == detail["previous"] else ""
        size = f"{version['size_bytes'] / 2**20:.0f} MiB" if version["size_bytes"] else ""
        table.add(str(version["number"]), version["state"], role, size, version["source"], version["reason"])
    print_whole(shown, table)
    for host in detail["hosts"]:
        shown.print(printable(f"{host['host']}: {host['state'].replace('_', ' ')} {host['reason']}".rstrip()))
