"""Pools with a range of replicas: who sets their number, and by what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from fleet.pool_settings import Scaling
from routing.observing.metrics.definitions import DESIRED
from tenantry.manifests.cluster import Cluster
from tenantry.manifests.folder import files_of
from tenantry.manifests.scaling import scaled_object
from tests.unit.tenantry.manifests.cases import CASES, ROOT, sites
from tests.unit.tenantry.manifests.test_manifests import objects, of_kind


def test_the_number_of_a_pool_with_a_range_is_left_to_whoever_scales_it() -> None:
    numbers = {
        one["metadata"]["name"]: one["spec"].get("replicas") for one in of_kind("ranges", "StatefulSet")
    }
    assert numbers == {"shared": None, "bank": None}


def test_keda_scales_a_pool_with_a_range_to_what_its_gateway_says_and_within_the_fleets_bounds() -> None:
    bounds = {"shared": (1, 3), "bank": (0, 2)}
    for one in of_kind("ranges", "ScaledObject"):
        meta, spec = one["metadata"], one["spec"]
        least, most = bounds.pop(meta["name"])
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (least, most)
        target = spec["scaleTargetRef"]
        (scaled,) = (
            found
            for found in of_kind("ranges", "StatefulSet")
            if (found["kind"], found["metadata"]["name"]) == (target["kind"], target["name"])
            and found["metadata"]["namespace"] == meta["namespace"]
        )
        assert target["apiVersion"] == scaled["apiVersion"] and "replicas" not in scaled["spec"]
        (trigger,) = spec["triggers"]
        assert trigger["metricType"] == "AverageValue"
        assert trigger["metadata"] == {
            "serverAddress": "http://prometheus.monitoring:9090",
            "query": f'max({DESIRED.name}{{namespace="{meta["namespace"]}",pool="{meta["name"]}"}})',
            "threshold": "1",
            "ignoreNullValues": "false",
        }
        assert ("cooldownPeriod" in spec) is ("pollingInterval" in spec) is (least == 0)
    assert not bounds


def test_nothing_is_written_for_keda_unless_it_is_asked_for() -> None:
    assert not [one for one in objects("three-pools") if one["kind"] == "ScaledObject"], "no pool has a range"
    assert "ScaledObject" not in "".join(files_of(sites(replace(CASES["ranges"], cluster=None))).values())


@pytest.mark.parametrize(
    "url", ["prometheus:9090", "http://", "http://user:secret@prometheus", "http://a b", ""]
)
def test_the_address_of_prometheus_is_one_and_holds_no_secret(url: str) -> None:
    with pytest.raises(ValueError, match=r"keda\.prometheus"):
        Cluster.model_validate({"keda": {"prometheus": url}})


def test_the_object_that_the_documentation_shows_is_the_one_that_is_written() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    shown = yaml.safe_load(
        text.partition("```yaml\napiVersion: keda.sh/")[2].partition("```")[0].partition("\n")[2]
    )
    (site,) = (site for site in sites(CASES["ranges"]) if site.pool.name == "shared")
    wide = replace(site, pool=replace(site.pool, replicas=8, scaling=Scaling(0)))
    written = scaled_object(wide)
    assert written is not None and written["spec"] == shown["spec"]
    assert shown["metadata"].items() <= written["metadata"].items()
