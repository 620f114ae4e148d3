"""What goes into a Bento, and above all what does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from fleet import FleetError, LoadedFleet, project, read_fleet
from fleet.types import Fleet
from routing.http.docs import openapi
from tenantry import bundle
from tenantry.bundle import ROOT, BundleError, Options, _stage_code, build, stage
from tests.unit.fleet.files import adapter_folder, changed, digest, write

SECRETS = {"GAMMA_KEY": "the-secret-key-of-gamma", "ALPHA_KEY": "the-secret-key-of-alpha"}
FOREIGN_NAMES = ("alpha", "beta", "a-support", "b-support", "plain-weights")
FOREIGN = (*FOREIGN_NAMES, digest("beta"), digest(SECRETS["ALPHA_KEY"]))


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedFleet:
    """The fleet of the config tests on this disk, with keys from the environment."""
    for name in "abc":
        adapter_folder(tmp_path / name)
    data = changed("base_models/base/source", "./weights")
    data["base_models"]["plain"]["source"] = "org/plain-weights"
    data["tenants"]["gamma"]["api_keys"] = [{"env": "GAMMA_KEY"}]
    data["tenants"]["alpha"]["api_keys"] = [{"env": "ALPHA_KEY"}]
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", ".hidden"):
        (weights / name).write_text("{}")
    return read_fleet(write(tmp_path, data), env=SECRETS)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "context").mkdir()
    return tmp_path / "context"


def staged(loaded: LoadedFleet, pool: str | None, into: Path, **options: Any) -> Fleet:
    return stage(loaded.fleet, pool, into, options=Options(**options), key_variables=loaded.key_variables)


def bentofile(context: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((context / "bentofile.yaml").read_text())
    return values


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


def traces(folder: Path) -> list[tuple[str, str]]:
    """Words of other tenants in the names and contents of everything but the program, which is compared."""
    folders = tuple(f"{folder}/" for folder in bundle.CODE_FOLDERS)
    program = (*folders, *(f"src/{folder}" for folder in folders))
    return [
        (name, word)
        for name, content in files_below(folder)
        for word in FOREIGN
        if word in name
        or (word.encode() in content.replace(b"lora_alpha", b"") and not name.startswith(program))
    ]


def test_a_dedicated_pools_context_holds_no_byte_of_anybody_else(loaded: LoadedFleet, context: Path) -> None:
    staged(loaded, "alone", context)
    assert not traces(context)
    assert traces(context.parent), "and the words are those that would be found"


def test_the_program_is_the_same_in_every_bento(loaded: LoadedFleet, context: Path) -> None:
    staged(loaded, "alone", context)
    program = [
        name
        for name, _ in files_below(context)
        if name.startswith((*(f"{folder}/" for folder in bundle.CODE_FOLDERS), "service"))
    ]
    assert {"service.py", "routing/assembly.py", "fleet/schema.py", "engines/host.py"} <= set(program)
    assert "fleet/fleet.schema.json" in program
    assert {Path(name).suffix for name in program if name.startswith("routing/console/static/")} == {
        ".css",
        ".html",
        ".js",
        ".svg",
    }
    for name in program:
        assert (context / name).read_bytes() == (ROOT / name).read_bytes()


def test_training_data_tests_and_caches_stay_out(loaded: LoadedFleet, context: Path) -> None:
    staged(loaded, None, context)
    names = [name for name, _ in files_below(context)]
    assert not [name for name in names if "demo/" in name or "__pycache__" in name or name.endswith(".pyc")]
    assert {name.split("/")[0] for name in names} == {
        "LICENSE", "README.md", "adapters", "bentofile.yaml", "configuration.yaml", "engines", "fleet",
        "fleet.yaml", "models", "planning", "requirements.txt", "routing", "service.py", "simulation",
        "tenantry",
    }  # fmt: skip


def test_no_key_is_written_anywhere(loaded: LoadedFleet, context: Path) -> None:
    staged(loaded, None, context)
    for name, content in files_below(context):
        for key in SECRETS.values():
            assert key.encode() not in content, name
            assert digest(key).encode() not in content, name
    written = yaml.safe_load((context / "fleet.yaml").read_text())
    assert written["tenants"]["gamma"]["api_keys"] == [{"env": "GAMMA_KEY"}]
    assert written["tenants"]["beta"]["api_keys"] == [{"sha256": digest("beta")}]


def test_the_staged_file_is_the_fleet_of_that_pool(loaded: LoadedFleet, context: Path) -> None:
    part = staged(loaded, "alone", context)
    again = read_fleet(context / "fleet.yaml", env=SECRETS).fleet
    expected = project(loaded.fleet, "alone")
    assert again.tenants == expected.tenants
    assert again.pools == expected.pools
    assert again.base_models == expected.base_models
    assert again.gateway == expected.gateway
    assert again.adapters["c-support"].source == str(context / part.adapters["c-support"].source)


def test_an_adapter_of_bentomls_model_store_travels_in_the_bento(
    loaded: LoadedFleet, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags: list[str] = []

    def resolve(tag: str) -> Path:
        tags.append(tag)
        return tmp_path / "c"

    monkeypatch.setattr("adapters.model_store.resolve", resolve)
    adapter = replace(loaded.fleet.adapters["c-support"], source="bento://c-support:latest")
    fleet = replace(loaded.fleet, adapters={**loaded.fleet.adapters, "c-support": adapter})
    part = staged(replace(loaded, fleet=fleet), "alone", context)
    assert tags == ["c-support:latest"]
    assert (context / part.adapters["c-support"].source / "adapter_model.safetensors").is_file()


def test_an_adapter_lies_under_its_content(loaded: LoadedFleet, context: Path, tmp_path: Path) -> None:
    (tmp_path / "c" / "README.md").write_text("made from alpha's tickets")
    part = staged(loaded, "alone", context)
    manifest = inspect_adapter(tmp_path / "c")
    assert part.adapters["c-support"].source == f"./models/adapters/c-support/{manifest.digest[:16]}"
    copied = context / part.adapters["c-support"].source
    assert sorted(path.name for path in copied.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert inspect_adapter(copied) == manifest


def test_an_adapter_behind_a_url_stays_a_reference(
    loaded: LoadedFleet, context: Path, tmp_path: Path
) -> None:
    data = changed("adapters/c-support/source", "s3://bucket/c")
    part = staged(read_fleet(write(tmp_path, data), env={}), "alone", context)
    assert part.adapters["c-support"].source == "s3://bucket/c"
    assert not (context / "models").exists()


def test_state_is_kept_outside_of_the_bento_and_for_each_apart(
    loaded: LoadedFleet, context: Path, tmp_path: Path
) -> None:
    state = {"folder": str(tmp_path / "here"), "database": {"env": "STATE_DATABASE"}, "keep_versions": 7}
    secret = {"STATE_DATABASE": "postgresql://user:secret-word@host/db"}
    fleet = read_fleet(write(tmp_path, changed("state", state)), env=secret)
    staged(fleet, "alone", context)
    assert str(tmp_path) not in (context / "fleet.yaml").read_text()
    kept = read_fleet(context / "fleet.yaml", env=secret).fleet.state
    assert kept.folder == str(Path("~/.tenantry/tenantry-alone").expanduser())
    assert (kept.database_url, kept.keep_versions) == (fleet.fleet.state.database_url, 7)
    assert (
        read_fleet(context / "fleet.yaml", env=secret | {"TENANTRY_STATE": "/v"}).fleet.state.folder == "/v"
    )
    assert "STATE_DATABASE" in {env["name"] for env in bentofile(context)["envs"]}
    assert "`STATE_DATABASE`: URL of the state database" in (context / "README.md").read_text()
    assert all(b"secret-word" not in content for _, content in files_below(context))


def test_a_bento_says_where_its_keys_are_the_demos(loaded: LoadedFleet, context: Path) -> None:
    known = replace(loaded.fleet.gateway, operator_key_hashes=frozenset({digest("operator-demo-key")}))
    for fleet, said in ((loaded.fleet, False), (replace(loaded.fleet, gateway=known), True)):
        staged(replace(loaded, fleet=fleet), None, context)
        assert ("TENANTRY_DEMO" in (context / "README.md").read_text()) is said
        shutil.rmtree(context)
        context.mkdir()


def test_a_base_model_is_a_reference_unless_it_is_to_be_embedded(
    loaded: LoadedFleet, context: Path, tmp_path: Path
) -> None:
    part = staged(loaded, None, context)
    assert part.base_models["base"].source == str(tmp_path / "weights")
    assert part.base_models["plain"].source == "org/plain-weights"
    (tmp_path / "second").mkdir()
    part = staged(loaded, None, tmp_path / "second", embed_base_models=True)
    assert part.base_models["base"].source == "./models/base/base"
    assert part.base_models["plain"].source == "org/plain-weights"
    names = {path.name for path in (tmp_path / "second/models/base/base").iterdir()}
    assert names == {"config.json", "model.safetensors"}, "no pickle beside safetensors, nothing hidden"


def test_a_folder_without_a_model_is_not_embedded(loaded: LoadedFleet, context: Path, tmp_path: Path) -> None:
    (tmp_path / "weights" / "config.json").unlink()
    with pytest.raises(BundleError, match=r"base_models\.base\.source"):
        staged(loaded, None, context, embed_base_models=True)


def test_an_adapter_that_changed_for_the_worse_is_not_staged(
    loaded: LoadedFleet, context: Path, tmp_path: Path
) -> None:
    (tmp_path / "c" / "adapter_config.json").write_text("{}")
    with pytest.raises(AdapterError):
        staged(loaded, "alone", context)


def test_an_unknown_pool_is_refused(loaded: LoadedFleet, context: Path) -> None:
    with pytest.raises(FleetError, match="did you mean `alone`"):
        staged(loaded, "alon", context)


def test_an_incomplete_checkout_is_refused(loaded: LoadedFleet, context: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is missing; build from a complete checkout"):
        stage(loaded.fleet, None, context, root=tmp_path)


@pytest.mark.parametrize(
    ("pool", "name", "expected"),
    [(None, None, "tenantry"), ("alone", None, "tenantry-alone"), ("alone", "mine", "mine")],
)
def test_a_bento_is_named_after_its_pool(
    loaded: LoadedFleet, context: Path, pool: str | None, name: str | None, expected: str
) -> None:
    staged(loaded, pool, context, name=name)
    assert bentofile(context)["name"] == expected
    assert (context / "README.md").read_text().startswith(f"# {expected}\n")
    assert bentofile(context)["labels"].get("pool") == pool


@pytest.mark.parametrize("name", ["Upper", "x" * 64, "-x", "x.", "a b", "a:b", "../x"])
def test_a_name_bentoml_would_refuse_is_refused_first(loaded: LoadedFleet, context: Path, name: str) -> None:
    with pytest.raises(BundleError, match=r"cannot be the name of a Bento: .* --name"):
        staged(loaded, None, context, name=name)
    assert not list(context.iterdir())
    with pytest.raises(BundleError, match=r"cannot be the version of a Bento: .* --version"):
        build(context, version=name, key_variables=[])


def test_each_platform_installs_its_own_lock(loaded: LoadedFleet, context: Path, tmp_path: Path) -> None:
    staged(loaded, "alone", context)
    assert (context / "requirements.txt").read_text() == (ROOT / "requirements/gpu.lock").read_text()
    assert {"name": "GAMMA_KEY", "stage": "runtime"} in bentofile(context)["envs"]
    (tmp_path / "cpu").mkdir()
    staged(loaded, "alone", tmp_path / "cpu", platform="cpu")
    text = (tmp_path / "cpu/requirements.txt").read_text()
    assert (ROOT / "requirements/cpu.lock").read_text() in text
    assert "\ntorch==2.13.0+cpu\n" in text
    only_there = {env["name"] for env in bentofile(tmp_path / "cpu")["envs"]}
    assert only_there - {env["name"] for env in bentofile(context)["envs"]} == {"UV_OVERRIDE"}


def test_packages_may_come_from_an_index_of_ones_own(loaded: LoadedFleet, context: Path) -> None:
    staged(loaded, "alone", context, platform="cpu", index_url="https://mirror.example/simple")
    lines = (context / "requirements.txt").read_text().splitlines()
    assert lines[:2] == ["--index-url https://mirror.example/simple", "torch==2.13.0+cpu"]
    assert not any(line.startswith("--find-links") for line in lines), "nothing comes from elsewhere"


def test_every_image_runs_without_writing_to_its_own_files(loaded: LoadedFleet, context: Path) -> None:
    staged(loaded, "alone", context)
    of_pool = {env["name"]: env["value"] for env in bentofile(context)["envs"] if "value" in env}
    of_fleet = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["envs"]
    assert of_pool == {env["name"]: env["value"] for env in of_fleet}
    assert of_pool["TENANTRY_STATE"] == "/state"
    assert of_pool["HOME"].startswith("/tmp")


def test_base_image_and_variables_are_chosen_by_who_builds(loaded: LoadedFleet, context: Path) -> None:
    staged(loaded, "alone", context, base_image="mirror.example/debian:12", env={"HF_HUB_OFFLINE": "1"})
    assert bentofile(context)["docker"]["base_image"] == "mirror.example/debian:12"
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in bentofile(context)["envs"]


@pytest.mark.parametrize("name", ["TENANTRY_SECRET", "HF_TOKEN", "GAMMA_KEY", "A B", "1A", "", "A\nENV B"])
def test_an_image_is_given_no_secret_and_no_strange_variable(
    loaded: LoadedFleet, context: Path, name: str
) -> None:
    with pytest.raises(BundleError, match=r"is a secret|cannot be the name"):
        staged(loaded, "alone", context, env={name: "x"})


def test_whoever_an_image_runs_as_may_read_what_is_in_it(
    loaded: LoadedFleet, context: Path, tmp_path: Path
) -> None:
    for path in (tmp_path / "weights").iterdir():
        path.chmod(0o600)
    (tmp_path / "weights").chmod(0o700)
    staged(loaded, "alone", context, embed_base_models=True)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in context.rglob("*") if path.is_file()}
    assert modes == {0o644}
    assert {stat.S_IMODE(path.stat().st_mode) for path in context.rglob("*") if path.is_dir()} == {0o755}


def matcher(bentofile: dict[str, Any], folder: Path) -> Callable[[str], bool]:
    """BentoML's own decision about a path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # BentoML's way of using pathspec
        from bentoml._internal.bento.build_config import BentoPathSpec

        includes: Callable[[str], bool] = BentoPathSpec(
            bentofile["include"], bentofile["exclude"], str(folder)
        ).includes
    return includes


def test_plain_bentoml_build_ships_the_same_program(tmp_path: Path) -> None:
    root = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    assert root["service"] == "service:Gateway"
    assert root["python"] == {"requirements_txt": "requirements/gpu.lock", "lock_packages": False}
    assert root["docker"] == {"python_version": "3.11"}
    ships = matcher(root, tmp_path)
    code = [
        str(path.relative_to(ROOT))
        for folder in (*bundle.CODE_FOLDERS, "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in bundle.CODE_SUFFIXES - {".json"}
    ]
    shipped = {path for path in [*code, *bundle.CODE_FILES] if ships(path)}
    _stage_code(ROOT, tmp_path)
    assert shipped == {name for name, _ in files_below(tmp_path) if not name.endswith(".json")}


@pytest.mark.parametrize(
    ("path", "ships"),
    [
        ("./fleet.yaml", True),
        ("./README.md", True),
        ("fleet/fleet.schema.json", True),
        ("routing/console/static/index.html", True),
        ("console/index.html", False),
        ("console/node_modules/vite/index.js", False),
        (".cache/demo/base/model.safetensors", True),
        (".cache/demo/adapters/x/adapter_model.safetensors", True),
        (".cache/demo/answers.json", False),
        (".cache/uv/x", False),
        ("demo/answers.py", False),
        ("adapters/__pycache__/x.pyc", False),
        ("engines/host.py", True),
        ("benchmarks/service.py", False),
        ("benchmarks/README.md", False),
        ("tests/data/fleet.yaml", False),
        ("docs/configuration.md", False),
        ("./.env", False),
    ],
)
def test_plain_bentoml_build_ships_the_demo_fleet_and_no_training_data(
    tmp_path: Path, path: str, ships: bool
) -> None:
    root = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    assert matcher(root, tmp_path)(path) is ships


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Bento store of its own; keys are not set, as on a machine that builds."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "store"))
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "store" / "bentos"


def test_the_command_is_there_as_well(loaded: LoadedFleet, context: Path) -> None:
    staged(loaded, "alone", context)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-m", "tenantry", "check", "--no-keys", "--json"]
    done = subprocess.run(command, cwd=context, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ok"]


def test_bentoml_builds_it_without_a_secret(loaded: LoadedFleet, context: Path, store: Path) -> None:
    staged(loaded, "alone", context, platform="cpu")
    assert build(context, version="v1", key_variables=["GAMMA_KEY"]) == "tenantry-alone:v1"
    bento = store / "tenantry-alone" / "v1"
    told = yaml.safe_load((bento / "bento.yaml").read_text())
    assert [service["name"] for service in told["services"]] == ["gateway", "alone-0"]
    assert told["args"] == {"platform": "cpu"}
    assert not any("resources" in service["config"] for service in told["services"])
    assert {"name": "GAMMA_KEY", "value": "", "stage": "runtime"} in told["envs"]
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    assert "GAMMA_KEY" not in dockerfile
    assert "ENV UV_OVERRIDE" in dockerfile
    assert dockerfile.count("apt-get install") == 1
    assert "g++ libnuma1 && rm -rf /var/lib/apt/lists" in dockerfile
    # Pools share the layer of the packages: nothing of one pool is copied before it.
    before = dockerfile.partition("pip install -r")[0]
    assert re.findall(r"^COPY \S+ (\S+)", before, re.MULTILINE) == ["./env/docker", "./env/python"]
    assert not traces(bento)
    shipped = {name.removeprefix("src/") for name, _ in files_below(bento) if name.startswith("src/")}
    assert {name for name, _ in files_below(context)} == shipped, "all that was staged, and nothing else"


def test_a_bento_says_what_its_services_need_and_which_routes_it_has(
    loaded: LoadedFleet, context: Path, store: Path
) -> None:
    base = replace(loaded.fleet.base_models["base"], tensor_parallel_size=2)
    fleet = replace(loaded.fleet, base_models={**loaded.fleet.base_models, "base": base})
    staged(replace(loaded, fleet=fleet), "alone", context, platform="gpu")
    build(context, version="v2", key_variables=["GAMMA_KEY"])
    bento = store / "tenantry-alone" / "v2"
    told = yaml.safe_load((bento / "bento.yaml").read_text())
    gateway, engine = (service["config"] for service in told["services"])
    assert engine["resources"] == {"gpu": 2} and "resources" not in gateway
    assert engine["traffic"]["timeout"] == fleet.gateway.request_timeout_s
    wait_s = fleet.tenants["gamma"].caps.queue_timeout_s
    assert gateway["traffic"]["timeout"] == fleet.gateway.request_timeout_s + wait_s
    assert "http" not in gateway, "where it listens is BentoML's matter, since the keys are its own"
    assert set(told["schema"]["paths"]) == set(openapi.paths())
    assert told["labels"]["openai_endpoint"] == "/v1"  # BentoML finds it by the paths
    described = yaml.safe_load((bento / "apis/openapi.yaml").read_text())
    assert described == openapi.document()
    assert (bento / "src/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_what_bentoml_says_is_passed_on(context: Path, store: Path) -> None:
    (context / "service.py").write_text("raise RuntimeError('no such service')")
    (context / "bentofile.yaml").write_text("service: 'service:Gateway'\nname: broken\n")
    with pytest.raises(BundleError, match="no such service"):
        build(context, version=None, key_variables=[])
