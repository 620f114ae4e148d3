"""Odd names and values: what is written is read back by others as it was meant, or refused with a reason."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry.manifests.folder import _text
from tests.unit.tenantry.manifests.cases import MIG, THREE_POOLS
from tests.unit.tenantry.manifests.test_command import names, renamed, run
from tests.unit.tenantry.manifests.test_manifests import KUBECTL

Object = dict[str, Any]


def kustomized(folder: Path) -> str:
    """What kubectl makes of a base."""
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(folder: Path) -> list[Object]:
    """The objects that kubectl makes of a base."""
    return list(yaml.safe_load_all(kustomized(folder)))


def written(folder: Path, fleet: Object, *, cluster: str | None = None) -> list[Object]:
    """What kubectl makes of the base of a fleet."""
    done = run(folder, fleet, cluster=cluster)
    assert done.exit_code == 0, done.output
    return built(folder / "base")


def changed(**sections: Object) -> Object:
    """Three pools with other settings of the gateway, or of other sections."""
    fleet = copy.deepcopy(THREE_POOLS)
    for name, section in sections.items():
        fleet[name] = {**fleet.get(name, {}), **section}
    return fleet


def called(objects: list[Object], kind: str, name: str = "large-gateway") -> Object:
    (found,) = (one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


# -- values ------------------------------------------------------------------------------------------------


TEXTS = [
    "y", "n", "Y", "N", "yes", "on", "OFF", "null", "~", "true", "nan", ".nan", ".inf", "-", "_", ".", "e1",
    "1e3", "1E5", "+1e5", "-1e2", ".5e3", "1.e3", "12e03", "0o17", "017", "08", "0x1f", "0x_1", "0b1", "=",
    "1_000", "+5", "-0", "1.5", "12:30", "2026-01-01", "*a", "&a", "!a",
]  # fmt: skip


def test_texts_that_look_like_something_else_are_texts_to_kubectl(tmp_path: Path) -> None:
    data = {f"key-{index}": text for index, text in enumerate(TEXTS)} | {
        text: "value" for text in TEXTS if text
    }
    one = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": data}
    (tmp_path / "thing.yaml").write_text(_text([one]))
    (tmp_path / "kustomization.yaml").write_text("resources: [thing.yaml]\n")
    assert yaml.load(kustomized(tmp_path), yaml.BaseLoader)["spec"] == data


@pytest.mark.parametrize("text", ["y", "N", "1e3", "0o17", "-0"])
def test_they_are_quoted_as_older_readers_take_more_of_them_for_something_else(text: str) -> None:
    assert _text([{"a": text}]).endswith(f"a: '{text}'\n")


# -- names -------------------------------------------------------------------------------------------------


NAMES = ["y", "on", "null", "e1", "rules", "kustomization", "namespace", "monitoring", "examples", "a--b"]


@pytest.mark.parametrize(
    ("pool", "name"), [*(("mesh", name) for name in NAMES), ("bank", "y"), ("bank", "x" * 52)]
)
def test_a_pool_may_have_any_name_that_kubernetes_takes(tmp_path: Path, pool: str, name: str) -> None:
    objects = written(tmp_path, renamed(pool, name))
    sets = {one["metadata"]["name"] for one in objects if one["kind"] == "StatefulSet"}
    assert sets == {"large", "mesh", "bank"} - {pool} | {name}
    watched = built(tmp_path / "base" / "monitoring")
    assert sets | {"tenantry"} == {one["metadata"]["name"] for one in watched}
    assert [one["kind"] for one in watched].count("PrometheusRule") == 1


@pytest.mark.parametrize("pool", ["mesh", "bank"])
def test_a_pool_called_like_an_object_of_its_namespace_is_refused(tmp_path: Path, pool: str) -> None:
    done = run(tmp_path, renamed(pool, "default-deny"))
    assert done.exit_code == 1 and "NetworkPolicy default-deny would be there twice" in done.output
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("namespace", ["monitoring", "examples"])
def test_a_namespace_called_like_a_folder_of_the_base_is_refused(tmp_path: Path, namespace: str) -> None:
    done = run(tmp_path, THREE_POOLS, cluster=f"namespace: {namespace}")
    assert done.exit_code == 1 and f"namespace {namespace}: a folder of the base" in done.output


@pytest.mark.parametrize("namespace", ["y", "default", "a" * 40])
def test_any_other_namespace_has_all_objects(tmp_path: Path, namespace: str) -> None:
    objects = written(tmp_path, THREE_POOLS, cluster=f"namespace: '{namespace}'")
    where = {one["metadata"].get("namespace", one["metadata"]["name"]) for one in objects}
    assert where == {namespace, f"{namespace}-bank"}


def test_a_namespace_that_gets_too_long_with_a_dedicated_pools_name_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, renamed("bank", "x" * 30), cluster=f"namespace: {'a' * 40}")
    assert done.exit_code == 1 and "longer than 63 characters" in done.output


# -- settings ----------------------------------------------------------------------------------------------


def test_a_fleet_without_settings_of_the_gateway_has_a_base(tmp_path: Path) -> None:
    fleet = copy.deepcopy(THREE_POOLS)
    del fleet["gateway"]
    assert called(written(tmp_path, fleet), "Deployment")


def test_a_pool_with_an_engine_for_each_of_several_models_has_a_pod_for_each(tmp_path: Path) -> None:
    fleet = changed(
        pools={
            "mesh": {
                "strategy": "replica-per-model",
                "base_models": ["coder", "writer"],
                "replicas": 2,
                "tenants": ["shop", "desk"],
            }
        }
    )
    stateful_set = called(written(tmp_path, fleet), "StatefulSet", "mesh")
    assert stateful_set["spec"]["replicas"] == 4


def test_the_gateway_has_every_variable_that_its_fleet_names_and_each_once(tmp_path: Path) -> None:
    guard = {"url": "https://guard.example.com:8443/v1/moderations", "on_failure": "allow"}
    fleet = changed(
        gateway={
            "batches": {"key": {"env": "BATCH_KEY"}},
            "guards": {"shop": {**guard, "key_variable": "HF_TOKEN"}},
        }
    )
    objects = written(tmp_path, fleet)
    (container,) = called(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    named = [one["name"] for one in container["env"]]
    assert len(named) == len({*named}) and "BATCH_KEY" in named
    token = next(one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] == "HF_TOKEN")
    assert "optional" not in token, "the guard needs it"


def test_the_gateway_may_call_where_adapters_come_from(tmp_path: Path) -> None:
    fleet = changed(
        adapters={"own": {"source": "https://files.example.com:9443/own.tar.gz", "base_model": "large"}}
    )
    fleet["tenants"]["shop"]["models"]["own"] = "own"
    fleet["tenants"]["shop"]["adapter_sources"] = ["https://files.example.com:9444/shop", "s3://shop"]
    fleet["gateway"]["guards"] = {"shop": {"url": "http://guard:8080/v1/moderations", "on_failure": "allow"}}
    policy = called(written(tmp_path, fleet), "NetworkPolicy")
    ports = [port["port"] for port in policy["spec"]["egress"][-1]["ports"]]
    assert ports == [443, 4318, 5432, 6443, 8080, 9443, 9444]


@pytest.mark.parametrize(
    ("database", "port"),
    [
        ({"env": "DATABASE_URL"}, 5432),  # whatever it is set to here
        ("postgresql+psycopg://user@db/name", 5432),
        ("postgresql+psycopg://user@db:6432/name", 6432),
        ("postgresql+psycopg://user@/name?host=db", 5432),
    ],
)
def test_the_gateway_may_call_its_database(
    tmp_path: Path, database: Any, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://user:secret@db:9999/name")
    policy = called(written(tmp_path, changed(state={"database": database})), "NetworkPolicy")
    ports = {rule["port"] for rule in policy["spec"]["egress"][-1]["ports"]}
    assert ports == {443, 4318, 6443, port}


@pytest.mark.parametrize("port", ["99999", "x", "1,b:2"])
@pytest.mark.parametrize("what", ["tracing", "database"])
def test_a_port_that_is_none_is_said_without_the_password(tmp_path: Path, what: str, port: str) -> None:
    fleet = (
        changed(gateway={"tracing": {"endpoint": f"http://collector:{port}/v1/traces"}})
        if what == "tracing"
        else changed(state={"database": f"postgresql+psycopg://user:secret@db:{port}/name"})
    )
    done = run(tmp_path, fleet)
    assert done.exit_code == 1 and "with a port that is none" in done.output and "secret" not in done.output


def test_a_metrics_page_that_is_open_to_all_needs_no_key(tmp_path: Path) -> None:
    assert run(tmp_path, changed(gateway={"metrics_access": "open"})).exit_code == 0
    monitors = [one for one in built(tmp_path / "base" / "monitoring") if one["kind"] == "PodMonitor"]
    assert monitors and "authorization" not in str(monitors)


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("key: gpu, value: 'yes', effect: NoSchedule", {"key": "gpu", "operator": "Equal", "value": "yes"}),
        ("key: gpu, value: ''", {"key": "gpu", "operator": "Equal", "value": ""}),
        ("key: gpu, effect: NoSchedule", {"key": "gpu", "operator": "Exists"}),
        ("key: gpu, operator: Equal", {"key": "gpu", "operator": "Equal"}),
        ("operator: Exists", {"operator": "Exists"}),
    ],
)
def test_a_toleration_means_what_it_says(tmp_path: Path, said: str, taken: dict[str, str]) -> None:
    objects = written(tmp_path, THREE_POOLS, cluster=f"engines: {{tolerations: [{{{said}}}]}}")
    (toleration,) = called(objects, "StatefulSet", "large")["spec"]["template"]["spec"]["tolerations"]
    assert {key: value for key, value in toleration.items() if key != "effect"} == taken


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ("engines: {tolerations: [{key: gpu, operator: Exists, value: 'yes'}]}", "Exists goes with no value"),
        ("engines: {tolerations: [{value: 'yes'}]}", "needs the key"),
        ("engines: {node_selector: {gpu: true}}", "node_selector.gpu: Input should be a valid string"),
        (
            "pools: {large: {shared_memory: 128Mi}}",
            "pool large: engines do not start with shared_memory 128Mi",
        ),
        ("registry: https://registry.example.com", "registry"),
        ("registry: registry.example.com/", "registry"),
        ("tag: 1.10", "tag: Input should be a valid string"),
        ("pools: {on: {cpu: '8'}}", "pools"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(tmp_path: Path, cluster: str, says: str) -> None:
    done = run(tmp_path, THREE_POOLS, cluster=cluster)
    assert done.exit_code == 1 and says in done.output, done.output


@pytest.mark.parametrize(("platform", "code"), [("gpu", 0), ("cpu", 1)])
def test_an_engine_on_one_gpu_needs_no_shared_memory(tmp_path: Path, platform: str, code: int) -> None:
    done = run(tmp_path, MIG, "--platform", platform, cluster="engines: {shared_memory: 64Mi}")
    assert done.exit_code == code, done.output


# -- the folder --------------------------------------------------------------------------------------------


def test_a_base_below_the_folder_stays_and_a_pool_that_went_leaves_no_folder(tmp_path: Path) -> None:
    assert run(tmp_path, THREE_POOLS).exit_code == 0
    run(tmp_path, THREE_POOLS, "-o", str(tmp_path / "base" / "second"))
    second = {name for name in names(tmp_path) if name.startswith("second/")}
    fleet = copy.deepcopy(THREE_POOLS)
    del fleet["pools"]["bank"], fleet["tenants"]["bank"]
    assert run(tmp_path, fleet).exit_code == 0
    assert second and second <= names(tmp_path)
    assert not (tmp_path / "base" / "tenantry-bank").exists()
    assert not [name for name in names(tmp_path) - second if "bank" in name]


@pytest.mark.parametrize("stands", ["base", "base/tenantry", "base/monitoring"])
def test_a_file_where_a_folder_is_wanted_is_named(tmp_path: Path, stands: str) -> None:
    path = tmp_path / stands
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    done = run(tmp_path, THREE_POOLS)
    assert done.exit_code == 1 and done.output.strip() == f"{path}: File exists"
    assert path.read_text() == "mine"
