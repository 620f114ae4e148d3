"""Lays out the build context of a Bento in a folder; `build` hands it to BentoML.

A Bento of one pool holds nothing of other pools: the fleet file is written anew from the
pool's part of the fleet, and only listed code and adapters are copied.
No key is written: a hash stays a hash, an environment variable stays a name. State is kept outside of the
Bento, which nobody may write to and which the next version replaces. The fleet is
checked before; the staged copy is checked once more by loading it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from adapters import model_store
from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from adapters.layout import SERVED_FILES
from fleet import project, read_fleet
from fleet.api_keys import new_key
from fleet.demo_keys import uses_demo_keys
from fleet.sources import is_hub_id, is_url
from fleet.state import STAND_IN_DATABASE
from fleet.types import Adapter, BaseModel, Fleet
from fleet.writer import write_fleet

Platform = Literal["gpu", "cpu"]

ROOT = Path(__file__).resolve().parent.parent
CODE_FILES = ("service.py", "configuration.yaml", "LICENSE")
CODE_FOLDERS = ("adapters", "engines", "fleet", "planning", "routing", "simulation", "tenantry")
CODE_SUFFIXES = frozenset({".py", ".json", ".css", ".html", ".js", ".svg"})  # the last four: the console
MODEL_STORE = "bento://"  # sources in BentoML's model store
STATE_FOLDER = "${{TENANTRY_STATE:-~/.tenantry/{name}}}"  # one for each Bento; its versions share it
NOT_SHIPPED = frozenset({"__pycache__"})  # folders

_TAG = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")  # BentoML's names and versions
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SECRETS = frozenset({"TENANTRY_SECRET", "TENANTRY_ADMIN_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"})
_PICKLES = ("*.bin", "*.pt", "*.pth")
# No general index has CPU builds of torch, so the CPU lock leaves it out; vLLM's other requirements of it are
# dropped, because they would install a CUDA build. The same file serves uv as its overrides.
_CPU_TORCH = "torch==2.13.0+cpu\n"
_CPU_TORCH_WHEELS = "https://download.pytorch.org/whl/cpu/torch/"
_CPU_VARIABLES = {"UV_OVERRIDE": "/home/bentoml/bento/env/python/requirements.txt"}
# An image runs with a root that nobody may write to: /tmp, and a volume at /state, are all it needs.
_IMAGE_VARIABLES = {
    "HOME": "/tmp",  # noqa: S108 - for the caches of vLLM and its compilers
    "TENANTRY_STATE": "/state",
    "PIP_NO_CACHE_DIR": "1",
    "UV_NO_CACHE": "1",
}


class BundleError(Exception):
    """A Bento cannot be built as asked."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a build context is laid out."""

    platform: Platform = "gpu"
    embed_base_models: bool = False  # copy base models that lie in folders, instead of naming the folder
    name: str | None = None  # of the Bento; None: `tenantry`, or `tenantry-<pool>`
    base_image: str | None = None  # of a Bento's image; None: Python's own
    index_url: str | None = None  # where the image's packages come from; None: PyPI, and PyTorch's for CPUs
    env: Mapping[str, str] = field(default_factory=dict)  # set in the image, while it is built too


def stage(
    fleet: Fleet,
    pool: str | None,
    into: Path,
    *,
    options: Options | None = None,
    key_variables: Mapping[str, str] | None = None,
    root: Path = ROOT,
) -> Fleet:
    """Lay out the build context of a pool, or of the whole fleet, in the empty folder `into`.

    Returns the staged fleet; sources that were copied are relative to `into`. Raises `BundleError`,
    `FleetError` (no such pool) and `AdapterError`.
    """
    options = options or Options()
    name = options.name or bento_name(pool)
    _check_tag("name", name)
    part = fleet if pool is None else project(fleet, pool)
    variables = {digest: name for digest, name in (key_variables or {}).items() if digest in key_hashes(part)}
    part = replace(
        part,
        base_models={n: _stage_base_model(m, into, options) for n, m in part.base_models.items()},
        adapters={n: _stage_adapter(a, into) for n, a in part.adapters.items()},
        state=replace(part.state, folder=STATE_FOLDER.format(name=name)),
    )
    _stage_code(root, into)
    (into / "requirements.txt").write_text(_requirements(root, options))
    (into / "fleet.yaml").write_text(write_fleet(part, key_variables=variables))
    (into / "README.md").write_text(_readme(name, pool, part, variables.values()))
    database = part.state.database_variable
    needed = {*variables.values(), *([database] if database else [])}
    _check_variables(options.env, secret=needed)
    bentofile = _bentofile(name, pool, options, needed)
    (into / "bentofile.yaml").write_text(yaml.safe_dump(bentofile, sort_keys=False))
    read_fleet(into / "fleet.yaml", env={}, keys_needed=False)
    _let_anybody_read(into)
    return part


def bento_name(pool: str | None) -> str:
    """Name of the Bento of a pool, or of the whole fleet."""
    return "tenantry" if pool is None else f"tenantry-{pool}"


def build(
    context: Path, *, version: str | None, key_variables: Iterable[str], database_variable: str | None = None
) -> str:
    """Build a Bento from a staged folder and return its tag. Raises `BundleError`.

    Runs in a process of its own, so that the staged code alone is imported. Stand-ins replace the
    keys and the database: a build needs no secret.
    """
    command = [sys.executable, "-m", "bentoml", "build", ".", "--output", "tag"]
    if version is not None:
        _check_tag("version", version)
        command += ["--version", version]
    env = {**os.environ, "BENTOML_DO_NOT_TRACK": "True", "TENANTRY_SECRET": secrets.token_hex(32)}
    env |= {name: new_key() for name in key_variables}
    env |= {} if database_variable is None else {database_variable: STAND_IN_DATABASE}
    env.pop("PYTHONPATH", None)
    env.pop("BENTOML_CONFIG", None)  # service.py names the staged one
    done = subprocess.run(
        command, cwd=context, env=env, capture_output=True, text=True, check=False, umask=0o022
    )
    tag = next((line[8:] for line in done.stdout.splitlines() if line.startswith("__tag__:")), None)
    if done.returncode or tag is None:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise BundleError(f"BentoML could not build the Bento. It said:\n{said}")
    return tag


def _check_tag(what: str, text: str) -> None:
    """Raise `BundleError` for a name or a version that BentoML would refuse."""
    if not _TAG.fullmatch(text):
        raise BundleError(
            f"`{text}` cannot be the {what} of a Bento: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, the first and "
            f"the last a letter or digit; give another with --{what}"
        )


def _check_variables(env: Mapping[str, str], *, secret: Collection[str]) -> None:
    """Raise `BundleError` for a variable that no image should have."""
    for name in env:
        if not _VARIABLE.fullmatch(name):
            raise BundleError(f"`{name}` cannot be the name of an environment variable")
        if name in _SECRETS or name in secret:
            raise BundleError(f"{name} is a secret, which an image shows to everybody; set it where it runs")


def _stage_code(root: Path, into: Path) -> None:
    """Copy the program, from a list."""
    files = [root / name for name in CODE_FILES]
    for folder in CODE_FOLDERS:
        files += [
            path
            for path in sorted((root / folder).rglob("*"))
            if path.suffix in CODE_SUFFIXES and not NOT_SHIPPED & set(path.relative_to(root).parts)
        ]
    for file in files:
        if not file.is_file():
            raise BundleError(f"{file} is missing; build from a complete checkout")
        target = into / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _requirements(root: Path, options: Options) -> str:
    """Return the image's requirements: the platform's lock, completed for CPUs."""
    on_gpu = options.platform == "gpu"
    names = ["gpu.lock"] if on_gpu else ["cpu.lock", "cpu-overrides.txt"]
    files = [root / "requirements" / name for name in names]
    for file in files:
        if not file.is_file():
            raise BundleError(f"{file} is missing; build from a complete checkout")
    lines = [] if options.index_url is None else [f"--index-url {options.index_url}\n"]
    if not on_gpu:
        lines += [_CPU_TORCH] if lines else [f"--find-links {_CPU_TORCH_WHEELS}\n", _CPU_TORCH]
    return "".join([*lines, *(file.read_text() for file in files)])


def _stage_adapter(adapter: Adapter, into: Path) -> Adapter:
    """Copy an adapter's served files to a folder named after their content.

    An adapter of the BentoML model store travels in the Bento; other URLs are fetched where the Bento runs.
    """
    if adapter.source.startswith(MODEL_STORE):
        source = model_store.resolve(adapter.source.removeprefix(MODEL_STORE))
    elif is_url(adapter.source):
        return adapter
    else:
        source = Path(adapter.source)
    manifest = inspect_adapter(source)
    # The path is part of vLLM's cache keys, so new weights under an old path could be taken for the old ones.
    place = Path("models", "adapters", adapter.name, manifest.digest[:16])
    (into / place).mkdir(parents=True)
    for name in SERVED_FILES:
        shutil.copyfile(source / name, into / place / name)
    if inspect_adapter(into / place).digest != manifest.digest:
        raise AdapterError(f"{source} changed while it was copied; build again when nobody writes to it")
    return replace(adapter, source=f"./{place}")


def _stage_base_model(model: BaseModel, into: Path, options: Options) -> BaseModel:
    """Copy a base model from its folder if wanted; else leave it as a reference."""
    if is_hub_id(model.source) or is_url(model.source) or not options.embed_base_models:
        return model
    source, place = Path(model.source), Path("models", "base", model.name)
    if not (source / "config.json").is_file():
        raise BundleError(
            f"{source} holds no model (no config.json); correct base_models.{model.name}.source"
        )
    skipped = _PICKLES if any(source.glob("*.safetensors")) else ()
    shutil.copytree(source, into / place, ignore=shutil.ignore_patterns(".*", *skipped))
    return replace(model, source=f"./{place}")


def _let_anybody_read(folder: Path) -> None:
    """Give what is staged the usual modes, whatever those of its sources: an image may run as any user."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _bentofile(name: str, pool: str | None, options: Options, needed: Iterable[str]) -> dict[str, Any]:
    # A variable without a value must be set where the Bento runs, and stays out of the image.
    envs = [{"name": variable, "stage": "runtime"} for variable in sorted(needed)]
    values = _IMAGE_VARIABLES | (_CPU_VARIABLES if options.platform == "cpu" else {}) | dict(options.env)
    envs += [{"name": variable, "value": value} for variable, value in values.items()]
    docker = {"python_version": "3.11"} | ({"base_image": options.base_image} if options.base_image else {})
    return {
        "service": "service:Gateway",
        "name": name,
        "args": {"platform": options.platform},
        "labels": {"app": "tenantry"} | ({"pool": pool} if pool else {}),
        "include": ["**"],
        "python": {"requirements_txt": "requirements.txt", "lock_packages": False},
        "docker": docker,
        "envs": envs,
    }


def _readme(name: str, pool: str | None, fleet: Fleet, variables: Iterable[str]) -> str:
    """Describe a Bento to its readers."""
    what = f"the pool `{pool}`" if pool else "a whole fleet"
    needed = "".join(f"- `{variable}`: an API key\n" for variable in sorted(variables))
    if fleet.state.database_variable is not None:
        needed += f"- `{fleet.state.database_variable}`: URL of the state database\n"
    if uses_demo_keys(fleet):
        needed += "- `TENANTRY_DEMO`: without `1` the demo's keys work in its container alone\n"
    folders = [m.source for m in fleet.base_models.values() if not is_hub_id(m.source) and m.source[0] == "/"]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"An OpenAI-compatible endpoint for {what}: vLLM engines with LoRA adapters behind one gateway.",
            "",
            f"- pools: {', '.join(fleet.pools)}",
            f"- base models: {', '.join(f'{m.name} ({m.source})' for m in fleet.base_models.values())}",
            f"- adapters: {len(fleet.adapters)}, tenants: {len(fleet.tenants)}",
            *([f"- folders it needs where it runs: {', '.join(folders)}"] if folders else []),
            "",
            f"    bentoml serve {name}:latest",
            f"    bentoml containerize {name}:latest",
            "",
            "Environment:",
            "",
            "- `TENANTRY_SECRET`: the same for all processes, where engines run apart from the gateway",
            f"- `TENANTRY_STATE`: folder of the lasting state, default `~/.tenantry/{name}`; put a "
            "volume there",
            needed,
        ]
    )


def key_hashes(fleet: Fleet) -> frozenset[str]:
    """Every key hash of a fleet."""
    tenants = (tenant.key_hashes for tenant in fleet.tenants.values())
    return fleet.gateway.operator_key_hashes.union(*tenants)
