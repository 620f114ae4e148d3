"""The OpenAPI document: every route is in it, described, with every error's shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute

from routing.admin import ADMIN_PREFIX, ADMIN_ROUTES
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk
from tests.unit.routing.admin.test_gate import ROUTES

ERROR = {"$ref": "#/components/schemas/ErrorAnswer"}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


async def test_the_document_is_served_to_admin_keys(desk: Desk) -> None:
    answer = await desk.ask("GET", "/admin/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["openapi"].startswith("3.1")


def test_every_route_is_documented_and_handed_over_by_the_gateway(tmp_path: Path) -> None:
    app = fakes.desk(tmp_path).app
    routes = {(m, r.path_format) for r in app.routes if isinstance(r, APIRoute) for m in r.methods}
    documented = {(method.upper(), path) for method, path, _ in operations(app.openapi())}
    assert documented == routes
    assert len(routes) == len([r for r in ROUTES if not r[1].endswith(("openapi.json", "nothing"))])
    assert all(path.startswith(ADMIN_PREFIX) or path in ADMIN_ROUTES for _, path in routes)


def test_every_operation_says_what_it_does_and_how_it_fails(tmp_path: Path) -> None:
    for method, path, operation in operations(fakes.desk(tmp_path).app.openapi()):
        where = f"{method} {path}"
        assert operation["description"].strip(), where
        assert operation["security"], where
        failures = {s: r for s, r in operation["responses"].items() if not s.startswith("2")}
        assert {"400", "401", "403", "default"} <= failures.keys(), where
        assert "422" not in failures, where
        assert all(r["content"]["application/json"]["schema"] == ERROR for r in failures.values()), where
        assert all(r["description"] for r in failures.values()), where
        if "{name}" in path or "{id}" in path:
            assert "404" in failures, where
        if method != "get" and not {"replicas", "models"} & set(path.split("/")):  # it changes the database
            assert "503" in failures, where


def test_every_field_that_is_sent_has_a_description(tmp_path: Path) -> None:
    document = fakes.desk(tmp_path).app.openapi()
    bodies = [name for name in document["components"]["schemas"] if name.endswith("Body")]
    assert len(bodies) == 12
    for name in [*bodies, "RolloutSpec"]:
        schema = document["components"]["schemas"][name]
        assert schema["description"]
        for field, value in schema["properties"].items():
            texts = [value, *value.get("anyOf", [])]
            assert any("description" in text or "$ref" in text for text in texts), f"{name}.{field}"


def test_every_reference_in_the_document_leads_somewhere(tmp_path: Path) -> None:
    document = fakes.desk(tmp_path).app.openapi()
    found = list(references(document))
    assert found
    for reference in found:
        name = reference.removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"], reference


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)
