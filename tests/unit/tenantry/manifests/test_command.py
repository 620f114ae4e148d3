"""The command `manifests`: what it refuses, and what it does to a folder."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tenantry.app import app
from tests.unit.fleet.files import write
from tests.unit.tenantry.manifests.cases import MIG, THREE_POOLS


def run(folder: Path, fleet: dict[str, Any], *arguments: str, cluster: str | None = None) -> Result:
    """Run it; the base goes to `folder/base`."""
    words = ["manifests", "-o", str(folder / "base"), "--fleet", str(write(folder, fleet)), *arguments]
    if cluster is not None:
        (folder / "cluster.yaml").write_text(cluster)
        words += ["--cluster", str(folder / "cluster.yaml")]
    return CliRunner().invoke(app, words, env={"COLUMNS": "300"})


def renamed(old: str, new: str) -> dict[str, Any]:
    """Three pools of which one has another name."""
    fleet = copy.deepcopy(THREE_POOLS)
    fleet["pools"][new] = fleet["pools"].pop(old)
    return fleet


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder / "base")) for path in (folder / "base").rglob("*") if path.is_file()}


def test_it_says_which_images_and_secrets_are_needed_and_with_which_keys(tmp_path: Path) -> None:
    done = run(tmp_path, THREE_POOLS)
    assert done.exit_code == 0, done.output
    assert "image tenantry-bank:1; Secret bank-secrets in namespace tenantry-bank:" in done.output
    assert "TENANTRY_SECRET BANK_KEY DATABASE_URL OPERATOR_KEY" in done.output
    assert {"kustomization.yaml", "tenantry-bank/bank-engines.yaml", "tenantry/mesh-gateway.yaml"} <= names(
        tmp_path
    )


def test_one_pool_alone_is_written_and_what_was_there_of_others_goes(tmp_path: Path) -> None:
    assert run(tmp_path, THREE_POOLS).exit_code == 0
    (tmp_path / "base" / "mine.yaml").write_text("kind: Secret\n")
    assert run(tmp_path, THREE_POOLS, "--pool", "bank").exit_code == 0
    assert not [name for name in names(tmp_path) if "mesh" in name or "large" in name]
    assert "mine.yaml" in names(tmp_path), "what somebody else wrote stays"
    listed = yaml.safe_load((tmp_path / "base" / "kustomization.yaml").read_text())["resources"]
    assert listed == ["tenantry-bank"]


def test_a_file_of_somebody_else_is_not_written_over_and_nothing_else_is_written(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "kustomization.yaml").write_text("resources: [mine.yaml]\n")
    done = run(tmp_path, THREE_POOLS)
    assert done.exit_code == 1 and "was not written by this command" in done.output
    assert names(tmp_path) == {"kustomization.yaml"}


def test_a_pool_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, THREE_POOLS, "--pool", "bnak")
    assert done.exit_code == 1 and "bank" in done.output and not (tmp_path / "base").exists()


@pytest.mark.parametrize("name", ["a.b", "0large", "under_score", "ends-", "x" * 53])
def test_a_pool_whose_name_kubernetes_does_not_take_is_refused(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, renamed("mesh", name))
    assert done.exit_code == 1 and f"pool {name}: Kubernetes wants at most 52" in done.output
    assert not (tmp_path / "base").exists()


def test_a_pool_called_like_another_ones_gateway_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, renamed("mesh", "large-gateway"))
    assert done.exit_code == 1 and "the gateway of pool large has this name" in done.output


def test_slices_named_by_uuid_are_refused_since_kubernetes_deals_out_profiles(tmp_path: Path) -> None:
    fleet = copy.deepcopy(MIG)
    del fleet["pools"]["slices"]["mig"]
    fleet["pools"]["slices"] |= {"devices": ["MIG-8d3f0000-0000-0000-0000-000000000000"], "replicas": 1}
    done = run(tmp_path, fleet)
    assert done.exit_code == 1 and "by profile and not by UUID" in done.output


def test_a_slice_with_more_to_its_profile_is_called_as_the_device_plugin_does(tmp_path: Path) -> None:
    fleet = copy.deepcopy(MIG)
    fleet["pools"]["slices"]["mig"] = {"gpu": 0, "profile": "1g.18gb+me", "count": 1}
    assert run(tmp_path, fleet).exit_code == 0
    assert "nvidia.com/mig-1g.18gb.me: '1'" in (tmp_path / "base/tenantry/slices-engines.yaml").read_text()


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ("engines: {memory: 32GB}", "engines.memory"),
        ("engines: {memory: 3Gi, shared_memory: 2Gi}", "memory 3Gi has no room"),
        ("engines: {gpus: 2}", "engines.gpus: Extra inputs"),
        ("engines: {tolerations: [{key: a, operator: Maybe}]}", "tolerations.0.operator"),
        ("pools: {mesh: {cpu: many}}", "pools.mesh.cpu"),
        ("pools: {mush: {cpu: '8'}}", "pools.mush: the fleet has no such pool"),
        ("tag: 'a b'", "tag"),
        ("namespace: Prod", "namespace"),
        ("[1, 2]", "valid dictionary"),
        ("{", "cluster.yaml"),
    ],
)
def test_what_is_wrong_about_the_cluster_is_said(tmp_path: Path, cluster: str, says: str) -> None:
    done = run(tmp_path, THREE_POOLS, cluster=cluster)
    assert done.exit_code == 1 and says in re.sub(r"\s+", " ", done.output), done.output
    assert not (tmp_path / "base").exists()


def test_a_file_about_the_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = run(tmp_path, THREE_POOLS, "--cluster", str(tmp_path / "none.yaml"))
    assert done.exit_code == 1 and "none.yaml" in done.output
