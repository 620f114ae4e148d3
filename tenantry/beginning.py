"""The command `init`: a first fleet file for a model, with keys that are shown this once."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
import yaml

from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from fleet import FleetError, Problem, read_fleet
from fleet.api_keys import new_key
from fleet.key_hash import hash_key
from fleet.schema import LORA_RANKS
from fleet.sources import is_url
from tenantry.fleets import fail, refuse

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"  # small and open: runs on a CPU, needs no account
SLOTS = 8
LEAST_RANK = 16

_PLAIN = re.compile(r"[A-Za-z0-9./_~][A-Za-z0-9./_~-]*")  # text that YAML takes as it stands


@dataclass(frozen=True, slots=True)
class Plan:
    """The contents of the file."""

    model: str
    source: str
    tenant: str
    adapters: dict[str, str]  # name -> source
    rank: int
    tenant_key: str
    operator_key: str


def init(
    model: Annotated[
        str, typer.Argument(help="Base model: a hub id (org/name), or a folder.", show_default=True)
    ] = MODEL,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("fleet.yaml"),
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SOURCE",
            help="A LoRA adapter: a folder, or a URL such as hf://org/name. Can be given again.",
            show_default="none",
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Name of the first tenant.")] = "shop",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a small fleet file for a model, with a tenant's key and an operator's, shown this once."""
    if output.exists() and not force:
        fail(f"{output} is there already; name another file with -o, or overwrite it with --force")
    folder = Path(os.path.abspath(output)).parent
    adapters = {name: _source(source, folder) for name, source in map(_named, adapter or [])}
    try:
        rank = _rank(adapters.values(), folder)
        source = _source(model, folder)
        plan = Plan(_name_of(model), source, tenant, adapters, rank, new_key(), new_key())
        refuse(_write(output, render(plan), force=force))
    except (AdapterError, OSError) as error:
        fail(str(error))
    _tell(output, plan)


def render(plan: Plan) -> str:
    """Return the file's text; it holds the keys' hashes only."""
    base_model, tenant = _quoted(plan.model), _quoted(plan.tenant)
    adapters = "".join(
        f"  {_quoted(name)}: {{source: {_quoted(source)}, base_model: {base_model}}}\n"
        for name, source in plan.adapters.items()
    )
    models = [f"{_quoted(name)}: {_quoted(name)}" for name in (*plan.adapters, plan.model)]
    default = next(iter(plan.adapters), plan.model)
    none = "" if adapters else " {}  # declared here, or added while it runs: `tenantry adapters add`"
    download = "" if _is_folder(plan.source) else "  # downloaded at the first start; HF_TOKEN if it is gated"
    return f"""\
# Base models, adapters, tenants and pools, and who may use which. `tenantry check` checks this file.

base_models:
  {base_model}:
    source: {_quoted(plan.source)}{download}
    max_loras: {SLOTS}  # slots: adapters that run at once on one engine; each takes memory
    max_lora_rank: {plan.rank}  # the largest rank that an adapter may have
    # max_model_len: 8192  # prompt and answer together; the model's own where nothing is said

adapters:{none}
{adapters}
tenants:
  {tenant}:
    api_keys: [{{sha256: {hash_key(plan.tenant_key)}}}]  # `tenantry new-key` makes another
    models: {{{", ".join(models)}}}  # the tenant's name: the model
    default_model: {_quoted(default)}
    caps: {{max_concurrency: 64, max_queued: 256, queue_timeout_s: 30}}

pools:
  shared:
    strategy: multi-lora
    base_models: [{base_model}]
    replicas: 1  # engines; with several GPUs one for each, and `devices: ["0", "1"]`
    tenants: [{tenant}]

gateway:
  operator_keys: [{{sha256: {hash_key(plan.operator_key)}}}]  # opens /console, /admin/v1 and /metrics
"""


def _named(text: str) -> tuple[str, str]:
    """Read `NAME=SOURCE`. Raises `typer.BadParameter`."""
    name, sign, source = text.partition("=")
    if not (name and sign and source):
        raise typer.BadParameter(
            f"{text!r} is not NAME=SOURCE, such as support=./support-lora", param_hint="--adapter"
        )
    return name, source


def _name_of(model: str) -> str:
    """Return a name for a model, from the last part of its id or folder."""
    last = Path(os.path.abspath(Path(model).expanduser())).name.lower()
    return re.sub(r"[^a-z0-9]*$|^[^a-z0-9]*", "", re.sub(r"[^a-z0-9._-]+|\.{2,}", "-", last)[:63]) or "model"


def _is_folder(source: str) -> bool:
    return source.startswith((".", "/", "~"))


def _source(given: str, folder: Path) -> str:
    """Return a source for the file in `folder`: relative to it where it lies below."""
    if is_url(given) or not (_is_folder(given) or Path(given).is_dir()):
        return given
    path = Path(os.path.abspath(Path(given).expanduser()))
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)


def _rank(sources: Iterable[str], folder: Path) -> int:
    """Return the rank that fits all local adapters. Raises `AdapterError`."""
    ranks = [inspect_adapter(folder / source).rank for source in sources if (folder / source).is_dir()]
    needed = max([LEAST_RANK, *ranks])
    return next((rank for rank in LORA_RANKS if rank >= needed), LORA_RANKS[-1])


def _write(output: Path, text: str, *, force: bool) -> list[Problem]:
    """Write the file if it is valid, else return its problems. Raises `OSError`."""
    descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.", suffix=".new")
    made = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        problems = _problems(made)
    finally:
        made.unlink()
    if not problems:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    return [replace(problem, file=str(output), line=None) for problem in problems]


def _problems(path: Path) -> list[Problem]:
    try:
        read_fleet(path, files=True)
    except FleetError as error:
        return list(error.problems)
    return []


def _quoted(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and yaml.safe_load(text) == text  # `on` and `12` would be no text
    return text if plain else json.dumps(text)


def _tell(output: Path, plan: Plan) -> None:
    count = len(plan.adapters)
    adapters = f" and {count} adapter{'s' if count > 1 else ''}" if count else ""
    typer.echo(f"{output} declares tenant {plan.tenant} on {plan.source}{adapters}.\n")
    typer.echo("Keys, shown this once (the file holds their sha256 alone):")
    owners = {f"tenant {plan.tenant}": plan.tenant_key, "operator": plan.operator_key}
    for owner, key in owners.items():
        typer.echo(f"  {owner:<{max(map(len, owners))}}  {key}")
    program, file = _program(), shlex.quote(str(output))
    typer.echo(f"\nNext:\n  {program} check {file}\n  {program} serve {file}")


def _program() -> str:
    """Return the command line that runs this command."""
    if shutil.which("tenantry"):
        return "tenantry"
    if Path(sys.argv[0]).name == "tenantry":
        return shlex.quote(sys.argv[0])
    return f"{shlex.quote(sys.executable)} -m tenantry"
