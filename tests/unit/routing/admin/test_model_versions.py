"""The admin API's routes for whole models that the gateway fetches."""

from __future__ import annotations

from typing import Any

import pytest

from routing.lifecycle.ports import ModelPlace, VersionProgress
from tests.unit.routing.admin.fakes import DIGEST, Desk, error_of

MODELS = "/admin/v1/models"
BODY = {"name": "new", "source": "hf://example/new"}


async def test_a_model_is_shown_without_secrets_and_folders(desk: Desk) -> None:
    desk.management.whole.fetching = VersionProgress(10, 100)
    answer = await desk.ask("GET", f"{MODELS}/one", key="operator-key")
    detail = answer.json()
    first, second = detail["versions"]
    assert (first["live"], first["proven"], first["digest"]) == (True, True, DIGEST)
    assert (second["state"], second["reason"]) == ("quarantined", "config.json names no architecture")
    assert first["progress"] == {"done_bytes": 10, "total_bytes": 100}
    assert detail["hosts"][0]["host"] == "mesh-0"
    assert "secret" not in answer.text and "pass" not in answer.text.replace("passed", "")


async def test_a_model_is_added_with_its_place(desk: Desk) -> None:
    body = {**BODY, "pool": "mesh", "like": "one", "settings": {"max_model_len": 512}, "sha256": "AB" * 32}
    answer = await desk.ask("POST", MODELS, body, key="operator-key")
    assert answer.status_code == 202, answer.text
    place = ModelPlace("mesh", "one", {"max_model_len": 512})
    assert desk.management.calls == [("add", "new", place, "hf://example/new", "ab" * 32, True)]


async def test_a_version_is_added_and_an_archive_may_bring_a_new_model(desk: Desk) -> None:
    body = {"source": "hf://example/new"}
    assert (await desk.ask("POST", f"{MODELS}/one/versions", body, key="operator-key")).status_code == 202
    unknown = await desk.ask("POST", f"{MODELS}/nobody/versions", body, key="operator-key")
    assert error_of(unknown)["code"] == "model_not_found"
    path = f'{MODELS}/new/versions?pool=mesh&settings={{"max_num_seqs":4}}'
    sent = await desk.upload(b"archive", path, key="operator-key")
    assert sent.status_code == 202, sent.text
    assert desk.management.whole.sent == [b"archive"]
    assert desk.management.calls[-1][2] == ModelPlace("mesh", None, {"max_num_seqs": 4})


@pytest.mark.parametrize(
    ("method", "path", "body", "call"),
    [
        ("POST", "rollback", None, ("rollback", "one")),
        ("POST", "promote", {"version": 2}, ("promote", "one", 2)),
        ("POST", "versions/2/verify", None, ("retry", "one", 2)),
        ("DELETE", "versions/2", None, ("retire", "one", 2)),
        ("DELETE", "", None, ("retire", "one", None)),
    ],
)
async def test_each_order_reaches_the_management(
    desk: Desk, method: str, path: str, body: Any, call: tuple[Any, ...]
) -> None:
    answer = await desk.ask(method, f"{MODELS}/one/{path}".rstrip("/"), body, key="operator-key")
    assert answer.status_code in (200, 202), answer.text
    assert desk.management.calls == [call]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("", {**BODY, "name": "one"}, 409, "model_exists"),
        ("", {**BODY, "name": "../etc"}, 400, "invalid_value"),
        ("", {**BODY, "settings": []}, 400, "invalid_type"),
        ("", {**BODY, "tenant": "acme"}, 400, "unknown_parameter"),
        ("/one/versions", {"source": ""}, 400, "invalid_value"),
        ("/one/versions?like=one", {"source": "hf://a/b"}, 400, "invalid_query"),
        ("/one/promote", {}, 400, "missing_required_parameter"),
        ("/nobody/rollback", None, 404, "model_not_found"),
    ],
)
async def test_what_is_wrong_is_told_and_nothing_is_done(
    desk: Desk, path: str, body: Any, status: int, code: str
) -> None:
    answer = await desk.ask("POST", f"{MODELS}{path}", body, key="operator-key")
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert desk.management.calls == []


@pytest.mark.parametrize("settings", ["[]", "{", "1"])
async def test_settings_of_an_upload_are_an_object(desk: Desk, settings: str) -> None:
    answer = await desk.upload(b"x", f"{MODELS}/new/versions?settings={settings}", key="operator-key")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "settings")
    assert not desk.left_over
