"""Commands for an adapter's folder on this machine: verify it, keep it in the BentoML model store.

Neither vLLM nor a GPU is needed; only `import-bento`, and `export` of a name, ask the gateway.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from adapters import model_store
from adapters.base_model import read_shape
from adapters.checkpoint import AdapterManifest
from adapters.errors import AdapterError
from adapters.verify import verify as check
from tenantry import adding, display
from tenantry.client import Answer, Gateway, WrongUse, in_path
from tenantry.running import (
    URL,
    AsJson,
    BaseModel,
    NoWait,
    Refused,
    Tenant,
    Timeout,
    Url,
    ask,
    conclude,
    console,
    printable,
)

app = typer.Typer()

STATE_VARIABLE = "TENANTRY_STATE"
_DIGEST_CHARS = 64


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of the adapter.", show_default=False)],
    base: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Base model's folder.", show_default="not compared"),
    ] = None,
    max_rank: Annotated[
        int | None, typer.Option(min=1, help="Largest rank of the pool.", show_default="not checked")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an adapter's folder as the gateway does before its trial on an engine. Needs no gateway."""

    def work() -> Answer:
        try:
            manifest = _verified(folder, base, max_rank)
        except AdapterError as error:
            raise Refused(str(error), {"ok": False, "folder": str(folder), "problem": str(error)}) from None
        return {"ok": True, "folder": str(folder), "problem": None, **asdict(manifest)}

    conclude(work, as_json, _show_manifest)


@app.command()
def export(
    ctx: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="NAME|FOLDER", help="Adapter or folder.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="Name in the model store.", show_default="the adapter's or folder's")
    ] = None,
    state: Annotated[
        Path, typer.Option(envvar=STATE_VARIABLE, help="The gateway's state folder, for a NAME.")
    ] = Path(".tenantry"),
    tenant: Tenant = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Put an adapter into the BentoML model store, so that a Bento can carry it.

    A FOLDER is checked and exported as it is. Of a NAME the live version is, on the gateway's machine.
    """
    if _is_folder(what):
        conclude(lambda: _exported(Path(what), name or Path(what).resolve().name, {}), as_json, _show_export)
        return

    async def work(gateway: Gateway) -> Answer:
        answer = await gateway.call("GET", f"/adapters/{in_path(what)}", params={"tenant": tenant})
        live = next((v for v in answer["versions"] if v["number"] == answer["live"]), None)
        if live is None:
            raise AdapterError(f"{display.full_name(answer)} has no live version; promote one")
        labels = {"adapter": what, "version": str(live["number"]), "base_model": answer["base_model"]}
        labels |= {"tenant": answer["tenant"]} if answer["tenant"] else {}
        return await asyncio.to_thread(_exported, _stored(state, live["digest"]), name or what, labels)

    ask(ctx, url, as_json, work, _show_export)


@app.command("import-bento")
def import_bento(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    tag: Annotated[str, typer.Argument(help="name:version in the BentoML model store.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Name of the adapter.", show_default="the tag's")] = None,
    tenant: Tenant = None,
    base_model: BaseModel = None,
    no_wait: NoWait = False,
    timeout: Timeout = 600.0,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Add an adapter to the gateway from this machine's BentoML model store."""

    async def work(gateway: Gateway) -> Answer:
        folder = await asyncio.to_thread(model_store.resolve, tag)
        wish = adding.Wish(name or tag.partition(":")[0], str(folder), tenant, base_model)
        with adding.watching(console(stderr=True), silent=as_json) as watcher:
            version = await adding.add(gateway, wish, watcher)
            return version if no_wait else await adding.wait(gateway, version, watcher, timeout_s=timeout)

    ask(ctx, url, as_json, work, display.version)


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # not a possible path
        return False


def _verified(folder: Path, base: Path | None, max_rank: int | None) -> AdapterManifest:
    """Return the folder's manifest. Raises `AdapterError`."""
    return check(folder, base=None if base is None else read_shape(base), max_rank=max_rank)


def _exported(folder: Path, name: str, labels: dict[str, str]) -> Answer:
    manifest = check(folder, base=None)
    tag = model_store.export(folder, name, {**labels, "digest": manifest.digest})
    return {"tag": str(tag), "digest": manifest.digest, "size_bytes": manifest.size_bytes}


def _stored(state: Path, digest: Any) -> Path:
    """Return the folder of a version in the gateway's store. Raises `AdapterError` or `WrongUse`."""
    if not isinstance(digest, str) or len(digest) != _DIGEST_CHARS or not digest.isalnum():
        raise AdapterError("the gateway names no content for this version; it is not ready")
    folder = state / "adapters" / digest[:2] / digest
    if not folder.is_dir():
        raise WrongUse(
            f"{state} is not the state folder of this gateway; name it with --state, on its own machine"
        )
    return folder


def _show_manifest(console: Console, answer: Answer) -> None:
    modules = ", ".join(answer["target_modules"])
    console.print(printable(f"{answer['folder']} is an adapter that can be served."), style="green")
    console.print(printable(f"  rank {answer['rank']}, alpha {answer['alpha']:g}, of {modules}"))
    console.print(f"  {display.size(answer['size_bytes'])}, digest {answer['digest']}")
    for warning in answer.get("warnings", ()):
        console.print(printable(f"  {warning}"), style="yellow")


def _show_export(console: Console, answer: Answer) -> None:
    console.print(f"{answer['tag']} is in the model store ({display.size(answer['size_bytes'])}).")
