"""What do EndpointSlices say about where replicas are?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.replicas.client import Address
from routing.replicas.endpoint_slices import Event, Found, SliceList, Slices
from routing.replicas.http1 import Upstream

SERVICE = {"kubernetes.io/service-name": "shared"}


def endpoint(hostname: str | None = "shared-0", address: str = "10.0.0.1", **rest: Any) -> dict[str, Any]:
    return {"addresses": [address], "hostname": hostname, **rest}


def one_slice(*endpoints: dict[str, Any], name: str = "shared-a", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": SERVICE, "resourceVersion": "7"}
    return {"metadata": metadata, "endpoints": list(endpoints), "ports": [{"port": 3410}], **rest}


def found(*slices: dict[str, Any]) -> Found:
    listed = {"metadata": {"resourceVersion": "7"}, "items": list(slices)}
    return Slices(SliceList.model_validate(listed)).find(["shared"])


def test_a_pod_of_a_statefulset_is_a_host() -> None:
    assert found(one_slice(endpoint())) == ({"shared-0": "http://10.0.0.1:3410"}, frozenset())


@pytest.mark.parametrize("conditions", [{}, {"terminating": None}, {"ready": False, "terminating": False}])
def test_ready_or_not_it_stays(conditions: dict[str, Any]) -> None:
    assert found(one_slice(endpoint(conditions=conditions))).addresses


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (endpoint(None), "have no hostname; run its pods as a StatefulSet"),
        (endpoint("large-0"), "'large-0' of the Service shared is none of a StatefulSet called shared"),
        (endpoint("shared-00"), "is none of"),
        (endpoint("shared-"), "is none of"),
        (endpoint("shared-x-0"), "is none of"),
        (endpoint("shared-0\n"), "is none of"),
        (endpoint("shared-\u0660"), "is none of"),
        (endpoint("sharedx0"), "is none of"),
        (endpoint(address="pod.example.org"), "has no IP address or no port"),
        (endpoint(address="10.0.0.1@evil.example"), "has no IP address or no port"),
        ({"addresses": [], "hostname": "shared-0"}, "has no IP address or no port"),
        ({"addresses": None, "hostname": "shared-0"}, "has no IP address or no port"),
        ({"hostname": "shared-0"}, "has no IP address or no port"),
    ],
)
def test_what_is_no_host_of_the_pool_is_passed_over_with_a_reason(said: dict[str, Any], why: str) -> None:
    addresses, ignored = found(one_slice(said, endpoint("shared-1", "10.0.0.2")))
    assert addresses == {"shared-1": "http://10.0.0.2:3410"}
    (reason,) = ignored
    assert why in reason


@pytest.mark.parametrize(
    "ports", [[], None, [{}], [{"port": None}], [{"port": 0}], [{"port": 70000}], [{"port": -1}]]
)
def test_a_slice_without_a_port_leads_nowhere(ports: Any) -> None:
    addresses, ignored = found(one_slice(endpoint(), ports=ports))
    assert not addresses and len(ignored) == 1


def test_a_version_that_is_none_is_no_place_to_watch_from() -> None:
    """A watch from the empty version begins now, and tells of no deletion before."""
    nothing = {"metadata": {"resourceVersion": ""}}
    with pytest.raises(ValueError, match="resourceVersion"):
        SliceList.model_validate({**nothing, "items": []})
    slices = Slices(SliceList.model_validate({"metadata": {"resourceVersion": "7"}, "items": []}))
    with pytest.raises(ValueError, match="resourceVersion"):
        slices.take(Event(type="BOOKMARK", object=nothing))
    assert slices.version == "7"


def test_lists_that_go_writes_as_null_are_empty() -> None:
    assert found(one_slice(endpoints=None)) == ({}, frozenset())
    listed = {"metadata": {"resourceVersion": "7"}, "items": None}
    assert Slices(SliceList.model_validate(listed)).find(["shared"]) == ({}, frozenset())


def test_of_two_addresses_of_one_host_the_same_one_counts_in_whatever_order_they_come() -> None:
    first, second = one_slice(endpoint()), one_slice(endpoint(address="10.0.0.2"), name="shared-b")
    assert found(first, second) == found(second, first) == ({"shared-0": "http://10.0.0.1:3410"}, frozenset())


def test_an_address_of_ipv6_is_one_that_a_client_can_use() -> None:
    (url,) = found(one_slice(endpoint(address="fd00::1"))).addresses.values()
    upstream = Upstream(url, None, {})
    assert (upstream._host, upstream._port) == ("fd00::1", 3410)


@given(
    st.ip_addresses().map(str) | st.text(max_size=40),
    st.integers(-1, 70_000) | st.none(),
    st.sampled_from(["shared-0", "shared-7", "shared", "", None]),
)
def test_whatever_a_slice_says_a_client_can_be_made_for_each_address(
    address: str, port: int | None, hostname: str | None
) -> None:
    addresses, ignored = found(one_slice(endpoint(hostname, address), ports=[{"port": port}]))
    assert len(addresses) + len(ignored) == 1
    for url in addresses.values():
        Upstream(Address.parse(url).base_url, None, {})


def test_a_slice_whose_service_has_changed_is_no_longer_ours() -> None:
    listed = {"metadata": {"resourceVersion": "7"}, "items": [one_slice(endpoint())]}
    slices = Slices(SliceList.model_validate(listed))
    other = one_slice(endpoint())
    other["metadata"] = {**other["metadata"], "labels": {}, "resourceVersion": "8"}
    slices.take(Event(type="MODIFIED", object=other))
    assert slices.find(["shared"]) == ({}, frozenset()) and slices.version == "8"


def test_a_deletion_of_what_is_unknown_is_no_fault() -> None:
    slices = Slices(SliceList.model_validate({"metadata": {"resourceVersion": "7"}, "items": []}))
    slices.take(Event(type="DELETED", object=one_slice()))
    assert slices.find(["shared"]) == ({}, frozenset())
