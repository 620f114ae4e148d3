"""The document of the inference API: valid, whole, and short of nothing that a client can be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from engines.protocol import Kind
from routing import errors
from routing.errors import EngineRefused, NoSpareRoom, RequestError, RouteNotFound
from routing.http.docs.openapi import ERRORS, document, paths
from routing.openai.endpoints import ENDPOINTS
from routing.usage.query import FOR_TENANTS

DOCUMENT = document()
# What is no route, an `InvalidRequest` with an engine's own status, and what lets a line of a batch wait.
NOT_OF_THIS_API = {RouteNotFound, EngineRefused, NoSpareRoom}


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_it_is_a_valid_document() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_every_endpoint_is_in_it_with_the_field_it_needs() -> None:
    assert {kind.value for kind in Kind} < set(paths())
    for kind in Kind:
        content = DOCUMENT["paths"][kind.value]["post"]["requestBody"]["content"]
        ((told, body),) = content.items()
        assert told == ("multipart/form-data" if ENDPOINTS[kind].form else "application/json")
        ways = body["schema"].get("anyOf", [{"required": body["schema"].get("required")}])
        assert [tuple(way["required"]) for way in ways] == list(ENDPOINTS[kind].content)
        assert set(body["example"]) == {"model", *ENDPOINTS[kind].usual} <= set(body["schema"]["properties"])


def test_everything_a_client_can_be_told_is_in_the_table() -> None:
    defined = {e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, RequestError)}
    assert set(ERRORS) == defined - NOT_OF_THIS_API
    for error in ERRORS:
        assert f"| {error.status} | `{error.default_code}` | " in DOCUMENT["info"]["description"]


@pytest.mark.parametrize(("where", "operation"), list(operations()))
def test_each_operation_says_what_it_does_and_how_it_fails(where: str, operation: dict[str, Any]) -> None:
    assert operation["summary"] and operation["operationId"]
    statuses = set(operation["responses"])
    if operation.get("security") == []:
        assert statuses == {"200", "503"}
    else:
        assert {"200", "401", "403", "500"} <= statuses
    assert ("413" in statuses) == ("requestBody" in operation), where


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, operation in operations()]
    assert len(set(names)) == len(names)


def test_usage_takes_what_the_gateway_takes() -> None:
    parameters = DOCUMENT["paths"]["/v1/usage"]["get"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == ["from", "to", "group_by"]
    assert all(name in parameters[2]["description"] for name in FOR_TENANTS)
