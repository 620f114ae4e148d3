"""What is written for Kubernetes fits together, gives nobody more than he needs, and holds no secret."""

from __future__ import annotations

import functools
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from fleet.role import VARIABLES
from tenantry.manifests.cluster import Cluster, in_bytes
from tenantry.manifests.folder import HEAD, files_of, write
from tenantry.manifests.site import LONGEST_POOL, Site
from tests.unit.tenantry.manifests.cases import CASES, GOLDEN, ROOT, Case, golden, sites

Object = dict[str, Any]
KUBECTL = str(Path(sys.executable).parent / "kubectl")
NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
OURS_S = 10  # of CHANGELOG and operations.md: so long after the grace period the service is gone
PODS = ("StatefulSet", "Deployment")
each = pytest.mark.parametrize("name", CASES)


@functools.cache
def files(name: str) -> dict[str, str]:
    return files_of(sites(CASES[name]))


@functools.cache
def objects(name: str) -> list[Object]:
    """All objects but the examples and what kustomize reads."""
    texts = [text for file, text in files(name).items() if "kustomization" not in file]
    return [one for text in texts for one in yaml.safe_load_all(text)]


def of_kind(name: str, *kinds: str) -> Iterator[Object]:
    found = [one for one in objects(name) if one["kind"] in kinds]
    assert found, kinds
    return iter(found)


def pod(one: Object) -> Object:
    spec: Object = one["spec"]["template"]["spec"]
    return spec


def container(one: Object) -> Object:
    (only,) = pod(one)["containers"]
    assert isinstance(only, dict)
    return only


def variables(one: Object) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(one)["env"]}


def labels_of_pods(name: str, namespace: str) -> list[dict[str, str]]:
    return [
        one["spec"]["template"]["metadata"]["labels"]
        for one in of_kind(name, *PODS)
        if one["metadata"]["namespace"] == namespace
    ]


def selectors(one: Object) -> Iterator[dict[str, str]]:
    """Every selector of pods in an object."""
    spec = one.get("spec", {})
    if one["kind"] == "Service":
        yield spec["selector"]
    if one["kind"] in (*PODS, "PodDisruptionBudget", "PodMonitor"):
        yield spec["selector"]["matchLabels"]
    if one["kind"] in PODS:
        for spread in pod(one).get("topologySpreadConstraints", []):
            yield spread["labelSelector"]["matchLabels"]
    if one["kind"] == "NetworkPolicy":
        peers = [peer for rule in spec.get("ingress", []) for peer in rule.get("from", [])]
        peers += [peer for rule in spec.get("egress", []) for peer in rule.get("to", [])]
        for selector in [spec["podSelector"], *(p["podSelector"] for p in peers if "podSelector" in p)]:
            yield selector.get("matchLabels", {})


# -- as they are to be ---------------------------------------------------------------------------------------


@each
def test_the_files_are_those_that_a_reader_has_looked_at(name: str) -> None:
    """After a change: `python -m tests.unit.tenantry.manifests.cases`, then read the difference."""
    assert golden(files(name)) == (GOLDEN / f"{name}.yaml").read_text()


@each
def test_a_fleet_gives_the_same_files_each_time(name: str) -> None:
    assert files_of(sites(CASES[name])) == files(name)


# -- names and selectors -------------------------------------------------------------------------------------


@each
def test_names_are_ones_that_kubernetes_takes_and_no_two_objects_share_one(name: str) -> None:
    seen = set()
    for one in objects(name):
        meta = one["metadata"]
        key = (one["kind"], one["apiVersion"], meta.get("namespace"), meta["name"])
        assert NAME.fullmatch(meta["name"]), key
        assert key not in seen, key
        seen.add(key)
        for value in meta.get("labels", {}).values():
            assert len(value) <= 63 and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", value)
    for one in of_kind(name, *PODS):
        assert all(len(port["name"]) <= 15 for port in container(one)["ports"])


@each
def test_every_selector_finds_pods_in_its_own_namespace(name: str) -> None:
    for one in objects(name):
        for selector in selectors(one):
            pods = labels_of_pods(name, one["metadata"]["namespace"])
            assert any(selector.items() <= labels.items() for labels in pods), one
    for one in of_kind(name, *PODS):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()


@each
def test_services_find_the_ports_of_their_pods(name: str) -> None:
    for service in of_kind(name, "Service"):
        for one in of_kind(name, *PODS):
            labels, meta = one["spec"]["template"]["metadata"]["labels"], one["metadata"]
            chosen = service["spec"]["selector"].items() <= labels.items()
            if chosen and meta["namespace"] == service["metadata"]["namespace"]:
                names = {port["name"]: port["containerPort"] for port in container(one)["ports"]}
                for port in service["spec"]["ports"]:
                    assert names[port["targetPort"]] == port["port"]
                    assert str(port["port"]) in container(one)["args"]


@each
def test_pods_of_engines_are_called_as_the_hosts_of_the_pool(name: str) -> None:
    by_pool = {site.pool.name: site for site in sites(CASES[name])}
    for one in of_kind(name, "StatefulSet"):
        pool = by_pool[one["metadata"]["name"]].pool
        number = one["spec"].get("replicas", pool.replicas)  # of a range the most
        pods = [f"{one['metadata']['name']}-{i}" for i in range(number)]
        assert pods == [host.name for host in pool.hosts]
        assert variables(one)["TENANTRY_REPLICA"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert one["spec"]["podManagementPolicy"] == "Parallel"
        assert len(one["metadata"]["name"]) <= LONGEST_POOL


@each
def test_a_gateway_finds_its_engines_and_they_it_at_its_pods_address(name: str) -> None:
    services = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one for one in of_kind(name, "Service")
    }
    for one in of_kind(name, "Deployment"):
        namespace, said = one["metadata"]["namespace"], variables(one)
        headless = services[namespace, said["TENANTRY_ENGINE_SERVICES"]]["spec"]
        assert headless["clusterIP"] == "None" and headless["publishNotReadyAddresses"] is True
        assert "TENANTRY_GATEWAY_URL" not in said
    for one in of_kind(name, "StatefulSet"):
        assert (one["metadata"]["namespace"], one["spec"]["serviceName"]) in services


@each
def test_processes_are_told_by_variables_that_the_service_reads(name: str) -> None:
    text = (ROOT / "service.py").read_text() + "".join(VARIABLES.values())
    for one in of_kind(name, *PODS):
        assert [n for n in variables(one) if n.startswith("TENANTRY") and n not in text] in (
            ["TENANTRY_LOG", "TENANTRY_STATE"], ["TENANTRY_LOG"], ["TENANTRY_STATE"]
        )  # fmt: skip
        assert pod(one)["enableServiceLinks"] is False, "a Service's name would make variables"


# -- how they start and end ----------------------------------------------------------------------------------


@each
def test_a_pod_has_longer_to_end_than_it_needs(name: str) -> None:
    by_pool = {site.pool.name: site for site in sites(CASES[name])}
    for one in of_kind(name, *PODS):
        site = by_pool[one["metadata"]["labels"]["app.kubernetes.io/instance"]]
        _, before_s = container(one)["lifecycle"]["preStop"]["exec"]["command"]
        ours_s = math.ceil(site.fleet.gateway.shutdown_grace_s) + OURS_S
        assert pod(one)["terminationGracePeriodSeconds"] > int(before_s) + ours_s


@each
def test_probes_have_the_times_that_were_found_to_be_needed(name: str) -> None:
    for one in of_kind(name, *PODS):
        probes = {kind: container(one)[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
        took = {kind: probe["periodSeconds"] * probe["failureThreshold"] for kind, probe in probes.items()}
        assert took == {"startup": 1800, "liveness": 60, "readiness": 6}
        assert all(probe["timeoutSeconds"] == 3 for probe in probes.values())
        paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
        assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


@each
def test_there_is_one_gateway_and_the_old_one_ends_first(name: str) -> None:
    for one in of_kind(name, "Deployment"):
        assert one["spec"]["replicas"] == 1 and one["spec"]["strategy"] == {"type": "Recreate"}


@each
def test_requests_reach_a_gateway_that_is_not_ready_since_it_lets_them_wait(name: str) -> None:
    for one in of_kind(name, "Service"):
        assert one["spec"]["publishNotReadyAddresses"] is True


# -- what they get -------------------------------------------------------------------------------------------


@each
def test_requests_are_limits_and_memory_has_room_for_volumes_in_it(name: str) -> None:
    for one in of_kind(name, *PODS):
        requests, limits = (container(one)["resources"][kind] for kind in ("requests", "limits"))
        assert limits == {what: amount for what, amount in requests.items() if what != "cpu"}
        inside = [v["emptyDir"]["sizeLimit"] for v in pod(one)["volumes"] if "Memory" in str(v)]
        assert sum(map(in_bytes, inside)) < in_bytes(limits["memory"])


@pytest.mark.parametrize(
    ("name", "pool", "devices"),
    [
        ("demo", "shared", {}),
        ("dedicated", "bastion", {"nvidia.com/gpu": "1"}),
        ("mig", "slices", {"nvidia.com/mig-1g.18gb": "1"}),
        ("three-pools", "large", {"nvidia.com/gpu": "4"}),
        ("three-pools", "mesh", {"nvidia.com/gpu": "1"}),
    ],
)
def test_engines_get_the_devices_of_one_host(name: str, pool: str, devices: dict[str, str]) -> None:
    (one,) = (found for found in of_kind(name, "StatefulSet") if found["metadata"]["name"] == pool)
    limits = container(one)["resources"]["limits"]
    assert {what: amount for what, amount in limits.items() if what != "memory"} == devices
    assert variables(one)["TENANTRY_OWN_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in str(one)


@each
def test_whatever_is_mounted_is_there_and_nothing_is_there_in_vain(name: str) -> None:
    claims = {one["metadata"]["name"] for one in of_kind(name, "PersistentVolumeClaim")}
    for one in of_kind(name, *PODS):
        mounted = {mount["name"] for mount in container(one)["volumeMounts"]}
        made = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        assert mounted == made | {volume["name"] for volume in pod(one)["volumes"]}
        for volume in pod(one)["volumes"]:
            assert (
                volume.get("persistentVolumeClaim", {"claimName": next(iter(claims))})["claimName"] in claims
            )


def test_where_pods_may_run_is_passed_on_and_one_pool_may_differ() -> None:
    (one,) = of_kind("mig", "StatefulSet")
    spec, engines = pod(one), (CASES["mig"].cluster or {})["engines"]
    assert spec["nodeSelector"] == engines["node_selector"]
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["priorityClassName"] == "serving" and spec["runtimeClassName"] == "nvidia"
    assert container(one)["image"] == "registry.example.com/models/tenantry-slices:2026.3"
    memory = {
        found["metadata"]["name"]: container(found)["resources"]["limits"]["memory"]
        for found in of_kind("three-pools", "StatefulSet")
    }
    assert memory == {"large": "256Gi", "mesh": "32Gi", "bank": "32Gi"}


# -- who may do what -----------------------------------------------------------------------------------------


@each
def test_pods_may_do_nothing_that_they_need_not(name: str) -> None:
    for one in of_kind(name, *PODS):
        assert pod(one)["securityContext"]["runAsNonRoot"] is True
        assert pod(one)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(one)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod(one)["automountServiceAccountToken"] is (one["kind"] == "Deployment")
    for one in of_kind(name, "Namespace"):
        assert one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@each
def test_a_gateway_may_list_and_watch_endpoint_slices_and_nothing_else(name: str) -> None:
    rule = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    accounts = {one["spec"]["template"]["spec"]["serviceAccountName"] for one in of_kind(name, "Deployment")}
    for one in of_kind(name, "Role"):
        assert one["rules"] == [rule]
    for one in of_kind(name, "RoleBinding"):
        (subject,) = one["subjects"]
        assert subject["namespace"] == one["metadata"]["namespace"] and subject["name"] in accounts
    assert not [one for one in objects(name) if one["kind"].startswith("Cluster")]


@each
def test_nobody_speaks_to_anybody_unless_it_is_said_and_engines_take_their_gateway_alone(name: str) -> None:
    namespaces = {one["metadata"]["name"] for one in of_kind(name, "Namespace")}
    policies = list(of_kind(name, "NetworkPolicy"))
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {one["metadata"]["namespace"] for one in policies if one["spec"] == deny} == namespaces
    for one in of_kind(name, "StatefulSet"):
        labels = one["spec"]["template"]["metadata"]["labels"]
        (policy,) = (
            found
            for found in policies
            if found["metadata"]["namespace"] == one["metadata"]["namespace"]
            and found["spec"]["podSelector"].get("matchLabels") == labels
        )
        (rule,) = policy["spec"]["ingress"]
        gateway = {**labels, "app.kubernetes.io/component": "gateway"}
        assert rule == {
            "from": [{"podSelector": {"matchLabels": gateway}}],
            "ports": [{"protocol": "TCP", "port": 3410}],
        }


def test_a_gateway_may_call_what_its_fleet_names() -> None:
    (policy,) = (
        one for one in of_kind("three-pools", "NetworkPolicy") if one["metadata"]["name"] == "large-gateway"
    )
    ports = [port["port"] for port in policy["spec"]["egress"][-1]["ports"]]
    assert ports == [443, 4318, 5432, 6443]


def test_a_dedicated_pool_is_alone_in_its_namespace_and_its_files_tell_of_nobody_else() -> None:
    for name, own, others in [
        ("demo", "tenantry-umbrella", ("shared", "acme", "globex", "initech")),
        ("three-pools", "tenantry-bank", ("mesh", "shop", "desk", "SHOP_KEY", "coder")),
    ]:
        text = "".join(text for file, text in files(name).items() if file.startswith(f"{own}/"))
        assert own in text and not [word for word in others if word in text]
        elsewhere = "".join(text for file, text in files(name).items() if file.startswith("tenantry/"))
        assert own.removeprefix("tenantry-") not in elsewhere


# -- secrets -------------------------------------------------------------------------------------------------


@each
def test_secrets_are_named_and_none_is_written(name: str) -> None:
    text = "".join(files(name).values())
    assert not re.search(r"\b[0-9a-f]{64}\b", text), "no hash of a key"
    assert "postgresql" not in text
    assert not [one for one in objects(name) if one["kind"] in ("Secret", "ConfigMap")]
    for one in of_kind(name, *PODS):
        secret = f"{one['metadata']['labels']['app.kubernetes.io/instance']}-secrets"
        said = variables(one)
        assert said["TENANTRY_SECRET"] == {"secretKeyRef": {"name": secret, "key": "TENANTRY_SECRET"}}
        assert said["HF_TOKEN"]["secretKeyRef"]["optional"] is True


def test_keys_and_the_database_are_the_gateways_own_and_only_those_of_its_pool() -> None:
    given = {
        one["metadata"]["name"]: sorted(
            entry["name"]
            for entry in container(one)["env"]
            if "valueFrom" in entry
            and entry["name"] not in ("TENANTRY_SECRET", "HF_TOKEN", "TENANTRY_REPLICA")
        )
        for one in of_kind("three-pools", *PODS)
    }
    assert given == {
        "large": [], "mesh": [], "bank": [],
        "large-gateway": ["DATABASE_URL", "OPERATOR_KEY", "SHOP_KEY"],
        "mesh-gateway": ["DATABASE_URL", "OPERATOR_KEY", "SHOP_KEY"],
        "bank-gateway": ["BANK_KEY", "DATABASE_URL", "OPERATOR_KEY"],
    }  # fmt: skip


# -- what watches them, and the ways in ----------------------------------------------------------------------


@each
def test_prometheus_scrapes_the_gateway_and_through_it_every_replica(name: str) -> None:
    by_pool = {site.pool.name: site for site in sites(CASES[name])}
    for one in of_kind(name, "PodMonitor"):
        pool = by_pool[one["metadata"]["name"]].pool
        paths = [page["path"] for page in one["spec"]["podMetricsEndpoints"]]
        assert paths == ["/metrics", *(f"/metrics/{replica}" for replica, _ in pool.replica_models)]
    jobs = set(re.findall(r"replacement: (tenantry-\w+)", "".join(files(name).values())))
    wanted = (ROOT / "deploy/observability/prometheus.yml").read_text()
    assert jobs == set(re.findall(r"job_name: (\S+)", wanted))
    (rules,) = of_kind(name, "PrometheusRule")
    assert {"tenantry-objectives", "tenantry-models"} <= {group["name"] for group in rules["spec"]["groups"]}


@each
def test_ways_in_hold_nothing_back_and_cut_no_long_answer_off(name: str) -> None:
    longest = {math.ceil(site.fleet.longest_request_s) for site in sites(CASES[name])}
    for one in of_kind(name, "Ingress"):
        said = {key.partition("/")[2]: value for key, value in one["metadata"]["annotations"].items()}
        assert said["proxy-buffering"] == said["proxy-request-buffering"] == "off"
        assert int(said["proxy-read-timeout"]) in longest
    for one in of_kind(name, "HTTPRoute"):
        assert int(one["spec"]["rules"][0]["timeouts"]["request"].removesuffix("s")) in longest


@each
def test_kustomizations_name_every_file_but_the_examples_and_what_prometheus_operator_must_know(
    name: str,
) -> None:
    def reached(path: str) -> set[str]:
        folder = path.rpartition("/")[0]
        found = {path}
        for resource in yaml.safe_load(files(name)[path])["resources"]:
            below = f"{folder}/{resource}".lstrip("/")
            found |= {below} if below in files(name) else reached(f"{below}/kustomization.yaml")
        return found

    below = {file for file in files(name) if file.startswith("monitoring/")}
    assert reached("monitoring/kustomization.yaml") == below
    examples = {file for file in files(name) if file.startswith("examples/")}
    assert examples and reached("kustomization.yaml") == files(name).keys() - below - examples


# -- other people's checks -----------------------------------------------------------------------------------


@each
def test_kustomize_builds_it(name: str, tmp_path: Path) -> None:
    write(tmp_path, files(name))
    for folder in (tmp_path, tmp_path / "monitoring"):
        done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=True)
        built = list(yaml.safe_load_all(done.stdout))
        assert len(built) > 1 and not done.stderr


@each
def test_schemas_of_kubernetes_take_it(name: str) -> None:
    others = ("PodMonitor", "PrometheusRule", "HTTPRoute", "ScaledObject")
    own = [one for one in objects(name) if one["kind"] not in others]
    for one in own:
        kubernetes_validate.validate(one, "1.37", strict=True)


def test_the_check_of_names_can_fail() -> None:
    assert not NAME.fullmatch("Large") and not NAME.fullmatch("a.b") and not NAME.fullmatch("x" * 64)


def test_files_say_who_wrote_them() -> None:
    assert all(text.startswith(HEAD) for text in files("demo").values())


def site_of(case: Case) -> Site:
    (only,) = sites(case)
    return only


def test_without_a_file_about_the_cluster_defaults_hold() -> None:
    site = site_of(CASES["dedicated"])
    assert site.cluster == Cluster() and site.image == "tenantry-bastion:1"
    assert site.namespace == "tenantry-bastion"
